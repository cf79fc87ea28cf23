from __future__ import annotations

import pytest

from pfw.model.flow import reverse_key
from pfw.wire.packet import decode


def raw(frame, size=None):
    return decode(101, frame, len(frame) if size is None else size)


def test_echo_and_its_answer_share_a_flow(make):
    asked = raw(make.ipv4(make.icmp(8), 1))
    assert asked.key == b"\x01" + make.source + make.destination + b"\x12\x34\x08\x00"
    assert (asked.icmp_type, asked.icmp_code, asked.anomalies) == (8, 0, ())
    answer = make.ipv4(make.icmp(0), 1)
    back = answer[:12] + make.destination + make.source + answer[20:]
    assert raw(back).key == reverse_key(asked.key)


def test_types_without_an_identifier_have_none_in_their_key(make):
    assert raw(make.ipv6(make.icmp(135), 58)).key[-4:] == b"\0\0\x87\0"
    assert raw(make.ipv6(make.icmp(128), 58)).key[-4:] == b"\x12\x34\x80\0"
    assert raw(make.ipv4(make.icmp(3, 1), 1)).key[-4:] == b"\0\0\x03\x01"


@pytest.mark.parametrize(
    ("kind", "code", "anomaly"),
    [(1, 0, "unknown_type"), (200, 0, "unknown_type"), (8, 9, "unknown_code"), (13, 1, "unknown_code"), (13, 0, None)],
)
def test_unknown_icmp(make, kind, code, anomaly):
    packet = raw(make.ipv4(make.icmp(kind, code), 1))
    assert packet.anomalies == ((f"decoder.icmpv4.{anomaly}",) if anomaly else ())
    assert packet.key is not None


@pytest.mark.parametrize(
    ("kind", "code", "anomaly"),
    [
        (0, 0, "unassigned_type"),
        (50, 0, "unassigned_type"),
        (100, 0, "experimentation_type"),
        (255, 0, "unknown_type"),
        (128, 1, "unknown_code"),
        (134, 0, None),
        (143, 0, "mld_message_with_invalid_hl"),
    ],
)
def test_unknown_icmpv6(make, kind, code, anomaly):
    packet = raw(make.ipv6(make.icmp(kind, code), 58))
    assert packet.anomalies == ((f"decoder.icmpv6.{anomaly}",) if anomaly else ())


def test_listener_reports_stay_on_the_link(make):
    assert raw(make.ipv6(make.icmp(143), 58, hops=1)).anomalies == ()


def test_short_headers(make):
    assert raw(make.ipv4(bytes(7), 1)).anomalies == ("decoder.icmpv4.pkt_too_small",)
    assert raw(make.ipv6(bytes(7), 58)).anomalies == ("decoder.icmpv6.pkt_too_small",)


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_an_error_gives_the_key_of_the_packet_it_quotes(make, kind):
    quoted = make.ipv4(make.tcp(b"x" * 1000))
    packet = raw(make.ipv4(make.icmp(kind, 0, bytes(4), quoted[:28]), 1))
    assert packet.quoted_key == raw(quoted).key
    assert packet.anomalies == ()


def test_quotes_of_all_kinds(make):
    for quoted in (
        make.ipv4(make.udp(b"x"), 17),
        make.ipv4(make.udp(b"x"), 17, options=b"\x94\x04\0\0"),
        make.ipv4(make.udp(b"x" * 8), 17, fragment=0x2000),
        make.ipv4(make.icmp(8), 1),
        make.ipv4(b"", 47),
    ):
        assert raw(make.ipv4(make.icmp(3, 1, bytes(4), quoted), 1)).quoted_key == raw(quoted).key
    for quoted in (
        make.ipv6(make.udp(b"x"), 17),
        make.ipv6(b"\x11\0\x1e\4\0\0\0\0" + make.udp(), 60),
        make.ipv6(make.icmp(128), 58),
    ):
        packet = raw(make.ipv6(make.icmp(1, 4, bytes(4), quoted), 58))
        assert packet.quoted_key == raw(quoted).key
        assert packet.anomalies == ()


@pytest.mark.parametrize(
    ("quoted", "anomaly"),
    [
        (b"\x45" + bytes(18), "ipv4_trunc_pkt"),
        (b"\x45" + bytes(8) + b"\x06" + bytes(13), "ipv4_trunc_pkt"),
        (b"\x4f" + bytes(8) + b"\x01" + bytes(20), "ipv4_trunc_pkt"),
        (b"\x65" + bytes(40), "ipv4_unknown_ver"),
        (b"\x41" + bytes(40), "ipv4_unknown_ver"),
        (b"\x45" + bytes(5) + b"\0\x01" + bytes(20), None),
    ],
)
def test_bad_quotes(make, quoted, anomaly):
    packet = raw(make.ipv4(make.icmp(3, 1, bytes(4), quoted), 1))
    assert packet.quoted_key is None
    assert packet.anomalies == ((f"decoder.icmpv4.{anomaly}",) if anomaly else ())
    assert packet.key is not None


def test_bad_quotes_of_ipv6(make):
    def quoting(quoted):
        return raw(make.ipv6(make.icmp(3, 0, bytes(4), quoted), 58)).anomalies

    assert quoting(b"\x60" + bytes(38)) == ("decoder.icmpv6.ipv6_trunc_pkt",)
    assert quoting(make.ipv6(b"", 6)) == ("decoder.icmpv6.ipv6_trunc_pkt",)
    assert quoting(b"\x40" + bytes(60)) == ("decoder.icmpv6.ipv6_unknown_version",)


def test_a_quote_cut_by_the_capture_is_no_lie(make):
    frame = make.ipv4(make.icmp(3, 1, bytes(4), make.ipv4(make.tcp())), 1)
    for size in (30, 47, 49):
        packet = raw(frame[:size], len(frame))
        assert (packet.quoted_key, packet.anomalies, packet.undecodable) == (None, (), False)
    assert raw(frame[:52], len(frame)).quoted_key is not None
    frame = make.ipv6(make.icmp(3, 0, bytes(4), make.ipv6(make.tcp())), 58)
    assert raw(frame[:60], len(frame)).anomalies == ()
    assert raw(frame[:90], len(frame)).anomalies == ()
