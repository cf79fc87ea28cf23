"""Sockets that wait, opened here in a network namespace of the test's own, and who is said to hold them."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pfw.daemon import listeners as module
from pfw.daemon.listeners import TRIES_MAX, Listeners
from pfw.drivers.holders import owners
from pfw.drivers.processes import started
from pfw.model.packet import TCP, UDP
from pfw.model.program import Certainty

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
PYTHON = os.path.realpath(sys.executable)
ANY, ANY6 = bytes(4), bytes(16)


@pytest.fixture
def run():
    """Calls a function in a network namespace that ends with the test, and gives what it gives."""

    def enter():
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    with ThreadPoolExecutor(1, initializer=enter) as inside:
        yield lambda function: inside.submit(function).result()


@pytest.fixture
def opened():
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def asked():
    """The owners of sockets, and how many were asked for each time."""
    counts = []

    def find(socks):
        socks = list(socks)
        counts.append(len(socks))
        return owners(socks)

    find.counts = counts
    return find


def bound(kind, address="0.0.0.0", port=0):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


def places(found):
    return {(each.protocol, each.address, each.port) for each in found}


def test_what_waits_and_whose_it_is(run, opened):
    for kind, address, port in (
        (socket.SOCK_STREAM, "0.0.0.0", 2200),
        (socket.SOCK_STREAM, "::", 2201),
        (socket.SOCK_STREAM, "127.0.0.1", 2202),
        (socket.SOCK_DGRAM, "0.0.0.0", 2203),
        (socket.SOCK_DGRAM, "::1", 2204),
    ):
        opened(run(lambda kind=kind, address=address, port=port: bound(kind, address, port)))
    found = run(Listeners().look)
    assert places(found) == {
        (TCP, ANY, 2200),
        (TCP, ANY6, 2201),
        (TCP, bytes((127, 0, 0, 1)), 2202),
        (UDP, ANY, 2203),
        (UDP, bytes(15) + b"\1", 2204),
    }
    for each in found:
        assert (each.program, each.pid, each.started, each.uid) == (PYTHON, os.getpid(), started(os.getpid()), 0)
        assert each.certainty in (Certainty.SOCKET, Certainty.GUESS)
        assert not each.is_ephemeral


def test_what_does_not_wait(run, opened):
    server = opened(run(lambda: bound(socket.SOCK_STREAM, "127.0.0.1", 2300)))
    opened(run(lambda: socket.create_connection(("127.0.0.1", 2300))))
    opened(server.accept()[0])
    opened(run(lambda: socket.socket()))
    connected = opened(run(lambda: bound(socket.SOCK_DGRAM, "127.0.0.1", 2301)))
    connected.connect(("127.0.0.1", 9))
    opened(run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    assert places(run(Listeners().look)) == {(TCP, bytes((127, 0, 0, 1)), 2300)}


def test_who_asks_with_datagrams_is_told_apart(run, opened):
    asking = opened(run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    asking.sendto(b"x", ("127.0.0.1", 9))
    opened(run(lambda: bound(socket.SOCK_DGRAM, port=2400)))
    listening = opened(run(lambda: bound(socket.SOCK_STREAM)))
    found = {each.port: each.is_ephemeral for each in run(Listeners().look)}
    assert found == {asking.getsockname()[1]: True, 2400: False, listening.getsockname()[1]: False}


def test_only_owners_of_new_sockets_are_looked_for(run, opened, asked):
    listeners = Listeners(asked)
    assert run(listeners.look) == frozenset()
    first = run(lambda: bound(socket.SOCK_STREAM, port=2500))
    before = run(listeners.look)
    assert run(listeners.look) == before
    opened(run(lambda: bound(socket.SOCK_STREAM, port=2501)))
    assert len(run(listeners.look)) == 2
    first.close()
    assert places(run(listeners.look)) == {(TCP, ANY, 2501)}
    assert asked.counts == [1, 1]
    opened(run(lambda: bound(socket.SOCK_STREAM, port=2500)))
    run(listeners.look)
    assert asked.counts == [1, 1, 1], "the same port, another socket"


def test_one_that_was_handed_on(run, opened, asked):
    """As a listener of systemd's: made by one process, served by another."""
    listeners = Listeners(asked)
    sock = run(lambda: bound(socket.SOCK_STREAM, port=2600))
    child = subprocess.Popen(["sleep", "60"], pass_fds=[sock.fileno()])
    try:
        sock.close()
        (found,) = run(listeners.look)
        assert (os.path.basename(found.program), found.pid) == ("sleep", child.pid)
        # Its holder ends; the socket lives on in the hands of who took it over from it.
        taken = os.pidfd_open(child.pid)
        mine = pidfd_getfd(taken, held_socket(child.pid))
        os.close(taken)
        child.send_signal(signal.SIGKILL)
        child.wait()
        (found,) = run(listeners.look)
        assert found.pid == os.getpid()
        os.close(mine)
    finally:
        child.kill()
        child.wait()


def held_socket(pid):
    return next(
        int(name) for name in os.listdir(f"/proc/{pid}/fd") if "socket:" in os.readlink(f"/proc/{pid}/fd/{name}")
    )


def pidfd_getfd(pidfd, fd):
    got = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, fd, 0)
    if got < 0:
        pytest.skip(f"no descriptor can be taken here: {os.strerror(ctypes.get_errno())}")
    return got


def test_one_that_nobody_holds_is_not_looked_for_for_ever(run, opened):
    calls = []
    listeners = Listeners(lambda socks: calls.append(list(socks)) or {})
    opened(run(lambda: bound(socket.SOCK_DGRAM, port=2700)))
    for _ in range(TRIES_MAX + 3):
        (found,) = run(listeners.look)
        assert (found.program, found.pid, found.certainty) == (None, 0, Certainty.GUESS)
    assert len(calls) == TRIES_MAX


def test_it_is_bounded(run, opened, monkeypatch):
    monkeypatch.setattr(module, "LISTENERS_MAX", 3)
    for port in range(2800, 2805):
        opened(run(lambda port=port: bound(socket.SOCK_STREAM, port=port)))
    listeners = Listeners()
    assert len(run(listeners.look)) == 3
    assert listeners.refused == 2


def test_the_user_whose_it_is(run, opened):
    sock = opened(run(lambda: bound(socket.SOCK_DGRAM, port=2900)))
    os.fchown(sock.fileno(), 65534, 65534)
    (found,) = run(Listeners().look)
    assert found.uid == 65534
