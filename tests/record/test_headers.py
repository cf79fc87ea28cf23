from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.command import Frame
from pfw.record.headers import ETHERNET, LINUX_SLL, LINUX_SLL2, LOOP, NULL, RAW, Headers, read_headers

LINKTYPES = [NULL, ETHERNET, 12, 14, RAW, LOOP, LINUX_SLL, 228, 229, LINUX_SLL2, 105]


def test_tcp_over_ipv4(make: Any) -> None:
    assert read_headers(make.tcp_frame()) == Headers(
        source=bytes((192, 168, 1, 100)),
        destination=bytes((192, 168, 1, 5)),
        protocol=6,
        source_port=51514,
        port=80,
        fields={
            "len": 40, "tos": 16, "ttl": 63, "ipid": 77,
            "tcpseq": 1000, "tcpack": 2000, "tcpwin": 8192, "tcpres": 0, "tcpurgp": 7,
            "syn": True, "ack": False, "psh": False, "rst": False, "urg": False, "fin": False,
        },
    )  # fmt: skip


def test_tcp_over_ipv6(make: Any) -> None:
    seen = read_headers(make.tcp_frame("2001:db8::1", "2001:db8::2", flags=0x10))
    assert seen is not None
    assert seen.fields.items() >= {"len": 20, "tc": 0xAB, "hoplimit": 61, "flowlbl": 0x12345, "ack": True}.items()
    assert (seen.source_port, seen.port) == (51514, 80)


@pytest.mark.parametrize(
    ("linktype", "front"),
    [
        (NULL, bytes.fromhex("02000000")),
        (LOOP, bytes.fromhex("00000002")),
        (ETHERNET, bytes(12) + bytes.fromhex("81000064 0800")),
        (ETHERNET, bytes(12) + bytes.fromhex("88a80064 81000065 0800")),
        (LINUX_SLL, bytes(14) + bytes.fromhex("0800")),
        (LINUX_SLL2, bytes.fromhex("0800") + bytes(18)),
    ],
)
def test_each_link_type(make: Any, linktype: int, front: bytes) -> None:
    ip = make.tcp_frame(linktype=RAW)
    frame = Frame(linktype, front + ip.data, len(front) + ip.size)
    assert read_headers(frame) == read_headers(ip)
    assert read_headers(ip) is not None


def test_against_scapy() -> None:
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment

    def read(packet: Any) -> Headers | None:
        return read_headers(Frame(RAW, bytes(packet), len(packet)))

    udp = read(IP(src="192.0.2.1", dst="192.0.2.2", options=b"\x01" * 8) / UDP(sport=53, dport=4000) / b"four")
    assert udp is not None
    assert (udp.source_port, udp.port, udp.fields["udplen"], udp.fields["len"]) == (53, 4000, 12, 40)
    ping = read(IP() / ICMP(type=8, id=5, seq=6))
    assert ping is not None
    assert (ping.icmp_type, ping.icmp_code, ping.fields["icmp_id"], ping.fields["icmp_seq"]) == (8, 0, 5, 6)
    echo = read(IPv6() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest(id=9, seq=2))
    assert echo is not None
    assert (echo.protocol, echo.icmp_type, echo.fields["icmp_id"]) == (58, 128, 9)
    later = read(IP(frag=10) / UDP(sport=1, dport=2))
    assert later is not None
    assert (later.port, "udplen" in later.fields) == (None, False)
    later6 = read(IPv6() / IPv6ExtHdrFragment(offset=3, nh=17) / b"not a header")
    assert later6 is not None
    assert (later6.protocol, later6.port) == (17, None)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(LINKTYPES), st.binary(max_size=120))
def test_any_bytes_give_an_answer(linktype: int, data: bytes) -> None:
    seen = read_headers(Frame(linktype, data, len(data)))
    assert seen is None or len(seen.source) == len(seen.destination) in (4, 16)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([0x45, 0x4F, 0x40, 0x60]), st.binary(min_size=10, max_size=200))
def test_any_bytes_behind_a_version_give_an_answer(first: int, data: bytes) -> None:
    seen = read_headers(Frame(RAW, bytes((first,)) + data, 1 + len(data)))
    assert seen is None or seen.protocol in range(256)
