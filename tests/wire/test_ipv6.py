from __future__ import annotations

import struct

import pytest

from pfw.model.packet import AH, Fragment
from pfw.wire.draft import SNAPPED
from pfw.wire.ipv6 import MAX_EXTENSIONS
from pfw.wire.packet import decode, in_order

ALERT = b"\x05\x02\0\0\1\0"
PADDING = b"\1\4\0\0\0\0"


def raw(frame, size=None):
    return decode(229, frame, len(frame) if size is None else size)


def options(following, body=ALERT):
    return bytes((following, (len(body) + 2) // 8 - 1)) + body


def routing(following, kind=4):
    return bytes((following, 0, kind, 0)) + bytes(4)


def fragment(following, offset=0, more=True, reserved=0):
    return struct.pack(">BBHI", following, reserved, offset | more, 9)


def test_a_plain_packet(make):
    packet = raw(make.ipv6(make.tcp(b"x"), hops=7))
    assert (packet.source, packet.destination, packet.protocol, packet.ttl) == (make.source6, make.destination6, 6, 7)
    assert packet.key == make.source6 + make.destination6 + struct.pack(">HH", 40000, 443)
    assert in_order(packet)


def test_lengths(make):
    frame = make.ipv6(make.tcp())
    assert raw(frame[:39]).anomalies == ("decoder.ipv6.pkt_too_small",)
    assert raw(frame[:39], 60).anomalies == (SNAPPED,)
    assert raw(make.ipv6(make.tcp(), length=21)).anomalies == ("decoder.ipv6.trunc_pkt",)
    assert raw(make.ipv6(make.tcp(), length=0)).anomalies == ("decoder.tcp.pkt_too_small",)
    assert in_order(raw(make.ipv6(make.udp(), 17) + b"padding"))


def test_jumbo_payloads(make):
    def jumbo(length, payload):
        return make.ipv6(options(6, b"\xc2\4" + struct.pack(">I", length)) + payload, 0, length=0)

    segment = make.tcp(b"x" * 70_000)
    assert in_order(raw(jumbo(8 + len(segment), segment)))
    assert raw(jumbo(9 + len(segment), segment)).anomalies == ("decoder.ipv6.trunc_pkt",)
    assert raw(jumbo(0, segment)).undecodable
    assert raw(jumbo(100, make.tcp())).undecodable
    assert raw(make.ipv6(options(6) + make.tcp(), 0, length=0)).anomalies == ("decoder.ipv6.trunc_pkt",)
    assert in_order(raw(make.ipv6(segment, length=0)))


def test_a_chain_in_order_leads_to_the_transport(make):
    chain = (
        options(60) + options(43, b"\x04\x01\x04\1\1\0") + routing(60) + options(6, b"\xc9\x00\1\2\0\0") + make.tcp()
    )
    packet = raw(make.ipv6(chain, 0))
    assert packet.anomalies == ()
    assert in_order(packet)


@pytest.mark.parametrize(
    ("first", "chain", "anomaly"),
    [
        (0, options(0) + options(6), "exthdr_dupl_hh"),
        (43, routing(43) + routing(6), "exthdr_dupl_rh"),
        (60, options(60) * 2 + options(6), "exthdr_dupl_dh"),
        (43, routing(6, 0), "rh_type_0"),
        (0, options(6, PADDING), "hopopts_only_padding"),
        (60, options(6, PADDING), "dstopts_only_padding"),
        (0, options(6, b"\x1e\4\0\0\0\0"), "hopopts_unknown_opt"),
        (60, options(6, b"\x1e\4\0\0\0\0"), "dstopts_unknown_opt"),
        (60, options(6, b"\x04\x05\0\0\0\0"), "exthdr_invalid_optlen"),
        (44, fragment(6, more=False), "exthdr_useless_fh"),
    ],
)
def test_odd_chains_keep_their_key(make, first, chain, anomaly):
    packet = raw(make.ipv6(chain + make.tcp(), first))
    assert packet.anomalies == (f"decoder.ipv6.{anomaly}",)
    assert packet.key == make.source6 + make.destination6 + struct.pack(">HH", 40000, 443)
    assert not in_order(packet)


@pytest.mark.parametrize(
    ("first", "chain", "anomaly"),
    [
        (0, options(6, b"\x05\x05\0\0\0\0"), "decoder.ipv6.exthdr_invalid_optlen"),
        (60, b"\x06\x09" + bytes(6), "decoder.ipv6.trunc_exthdr"),
        (60, b"\x06\0\0", "decoder.ipv6.trunc_exthdr"),
        (44, b"\x06\0\0", "decoder.ipv6.trunc_exthdr"),
        (59, b"x", "decoder.ipv6.data_after_none_header"),
        (60, options(60) * (MAX_EXTENSIONS + 1), "decoder.too_many_layers"),
    ],
)
def test_broken_chains_are_undecodable(make, first, chain, anomaly):
    packet = raw(make.ipv6(chain, first))
    assert packet.undecodable
    assert packet.key is None
    assert packet.anomalies[-1] == anomaly


def test_no_next_header_is_no_fault_but_no_flow_either(make):
    packet = raw(make.ipv6(b"", 59))
    assert (packet.undecodable, packet.anomalies, packet.protocol) == (True, (), 59)


def test_fragments(make):
    segment = make.udp(b"x" * 32)
    first = raw(make.ipv6(fragment(17) + segment[:16], 44))
    assert (first.fragment, first.anomalies) == (Fragment(9, 0, True, 16), ())
    assert first.key is not None
    later = raw(make.ipv6(fragment(17, 16, more=False) + segment[16:], 44))
    assert (later.fragment, later.anomalies, later.key) == (Fragment(9, 16, False, 24), (), None)
    assert (later.protocol, later.undecodable) == (17, False)
    tiny = raw(make.ipv6(fragment(17) + segment[:4], 44))
    assert (tiny.key, tiny.undecodable, tiny.anomalies) == (None, False, ("decoder.udp.pkt_too_small",))
    beyond = raw(make.ipv6(fragment(17, 65528) + bytes(16), 44))
    assert (beyond.undecodable, beyond.anomalies) == (True, ("decoder.ipv6.frag_pkt_too_large",))
    reserved = raw(make.ipv6(fragment(17, 8, reserved=1) + bytes(8), 44))
    assert reserved.anomalies == ("decoder.ipv6.fh_non_zero_reserved_field",)


@pytest.mark.parametrize("protocol", [AH, 50, 135, 139, 140, 89, 47])
def test_the_chain_ends_where_nftables_ends_it(make, protocol):
    packet = raw(make.ipv6(make.tcp(), protocol))
    assert packet.protocol == protocol
    assert packet.key == bytes((protocol,)) + make.source6 + make.destination6 + bytes(4)
    assert packet.anomalies == ()


def test_protocols_that_do_not_belong_here(make):
    assert raw(make.ipv6(make.icmp(8), 1)).anomalies == ("decoder.ipv6.icmpv4",)
    assert raw(make.ipv6(b"", 200)).anomalies == ("decoder.ipv6.unknown_next_header",)
    assert raw(make.ipv6(b"", 253)).anomalies == ()


def test_a_chain_cut_by_the_capture(make):
    frame = make.ipv6(options(60) + options(6) + make.tcp(), 0)
    packet = raw(frame[:50], len(frame))
    assert (packet.undecodable, packet.anomalies) == (True, (SNAPPED,))
