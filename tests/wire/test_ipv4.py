from __future__ import annotations

import pytest

from pfw.model.packet import Fragment
from pfw.wire.draft import SNAPPED
from pfw.wire.packet import decode, in_order


def raw(frame, size=None):
    return decode(101, frame, len(frame) if size is None else size)


def test_a_plain_packet(make):
    packet = raw(make.ipv4(make.udp(b"x"), 17, ttl=3))
    assert (packet.source, packet.destination, packet.protocol, packet.ttl) == (make.source, make.destination, 17, 3)
    assert (packet.source_port, packet.port) == (40000, 53)
    assert packet.fragment is None
    assert in_order(packet)


@pytest.mark.parametrize(
    ("changes", "anomaly"),
    [
        ({"first": 0x44}, "hlen_too_small"),
        ({"first": 0x40}, "hlen_too_small"),
        ({"first": 0x4F, "total": 40}, "iplen_smaller_than_hlen"),
        ({"total": 19}, "iplen_smaller_than_hlen"),
        ({"total": 41}, "trunc_pkt"),
        ({"total": 65535}, "trunc_pkt"),
    ],
)
def test_lies_about_lengths_are_undecodable(make, changes, anomaly):
    packet = raw(make.ipv4(make.tcp(), **changes))
    assert packet.undecodable
    assert packet.key is None
    assert packet.anomalies == (f"decoder.ipv4.{anomaly}",)
    assert packet.source == make.source


def test_a_header_that_is_not_all_there(make):
    frame = make.ipv4(make.tcp())
    assert raw(frame[:19]).anomalies == ("decoder.ipv4.pkt_too_small",)
    assert raw(frame[:19], len(frame)).anomalies == (SNAPPED,)
    assert raw(frame[:19], len(frame)).undecodable


def test_a_snapped_payload_is_in_order(make):
    frame = make.ipv4(make.tcp(b"payload"))
    assert in_order(raw(frame[:40], len(frame)))


def test_padding_behind_the_packet_is_no_part_of_it(make):
    assert in_order(raw(make.ipv4(make.udp(), 17) + bytes(18)))


def test_length_zero_is_what_a_sending_host_sees(make):
    frame = make.ipv4(make.tcp(b"x" * 3000), total=0)
    assert in_order(raw(frame))


def test_fragments(make):
    segment = make.udp(b"x" * 24)
    first = raw(make.ipv4(segment[:16], 17, fragment=0x2000))
    assert first.fragment == Fragment(7, 0, True, 16)
    assert first.key is not None
    assert first.anomalies == ()
    assert not in_order(first)
    later = raw(make.ipv4(segment[16:], 17, fragment=0x0002))
    assert later.fragment == Fragment(7, 16, False, 16)
    assert (later.key, later.protocol, later.source, later.undecodable) == (None, 17, make.source, False)
    assert later.anomalies == ()


def test_a_first_fragment_too_small_for_its_transport_header(make):
    packet = raw(make.ipv4(make.tcp()[:8], fragment=0x2000))
    assert packet.key is None
    assert not packet.undecodable
    assert packet.anomalies == ("decoder.tcp.pkt_too_small",)


def test_a_fragment_beyond_the_largest_packet(make):
    packet = raw(make.ipv4(bytes(64), 1, fragment=0x1FFF))
    assert packet.undecodable
    assert packet.anomalies == ("decoder.ipv4.frag_pkt_too_large",)


def test_the_reserved_bit_makes_no_fragment(make):
    assert raw(make.ipv4(make.tcp(), fragment=0x8000)).fragment is None


@pytest.mark.parametrize(
    ("options", "anomalies"),
    [
        (b"\x94\x04\0\0", ()),
        (b"\1\1\1\0", ()),
        (b"\0\xff\xff\xff", ()),
        (b"\x07\x07\x04\0\0\0\0\0", ()),
        (b"\x07\x07\x02\0\0\0\0\0", ("opt_malformed",)),
        (b"\x83\x01\x04\0", ("opt_invalid_len",)),
        (b"\x83\x09\x04\0", ("opt_invalid_len",)),
        (b"\1\1\1\x83", ("opt_invalid_len",)),
        (b"\x94\x03\0\0", ("opt_invalid_len",)),
        (b"\x1e\x04\0\0", ("opt_unknown",)),
        (b"\x94\x04\0\0\x94\x04\0\0", ("opt_duplicate",)),
    ],
)
def test_options(make, options, anomalies):
    packet = raw(make.ipv4(make.tcp(), options=options))
    assert packet.anomalies == tuple(f"decoder.ipv4.{name}" for name in anomalies)
    assert packet.key is not None
    assert in_order(packet) == (not anomalies)


def test_icmpv6_does_not_belong_here(make):
    packet = raw(make.ipv4(make.icmp(128), 58))
    assert packet.anomalies == ("decoder.ipv4.icmpv6",)
    assert not packet.undecodable
