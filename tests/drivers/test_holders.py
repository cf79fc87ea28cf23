"""Who holds a socket, against real processes that hold some, alone, together, and handed over."""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import msgspec
import pytest

from pfw.drivers import holders as module
from pfw.drivers.holders import SocketOwners, find_holders, holders, holds
from pfw.model.program import Certainty
from pfw.wire.sockdiag import DiagSocket

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's processes need root")
CAT = os.path.realpath(shutil.which("cat"))
PYTHON = os.path.realpath(sys.executable)
FORKS = """
import os, socket, sys
made = socket.socket()
pids = [os.getpid()]
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        sys.stdin.read()
        os._exit(0)
    pids.append(pid)
print(os.fstat(made.fileno()).st_ino, *pids, flush=True)
sys.stdin.read()
"""
LEADER_ENDS = """
import ctypes, os, socket, sys, threading
made = socket.socket()
def work():
    print(os.fstat(made.fileno()).st_ino, os.getpid(), flush=True)
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""


@contextmanager
def running(*words, **options):
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.kill()


def numbers(process):
    return [int(each) for each in process.stdout.readline().split()]


def sock(inode, uid=None):
    return DiagSocket(1, b"", b"", b"", b"", 0, os.geteuid() if uid is None else uid, inode)


def owner(*inodes):
    return SocketOwners().owner(*map(sock, inodes))


def test_one_process_alone():
    with running(PYTHON, "-c", FORKS, "0") as process:
        inode, pid = numbers(process)
        assert find_holders([inode, 1]) == module.Holders({inode: (pid,), 1: ()}, True)
        assert holders([inode]) == {inode: (pid,)}
        found, certainty = owner(inode)
        assert (found.pid, found.path, certainty) == (pid, PYTHON, Certainty.SOCKET)
        assert holds(pid, inode)
        assert not holds(os.getpid(), inode)
    assert owner(inode) == (None, Certainty.GUESS)
    assert not holds(pid, inode)


def test_siblings_of_one_program():
    with running(PYTHON, "-c", FORKS, "3") as process:
        inode, *pids = numbers(process)
        assert holders([inode]) == {inode: tuple(sorted(pids))}
        found, certainty = owner(inode)
        assert (found.pid, found.path, certainty) == (min(pids), PYTHON, Certainty.PROC)


def test_different_programs():
    with socket.socket() as made, running(CAT, pass_fds=[made.fileno()], close_fds=True) as process:
        inode = os.fstat(made.fileno()).st_ino
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert holders([inode]) == {inode: tuple(sorted((os.getpid(), process.pid)))}
        assert owner(inode)[1] == Certainty.GUESS


def test_handed_over_by_message():
    ours, theirs = socket.socketpair()
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); m = socket.recv_fds(s, 1, 1)[1]\n"
    code += "print(m[0], flush=True); sys.stdin.read()"
    with ours, theirs, socket.socket() as made:
        inode = os.fstat(made.fileno()).st_ino
        assert owner(inode)[1] == Certainty.SOCKET
        # The same program under another name is another program.
        with running(PYTHON, "-c", code, str(theirs.fileno()), pass_fds=[theirs.fileno()]) as process:
            socket.send_fds(ours, [b"x"], [made.fileno()])
            numbers(process)
            found, certainty = owner(inode)
            assert (found.path, certainty) == (PYTHON, Certainty.PROC)
            made.close()
            found, certainty = owner(inode)
            assert (found.pid, certainty) == (process.pid, Certainty.SOCKET)


def test_a_process_whose_first_thread_has_ended():
    with running(PYTHON, "-c", LEADER_ENDS) as process:
        inode, pid = numbers(process)
        assert holders([inode]) == {inode: (pid,)}
        assert owner(inode)[1] == Certainty.GUESS


@as_root
def test_what_another_user_made():
    with running("setpriv", "--reuid=12345", "--clear-groups", PYTHON, "-c", FORKS, "0") as process:
        inode, pid = numbers(process)
        for uid, expected in ((12345, Certainty.SOCKET), (0, Certainty.SOCKET), (54321, Certainty.GUESS)):
            found, certainty = SocketOwners().owner(sock(inode, uid))
            assert (found.pid, certainty) == (pid, expected)


def test_several_sockets_that_may_be_meant():
    with running(PYTHON, "-c", FORKS, "0") as one, running(PYTHON, "-c", FORKS, "0") as two:
        (first, pid), (second, _) = numbers(one), numbers(two)
        with socket.socket() as own:
            mine = os.fstat(own.fileno()).st_ino
            assert owner(first, first)[1] == Certainty.SOCKET
            found, certainty = owner(first, second, mine)
            assert (found.path, certainty) == (PYTHON, Certainty.PROC)
            assert owner(first, 0)[1] == Certainty.GUESS
            assert pid in holders([first])[first]
            with running(CAT, pass_fds=[own.fileno()]) as process:
                process.stdin.write(b"\n")
                process.stdin.flush()
                process.stdout.readline()
                assert owner(first, mine)[1] == Certainty.GUESS


MANY = """
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
made = [socket.socket() for _ in range(3_000)]
print(os.getpid(), *(os.fstat(each.fileno()).st_ino for each in made), flush=True)
sys.stdin.read()
"""


def test_a_process_that_holds_thousands_is_looked_at_once():
    """It would take minutes to look at each of its sockets for each of them."""
    with running(PYTHON, "-c", MANY) as process:
        pid, *inodes = numbers(process)
        began = time.process_time()
        found = module.owners([sock(each) for each in inodes])
        assert time.process_time() - began < 5
        assert {(each.pid, certainty) for each, certainty in found.values()} == {(pid, Certainty.SOCKET)}
        assert len(found) == 3_000


def test_nobody():
    assert owner(0) == (None, Certainty.GUESS)
    assert find_holders([]) == module.Holders({}, False)


@pytest.mark.parametrize(("closed", "expected"), [("1", Certainty.SOCKET), ("2", Certainty.GUESS)])
def test_what_may_not_be_seen_makes_nothing_sure_but_for_init(monkeypatch, closed, expected):
    def refuse(name, wanted):
        if name == closed:
            raise PermissionError(13, "no")
        return plain(name, wanted)

    plain = module._targets
    monkeypatch.setattr(module, "_targets", refuse)
    with socket.socket() as made:
        found, certainty = owner(os.fstat(made.fileno()).st_ino)
        assert (found.pid, certainty) == (os.getpid(), expected)


def test_a_child_that_is_made_meanwhile(monkeypatch):
    children = []

    def look(name, wanted, found):
        if not children:
            children.append(os.fork())
            if not children[0]:
                os.read(tell[0], 1)
                os._exit(0)
        return plain(name, wanted, found)

    plain = module._look
    tell = os.pipe()
    monkeypatch.setattr(module, "_look", look)
    with socket.socket() as made:
        inode = os.fstat(made.fileno()).st_ino
        try:
            assert set(holders([inode])[inode]) == {os.getpid(), children[0]}
        finally:
            os.write(tell[1], b"x")
            os.waitpid(children[0], 0)
            os.close(tell[0])
            os.close(tell[1])


def test_a_descriptor_that_gets_another_number_meanwhile(monkeypatch):
    made = socket.socket()
    inode, number = os.fstat(made.fileno()).st_ino, made.detach()
    moved = []

    def look(name, *, dir_fd):
        if name == str(number) and not moved:
            moved.append(fcntl.fcntl(number, fcntl.F_DUPFD, 500))
            os.close(number)
        return plain(name, dir_fd=dir_fd)

    plain = module.readlink
    monkeypatch.setattr(module, "readlink", look)
    try:
        assert holds(os.getpid(), inode)
        assert moved
    finally:
        os.close(moved[0] if moved else number)


class TestLately:
    def test_who_had_one_lately_is_looked_at_first_and_may_not_be_alone(self, monkeypatch):
        owners = SocketOwners()
        with socket.socket() as made:
            inode, uid = os.fstat(made.fileno()).st_ino, os.geteuid()
            assert owners.find(inode, uid) == ((os.getpid(),), True)
            monkeypatch.setattr(module, "find_holders", lambda inodes: module.Holders({}, False))
            assert owners.find(inode, uid) == ((os.getpid(),), False)
            found, certainty = owners.guess(sock(inode))
            assert (found.pid, certainty) == (os.getpid(), Certainty.GUESS)
            assert owners.find(inode, uid + 1) == ((), False)
        assert owners.guess(sock(0)) == (None, Certainty.GUESS)

    def test_no_more_are_remembered_than_a_bound(self):
        owners = SocketOwners()
        for number in range(1000):
            owners._remember(tuple(range(number * 10, number * 10 + 10)), number)
        assert len(owners._recent) == 256

    def test_a_process_that_has_another_program_now(self):
        found, _ = SocketOwners().owner(sock(1))
        assert found is None
        with socket.socket() as made:
            found, _ = owner(os.fstat(made.fileno()).st_ino)
        assert module.is_same(found)
        assert not module.is_same(msgspec.structs.replace(found, started=1))
