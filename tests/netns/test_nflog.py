"""Packets that rules of a real kernel log."""

import contextlib
import errno
import select
import socket
import time

import pytest

from pfw.drivers import netlink, nflog
from pfw.model.packet import UDP

RULES = """table inet pfw {
    chain in {
        type filter hook input priority filter;
        udp dport 6000 log prefix "pfw 17 x" group 7
        udp dport 6001 log prefix "other" group 8
    }
    chain out {
        type filter hook output priority filter;
        udp dport 6002 meta mark set 0x2a log group 7
    }
}
"""


@pytest.fixture
def here(pair):
    pair.here.run("nft", "-f", "-", input=RULES)
    return pair.here


@pytest.fixture
def reader(here):
    with contextlib.closing(here.call(lambda: nflog.LogReader([7, 8]))) as reader:
        yield reader


def wait(reader, count):
    found, deadline = [], time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        select.select([reader], [], [], 0.2)
        found += reader.read()
    return found


def test_nothing_yet(reader):
    assert reader.read() == []
    assert reader.lost == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_that_came_in(reader, pair, net, family):
    net.send(pair.there, net.here if family == 4 else net.here6, 6000, b"hello")
    (packet,) = wait(reader, 1)
    assert (packet.group, packet.prefix, packet.hook, packet.sequence) == (7, "pfw 17 x", 1, 0)
    assert packet.payload[0] >> 4 == family
    assert packet.payload.endswith(b"hello")
    assert packet.ethertype == {4: 0x0800, 6: 0x86DD}[family]
    assert reader.interface(packet.in_index) == net.cable
    assert (packet.out_index, packet.uid, packet.mark) == (None, None, 0)
    assert packet.time is None or abs(packet.time - time.time()) < 10


def test_a_packet_that_goes_out(reader, here, net):
    net.send(here, net.there, 6002)
    (packet,) = wait(reader, 1)
    assert (packet.hook, packet.prefix, packet.uid, packet.gid, packet.mark) == (3, "", 0, 0, 0x2A)
    assert reader.interface(packet.out_index) == net.cable
    assert packet.payload[9] == UDP


def test_the_payload_is_cut(here, pair, net):
    with contextlib.closing(here.call(lambda: nflog.LogReader([7], copy_bytes=40))) as reader:
        net.send(pair.there, net.here, 6000, bytes(500))
        (packet,) = wait(reader, 1)
    assert len(packet.payload) == 40
    assert int.from_bytes(packet.payload[2:4], "big") == 528


def test_several_groups(reader, pair, net):
    for number in range(200):
        net.send(pair.there, net.here, 6000 + number % 2, b"%d" % number)
    found = wait(reader, 200)
    assert sorted(int(each.payload[28:]) for each in found) == list(range(200))
    for group, prefix in ((7, "pfw 17 x"), (8, "other")):
        own = [each for each in found if each.group == group]
        assert [each.sequence for each in own] == list(range(100))
        assert {each.prefix for each in own} == {prefix}
    assert reader.lost == 0


def test_a_new_name_of_an_interface_is_seen(reader, pair, net):
    net.send(pair.there, net.here, 6000)
    (packet,) = wait(reader, 1)
    assert reader.interface(packet.in_index) == net.cable
    pair.here.run("ip", "link", "set", net.cable, "down")
    pair.here.run("ip", "link", "set", net.cable, "name", "uplink")
    assert reader.read() == []
    assert reader.interface(packet.in_index) == "uplink"
    assert reader.interface(4711) == "#4711"


def flood(there, to, count):
    def send():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(count):
                sock.sendto(b"x", to)

    there.call(send)


def test_a_burst_is_held(reader, pair, net):
    flood(pair.there, (net.here, 6000), 10_000)
    assert len(wait(reader, 10_000)) == 10_000
    assert reader.lost == 0


def test_what_is_lost_is_counted(here, pair, net, monkeypatch):
    monkeypatch.setattr(nflog, "RECEIVE_BUFFER_BYTES", 1 << 15)
    with contextlib.closing(here.call(lambda: nflog.LogReader([7]))) as reader:
        flood(pair.there, (net.here, 6000), 5000)
        found = wait(reader, 1)
        assert 0 < len(found) < 5000
        net.send(pair.there, net.here, 6000, b"last")
        while found[-1].payload[-4:] != b"last":
            more = wait(reader, 1)
            assert more
            found += more
        assert len(found) + reader.lost == 5001


def test_a_group_that_somebody_else_reads(reader, here):
    with pytest.raises(OSError, match="group 8: somebody else reads it") as error:
        here.call(lambda: nflog.LogReader([9, 8]))
    assert error.value.errno == errno.EBUSY
    here.call(lambda: nflog.LogReader([9])).close()


def test_a_group_is_free_again_when_it_is_closed(here):
    here.call(lambda: nflog.LogReader([7])).close()
    here.call(lambda: nflog.LogReader([7])).close()


def test_a_kernel_that_complains_of_a_full_buffer(here, pair, net, monkeypatch):
    monkeypatch.setattr(nflog, "RECEIVE_BUFFER_BYTES", 1 << 15)
    monkeypatch.setattr(netlink, "_NETLINK_NO_ENOBUFS", 4711)
    with contextlib.closing(here.call(lambda: nflog.LogReader([7]))) as reader:
        flood(pair.there, (net.here, 6000), 5000)
        found = wait(reader, 1)
        assert 0 < len(found) < 5000
        assert reader.lost >= 1
