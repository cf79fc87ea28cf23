"""What a real kernel tells of real connections, in which order, and against what `conntrack -E` says of them."""

import contextlib
import re
import select
import shutil
import socket
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from pfw.drivers import conntrack, netfilter, procfs
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP
from pfw.wire.conntrack import IPS_SEEN_REPLY
from pfw.wire.conntrack_event import DESTROY, NEW, TCP_CLOSE, TCP_TIME_WAIT, UPDATE, flow_key

HERE_RULES = """table inet pfw {
    chain in { type filter hook input priority filter; ct state new counter; }
    chain out { type filter hook output priority filter; ct state new counter; }
}
"""
THERE_RULES = """table inet pfw {
    chain in {
        type filter hook input priority filter
        tcp dport 83 drop
        tcp dport 84 reject with icmp port-unreachable
    }
}
"""
SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK = 1, 2, 3, 4, 5, 6
EVERYTHING = range(1, 10)
WHAT = {"NEW": NEW, "UPDATE": UPDATE, "DESTROY": DESTROY}


@pytest.fixture
def here(pair):
    pair.here.run("nft", "-f", "-", input=HERE_RULES)
    pair.there.run("nft", "-f", "-", input=THERE_RULES)
    pair.here.call(procfs.count_connections)
    pair.here.call(procfs.time_connections)
    return pair.here


@pytest.fixture
def open_reader(here):
    with contextlib.ExitStack() as opened:
        yield lambda **options: opened.enter_context(
            contextlib.closing(here.call(lambda: conntrack.EventReader(**options)))
        )


@pytest.fixture
def reader(open_reader):
    return open_reader()


@pytest.fixture
def server(pair):
    """Somebody who accepts at port 80 of both families, and answers at port 53."""
    with (
        pair.there.call(lambda: socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)) as tcp,
        pair.there.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as udp,
    ):
        udp.bind(("::", 53))
        yield tcp, udp


def events(reader, count):
    found, deadline = [], time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        select.select([reader], [], [], 0.2)
        found += reader.read()
    return found


def steps(found):
    return [(each.what, each.tcp_state) if each.protocol == TCP else each.what for each in found]


def connect(space, address, port):
    return space.call(lambda: socket.create_connection((address, port), timeout=1))


def close_both(server, client):
    served, _ = server.accept()
    client.close()
    assert served.recv(1) == b""
    served.close()


def forget_all(space):
    return space.call(lambda: netfilter.cut(netfilter.connections()))


class TestTcp:
    @pytest.mark.parametrize("address", ["there", "there6"])
    def test_from_beginning_to_end(self, here, net, reader, server, address):
        close_both(server[0], connect(here, getattr(net, address), 80))
        found = events(reader, 3)
        assert steps(found) == [(NEW, SYN_SENT), (UPDATE, ESTABLISHED), (UPDATE, TCP_TIME_WAIT)]
        forget_all(here)
        found += events(reader, 1)
        assert steps(found[3:]) == [(DESTROY, TCP_TIME_WAIT)]
        assert len({(each.id, each.key) for each in found}) == 1
        assert {each.port for each in found} == {80}
        # The other end may acknowledge the end by a packet of its own.
        assert found[3].packets == 4
        assert found[3].reply_packets in (2, 3)

    def test_every_state(self, here, net, open_reader, server):
        """What the filter leaves out by itself."""
        reader = open_reader(states=set(EVERYTHING) - {CLOSE_WAIT})
        close_both(server[0], connect(here, net.there, 80))
        states = [SYN_RECV, ESTABLISHED, FIN_WAIT, LAST_ACK, TCP_TIME_WAIT]
        assert steps(events(reader, 6)) == [(NEW, SYN_SENT), *((UPDATE, state) for state in states)]

    def test_reset_by_who_began(self, here, net, reader, server):
        client = connect(here, net.there, 80)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        found = events(reader, 3)
        assert steps(found) == [(NEW, SYN_SENT), (UPDATE, ESTABLISHED), (UPDATE, TCP_CLOSE)]
        forget_all(here)
        (end,) = events(reader, 1)
        assert (steps([end]), end.packets, end.reply_packets) == ([(DESTROY, TCP_CLOSE)], 3, 1)

    def test_a_closed_port(self, here, net, reader):
        """Forgotten at once, with one packet each way."""
        with pytest.raises(ConnectionRefusedError):
            connect(here, net.there, 81)
        found = events(reader, 2)
        assert steps(found) == [(NEW, SYN_SENT), (DESTROY, TCP_CLOSE)]
        assert (found[1].packets, found[1].reply_packets, found[1].status & IPS_SEEN_REPLY) == (1, 1, 0)
        assert found[1].stop_ns - found[1].start_ns < 10**9

    @pytest.mark.parametrize(("port", "why"), [(83, TimeoutError), (84, ConnectionRefusedError)])
    def test_nobody_answers(self, here, net, reader, port, why):
        """An ICMP error does not end it either: that is told when the kernel forgets it, after two minutes."""
        with pytest.raises(why):
            connect(here, net.there, port)
        assert steps(events(reader, 1)) == [(NEW, SYN_SENT)]
        assert reader.read() == []
        forget_all(here)
        (end,) = events(reader, 1)
        assert (steps([end]), end.reply_packets) == ([(DESTROY, SYN_SENT)], 0)

    @pytest.mark.skipif(shutil.which("nmap") is None, reason="needs nmap")
    def test_a_half_open_scan(self, here, net, reader, server):
        here.run("nmap", "-sS", "-n", "-Pn", "-p80,81", net.there)
        found = events(reader, 4)
        assert steps(each for each in found if each.port == 80) == [(NEW, SYN_SENT), (UPDATE, TCP_CLOSE)]
        assert steps(each for each in found if each.port == 81) == [(NEW, SYN_SENT), (DESTROY, TCP_CLOSE)]
        forget_all(here)
        (end,) = events(reader, 1)
        assert (steps([end]), end.packets, end.reply_packets) == ([(DESTROY, TCP_CLOSE)], 2, 1)

    @pytest.mark.skipif(shutil.which("nmap") is None, reason="needs nmap")
    def test_a_connection_that_began_without_a_syn(self, here, net, reader, server):
        """It is new with the state that it is taken for; the reset that answers it ends it."""
        here.run("nmap", "-sA", "-n", "-Pn", "-p80", net.there)
        assert steps(events(reader, 2)) == [(NEW, ESTABLISHED), (DESTROY, TCP_CLOSE)]


class TestOthers:
    @pytest.mark.parametrize("address", ["there", "there6"])
    def test_udp_that_is_answered(self, here, net, reader, server, address):
        with here.call(lambda: socket.socket(socket.AF_INET6 if "6" in address else socket.AF_INET, socket.SOCK_DGRAM)
        ) as client:  # fmt: skip
            client.settimeout(5)
            client.connect((getattr(net, address), 53))
            for _ in range(3):
                client.send(b"?")
                question, sender = server[1].recvfrom(10)
                server[1].sendto(question, sender)
                client.recv(10)
        found = events(reader, 2)
        assert steps(found) == [NEW, UPDATE]
        assert [bool(each.status & IPS_SEEN_REPLY) for each in found] == [False, True]
        forget_all(here)
        (end,) = events(reader, 1)
        assert (end.what, end.protocol, end.packets, end.reply_packets, end.tcp_state) == (DESTROY, UDP, 3, 3, None)

    def test_udp_that_nobody_wants(self, here, net, reader):
        net.send(here, net.there, 99)
        assert steps(events(reader, 1)) == [NEW]
        forget_all(here)
        (end,) = events(reader, 1)
        assert (end.what, end.packets, end.reply_packets) == (DESTROY, 1, 0)

    @pytest.mark.parametrize(("address", "protocol", "kind"), [("there", ICMP, 8), ("there6", ICMPV6, 128)])
    def test_ping(self, here, net, reader, address, protocol, kind):
        here.run("ping", "-c2", "-i0.2", getattr(net, address))
        found = events(reader, 2)
        assert [(each.what, each.protocol, each.icmp_type) for each in found] == [
            (NEW, protocol, kind),
            (UPDATE, protocol, kind),
        ]
        (entry,) = here.call(netfilter.connections)
        assert {each.key for each in found} == {flow_key(entry)}


def test_rewritten_destinations_and_zones(here, net, reader):
    """Zones, of both directions and of one; who really answers."""
    rules = """table ip nat {
        chain early {
            type filter hook output priority raw
            udp dport 1000 ct zone set 5
            udp dport 1001 ct original zone set 6
        }
        chain out { type nat hook output priority -100; udp dport 1002 dnat to 10.77.0.2:7777; }
    }"""
    here.run("nft", "-f", "-", input=rules)
    for port in (1000, 1001, 1002):
        net.send(here, "10.77.0.9", port)
    found = {each.port: each for each in events(reader, 3)}
    assert {port: each.zone for port, each in found.items()} == {1000: 5, 1001: 6, 1002: 0}
    assert (found[1000].reply_source, found[1000].reply_port) == (None, None)
    assert (found[1002].destination, found[1002].reply_source) == (bytes((10, 77, 0, 9)), bytes((10, 77, 0, 2)))
    assert found[1002].reply_port == 7777


class TestReader:
    @pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
    def test_this_machine_with_itself(self, here, net, reader, open_reader, address):
        everything = open_reader(loopback=True)
        net.send(here, address, 99)
        net.send(here, net.there, 98)
        assert [each.port for each in events(everything, 2)] == [99, 98]
        assert [each.port for each in events(reader, 1)] == [98]

    def test_at_most_so_many_at_once(self, here, net, reader):
        for port in range(1, 200):
            net.send(here, net.there, port)
        found = [reader.read(100), reader.read(100), reader.read()]
        assert [each.port for some in found for each in some] == list(range(1, 200))
        assert 100 <= len(found[0]) < 200

    def test_what_is_lost_is_counted(self, here, net, open_reader):
        """To an event; and what comes when there is room again is told."""
        reader = open_reader(room_bytes=1)
        for port in range(1, 300):
            net.send(here, net.there, port)
            net.send(here, "127.0.0.1", port)
        found = reader.read()
        assert 0 < len(found) < 299
        assert reader.lost == 299 - len(found)
        assert reader.overrun
        reader.overrun = False
        net.send(here, net.there, 4000)
        assert [each.port for each in events(reader, 1)] == [4000]
        assert not reader.overrun

    def test_what_began_before_anybody_listened(self, here, net, server, open_reader):
        """It ends without a word. A listener in any namespace counts, so this one tells of nothing for a while."""
        here.run("sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
        before = connect(here, net.there, 80)
        here.run("sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
        reader = open_reader()
        after = connect(here, net.there, 80)
        port = after.getsockname()[1]
        for client in (before, after):
            close_both(server[0], client)
        forget_all(here)
        assert {each.source_port for each in events(reader, 4)} == {port}

    def test_switched_off(self, here, net, reader):
        here.run("sysctl", "-qw", "net.netfilter.nf_conntrack_events=0")
        net.send(here, net.there, 1)
        here.call(procfs.tell_connections)
        net.send(here, net.there, 2)
        assert [each.port for each in events(reader, 1)] == [2]

    def test_a_setting_that_is_on_is_left(self, here):
        for value in ("1", "2"):
            here.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_events={value}")
            here.call(procfs.tell_connections)
            assert here.run("sysctl", "-n", "net.netfilter.nf_conntrack_events").stdout.strip() == value

    def test_times(self, here, net, reader):
        before = time.time_ns()
        net.send(here, net.there, 1)
        (began,) = events(reader, 1)
        forget_all(here)
        (end,) = events(reader, 1)
        assert before - 10**7 <= end.start_ns <= end.stop_ns <= time.time_ns() + 10**7
        # Only newer kernels tell when each event was.
        assert began.time_ns is None or before - 10**7 <= began.time_ns <= end.stop_ns


@pytest.mark.skipif(shutil.which("conntrack") is None, reason="needs conntrack (conntrack-tools)")
def test_the_same_as_conntrack_says(here, net, open_reader, server, tmp_path):
    reader = open_reader(states=EVERYTHING, loopback=True)
    with (tmp_path / "said").open("w") as said:
        command = here.command("conntrack", "-E", "-o", "id", "-b", str(8 << 20))
        with subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL) as process:
            try:
                net.wait_until(lambda: listeners(here) == 2, "conntrack listens")
                mix(here, net, server)
                found = reader.read()
                entries = here.call(netfilter.connections)
                # It loses what comes too fast for it.
                for some in (entries[at : at + 10] for at in range(0, len(entries), 10)):
                    here.call(lambda some=some: netfilter.cut(some))
                    found += reader.read()
                    count = len(found)
                    net.wait_until(lambda count=count: said_count(tmp_path / "said") >= count, "conntrack has said it")
            finally:
                process.terminate()
    lines = (tmp_path / "said").read_text().splitlines()
    ours = Counter(map(as_said, found))
    theirs = Counter(map(said_of, lines))
    # That a connection is assured and the like is what the reader's filter leaves out.
    assert ours == theirs - (theirs - ours)
    assert {key[0] for key in theirs - ours} <= {UPDATE}
    assert not {key for key in theirs - ours if key[1] == TCP}
    assert len(found) > 600
    assert (reader.lost, reader.unreadable) == (0, 0)


def listeners(space):
    table = space.call(Path("/proc/thread-self/net/netlink").read_text)
    return sum(words[1:4:2] == ["12", "00000007"] for words in map(str.split, table.splitlines()))


def said_count(path):
    # It flushes before it ends a line.
    return path.read_text().count("src=") // 2


def mix(here, net, server):
    """Connections of all kinds, a few hundred."""
    for number in range(40):
        for address in (net.there, net.there6):
            close_both(server[0], connect(here, address, 80))
            with contextlib.suppress(ConnectionRefusedError):
                connect(here, address, 81)
            net.send(here, address, 1000 + number)
            net.send(here, address, 53)
            question, sender = server[1].recvfrom(100)
            server[1].sendto(question, sender)
    for address in (net.there, net.there6, "127.0.0.1", "::1"):
        here.run("ping", "-c1", address)


def as_said(event):
    ends = [socket.inet_ntop(socket.AF_INET if len(each) == 4 else socket.AF_INET6, each)
            for each in (event.source, event.destination)]  # fmt: skip
    ports = (event.icmp_type, None) if event.icmp_type is not None else (event.source_port, event.port)
    counts = (event.packets, event.bytes, event.reply_packets, event.reply_bytes)
    state = STATES[event.tcp_state] if event.tcp_state is not None else None
    return (event.what, event.protocol, state, *ends, *ports, *counts, event.id)


STATES = {
    1: "SYN_SENT", 2: "SYN_RECV", 3: "ESTABLISHED", 4: "FIN_WAIT", 5: "CLOSE_WAIT", 6: "LAST_ACK", 7: "TIME_WAIT",
    8: "CLOSE", 9: "SYN_SENT2",
}  # fmt: skip


def said_of(line):
    what, protocol, state = re.match(r" *\[(\w+)\] \w+ +(\d+)(?: \d+)?(?: ([A-Z]\w+))?", line).groups()
    fields = {}
    for name, value in re.findall(r"([a-z-]+)=(\S+)", line):
        fields.setdefault(name, []).append(value)
    numbers = [int(fields[name][at]) if name in fields else None
               for name, at in (("packets", 0), ("bytes", 0), ("packets", 1), ("bytes", 1))]  # fmt: skip
    ports = (
        (int(fields["type"][0]), None)
        if "type" in fields
        else (*(int(fields[name][0]) for name in ("sport", "dport")),)
    )
    ends = (fields["src"][0], fields["dst"][0])
    return (WHAT[what], int(protocol), state, *ends, *ports, *numbers, int(fields["id"][-1]))
