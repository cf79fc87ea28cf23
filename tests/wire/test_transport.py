from __future__ import annotations

import struct

import pytest

from pfw.wire.draft import SNAPPED
from pfw.wire.packet import decode, in_order


def raw(frame, size=None):
    return decode(101, frame, len(frame) if size is None else size)


def test_tcp(make):
    packet = raw(make.ipv4(make.tcp(b"x", flags=0xD2, options=b"\2\4\5\xb4")))
    assert (packet.source_port, packet.port, packet.tcp_flags) == (40000, 443, 0xD2)
    assert packet.key == make.source + make.destination + struct.pack(">HH", 40000, 443)
    assert in_order(packet)


@pytest.mark.parametrize(
    ("segment", "anomaly"),
    [
        ({"words": 4}, "hlen_too_small"),
        ({"words": 0}, "hlen_too_small"),
        ({"words": 6}, "invalid_optlen"),
        ({"words": 15}, "invalid_optlen"),
    ],
)
def test_a_tcp_header_that_lies_is_undecodable(make, segment, anomaly):
    packet = raw(make.ipv4(make.tcp(**segment)))
    assert (packet.undecodable, packet.key, packet.anomalies) == (True, None, (f"decoder.tcp.{anomaly}",))
    assert packet.port == 443


SYN_OPTIONS = [
    (b"\2\4\5\xb4\4\2\x08\x0a" + bytes(8) + b"\1\3\3\7", ()),
    (b"\0\xff\xff\xff", ()),
    (b"\x22\x02\1\1", ()),
    (b"\2\3\5\xb4", ("opt_invalid_len",)),
    (b"\2\1\5\xb4", ("opt_invalid_len",)),
    (b"\1\1\2\4", ("opt_invalid_len",)),
    (b"\1\1\1\2", ("opt_invalid_len",)),
    (b"\2\4\5\xb4\2\4\5\xb4", ("opt_duplicate",)),
]


@pytest.mark.parametrize(("options", "anomalies"), SYN_OPTIONS)
def test_tcp_options_are_checked_on_syn(make, options, anomalies):
    packet = raw(make.ipv4(make.tcp(flags=2, options=options)))
    assert packet.anomalies == tuple(f"decoder.tcp.{name}" for name in anomalies)
    assert packet.key is not None
    assert in_order(raw(make.ipv4(make.tcp(flags=16, options=options))))


def test_tcp_options_cut_by_the_capture_are_not_judged(make):
    frame = make.ipv4(make.tcp(flags=2, options=b"\2\4\5\xb4"))
    assert in_order(raw(frame[:42], len(frame)))


def test_udp_lengths(make):
    assert in_order(raw(make.ipv4(make.udp(b"abc"), 17)))
    for length in (0, 7):
        packet = raw(make.ipv4(make.udp(b"abc", length=length), 17))
        assert (packet.undecodable, packet.anomalies) == (True, ("decoder.udp.len_invalid",))
    packet = raw(make.ipv4(make.udp(b"abc", length=12), 17))
    assert (packet.undecodable, packet.anomalies) == (True, ("decoder.udp.pkt_too_small",))
    packet = raw(make.ipv4(make.udp(b"abc", length=10), 17))
    assert (packet.undecodable, packet.anomalies) == (False, ("decoder.udp.hlen_invalid",))
    assert packet.key == b"\x11" + make.source + make.destination + struct.pack(">HH", 40000, 53)


@pytest.mark.parametrize(
    ("protocol", "size", "name"), [(132, 12, "sctp"), (33, 12, "dccp"), (136, 8, "udp"), (6, 20, "tcp")]
)
def test_short_headers(make, protocol, size, name):
    header = make.tcp()[:size]
    packet = raw(make.ipv4(header, protocol))
    assert (packet.source_port, packet.port) == (40000, 443)
    assert in_order(packet) == (protocol in (6, 132))
    packet = raw(make.ipv4(header[:-1], protocol))
    assert (packet.undecodable, packet.anomalies) == (True, (f"decoder.{name}.pkt_too_small",))
    packet = raw(make.ipv4(header, protocol)[:-1], 20 + size)
    assert (packet.undecodable, packet.anomalies) == (True, (SNAPPED,))


@pytest.mark.parametrize("protocol", [2, 4, 41, 47, 50, 51, 89, 112, 255])
def test_protocols_without_ports_have_a_key_of_addresses(make, protocol):
    packet = raw(make.ipv4(b"", protocol))
    assert packet.key == bytes((protocol,)) + make.source + make.destination + bytes(4)
    assert (packet.port, packet.undecodable, packet.anomalies) == (None, False, ())
