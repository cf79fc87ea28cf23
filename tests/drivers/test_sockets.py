"""Which socket the kernel would give a packet to, against sockets that the test has opened itself."""

import ctypes
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from pfw.drivers.sockets import SENDERS_MAX, SocketFinder, all_sockets
from pfw.model.packet import ICMP, TCP, UDP
from pfw.wire.sockdiag import TCP_LISTEN

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SO_MARK = 36
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


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


def packed(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def find(protocol, local, port, remote=ELSEWHERE, remote_port=40000, interface_index=0):
    with SocketFinder() as finder:
        return finder.find(protocol, packed(local), port, packed(remote), remote_port, interface_index)


def datagrams(opened, address="", family=socket.AF_INET, *, reuse=False, only6=None, port=0):
    sock = opened(socket.socket(family, socket.SOCK_DGRAM))
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if only6 is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
    sock.bind((address, port))
    return sock, sock.getsockname()[1]


def test_a_connection_and_the_one_that_listens(run, opened):
    def look():
        server = opened(socket.create_server((HERE, 0)))
        port = server.getsockname()[1]
        client = opened(socket.create_connection((HERE, port)))
        own = client.getsockname()[1]
        # What nobody has accepted yet is the listener's.
        assert find(TCP, HERE, port, HERE, own).inode == inode(server)
        served = opened(server.accept()[0])
        found = find(TCP, HERE, port, HERE, own)
        assert (found.inode, found.uid) == (inode(served), os.getuid())
        assert found.cookie == int.from_bytes(served.getsockopt(socket.SOL_SOCKET, 57, 8), "little")
        assert find(TCP, HERE, own, HERE, port).inode == inode(client)
        waiting = find(TCP, HERE, port)
        assert (waiting.inode, waiting.state) == (inode(server), TCP_LISTEN)
        assert find(TCP, HERE, own, ELSEWHERE, port) is None
        client.close()
        served.close()
        closed = find(TCP, HERE, own, HERE, port)
        assert closed is None or closed.inode == 0

    run(look)


@pytest.mark.parametrize("dual", [True, False])
def test_ipv4_through_ipv6_sockets(run, opened, dual):
    def look():
        server = opened(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=dual))
        port = server.getsockname()[1]
        assert find(TCP, "::1", port, "::1").inode == inode(server)
        by_ipv4 = find(TCP, HERE, port)
        assert (by_ipv4 and by_ipv4.inode) == (inode(server) if dual else None)
        sock, port = datagrams(opened, "::", socket.AF_INET6, only6=not dual)
        assert find(UDP, "::1", port, "::1").inode == inode(sock)
        by_ipv4 = find(UDP, HERE, port)
        assert (by_ipv4 and by_ipv4.inode) == (inode(sock) if dual else None)
        if dual:
            client = opened(socket.socket(socket.AF_INET6))
            client.connect((f"::ffff:{HERE}", server.getsockname()[1]))
            found = find(TCP, HERE, client.getsockname()[1], HERE, server.getsockname()[1])
            assert (found.inode, found.source) == (inode(client), packed(HERE))

    run(look)


def test_datagrams(run, opened):
    def look():
        everywhere, port = datagrams(opened)
        assert find(UDP, HERE, port).inode == inode(everywhere)
        fixed = opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        fixed.connect((ELSEWHERE, 53))
        at = fixed.getsockname()
        assert find(UDP, at[0], at[1], ELSEWHERE, 53).inode == inode(fixed)
        assert find(UDP, at[0], at[1], ELSEWHERE, 54) is None
        assert find(ICMP, HERE, 0) is None
        assert find(255, HERE, 0) is None

    run(look)


def test_bound_to_an_interface(run, opened):
    def look():
        sock = opened(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.bind((HERE, 0))
        port = sock.getsockname()[1]
        index = socket.if_nametoindex("lo")
        assert find(UDP, HERE, port, interface_index=index).inode == inode(sock)
        assert find(UDP, HERE, port, interface_index=index + 7) is None
        free, port = datagrams(opened)
        assert find(UDP, HERE, port, interface_index=index).inode == inode(free)

    run(look)


def senders(protocol, local, port, remote=ELSEWHERE, remote_port=40000):
    with SocketFinder() as finder:
        found = finder.find_senders(protocol, packed(local), port, packed(remote), remote_port)
        return [each.inode for each in found]


def test_who_may_have_sent(run, opened):
    def look():
        server = opened(socket.create_server((HERE, 0)))
        assert senders(TCP, HERE, server.getsockname()[1]) == []
        client = opened(socket.create_connection((HERE, server.getsockname()[1])))
        assert senders(TCP, HERE, client.getsockname()[1], HERE, server.getsockname()[1]) == [inode(client)]
        one, port = datagrams(opened, reuse=True)
        assert senders(UDP, HERE, port) == [inode(one)]
        other, _ = datagrams(opened, ELSEWHERE, reuse=True, port=port)
        other.connect((HERE, 9))
        both = senders(UDP, HERE, port)
        assert (both[0], set(both)) == (inode(one), {inode(one), inode(other)})
        for _ in range(SENDERS_MAX):
            datagrams(opened, reuse=True, port=port)
        assert senders(UDP, HERE, port) == []

    run(look)


def test_all_sockets(run, opened):
    def look():
        server = opened(socket.create_server(("::1", 0), family=socket.AF_INET6))
        sock, _ = datagrams(opened)
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x1234)
        found = {each.inode: (protocol, each, traits) for protocol, each, traits in all_sockets()}
        assert set(found) == {inode(server), inode(sock)}
        assert (found[inode(server)][0], found[inode(server)][1].state) == (TCP, TCP_LISTEN)
        protocol, each, traits = found[inode(sock)]
        assert (protocol, traits.mark) == (UDP, 0x1234)
        assert each.cookie == find(UDP, HERE, sock.getsockname()[1]).cookie

    run(look)


def test_a_late_answer_is_not_taken_for_another(run, opened):
    def look():
        _, first = datagrams(opened)
        two, second = datagrams(opened)
        with SocketFinder() as finder:
            asked = [packed(HERE), first, packed(ELSEWHERE), 9]
            taken, finder._socket = finder._socket, Deaf()
            with suppress(TimeoutError):
                finder.find(UDP, *asked)
            taken.send(finder._socket.sent)
            finder._socket = taken
            asked[1] = second
            assert finder.find(UDP, *asked).inode == inode(two)

    run(look)


class Deaf:
    """Takes a question and never answers."""

    def send(self, data):
        self.sent = data

    def recvfrom(self, _):
        raise TimeoutError

    def close(self):
        pass


def test_it_is_fast(run, opened):
    def look():
        _, port = datagrams(opened)
        here, elsewhere = packed(HERE), packed(ELSEWHERE)
        with SocketFinder() as finder:
            best = float("inf")
            for _ in range(20):
                begun = time.perf_counter()
                for _ in range(50):
                    finder.find(UDP, here, port, elsewhere, 9)
                best = min(best, (time.perf_counter() - begun) / 50)
        print(f"{best * 1e6:.1f} µs")
        assert best < 0.001

    run(look)
