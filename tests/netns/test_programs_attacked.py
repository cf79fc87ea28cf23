"""Rules for programs against programs that want to be taken for others. Who attacks is a plain user unless it is said.

What a test is named `limit` for is not stopped: docs/threat-model.md says so, and why. One that fails because it is
stopped by now is a reason to change that page.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from tests.netns.attacking import (
    NOBODY,
    REACHED,
    REFUSED,
    STOPPED,
    Arena,
    as_user,
    compile_attacks,
    shared,  # noqa: F401
)
from tests.netns.conftest import HERE, THERE, THERE6, Namespace, ip
from tests.netns.programs_lab import WEB

from pfw.enforce.programs import MASK, written

ALONE = ("unshare", "-Ur")
"""Begins a program as root of a user name space of its own, which every user may have."""
LABELS = [number << 8 for number in range(1, 9)]
"""The marks of the first classes, the allowed ones with them."""


def skip_if_refused(result: int, what: str) -> int:
    if result == REFUSED:
        pytest.skip(f"{what} is not to be had here")
    return result


# -- ways to connect


@pytest.mark.parametrize("to", [THERE, f"::ffff:{THERE}", THERE6], ids=["ipv4", "mapped", "ipv6"])
def test_only_the_allowed_file_gets_out(shared: Arena, to: str) -> None:  # noqa: F811
    assert shared.attack(shared.good, "fetch", to=to) == REACHED
    assert shared.attack(shared.evil, "fetch", to=to) == STOPPED


@pytest.mark.parametrize("size", ["5", "20000"], ids=["small", "fragments"])
def test_datagrams(shared: Arena, size: str) -> None:  # noqa: F811
    """One that is too long for the cable leaves in fragments; it is judged as a whole before."""
    before = heard(shared)
    assert shared.attack(shared.evil, "datagram", size) == STOPPED
    assert heard(shared) == before
    assert shared.attack(shared.good, "datagram", size) == REACHED
    assert heard(shared) == before + 1


@pytest.mark.parametrize("polled", ["0", "1"], ids=["worker", "poller"])
def test_io_uring(shared: Arena, polled: str) -> None:  # noqa: F811
    """Threads that the kernel connects by belong to the program."""
    assert skip_if_refused(shared.attack(shared.evil, "uring", polled), "io_uring") == STOPPED


def test_multipath_tcp(shared: Arena) -> None:  # noqa: F811
    """Its connections are made by the kernel itself."""
    assert skip_if_refused(shared.attack(shared.evil, "mptcp"), "Multipath TCP") == STOPPED


# -- to become another program, or to look like one


@pytest.mark.parametrize("how", ["change", "vfork"])
@pytest.mark.parametrize("attempt", range(3))
def test_beginning_an_allowed_program_while_it_connects(shared: Arena, how: str, attempt: int) -> None:  # noqa: F811
    """Who has sent the first packet is an allowed program by the time that somebody looks. Each attempt is a program of
    which nothing is known yet."""
    evil = shared.copy(f"{how}{attempt}")
    if attempt:
        assert shared.attack(evil, how, shared.good) == STOPPED
    elif how == "change":
        with shared.unseen(evil, how, shared.good, becomes=shared.good) as process:
            assert process.wait(10) == STOPPED


def test_beginning_an_allowed_program_behind_an_echo_request(shared: Arena) -> None:  # noqa: F811
    """A socket without ports is whose made it, whoever holds it when somebody looks."""
    shared.lab.here.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 65534")
    before = echo_requests(shared)
    for number in range(3):
        with shared.unseen(shared.copy(f"pinger{number}"), "change-pinging", shared.good, becomes=shared.good):
            assert shared.attack(shared.evil, "fetch") == STOPPED  # the daemon has looked at what came before
    assert echo_requests(shared) == before
    with shared.lab.start(*as_user(NOBODY), shared.good, "change-pinging", THERE, "0", shared.good) as process:
        shared.lab.until(lambda: echo_requests(shared) == before + 1, "the allowed one is let out")
        process.kill()


def test_a_socket_in_the_hands_of_a_newly_allowed_program(shared: Arena) -> None:  # noqa: F811
    """A program of an allowed folder gets its label when it is first seen; what it was given by another stays without,
    though its first packet is sent again."""
    assert shared.attack(shared.copy("box/second"), "fetch", to=THERE6) == REACHED
    third = shared.copy("box/third")
    with shared.unseen(shared.copy("giver"), "change-keeping", third, becomes=third, to=THERE6) as process:
        assert process.wait(10) == STOPPED


def test_a_socket_that_only_an_allowed_program_seems_to_have(shared: Arena) -> None:  # noqa: F811
    """Who connected is noted; who holds the socket says nothing."""
    assert shared.attack(shared.copy("hider"), "hide", shared.good, to=THERE6) == STOPPED


def test_other_names_of_the_same_file(shared: Arena) -> None:  # noqa: F811
    """A link to an allowed program is that program, and no more: what it does is the same."""
    link, hard = shared.own / "link", shared.folder / "hard"
    link.symlink_to(shared.good)
    hard.hardlink_to(shared.good)
    for each in (link, hard):
        assert shared.attack(each, "fetch") == REACHED
    other = shared.own / "good"
    other.symlink_to(shared.evil)
    assert shared.attack(other, "fetch") == STOPPED


def test_a_mount_over_an_allowed_program(shared: Arena) -> None:  # noqa: F811
    script = 'mount --bind "$1" "$2" && exec "$2" fetch "$3" "$4"'
    words = ["unshare", "-Urm", "sh", "-c", script, "sh", str(shared.evil), str(shared.good), THERE, str(WEB)]
    done = shared.lab.run(*as_user(NOBODY), *words)
    assert (done.returncode, done.stderr) == (STOPPED, "")


def test_another_root_folder(shared: Arena) -> None:  # noqa: F811
    """Below it there is a program at the very path of an allowed one."""
    inside = shared.own / "root" / str(shared.good).lstrip("/")
    inside.parent.mkdir(parents=True)
    shutil.copy2(shared.evil, inside)
    before = [*ALONE, "chroot", str(shared.own / "root")]
    assert shared.attack(shared.good, "fetch", before=before) == STOPPED


def test_a_new_program_at_an_allowed_path(shared: Arena) -> None:  # noqa: F811
    """Who may write in a folder says which programs are in it. That is root here, and he means it; others may not."""
    replaced = shared.folder / "replaced"
    assert shared.attack(replaced, "fetch") == REACHED
    moved = shared.lab.run(*as_user(NOBODY), "mv", "-f", shared.evil, replaced)
    assert moved.returncode != 0
    shared.copy("replaced")
    shared.lab.until(lambda: shared.attack(replaced, "fetch") == REACHED, "the new program is known")


def test_a_change_of_what_an_allowed_program_holds(shared: Arena) -> None:  # noqa: F811
    """With `sha256` a path allows this content alone; root himself changes it, where it stands."""
    sealed = shared.folder / "sealed"
    assert shared.attack(sealed, "fetch") == REACHED
    with open(sealed, "ab") as file:
        file.write(b"more")
    shared.lab.until(lambda: shared.attack(sealed, "fetch") == STOPPED, "it is no longer allowed")


# -- sockets of others


@pytest.mark.parametrize("how", ["give-new", "give-fast", "give-datagrams", "inherit"])
def test_a_socket_belongs_to_whoever_connects_or_sends(shared: Arena, how: str) -> None:  # noqa: F811
    """Handed over, inherited over exec, connected by the first data that is sent, or never connected."""
    assert shared.attack(shared.good, how, shared.evil) == STOPPED
    assert shared.attack(shared.evil, how, shared.good) == REACHED


def test_only_the_allowed_program_receives(shared: Arena) -> None:  # noqa: F811
    assert shared.receives(shared.good, "listen", 9001)
    assert not shared.receives(shared.evil, "listen", 9002)


def test_limit_an_allowed_program_gives_a_connection_away(shared: Arena) -> None:  # noqa: F811
    assert shared.attack(shared.good, "give-connected", shared.evil) == REACHED


def test_limit_an_allowed_program_gives_a_listener_away(shared: Arena) -> None:  # noqa: F811
    assert shared.receives(shared.good, "give-listener", 9003, shared.evil)


def test_limit_the_connection_that_was_allowed_goes_on(shared: Arena) -> None:  # noqa: F811
    """The kernel knows a connection by its ends; for a while after an allowed one they may be another program's."""
    assert shared.attack(shared.evil, "datagram-from", "7001") == STOPPED
    assert shared.attack(shared.good, "datagram-from", "7002") == REACHED
    assert shared.attack(shared.evil, "datagram-from", "7002") == REACHED


# -- other people's memory


@pytest.mark.parametrize("how", ["ptrace-traceme", "ptrace-attach", "mem", "writev"])
def test_limit_writing_into_an_allowed_program(shared: Arena, how: str) -> None:  # noqa: F811
    """Whoever may trace a process is that process. Other users may not."""
    assert shared.attack(shared.evil, "meddle", how, shared.good) == REACHED


def test_limit_a_library_in_an_allowed_program(shared: Arena) -> None:  # noqa: F811
    compile_attacks(shared.folder / "box" / "dynamic")
    library = shared.own / "library.so"
    compile_attacks(library, "-shared", "-fPIC", "-DPRELOADED")
    given = [f"LD_PRELOAD={library}", f"ATTACK_ADDRESS={THERE}", f"ATTACK_PORT={WEB}"]
    assert shared.attack(shared.folder / "box" / "dynamic", "anything", before=["env", *given]) == REACHED


@pytest.mark.parametrize("how", ["pretend", "pretend-by-child"])
def test_limit_a_process_that_changes_its_executable(shared: Arena, how: str) -> None:  # noqa: F811
    """prctl(PR_SET_MM_MAP) gives a process the file of another program, as restoring checkpoints needs it; in a user
    name space of one's own it is free. It gives no more than LD_PRELOAD does."""
    assert skip_if_refused(shared.attack(shared.evil, how, shared.good), "a user name space") == REACHED


def test_limit_arguments_are_what_a_process_says(shared: Arena) -> None:  # noqa: F811
    """Rules for scripts believe them."""
    python = shared.folder / "python3"
    assert shared.attack(python, "fetch") == STOPPED
    room = "x" * 200
    assert shared.attack(python, "arguments", room, shared.folder / "allowed.py") == REACHED


# -- labels by one's own hand


@pytest.mark.parametrize("before", [(), ALONE], ids=["user", "user name space"])
@pytest.mark.parametrize("how", ["mark", "cmsg", "packet"])
def test_a_plain_user_writes_no_marks_and_no_raw_packets(shared: Arena, how: str, before: Any) -> None:  # noqa: F811
    assert shared.attack(shared.evil, how, str(LABELS[0]), before=before) == REFUSED


def test_root_writes_no_labels(shared: Arena) -> None:  # noqa: F811
    """The other bits of a mark are his."""
    results = {shared.attack(shared.evil, "mark", hex(label | 1), user=None) for label in LABELS}
    assert results == {STOPPED}
    assert shared.attack(shared.good, "mark", "1", user=None) == REACHED


def test_root_marks_single_datagrams_in_vain(shared: Arena) -> None:  # noqa: F811
    """Where the socket has a label, that counts, whatever stands on the datagram."""
    marks = [label | bit for label in LABELS[:3] for bit in (written(MASK), 0)]
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda mark: shared.attack(shared.evil, "cmsg", hex(mark), user=None), marks)
    assert set(results) == {STOPPED}


def test_limit_root_marks_single_datagrams(shared: Arena) -> None:  # noqa: F811
    """SO_MARK beside a datagram, with CAP_NET_ADMIN or CAP_NET_RAW: the label's program does not see it. What it says
    counts where the socket has no label, as that of a program that is new."""
    marks = [label | bit for label in LABELS[:3] for bit in (written(MASK), 0)]
    # Where the daemon is quicker than the program, the socket has a label before the datagram is sent.
    names = [(f"new{attempt}-{mark}", mark) for attempt in range(10) for mark in marks]
    assert any(shared.attack(shared.copy(name), "cmsg", hex(mark), user=None) == REACHED for name, mark in names)


def test_limit_root_sends_frames(shared: Arena) -> None:  # noqa: F811
    """AF_PACKET, with CAP_NET_RAW: what goes straight to the interface passes no packet filter."""
    before = heard(shared)
    frame = frame_to_there(shared)
    with shared.lab.here.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("eth0", 0x0800))
        sock.send(frame)
    shared.lab.until(lambda: heard(shared) == before + 1, "the frame has come")


# -- other places


def test_a_network_of_ones_own(shared: Arena) -> None:  # noqa: F811
    """There every packet filter is one's own, and nobody else is."""
    for each in (shared.evil, shared.good):
        assert shared.attack(each, "fetch", before=["unshare", "-Urn"]) == STOPPED


def test_a_cable_to_another_network(shared: Arena) -> None:  # noqa: F811
    """What comes from there, as from a container, is forwarded: no program of ours, whatever mark it had."""
    before = counted(shared, "default forward")
    with container(shared) as there:
        attacks = [(shared.good, "fetch", []), *((shared.evil, "cmsg", [hex(label)]) for label in LABELS[:3])]
        begun = [subprocess.Popen([*there, program, how, THERE, str(WEB), *more]) for program, how, more in attacks]
        assert [each.wait(10) for each in begun] == [STOPPED] * len(attacks)
    assert counted(shared, "default forward") > before


def test_outside_of_the_labelled_control_group(shared: Arena) -> None:  # noqa: F811
    """Programs there have no labels, and are looked up. Out of the root's, the default, leads no way."""
    inside = ["nsenter", f"--net=/run/netns/{shared.lab.here.name}", "--", *as_user(NOBODY)]
    for program, result in ((shared.good, REACHED), (shared.evil, STOPPED)):
        done = subprocess.run([*inside, program, "fetch", THERE, str(WEB)], check=False, timeout=10)
        assert done.returncode == result
    moved = shared.lab.run(*as_user(NOBODY), "sh", "-c", f"echo $$ > {shared.lab.cgroup}/../cgroup.procs")
    assert moved.returncode != 0


def test_limit_loopback_is_open(shared: Arena) -> None:  # noqa: F811
    """The base rule for it comes before all others: a proxy that listens there speaks for whoever asks it."""
    with shared.lab.start(*as_user(NOBODY), shared.evil, "listen", "127.0.0.1", "9005") as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        assert shared.attack(shared.evil, "fetch", to="127.0.0.1", port=9005) == REACHED


# -- what the tests need besides


def echo_requests(arena: Arena) -> int:
    """How many came to the other end."""
    lines = arena.lab.there.run("cat", "/proc/net/snmp").stdout.splitlines()
    names, numbers = (line.split() for line in lines if line.startswith("Icmp: "))
    return int(numbers[names.index("InEchos")])


def heard(arena: Arena) -> int:
    """How many UDP datagrams have come to the other end."""
    lines = [line.split() for line in arena.lab.there.run("cat", "/proc/net/snmp").stdout.splitlines()]
    names, values = (line for line in lines if line[0] == "Udp:")
    counts = dict(zip(names, values, strict=True))
    return int(counts["InDatagrams"]) + int(counts["NoPorts"])


def counted(arena: Arena, name: str) -> int:
    """Packets that a rule of this name has counted."""
    listed = arena.lab.here.run("nft", "list", "counters", "table", "inet", "pfw").stdout
    return sum(map(int, re.findall(rf'comment "{re.escape(name)}"\s+packets (\d+)', listed)))


def frame_to_there(arena: Arena) -> bytes:
    """A UDP datagram to the other end, with all its headers."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    def address(at: Namespace) -> str:
        return at.run("cat", "/sys/class/net/eth0/address").stdout.strip()

    link = Ether(src=address(arena.lab.here), dst=address(arena.lab.there))
    return bytes(link / IP(src=HERE, dst=THERE) / UDP(sport=4321, dport=WEB) / b"hello")


@contextmanager
def container(arena: Arena) -> Iterator[list[str]]:
    """A namespace behind `here`, with a way to the other end and back; the words that start a program in it."""
    inner = Namespace()
    try:
        ip(
            "link",
            "add",
            "up0",
            "netns",
            inner.name,
            "type",
            "veth",
            "peer",
            "name",
            "down0",
            "netns",
            arena.lab.here.name,
        )
        for name, link, address in (
            (inner.name, "up0", "10.78.0.2/24"),
            (arena.lab.here.name, "down0", "10.78.0.1/24"),
        ):
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "addr", "add", address, "dev", link)
        ip("-n", inner.name, "route", "add", "default", "via", "10.78.0.1")
        ip("-n", arena.lab.there.name, "route", "add", "10.78.0.0/24", "via", HERE)
        arena.lab.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        join = f'echo $$ > {arena.lab.cgroup}/cgroup.procs; exec "$@"'
        yield ["sh", "-c", join, "sh", "nsenter", f"--net=/run/netns/{inner.name}", "--"]
    finally:
        ip("-n", arena.lab.there.name, "route", "del", "10.78.0.0/24")
        inner.remove()
