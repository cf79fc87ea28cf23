"""Labels on sockets, written by the real kernel, in a control group of the test's own."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfw.drivers import bpffs, labels
from pfw.drivers.labels import Labels, network_namespace
from pfw.model.program import File

MASK = 0xFF003F00
MARK, OTHER = 0x01000100, 0x02000000
SO_MARK, SO_COOKIE = 36, 57


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Somewhere to pin."""
    if os.geteuid() != 0:
        pytest.skip("only root may load programs into the kernel")
    reason = labels.usable()
    if reason is not None:
        pytest.skip(reason)
    place = bpffs.folder(tmp_path)
    yield place
    labels.detach(place)
    bpffs.let_go(tmp_path)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = labels.root_cgroup()
    if root is None:
        pytest.skip("no cgroup v2 is mounted here")
    folder = root / f"pfw-test-labels-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.fixture
def found(place: Path, cgroup: Path) -> Iterator[Labels]:
    made = labels.attach(place, cgroup, MASK)
    yield made
    made.close()


def run(cgroup: Path, code: str) -> list[str]:
    """What Python code in the control group prints, as words."""
    join = f"open('{cgroup}/cgroup.procs', 'w').write('0')\n"
    done = subprocess.run([sys.executable, "-c", f"import os, socket\n{join}{code}"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.split()


def python(found: Labels) -> File:
    with open(os.path.realpath(sys.executable), "rb") as file:
        return found.identify([file.fileno()])[file.fileno()]


MAKE = "s = socket.socket(); print(s.getsockopt(1, 36) & 0xffffffff)\n"


def test_sockets_of_a_known_program_carry_its_mark(found, cgroup):
    found.put_programs({python(found): MARK})
    assert found.programs() == {python(found): MARK}
    for kind in ("socket.AF_INET, socket.SOCK_STREAM", "socket.AF_INET6, socket.SOCK_DGRAM",
                 "socket.AF_INET, socket.SOCK_RAW, 1"):  # fmt: skip
        assert run(cgroup, f"print(socket.socket({kind}).getsockopt(1, 36))") == [str(MARK)]
    assert run(cgroup, "print(socket.socket(socket.AF_UNIX).getsockopt(1, 36))") == ["0"]
    found.remove_programs([python(found)])
    assert run(cgroup, MAKE) == ["0"]


def test_programs_outside_the_control_group_are_let_alone(found):
    found.put_programs({python(found): MARK})
    with socket.socket() as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, SO_MARK) == 0


def test_the_other_bits_are_the_programs_and_ours_stay(found, cgroup):
    found.put_programs({python(found): MARK})
    said = run(cgroup, MAKE + "s.setsockopt(1, 36, 0xff0 | 0x3f00)\nprint(s.getsockopt(1, 36) & 0xffffffff)")
    assert [int(word) for word in said] == [MARK, MARK | 0xF0], "the label's bits cannot be set by hand"


def test_whole_marks_by_which_others_route_stay_whole(found, cgroup):
    found.put_programs({python(found): MARK})
    found.put_foreign([0xCA6C])
    said = run(cgroup, MAKE + "s.setsockopt(1, 36, 0xca6c)\nprint(s.getsockopt(1, 36))\n"
               "s.bind(('127.0.0.1', 0))\nprint(s.getsockopt(1, 36))")  # fmt: skip
    assert [int(word) for word in said] == [MARK, 0xCA6C, 0xCA6C]
    found.put_foreign([])
    said = run(cgroup, MAKE + "s.setsockopt(1, 36, 0xca6c)\nprint(s.getsockopt(1, 36))")
    assert int(said[1]) == MARK | 0xCA6C & ~MASK


def test_users_are_part_of_the_mark(found, cgroup):
    found.put_programs({python(found): MARK})
    found.put_users({4711: 1}, {4712: 2}, {(MARK, 1): OTHER, (MARK, 3): OTHER | 0x100})
    for uid, gid, wanted in ((0, 0, MARK), (4711, 1, OTHER), (4711, 4712, OTHER | 0x100)):
        said = run(cgroup, f"os.setgid({gid}); os.setuid({uid})\n{MAKE}")
        assert said == [str(wanted)]
    assert run(cgroup, f"os.setgid(4712)\n{MAKE}") == ["0"], "bits without a mark of their own are no known program"
    found.put_users({}, {}, {})
    assert run(cgroup, f"os.setuid(4711)\n{MAKE}") == [str(MARK)]


def test_nobody_gets_the_label_of_another_while_users_change(found, cgroup, monkeypatch):
    """The same bits mean somebody else in another policy; sockets are made between any two steps of the change."""
    alice, bob = OTHER, OTHER | 0x100
    found.put_programs({python(found): MARK})
    found.put_users({4711: 1}, {}, {(MARK, 1): alice})
    seen = []

    def step(change):
        def changed(*arguments):
            change(*arguments)
            seen.extend(int(word) for word in run(cgroup, f"os.setuid(4711)\n{MAKE}"))

        return changed

    for table in (found._users, found._groups, found._user_marks, found._settings):
        for name in ("put", "remove"):
            monkeypatch.setattr(table, name, step(getattr(table, name)))
    found.put_users({4712: 1}, {}, {(MARK, 1): bob})
    assert len(seen) >= 4
    assert set(seen) <= {alice, 0, MARK}
    assert seen[-1] == MARK
    seen.clear()
    found.put_users({4711: 2, 4712: 1}, {}, {(MARK, 1): bob, (MARK, 2): alice})
    assert set(seen) <= {MARK, alice}
    assert seen[-1] == alice


def test_processes_that_ask_and_change_at_once_do_not_disturb_each_other(found, cgroup):
    code = f"""
import os
from pathlib import Path
from pfw.drivers.labels import Labels

labels = Labels(Path({str(found.folder)!r}))
print("ready", flush=True)
while os.getppid() > 1:
    assert 0 in labels.identify((0,))
    labels.admit(os.getpid())
"""
    other = subprocess.Popen([sys.executable, "-P", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        found.put_programs({python(found): MARK})
        for number in range(20):
            assert python(found) in found.programs(), number
            found.put_users({4711: 1}, {}, {(MARK, 1): OTHER})
            assert run(cgroup, f"os.setuid(4711)\n{MAKE}") == [str(OTHER)], number
            found.put_users({}, {}, {})
            assert run(cgroup, f"os.setuid(4711)\n{MAKE}") == [str(MARK)], number
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def test_the_owner_of_a_socket_is_noted_as_long_as_it_lives(found, cgroup):
    code = "s.bind(('127.0.0.1', 0)); c = int.from_bytes(s.getsockopt(1, 57, 8), 'little')\n"
    code += "print(c, os.getpid(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, socket\nopen('{cgroup}/cgroup.procs', 'w').write('0')\n{MAKE}{code}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    cookie, pid = map(int, process.stdout.readline().split())
    owner = found.owner(cookie)
    assert owner is not None
    assert (owner.pid, owner.uid, owner.file) == (pid, 0, python(found))
    with open(f"/proc/{pid}/stat") as file:
        assert abs(int(file.read().rpartition(")")[2].split()[19]) - owner.started) <= 1
    process.communicate("\n")
    assert found.owner(cookie) is None


@pytest.mark.parametrize(
    ("family", "given", "here"),
    [("AF_INET", "127.0.0.1", "127.0.0.1"), ("AF_INET6", "::1", "::1"), ("AF_INET6", "::ffff:127.0.0.1", "127.0.0.1")],
)
def test_who_connected_is_known_when_the_socket_is_gone(found, cgroup, family, given, here):
    """Nobody listens, so the connection is refused at once."""
    code = f"""
s = socket.socket(socket.{family}); s.bind(("{given}", 0))
try:
    s.connect(("{given}", 1))
except ConnectionRefusedError:
    print(s.getsockname()[1], os.getpid())
"""
    port, pid = map(int, run(cgroup, code))
    address = socket.inet_pton(socket.AF_INET6 if ":" in here else socket.AF_INET, here)
    ends = (address, port, address, 1)
    namespace = network_namespace()
    assert found.take_connecting(namespace + 1, *ends) is None
    assert found.take_connecting(namespace, address, port, address, 2) is None
    owner = found.take_connecting(namespace, *ends)
    assert owner is not None
    assert (owner.pid, owner.uid, owner.file) == (pid, 0, python(found))
    assert found.take_connecting(namespace, *ends) is None, "the next one of these ends may be another's"


def test_programs_without_a_label_are_told_of(found, cgroup):
    found.listen()
    run(cgroup, MAKE)
    (miss,) = found.misses()
    assert (miss.file, miss.uid) == (python(found), 0)
    found.put_programs({python(found): MARK})
    run(cgroup, MAKE)
    assert found.misses() == []


def test_files_are_told_apart_whatever_they_are_called(found, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("x")
    other.write_text("x")
    (tmp_path / "link").symlink_to(one)
    os.link(one, tmp_path / "hard")
    opened = {name: os.open(tmp_path / name, os.O_PATH) for name in ("one", "other", "link", "hard")}
    try:
        told = found.identify(opened.values())
        names = {name: told[descriptor] for name, descriptor in opened.items()}
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
    assert names["one"] == names["link"] == names["hard"] != names["other"]
    assert found.identify([]) == {}


def test_they_stay_when_we_go_and_are_found_again(place, cgroup):
    first = labels.attach(place, cgroup, MASK)
    first.put_programs({python(first): MARK})
    first.close()
    assert run(cgroup, MAKE) == [str(MARK)]
    again = labels.attach(place, cgroup, MASK)
    assert again.programs() == {python(again): MARK}, "the same labels, not new ones"
    again.close()
    found = labels.find(place)
    assert found is not None
    assert found.mask == MASK
    found.close()
    other = labels.attach(place, cgroup, 0xFF000000)
    assert other.programs() == {}, "another mask is another set of labels, in place of the first"
    assert len(list(place.glob("labels_*"))) == 1
    other.close()
    assert labels.detach(place)
    assert run(cgroup, MAKE) == ["0"]
    assert labels.find(place) is None
    assert not labels.detach(place)


def test_who_is_admitted_may_write_labels(found, cgroup):
    found.put_programs({python(found): MARK})
    set_it = f"{MAKE}import struct\ns.setsockopt(1, 36, struct.pack('=I', {OTHER}))\nprint(s.getsockopt(1, 36))\n"
    assert run(cgroup, set_it)[1] == str(MARK)
    code = f"import os, socket\ninput()\nopen('{cgroup}/cgroup.procs', 'w').write('0')\n{set_it}"
    words = [sys.executable, "-c", code]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    found.admit(process.pid)
    assert process.communicate("\n")[0].split()[1] == str(OTHER)


def test_what_cannot_be_is_an_os_error(place, tmp_path):
    with pytest.raises(OSError, match="labels"):
        labels.attach(place, tmp_path, MASK)
    assert list(place.glob("labels_*")) == [], "nothing is left of it"
    with pytest.raises(FileNotFoundError):
        Labels(place / "not there")


def test_a_folder_is_mounted_once_and_let_go(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    try:
        place = bpffs.folder(tmp_path)
    except OSError as error:
        pytest.skip(f"no bpf file system here: {error}")
    assert bpffs.folder(tmp_path) == place == bpffs.found(tmp_path)
    bpffs.let_go(tmp_path)
    assert bpffs.found(tmp_path) is None
    assert ctypes.CDLL(None).umount2(os.fsencode(place), 0) != 0, "nothing is mounted there any more"
