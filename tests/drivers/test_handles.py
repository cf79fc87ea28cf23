"""Marks on sockets of other processes, in a process and sockets that the test has started itself."""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from pfw.drivers import handles
from pfw.drivers.handles import Marked, mark_sockets, open_remote

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other processes' sockets are root's business")

SO_MARK, MASK = 36, 0xFF00


SOCKETS = """
import os, socket, struct, sys
made = [socket.socket(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)]
made += [socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)]
made += [made[0].dup(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)]
for each in made[:3]:
    each.setsockopt(1, 36, struct.pack("=I", int(sys.argv[1])))
child = 0
if len(sys.argv) > 2:
    for each in made:
        each.set_inheritable(True)
    reading, writing = os.pipe()
    child = os.posix_spawn(
        "/bin/cat", ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), (os.POSIX_SPAWN_CLOSE, writing)]
    )
print(*(each.fileno() for each in made), child, flush=True)
for line in sys.stdin:
    print(*(each.getsockopt(1, 36) & 0xFFFFFFFF for each in made), flush=True)
"""


@contextmanager
def running(*words):
    """A process in a network namespace of its own; nothing of the machine's is marked."""
    command = ["unshare", "-n", sys.executable, "-c", SOCKETS, *map(str, words)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.kill()


def numbers(process):
    return [int(each) for each in process.stdout.readline().split()]


def marks(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return numbers(process)


def mark_within(process, choose, mask=MASK):
    """As if this program ran in the process' network namespace: a child of the test's does."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with open(f"/proc/{process.pid}/ns/net") as place:
                if not ctypes.CDLL(None).setns(place.fileno(), 0x40000000):
                    found = mark_sockets(choose, mask)
                    os.write(write, b"%d %d %d" % (found.changed, found.unchanged, found.failed))
                    status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        said = answer.read()
    assert os.waitpid(pid, 0)[1] == 0
    changed, unchanged, failed = map(int, said.split())
    return Marked(changed, unchanged, failed)


def test_a_descriptor_of_another_process():
    with running(7) as process:
        fd = numbers(process)[0]
        found = open_remote(process.pid, fd)
        with socket.socket(fileno=found) as held:
            assert held.getsockopt(socket.SOL_SOCKET, SO_MARK) == 7
            assert not held.get_inheritable()
            held.setsockopt(socket.SOL_SOCKET, SO_MARK, 8)
        assert marks(process)[0] == 8
        with pytest.raises(OSError, match="Bad file descriptor"):
            open_remote(process.pid, 999)
    with pytest.raises(ProcessLookupError):
        open_remote(process.pid, fd)


def test_marks_of_a_program():
    with running(0x800000F7) as process:
        numbers(process)

        def choose(program):
            return 0x4200 if program.pid == process.pid else None

        # A socket that is open twice is one, and those of other families are none of ours.
        assert mark_within(process, choose) == Marked(3, 0, 0)
        assert marks(process) == [0x800042F7] * 4 + [0, 0]
        assert mark_within(process, choose) == Marked(0, 3, 0)
        assert mark_within(process, lambda program: None) == Marked(0, 0, 0)
        # Bits outside of the mask are not the label's, whoever asks for them.
        assert mark_within(process, lambda program: 0xFFFFFFFF, 0xF00) == Marked(3, 0, 0)
        assert marks(process) == [0x80004FF7] * 4 + [0, 0]
        assert mark_within(process, lambda program: 0) == Marked(3, 0, 0)
        assert marks(process) == [0x800000F7] * 4 + [0, 0]


def test_other_network_namespaces_are_not_our_business():
    with running(0x1) as process, running(0x2) as other:
        numbers(process)
        numbers(other)
        assert mark_within(process, lambda program: 0x4200) == Marked(3, 0, 0)
        assert marks(other) == [2, 2, 2, 2, 0, 0]


@pytest.mark.parametrize(("choose", "expected"), [
    (lambda program: 0x4200, 0x4200),
    (lambda program: 0x4300 if program.path.endswith("cat") else 0x4200, 0x0),
    (lambda program: None if program.path.endswith("cat") else 0x4200, 0x0),
    (lambda program: 0x4300 if program.path.endswith("cat") else None, 0x0),
])  # fmt: skip
def test_what_different_programs_hold_together(choose, expected):
    with running(0x1100, "shared") as process:
        child = numbers(process)[-1]
        members = (process.pid, child)
        mark_within(process, lambda program: choose(program) if program.pid in members else None)
        assert marks(process)[:3] == [expected] * 3


def test_refusals_are_counted(monkeypatch):
    def refuse(pid, fd):
        if pid == process.pid:
            raise PermissionError(errno.EPERM, "no")
        return plain(pid, fd)

    plain = handles.open_remote
    monkeypatch.setattr(handles, "open_remote", refuse)
    with running(0x1) as process:
        numbers(process)
        found = mark_within(process, lambda program: 0x4200 if program.pid == process.pid else None)
        assert (found.changed, found.unchanged) == (0, 0)
        assert found.failed > 0
