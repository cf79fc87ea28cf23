"""The daemon dies, sleeps, is replaced or robbed of its table while programs never stop making connections.

Each time a program that the kernel knows loses nothing and waits for nobody, nothing forbidden leaves, programs that
nobody has seen before stay inside while the daemon is away, and work again behind that.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from typing import Any

import pytest
from tests.netns.daemon_load import (
    CURL,
    GUEST,
    KNOWN,
    Load,
    came,
    dial,
    python_copy,
)
from tests.netns.programs_lab import MASK, Lab, lab  # noqa: F401

from pfw.api import interface as told
from pfw.api.definition import Nothing
from pfw.drivers import handles

pytestmark = pytest.mark.xdist_group("daemon faults")
SO_MARK = 36
AWAY_S = 1.0


@pytest.fixture
def load(lab: Lab, net: Any) -> Load:  # noqa: F811
    return Load(lab, net)


def work_again(lab: Lab) -> None:  # noqa: F811
    """Wait until programs that nobody has seen before get out."""
    before = came(lab, GUEST)
    lab.until(lambda: came(lab, GUEST) > before + 8, "new programs are let out again")


def test_it_goes_and_comes_again(lab: Lab, load: Load) -> None:  # noqa: F811
    lab.up(load.policy())
    with load.flowing():
        for how, away_s in ((signal.SIGKILL, AWAY_S), (signal.SIGTERM, AWAY_S), (signal.SIGKILL, 0.0)):
            assert lab.end(how) == (0 if how is signal.SIGTERM else -how)
            if away_s:
                with load.closed():
                    time.sleep(away_s)
            lab.begin()
            back = time.monotonic()
            work_again(lab)
    load.check()
    lately = [each for each in load.guests if each.begin > back]
    assert lately
    assert not [each for each in lately if each.trouble]


def test_it_sleeps(lab: Lab, load: Load) -> None:  # noqa: F811
    lab.up(load.policy())
    assert lab.daemon is not None
    with load.flowing():
        lab.daemon.send_signal(signal.SIGSTOP)
        with load.closed():
            time.sleep(1.5)
        lab.daemon.send_signal(signal.SIGCONT)
        work_again(lab)
    load.check()
    # Their packets waited for it.
    assert not [each for each in load.guests if each.trouble]
    assert [each for each in load.guests if each.took_s > 1]


def test_the_policy_changes_who_is_allowed(lab: Lab, net: Any, load: Load) -> None:  # noqa: F811
    """Another process puts another policy in force; the daemon is told (Reload), or looks for itself."""
    ports = {"one": 9011, "two": 9012}
    programs = {name: python_copy(lab, name) for name in ports}

    def allowing(name: str) -> dict[str, Any]:
        each = {"name": name, "action": "allow", "direction": "out", "app": str(programs[name])}
        return load.policy(each)

    lab.up(allowing("one"))
    with load.flowing():
        running = {
            name: dial(lab, programs[name], "same", f"{net.there},{net.there6}", str(port), "0.3", "0.01")
            for name, port in ports.items()
        }
        phases = []
        for turn in range(4):
            allowed, other = ("two", "one") if turn % 2 == 0 else ("one", "two")
            lab.firewall.write(allowing(allowed))
            lab.pfw("up", "--rules", str(lab.firewall.path))
            begin, before = time.monotonic(), came(lab, ports[other])
            if turn < 2:
                with lab.client() as client:
                    client.call("Reload", Nothing(), told.ReloadResult)
            time.sleep(0.4)
            phases.append((allowed, begin, time.monotonic()))
            assert came(lab, ports[other]) == before, f"{other} got out, which is allowed no more"
        work_again(lab)
        attempts = {name: each.attempts() for name, each in running.items()}
    load.check()
    assert not [each for each in load.guests if each.trouble]
    for allowed, begin, end in phases:
        within = [each for each in attempts[allowed] if begin < each.begin and each.begin + each.took_s < end]
        assert len(within) > 5
        assert not [each for each in within if each.trouble], allowed


def test_the_table_goes_and_comes_again(lab: Lab, load: Load) -> None:  # noqa: F811
    """By what others do, and by `pfw down`. Until the policy is in force again all gets out, and then nothing; what
    others took the daemon brings back."""
    lab.up(load.policy())
    spans = []
    with load.flowing():
        for way in ("flush", "down"):
            before = load.forbidden()
            if way == "down":
                lab.pfw("down")
                lab.until(lambda before=before: all(map(int.__lt__, before, load.forbidden())), "all gets out")
                lab.pfw("up", "--rules", str(lab.firewall.path))
            else:
                lab.here.run("nft", "flush", "ruleset")
                lab.until(lambda: any("rebuilt in" in line for line in lab.said), "it is rebuilt")
            begin, before = time.monotonic(), load.forbidden()
            work_again(lab)
            assert load.forbidden() == before, way
            spans.append((begin, time.monotonic()))
    load.check_known()
    for begin, end in spans:
        assert not [each for each in load.guests_within(begin, end) if each.trouble]
    assert not [line for line in lab.said if "error" in line], lab.said


def test_the_queue_is_full(lab: Lab, net: Any, load: Load) -> None:  # noqa: F811
    """More packets than the queue holds, of a program that is asked for: nobody else waits for it."""
    asked = python_copy(lab, "asked")
    lab.up(load.policy({"name": "asked", "action": "ask", "direction": "out", "app": str(asked)}))
    assert lab.daemon is not None
    # What a socket may have in a queue is bounded: it takes many of them.
    pouring = (
        "import socket,sys\n"
        "kept = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]\n"
        "for at, each in enumerate(kept):\n"
        "  for number in range(100):\n"
        "    each.sendto(b'x' * 300, socket.MSG_DONTWAIT, (sys.argv[1], 20000 + 5 * at + number % 5))\n"
    )
    with load.flowing(), lab.watching():
        lab.daemon.send_signal(signal.SIGSTOP)
        poured = lab.run(asked, "-I", "-S", "-c", pouring, net.there)
        assert poured.returncode == 0, poured.stderr
        with load.closed():
            time.sleep(AWAY_S)
        lab.daemon.send_signal(signal.SIGCONT)
        work_again(lab)
        status = lab.status_or_none()
        assert status is not None
        assert status.counts["dropped_queue_full"] + status.counts["dropped_buffer_full"] > 1000
    load.check()
    assert sum(came(lab, port) for port in range(20000, 20010)) == 0


def test_somebody_who_is_asked_does_not_listen(lab: Lab, net: Any, load: Load) -> None:  # noqa: F811
    """A watcher that reads nothing, while much is to be told, is let go; nobody else waits for it."""
    asked = python_copy(lab, "asked")
    lab.up(load.policy({"name": "asked", "action": "ask", "direction": "out", "app": str(asked)}))
    with load.flowing(), lab.client() as deaf:
        deaf._send("Prompts", Nothing(), more=True)
        many = dial(lab, asked, "many", net.there, "20000-21199", "5", "tcp")
        assert many.line() == "asked"
        # A list of so many may be too long for one message.
        lab.until(lambda: (status := lab.status_or_none()) and status.counts["asked"] > 900, "somebody is asked")
        work_again(lab)
        assert many.end() == []
        deaf._sock.settimeout(5)
        while deaf._sock.recv(1 << 20):
            pass
    load.check()


def test_who_listens_keeps_its_label(lab: Lab, net: Any) -> None:  # noqa: F811
    """Over the death of the daemon and its return: who listened before, meanwhile and behind that is reached."""
    server, other = python_copy(lab, "server"), python_copy(lab, "other")
    allowed = {"name": "server", "action": "allow", "direction": "in", "app": str(server)}
    lab.up({"version": 2, "default": {"in": "block", "out": "block"}, "rules": [allowed]})

    def reached(port: int) -> bool:
        def connect() -> bool:
            try:
                with socket.create_connection((net.here, port), timeout=0.7) as sock:
                    return sock.recv(10) == b"yes"
            except TimeoutError:
                return False

        found: bool = lab.there.call(connect)
        return found

    def label(running: Any) -> int:
        """Of the one socket that it has."""
        for name in os.listdir(f"/proc/{running.process.pid}/fd"):
            if os.readlink(f"/proc/{running.process.pid}/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=handles.open_remote(running.process.pid, int(name))) as sock:
                    return sock.getsockopt(socket.SOL_SOCKET, SO_MARK) & MASK
        raise AssertionError("it has no socket")

    before, stranger = dial(lab, server, "serve", net.here, "7000"), dial(lab, other, "serve", net.here, "7002")
    assert (before.line(), stranger.line()) == ("listens", "listens")
    assert (reached(7000), reached(7002)) == (True, False)
    had = label(before)
    assert had
    lab.end(signal.SIGKILL)
    assert (reached(7000), reached(7002)) == (True, False)
    meanwhile = dial(lab, server, "serve", net.here, "7001")
    assert meanwhile.line() == "listens"
    assert reached(7001)
    lab.begin()
    assert label(before) == label(meanwhile) == had
    assert [reached(port) for port in (7000, 7001, 7002)] == [True, True, False]
    for each in (before, meanwhile, stranger):
        each.end()


def test_answers_hold_over_a_restart(lab: Lab, net: Any) -> None:  # noqa: F811
    """In the kernel: with the daemon dead, and with another. Who was not answered for is asked anew."""
    lab.up({"version": 2, "default": {"in": "block", "out": "ask"}, "rules": []})
    copy = lab.copy(CURL, "copy")
    with lab.watching() as watcher:
        waiting = lab.start(CURL, "-sS", "-m", "15", f"http://{net.there}:8080/")
        lab.until(lambda: [each for each in watcher.prompts.values() if each.program], "somebody is asked")
        number = next(each.id for each in watcher.prompts.values() if each.program)
        lab.answer(number, "allow", "time", "exact", 600)
        assert waiting.communicate(timeout=10)[0] == "yes"
        assert lab.fetches(CURL, net.there)
        unanswered = lab.start(copy, "-sS", "-m", "1", f"http://{net.there}:8080/")
        lab.until(lambda: [each for each in lab.prompts() if each.program], "the copy is asked for")
        unanswered.wait()
    lab.end(signal.SIGKILL)
    assert lab.fetches(CURL, net.there)
    assert not lab.fetches(copy, net.there, 0.5)
    lab.begin()
    assert not [each for each in lab.prompts() if each.program]
    assert lab.fetches(CURL, net.there)
    assert not lab.fetches(copy, net.there, 0.5)
    assert {each.program.path for each in lab.prompts() if each.program} == {str(copy)}
    # And once it has been looked up, the kernel knows it by itself again.
    lab.end(signal.SIGKILL)
    assert lab.fetches(CURL, net.there)


def test_there_is_one_daemon(lab: Lab, load: Load) -> None:  # noqa: F811
    lab.up(load.policy())
    second = subprocess.run(
        lab.daemon_words(), env=lab.firewall.environment, capture_output=True, text=True, check=False, timeout=20
    )
    assert second.returncode == 3
    assert "runs already" in second.stderr
    status = lab.status_or_none()
    assert status is not None
    assert lab.daemon is not None
    assert status.pid == lab.daemon.pid


def without(lab: Lab, lacks: str) -> tuple[str, ...]:  # noqa: F811
    """Take away what labels need; the options of a daemon that is to do without."""
    if lacks == "a control group":
        return ("--cgroup", str(lab.folder))
    if lacks == "libbpf":
        # This is where it is looked for first, and what is found is no library.
        for name in ("libbpf.so.0", "libbpf.so.1"):
            (lab.folder / name).write_bytes(b"no library")
        lab.firewall.environment["LD_LIBRARY_PATH"] = str(lab.folder)
    elif lacks == "a file system to pin in":
        lab.runtime.mkdir()
        (lab.runtime / "bpf").write_text("in the way")
    else:
        usual = lab.daemon_words
        hidden = 'mount -t tmpfs none /sys/kernel/btf && exec "$@"'
        lab.daemon_words = lambda *words: ["unshare", "--mount", "sh", "-c", hidden, "sh", *usual(*words)]  # type: ignore[method-assign]
    return ()


@pytest.mark.parametrize("lacks", ["libbpf", "a control group", "a file system to pin in", "the kernel's types"])
def test_without_labels_it_says_so_and_looks_programs_up(lab: Lab, load: Load, lacks: str) -> None:  # noqa: F811
    lab.up(load.policy(), *without(lab, lacks))
    status = lab.status_or_none()
    assert status is not None
    assert status.labels.startswith("no: ")
    assert [line for line in lab.said if "no labels on sockets" in line], lab.said
    with load.flowing():
        lab.until(lambda: came(lab, KNOWN) > 100, "connections are made")
    # A socket that is closed before all processes have been looked at is nobody's: slower, and now and then in vain.
    load.check_forbidden()
    went = [each for each in load.known if not each.trouble]
    assert len(went) >= 0.9 * len(load.known) > 5
    assert [each for each in load.guests if not each.trouble]


def test_more_programs_than_files_may_be_open(lab: Lab, load: Load) -> None:  # noqa: F811
    """Each program that is labelled is kept open; when no more can be, those that come later still work."""
    lab.up(load.policy())
    assert lab.daemon is not None
    limit = 2 * len(os.listdir(f"/proc/{lab.daemon.pid}/fd")) + 10
    subprocess.run(["prlimit", f"--pid={lab.daemon.pid}", f"--nofile={limit}:{limit}"], check=True)
    with load.flowing():
        for _ in range(11):
            work_again(lab)
        assert lab.status_or_none() is not None
    load.check()
    assert len(load.guests) + len(load.strangers) > limit / 2
    assert not [each for each in load.guests if each.trouble]
