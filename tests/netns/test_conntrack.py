"""Connections that a real kernel tracks, against what `conntrack` says of them, and packets that meet them."""

import contextlib
import errno
import re
import socket
import threading
import time

import pytest

from pfw.drivers import netfilter, netlink
from pfw.model.address import format_address, parse_address
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP
from pfw.wire import conntrack
from pfw.wire.conntrack import IPS_ASSURED, IPS_DST_NAT, IPS_SEEN_REPLY
from pfw.wire.netlink import NLM_F_DUMP, NLM_F_REQUEST
from pfw.wire.nfnetlink import question

TRACKING = """table inet pfw {
    chain in { type filter hook input priority filter; ct state invalid drop; }
    chain out { type filter hook output priority filter; ct state invalid drop; }
}
"""
STRICT = """table inet pfw {
    chain in { type filter hook input priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established accept
    }
    chain out { type filter hook output priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established accept
    }
}
"""


def connections(space):
    return space.call(netfilter.connections)


def listed(space):
    """What `conntrack` lists: protocol, then source, destination and the ports of both directions."""
    found = []
    for family in ("ipv4", "ipv6"):
        for line in space.run("conntrack", "-L", "-f", family).stdout.splitlines():
            words = {name: re.findall(rf"\b{name}=(\S+)", line) for name in ("src", "dst", "sport", "dport", "id")}
            pairs = zip(words["src"], words["dst"], words["sport"] or [None] * 2, words["dport"] or [None] * 2,
                        strict=True)  # fmt: skip
            found.append((int(line.split()[1]), *pairs))
    return sorted(found, key=str)


def as_listed(entry):
    def pair(source, destination, source_port, port):
        ports = [None if each is None else str(each) for each in (source_port, port)]
        return (format_address(source), format_address(destination), *ports)

    return (
        entry.protocol,
        pair(entry.source, entry.destination, entry.source_port, entry.port),
        pair(entry.reply_source, entry.reply_destination, entry.reply_source_port, entry.reply_port),
    )


@contextlib.contextmanager
def connected(server_at, client_at, address, port):
    """The client's and the server's end of a TCP connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as opened:
        server = server_at.call(lambda: socket.create_server((address, port), family=family))
        opened.enter_context(server)
        client = client_at.call(lambda: socket.create_connection((address, port), timeout=5))
        opened.enter_context(client)
        served = opened.enter_context(server.accept()[0])
        for each in (client, served):
            each.settimeout(2)
        yield client, served


def exchange(one, other, size=200_000):
    """Data in both directions, so much that windows matter."""
    for sender, receiver in ((one, other), (other, one)):
        left = size
        sent = bytes(size)
        while left:
            if sent:
                sent = sent[sender.send(sent[:50_000]) :]
            left -= len(receiver.recv(65536))


@pytest.fixture
def tracking(pair):
    pair.here.run("nft", "-f", "-", input=TRACKING)
    pair.here.run("sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1")
    return pair


class TestConnections:
    def test_none(self, pair):
        assert connections(pair.here) == []

    def test_as_conntrack_lists_them(self, tracking, net):
        pair = tracking
        with connected(pair.here, pair.there, net.here, 8080) as (client, served):
            with connected(pair.there, pair.here, net.there6, 443):
                exchange(client, served, 1000)
                net.send(pair.here, net.there, 53)
                net.send(pair.there, net.here6, 54)
                for address in (net.there, net.there6):
                    pair.here.run("ping", "-c1", "-W2", address)
                found = [each for each in connections(pair.here) if each.icmp_type not in (135, 136)]
                expected = [each for each in listed(pair.here) if "fe80" not in str(each)]
                assert sorted(map(as_listed, (each for each in found if each.source[:2] != b"\xfe\x80")), key=str) == (
                    expected
                )
                assert {each.protocol for each in found} >= {TCP, UDP, ICMP, ICMPV6}
            (web,) = [each for each in found if each.port == 8080]
            assert web.source_port == client.getsockname()[1]
            assert (web.tcp_state, web.status & 6) == (conntrack.TCP_ESTABLISHED, IPS_SEEN_REPLY | IPS_ASSURED)
            assert 431_000 < web.timeout_s <= 432_000
            assert web.packets >= 4
            assert web.bytes > 1000
            assert web.reply_bytes > 1000
            assert web.reply_packets >= 3

    def test_pings(self, tracking, net):
        for address, protocol, kind in ((net.there, ICMP, 8), (net.there6, ICMPV6, 128)):
            tracking.here.run("ping", "-c1", "-W2", "-e", "4660", address)
            (ping,) = [each for each in connections(tracking.here) if each.icmp_type == kind]
            assert (ping.protocol, ping.icmp_code, ping.icmp_id) == (protocol, 0, 4660)
            assert (ping.source_port, ping.port) == (None, None)

    def test_marks_zones_and_translated_destinations(self, pair, net):
        pair.here.run("nft", "-f", "-", input="""table inet pfw {
            chain raw { type filter hook prerouting priority raw; udp dport 6000 ct zone set 7; }
            chain in { type filter hook input priority filter; ct mark set 0x1234; }
            chain nat { type nat hook prerouting priority dstnat; udp dport 6001 redirect to :7001; }
        }""")  # fmt: skip
        net.send(pair.there, net.here, 6000)
        net.send(pair.there, net.here, 6001)
        found = {each.port: each for each in connections(pair.here)}
        assert (found[6000].zone, found[6001].zone) == (7, 0)
        assert {found[6000].mark, found[6001].mark} == {0x1234}
        assert not found[6000].status & IPS_DST_NAT
        assert found[6001].status & IPS_DST_NAT
        assert found[6001].reply_source_port == 7001
        assert pair.here.call(lambda: netfilter.cut(list(found.values()))) == 2
        assert connections(pair.here) == []

    def test_a_kernel_without_it(self, pair, monkeypatch):
        missing = question(15, 1, 0, flags=NLM_F_REQUEST | NLM_F_DUMP)
        monkeypatch.setattr(conntrack, "dump_request", lambda: missing)
        with pytest.raises(OSError, match="no ctnetlink") as error:
            connections(pair.here)
        assert error.value.errno == errno.EOPNOTSUPP

    @pytest.mark.slow
    def test_a_hundred_thousand(self, pair):
        opened = [
            (protocol, b"\x0a" + number.to_bytes(3, "big"), b"\x0a\xff\0\1", 1000 + number % 60_000, 443)
            for protocol in (TCP, UDP)
            for number in range(50_000)
        ]
        assert pair.here.call(lambda: netfilter.track(opened)) == 100_000

        def read():
            start = time.thread_time()
            return netfilter.connections(), time.thread_time() - start

        found, spent_s = pair.here.call(read)
        assert spent_s < 2
        tuples = {(each.protocol, each.source, each.destination, each.source_port, each.port) for each in found}
        assert tuples == set(opened)
        assert pair.here.call(lambda: netfilter.cut(found)) == 100_000
        assert pair.here.run("conntrack", "-C").stdout.strip() == "0"


class TestCut:
    def test_those_and_no_others(self, tracking, net):
        pair = tracking
        for port in (5001, 5002, 5003):
            net.send(pair.there, net.here, port)
            net.send(pair.there, net.here6, port)
        pair.here.run("ping", "-c1", "-W2", net.there)
        pair.here.run("ping", "-c1", "-W2", net.there6)
        found = connections(pair.here)
        doomed = [each for each in found if each.port in (5001, 5003) or each.icmp_type in (8, 128)]
        assert len(doomed) == 6
        assert pair.here.call(lambda: netfilter.cut(doomed)) == 6
        assert {each.id for each in connections(pair.here)} >= {each.id for each in found} - {
            each.id for each in doomed
        }
        assert {each.port for each in connections(pair.here)} & {5001, 5002, 5003} == {5002}
        assert pair.here.call(lambda: netfilter.cut(doomed)) == 0

    def test_a_later_connection_between_the_same_ends_stays(self, tracking, net):
        def send():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.bind(("", 7777))
                sock.sendto(b"x", (net.here, 5001))

        tracking.there.call(send)
        old = connections(tracking.here)
        assert tracking.here.call(lambda: netfilter.cut(old)) == 1
        tracking.there.call(send)
        (new,) = connections(tracking.here)
        if new.id != old[0].id:
            assert tracking.here.call(lambda: netfilter.cut(old)) == 0
            assert [each.id for each in connections(tracking.here)] == [new.id]

    def test_nothing(self, pair):
        assert pair.here.call(lambda: netfilter.cut([])) == 0
        assert pair.here.call(lambda: netfilter.track([])) == 0


class TestTrack:
    @pytest.mark.parametrize("opener", ["here", "there"])
    @pytest.mark.parametrize("version", [4, 6])
    def test_a_connection_from_before_goes_on(self, pair, net, opener, version):
        there, here = (net.there, net.here) if version == 4 else (net.there6, net.here6)
        ends = (pair.there, pair.here, there) if opener == "here" else (pair.here, pair.there, here)
        with connected(*ends, 8080) as (client, served):
            exchange(client, served)
            opened = [each.tuple for each in pair.here.call(netlink.tcp_sockets)]
            assert [each[4] for each in opened] == [8080]
            assert pair.here.call(lambda: netfilter.track(opened)) == 1
            assert pair.here.call(lambda: netfilter.track(opened)) == 0
            pair.here.run("nft", "-f", "-", input=STRICT)
            exchange(client, served)
            exchange(served, client)
            (entry,) = [each for each in connections(pair.here) if each.protocol == TCP]
            assert (entry.source_port, entry.port) == (client.getsockname()[1], 8080)
            assert entry.tcp_state == conntrack.TCP_ESTABLISHED
            assert entry.timeout_s > 400_000
            client.shutdown(socket.SHUT_WR)
            assert served.recv(1) == b""

    @pytest.mark.parametrize("told", [True, False])
    def test_without_being_told_it_stops(self, pair, net, told):
        """And so the one above proves something."""
        with connected(pair.here, pair.there, net.here, 8080) as (client, served):
            if told:
                opened = [each.tuple for each in pair.here.call(netlink.tcp_sockets)]
                pair.here.call(lambda: netfilter.track(opened))
            pair.here.run("nft", "-f", "-", input=STRICT)
            client.sendall(b"x")
            if told:
                assert served.recv(1) == b"x"
            else:
                served.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    served.recv(1)

    @pytest.mark.parametrize("version", [4, 6])
    def test_datagrams(self, pair, net, version):
        there, here = (net.there, net.here) if version == 4 else (net.there6, net.here6)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        one, other = (each.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) for each in (pair.here, pair.there))
        with one, other:
            one.bind((here, 5001))
            other.bind((there, 5002))
            one.connect((there, 5002))
            opened = (UDP, parse_address(here), parse_address(there), 5001, 5002)
            assert pair.here.call(lambda: netfilter.track([opened])) == 1
            pair.here.run("nft", "-f", "-", input=STRICT)
            for each in (one, other):
                each.settimeout(2)
            one.send(b"ask")
            assert other.recv(10) == b"ask"
            other.sendto(b"answer", (here, 5001))
            assert one.recv(10) == b"answer"

    def test_data_on_its_way_arrives(self, pair, net):
        """Both ends send as much as they can while the rules come into force."""
        with connected(pair.here, pair.there, net.here, 8080) as (client, served):
            sent = [0, 0]
            stop = threading.Event()

            def pump(number, sock):
                while not stop.is_set():
                    sent[number] += sock.send(bytes(20_000))
                sock.shutdown(socket.SHUT_WR)

            def drain(number, sock):
                while data := sock.recv(1 << 20):
                    received[number] += len(data)

            received = [0, 0]
            threads = [threading.Thread(target=pump, args=each) for each in enumerate((client, served))]
            threads += [threading.Thread(target=drain, args=each) for each in enumerate((served, client))]
            for each in threads:
                each.start()
            net.wait_until(lambda: min(received) > 1_000_000, "data flow")
            pair.here.call(lambda: netfilter.track([each.tuple for each in netlink.tcp_sockets()]))
            pair.here.run("nft", "-f", "-", input=STRICT)
            goal = max(received) + 1_000_000
            net.wait_until(lambda: min(received) > goal, "data flow on")
            stop.set()
            for each in threads:
                each.join()
            assert received == sent

    def test_what_cannot_be_tracked(self, pair):
        ends = (packed := parse_address("192.0.2.1")), parse_address("192.0.2.2")
        with pytest.raises(OSError, match="connection tracking") as error:
            pair.here.call(lambda: netfilter.track([(ICMP, *ends, 1, 2), (TCP, *ends, 1, 2)]))
        assert error.value.errno == errno.EINVAL
        assert [each.source for each in connections(pair.here)] == [packed]
        with pytest.raises(ValueError, match="addresses"):
            pair.here.call(lambda: netfilter.track([(TCP, bytes(4), bytes(16), 1, 2)]))
