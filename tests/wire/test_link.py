from __future__ import annotations

import struct

import pytest

from pfw.model.packet import Arp
from pfw.wire.draft import SNAPPED
from pfw.wire.link import MAX_VLANS
from pfw.wire.packet import decode

ARP_BODY = (
    struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)
    + b"\x02\0\0\0\0\x01"
    + bytes((10, 0, 0, 1))
    + bytes(6)
    + bytes((10, 0, 0, 2))
)


def whole(linktype, frame):
    return decode(linktype, frame, len(frame))


def test_ethernet_gives_addresses_and_no_vlan(make):
    packet = whole(1, make.ethernet(make.ipv4(make.tcp())))
    assert packet.destination_mac == b"\x02\0\0\0\0\x02"
    assert packet.source_mac == b"\x02\0\0\0\0\x01"
    assert packet.vlans == ()
    assert packet.protocol == 6


def test_tags_are_taken_off_outermost_first(make):
    tags = ((0x88A8, 100), (0x8100, 0xE000 | 7), (0x9100, 4095))
    packet = whole(1, make.ethernet(make.ipv4(make.tcp()), 0x0800, tags))
    assert packet.vlans == (100, 7, 4095)
    assert packet.key == make.source + make.destination + struct.pack(">HH", 40000, 443)
    assert packet.anomalies == ()


def test_tags_are_bounded(make):
    inside = make.ipv4(make.tcp())
    assert whole(1, make.ethernet(inside, 0x0800, ((0x8100, 1),) * MAX_VLANS)).key is not None
    packet = whole(1, make.ethernet(inside, 0x0800, ((0x8100, 1),) * (MAX_VLANS + 1)))
    assert packet.undecodable
    assert packet.anomalies == ("decoder.vlan.too_many_layers",)


@pytest.mark.parametrize(
    ("linktype", "frame", "anomaly"),
    [
        (1, bytes(13), "decoder.ethernet.pkt_too_small"),
        (1, bytes(12) + b"\x81\x00\0\1\x08", "decoder.vlan.header_too_small"),
        (113, bytes(15), "decoder.sll.pkt_too_small"),
        (276, bytes(19), "decoder.sll2.pkt_too_small"),
        (0, bytes(3), "decoder.ltnull.pkt_too_small"),
        (108, bytes(3), "decoder.ltnull.pkt_too_small"),
        (101, b"", "decoder.ipraw.invalid_ip_version"),
        (101, b"\x50" + bytes(40), "decoder.ipraw.invalid_ip_version"),
        (228, b"\x60" + bytes(40), "decoder.ipv4.wrong_ip_version"),
        (229, b"\x45" + bytes(40), "decoder.ipv6.wrong_ip_version"),
        (1, bytes(12) + b"\x88\x64\x11\0\0\1\0", "decoder.pppoe.pkt_too_small"),
        (1, bytes(12) + b"\x88\x64\x11\0\0\1\0\x40\0\x21", "decoder.pppoe.pkt_too_small"),
        (1, bytes(12) + b"\x88\x64\x21\0\0\1\0\x02\0\x21", "decoder.pppoe.wrong_code"),
        (1, bytes(12) + b"\x88\x64\x11\1\0\1\0\x02\0\x21", "decoder.pppoe.wrong_code"),
    ],
)
def test_a_broken_link_header_is_undecodable(linktype, frame, anomaly):
    packet = whole(linktype, frame)
    assert packet.undecodable
    assert packet.key is None
    assert packet.anomalies == (anomaly,)


@pytest.mark.parametrize(
    ("ethertype", "name"),
    [
        (0x0026, "llc"),
        (0x05DC, "llc"),
        (0x8847, "mpls"),
        (0x8863, "pppoe discovery"),
        (0x88CC, "lldp"),
        (0x88E1, "ethertype 0x88e1"),
    ],
)
def test_what_is_no_ip_has_a_name(make, ethertype, name):
    packet = whole(1, make.ethernet(bytes(46), ethertype))
    assert (packet.not_ip, packet.undecodable, packet.anomalies, packet.key) == (name, False, (), None)


@pytest.mark.parametrize("linktype", [105, 127, 147, 65535, -1, 1 << 70])
def test_an_unknown_link_type_is_no_ip(linktype):
    assert whole(linktype, bytes(60)).not_ip == f"linktype {linktype}"


@pytest.mark.parametrize("version", [4, 6])
def test_every_link_type_leads_to_the_same_packet(make, version):
    inside = make.ipv4(make.udp(b"abc"), 17) if version == 4 else make.ipv6(make.udp(b"abc"), 17)
    ethertype = b"\x08\0" if version == 4 else b"\x86\xdd"
    session = struct.pack(">BBHHH", 0x11, 0, 1, 2 + len(inside), 0x21 if version == 4 else 0x57)
    families = (2,) if version == 4 else (10, 24, 28, 30)
    frames = [
        (1, make.ethernet(inside, int.from_bytes(ethertype))),
        (113, b"\0\0\0\1\0\6" + b"\x02\0\0\0\0\x01\0\0" + ethertype + inside),
        (276, ethertype + bytes(6) + b"\0\1\0\6" + b"\x02\0\0\0\0\x01\0\0" + inside),
        (228 if version == 4 else 229, inside),
        *((linktype, inside) for linktype in (12, 14, 101)),
        *((108, struct.pack(">I", family) + inside) for family in families),
        *((0, struct.pack(order + "I", family) + inside) for family in families for order in "<>"),
        (1, make.ethernet(session + inside + b"pad", 0x8864)),
    ]  # fmt: skip
    keys = {whole(linktype, frame).key for linktype, frame in frames}
    addresses = make.source + make.destination if version == 4 else make.source6 + make.destination6
    assert keys == {b"\x11" + addresses + struct.pack(">HH", 40000, 53)}
    assert whole(*frames[1]).source_mac == whole(*frames[2]).source_mac == b"\x02\0\0\0\0\x01"


def test_other_families_and_ppp_protocols_are_no_ip(make):
    assert whole(0, b"\x07\0\0\0" + bytes(20)).not_ip == "address family 7"
    assert whole(108, b"\0\0\0\x07" + bytes(20)).not_ip == "address family 7"
    assert whole(1, make.ethernet(b"\x11\0\0\1\0\4\xc0\x21\0\0", 0x8864)).not_ip == "ppp 0xc021"


def test_arp_is_read(make):
    packet = whole(1, make.ethernet(ARP_BODY + bytes(18), 0x0806))
    assert packet.not_ip == "arp"
    assert packet.anomalies == ()
    assert packet.arp == Arp(1, b"\x02\0\0\0\0\x01", bytes((10, 0, 0, 1)), bytes(6), bytes((10, 0, 0, 2)))


@pytest.mark.parametrize(
    ("at", "byte", "anomaly"),
    [
        (1, 6, "unsupported_hardware"),
        (2, 0x86, "unsupported_protocol"),
        (4, 8, "invalid_hardware_size"),
        (5, 16, "invalid_protocol_size"),
        (7, 99, "unsupported_opcode"),
    ],
)
def test_a_broken_arp_is_still_arp(make, at, byte, anomaly):
    packet = whole(1, make.ethernet(ARP_BODY[:at] + bytes((byte,)) + ARP_BODY[at + 1 :], 0x0806))
    assert packet.anomalies == (f"decoder.arp.{anomaly}",)
    assert packet.not_ip == "arp"
    assert not packet.undecodable
    assert (packet.arp is not None) == (anomaly == "unsupported_opcode")


def test_a_short_arp_lies_and_a_snapped_one_does_not(make):
    frame = make.ethernet(ARP_BODY[:-1], 0x0806)
    assert whole(1, frame).anomalies == ("decoder.arp.pkt_too_small",)
    assert decode(1, frame, 60).anomalies == (SNAPPED,)
    assert decode(1, frame[:16], 60).anomalies == (SNAPPED,)
