"""Packets that wait in a queue of a real kernel, given to it by a rule that was made without nft."""

import contextlib
import errno
import json
import os
import select
import socket
import time

import pytest

from pfw.drivers import netfilter, netlink, nfqueue
from pfw.drivers.nfqueue import Dropped, QueueReader

IN, OUT, FREE = 6000, 6002, 6004
QUEUE = 12
RULES = f"""table inet pfw {{
    counter marked {{ }}
    counter unmarked {{ }}
    chain ask {{ tcp dport 1 drop; udp dport 1 accept; }}
    chain in {{ type filter hook input priority filter; udp dport {IN} goto ask; }}
    chain out {{ type filter hook output priority filter; udp dport {OUT} meta mark set 0x2a goto ask; }}
    chain in_later {{
        type filter hook input priority filter + 10;
        udp dport {IN} meta mark 0x77 counter name marked
        udp dport {IN} meta mark != 0x77 counter name unmarked
    }}
    chain out_later {{
        type filter hook output priority filter + 10;
        udp dport {OUT} meta mark 0x77 counter name marked
        udp dport {OUT} meta mark != 0x77 counter name unmarked
    }}
}}
"""
UID, GID = 4711, 4712
SO_SNDBUFFORCE = 32


def native(space):
    """Whether nft can make a rule with the kernel's own expression."""
    rule = f"table inet probe {{ chain c {{ queue num {QUEUE}; }}; }}"
    possible = space.run("nft", "-f", "-", input=rule, check=False).returncode == 0
    if possible:
        space.run("nft", "delete", "table", "inet", "probe")
    return possible


@pytest.fixture
def here(pair):
    pair.here.run("nft", "-f", "-", input=RULES)
    return pair.here


@pytest.fixture
def queueing(here):
    here.call(lambda: netfilter.queue_chain("pfw", "ask", QUEUE))
    return here


@pytest.fixture
def reader(queueing):
    with contextlib.closing(queueing.call(lambda: QueueReader(QUEUE))) as reader:
        yield reader


class Way:
    """A way of packets that leads through the queue: by one hook, with one family."""

    def __init__(self, pair, net, family, hook):
        self.family, self.hook, self.cable = family, hook, net.cable
        self.there = (net.there, net.there6)[family == 6]
        self.sender, self.receiver = (pair.there, pair.here) if hook == 1 else (pair.here, pair.there)
        self.address = {(1, 4): net.here, (1, 6): net.here6, (3, 4): net.there, (3, 6): net.there6}[hook, family]
        self.port = IN if hook == 1 else OUT
        self._open = contextlib.ExitStack()
        self.arriving = self._socket(self.receiver)
        self.arriving.bind((self.address, self.port))
        self.free = self._socket(self.receiver)
        self.free.bind((self.address, FREE))
        self.leaving = self._socket(self.sender)
        # What waits at the output still fills the buffer of the socket that sent it.
        self.leaving.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        for each in (self.arriving, self.free):
            each.settimeout(5)

    def _socket(self, space):
        kind = socket.AF_INET if self.family == 4 else socket.AF_INET6
        return self._open.enter_context(space.call(lambda: socket.socket(kind, socket.SOCK_DGRAM)))

    def send(self, payload, times=1):
        for _ in range(times):
            # The kernel says EPERM to the sender of what it drops at the output.
            with contextlib.suppress(PermissionError):
                self.leaving.sendto(payload, (self.address, self.port))

    def arrived(self):
        """What has arrived up to now: a packet that is asked of nobody overtakes none that passes."""
        self.leaving.sendto(b"free", (self.address, FREE))
        assert self.free.recv(100) == b"free"
        found = []
        self.arriving.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.arriving.recv(2000))
        self.arriving.settimeout(5)
        return found

    def close(self):
        self._open.close()


@pytest.fixture(params=[(4, 1), (6, 1), (4, 3), (6, 3)], ids=["in4", "in6", "out4", "out6"])
def way(request, pair, net):
    with contextlib.closing(Way(pair, net, *request.param)) as way:
        yield way


@pytest.fixture
def out4(pair, net):
    with contextlib.closing(Way(pair, net, 4, 3)) as way:
        yield way


def wait(reader, count):
    found, deadline = [], time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        select.select([reader], [], [], 0.2)
        found += reader.read()
    return found


def seen(space):
    """How many packets the later chains saw with the mark 0x77 and without."""
    counters = space.call(lambda: netfilter.read_counters("pfw"))
    return counters["marked"][0], counters["unmarked"][0]


def test_nothing_yet(reader, queueing):
    assert reader.read() == []
    assert (reader.lost, reader.refused) == (0, 0)
    assert queueing.call(reader.dropped) == Dropped(0, 0)


def test_what_a_packet_tells(reader, way):
    way.send(b"hello")
    (packet,) = wait(reader, 1)
    assert (packet.queue, packet.id, packet.hook) == (QUEUE, 1, way.hook)
    assert packet.hw_protocol == {4: 0x0800, 6: 0x86DD}[way.family]
    assert packet.payload[0] >> 4 == way.family
    assert packet.payload.endswith(b"hello")
    assert packet.full_bytes is None
    index = packet.in_index if way.hook == 1 else packet.out_index
    assert reader.interface(index) == way.cable
    assert (packet.in_index is None, packet.out_index is None) == (way.hook == 3, way.hook == 1)
    expected = (None, None, 0) if way.hook == 1 else (0, 0, 0x2A)
    assert (packet.uid, packet.gid, packet.mark) == expected


def test_whose_socket_it_is(reader, out4, here):
    who = (f"--reuid={UID}", f"--regid={GID}", "--clear-groups")
    here.run("setpriv", *who, "bash", "-c", f"echo x > /dev/udp/{out4.address}/{OUT}")
    (packet,) = wait(reader, 1)
    assert (packet.uid, packet.gid) == (UID, GID)


def test_the_verdicts(reader, way):
    for payload in (b"1", b"2", b"3"):
        way.send(payload)
    first, second, third = wait(reader, 3)
    assert [first.id, second.id, third.id] == [1, 2, 3]
    assert way.arrived() == []
    reader.verdict(second.id, accept=False)
    reader.verdict(third.id, accept=True)
    assert way.arrived() == [b"3"]
    reader.verdict(first.id, accept=True)
    assert way.arrived() == [b"1"]
    assert reader.read() == []
    assert (reader.lost, reader.refused) == (0, 0)


def test_a_mark_is_seen_by_a_later_chain(reader, way, here):
    way.send(b"marked")
    way.send(b"unmarked")
    marked, unmarked = wait(reader, 2)
    reader.verdict(marked.id, accept=True, mark=0x77)
    assert seen(here) == (1, 0)
    reader.verdict(unmarked.id, accept=True)
    assert seen(here) == (1, 1)
    assert way.arrived() == [b"marked", b"unmarked"]


def test_a_verdict_on_a_packet_that_is_not_there(reader, out4):
    out4.send(b"x")
    (packet,) = wait(reader, 1)
    reader.verdict(packet.id, accept=True)
    reader.verdict(packet.id, accept=False)
    reader.verdict(packet.id + 1, accept=True)
    assert reader.read() == []
    assert reader.refused == 2
    assert out4.arrived() == [b"x"]


def test_the_payload_is_cut(queueing, out4):
    with contextlib.closing(queueing.call(lambda: QueueReader(QUEUE, copy_bytes=40))) as reader:
        out4.send(bytes(500))
        (packet,) = wait(reader, 1)
        assert (len(packet.payload), packet.full_bytes) == (40, 528)
        reader.verdict(packet.id, accept=True)
    assert out4.arrived() == [bytes(500)]


def test_nothing_passes_without_a_reader(queueing, way):
    way.send(b"x", times=5)
    assert way.arrived() == []


def test_what_waits_when_the_reader_goes_is_dropped(queueing, way):
    with contextlib.closing(queueing.call(lambda: QueueReader(QUEUE))) as reader:
        way.send(b"x")
        assert len(wait(reader, 1)) == 1
    way.send(b"y")
    assert way.arrived() == []


def test_a_full_queue(queueing, way):
    with contextlib.closing(queueing.call(lambda: QueueReader(QUEUE, length_max=3))) as reader:
        way.send(b"x", times=10)
        packets = wait(reader, 3)
        assert way.arrived() == []
        assert queueing.call(reader.dropped) == Dropped(queue_full=7, buffer_full=0)
        assert reader.read() == []
        for packet in packets:
            reader.verdict(packet.id, accept=True)
        assert way.arrived() == [b"x"] * 3
        assert reader.lost == 0


@pytest.mark.parametrize("complains", [False, True])
def test_a_full_buffer(queueing, out4, monkeypatch, complains):
    monkeypatch.setattr(nfqueue, "RECEIVE_BUFFER_BYTES", 1 << 15)
    if complains:
        monkeypatch.setattr(netlink, "_NETLINK_NO_ENOBUFS", 4711)
    with contextlib.closing(queueing.call(lambda: QueueReader(QUEUE))) as reader:
        out4.send(b"x", times=1000)
        packets = wait(reader, 1)
        while more := reader.read():
            packets += more
        assert 0 < len(packets) < 1000
        assert queueing.call(reader.dropped) == Dropped(queue_full=0, buffer_full=1000 - len(packets))
        for packet in packets:
            reader.verdict(packet.id, accept=True)
        out4.send(b"last")
        packets += (last := wait(reader, 1))
        reader.verdict(last[0].id, accept=True)
        assert len(packets) + reader.lost == 1001 + complains
        assert out4.arrived() == [b"x"] * (len(packets) - 1) + [b"last"]


def test_a_flood_is_read_in_parts(reader, out4):
    out4.send(b"x", times=600)
    sizes = []
    while found := reader.read():
        sizes.append(len(found))
    assert sizes == [256, 256, 88]
    assert reader.lost == 0


def test_a_queue_that_somebody_else_reads(reader, here):
    with pytest.raises(OSError, match=f"queue {QUEUE}: somebody else reads it") as error:
        here.call(lambda: QueueReader(QUEUE))
    assert error.value.errno == errno.EBUSY
    here.call(lambda: QueueReader(QUEUE + 1)).close()


def test_a_queue_is_free_again_when_it_is_closed(here):
    here.call(lambda: QueueReader(QUEUE)).close()
    here.call(lambda: QueueReader(QUEUE)).close()


def test_without_privileges(here):
    def unprivileged():
        os.seteuid(UID)
        try:
            QueueReader(QUEUE)
        finally:
            os.seteuid(0)

    with pytest.raises(PermissionError, match=f"queue {QUEUE}: Operation not permitted"):
        here.call(unprivileged)


def test_the_counters_of_another_namespace(reader, pair):
    with pytest.raises(FileNotFoundError, match=f"queue {QUEUE}: the kernel does not list it"):
        pair.there.call(reader.dropped)


def chain_of(space):
    listing = json.loads(space.run("nft", "-j", "list", "chain", "inet", "pfw", "ask").stdout)["nftables"]
    return [item["rule"]["expr"] for item in listing if "rule" in item]


def test_a_chain_that_queues_has_one_rule(here):
    way = here.call(lambda: netfilter.queue_chain("pfw", "ask", QUEUE))
    assert way == ("queue" if native(here) else "xtables")
    first = here.call(lambda: netfilter.read_rules("pfw", ["ask"])["ask"])
    assert here.call(lambda: netfilter.queue_chain("pfw", "ask", QUEUE)) == way
    second = here.call(lambda: netfilter.read_rules("pfw", ["ask"])["ask"])
    assert len(first) == len(second) == 1
    if way == "queue":
        assert chain_of(here) == [[{"queue": {"num": QUEUE}}]]


def test_a_chain_that_is_closed(reader, way, here):
    way.send(b"waits")
    (packet,) = wait(reader, 1)
    here.call(lambda: netfilter.close_chain("pfw", "ask"))
    assert chain_of(here) == [[{"drop": None}]]
    way.send(b"x")
    assert way.arrived() == []
    assert reader.read() == []
    reader.verdict(packet.id, accept=True)
    assert way.arrived() == [b"waits"]


@pytest.mark.parametrize("change", [lambda t, c: netfilter.queue_chain(t, c, 1), netfilter.close_chain])
@pytest.mark.parametrize("place", [("pfw", "nowhere"), ("nowhere", "ask")])
def test_a_chain_that_is_not_there(here, change, place):
    with pytest.raises(FileNotFoundError, match=f"table {place[0]}, chain {place[1]}: No such file"):
        here.call(lambda: change(*place))
    assert len(chain_of(here)) == 2
