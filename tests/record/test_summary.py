from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfw.model.command import Frame
from pfw.model.flow import Direction, Flow
from pfw.model.text import printable
from pfw.record.summary import describe_kind, plain_summary, summary

SOURCE = str(Path(__file__).parents[2] / "src")


def test_the_promised_shape(make: Any) -> None:
    assert summary(make.tcp_frame()) == "Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S"


def test_raw_ip_goes_by_its_version(make: Any) -> None:
    assert summary(make.tcp_frame(linktype=101)) == "IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S"
    assert summary(make.tcp_frame("2001:db8::1", "2001:db8::2", linktype=101)).startswith("IPv6 / TCP 2001:db8::1:")


@pytest.mark.parametrize(
    ("linktype", "front", "begins"),
    [
        (0, bytes.fromhex("02000000"), "Loopback / IP / TCP"),
        (108, bytes.fromhex("00000002"), "LoopbackOpenBSD / IP / TCP"),
        (113, bytes.fromhex("0000 0001 0006 0200000000010000 0800"), "CookedLinux / IP / TCP"),
        (276, bytes.fromhex("0800 0000 00000001 0001 00 06 0200000000010000"), "CookedLinuxV2 / IP / TCP"),
        (1, bytes.fromhex("020000000001 020000000002 81000064 0800"), "Ether / Dot1Q / IP / TCP"),
        (228, b"", "IP / TCP"),
    ],
)
def test_each_link_type(make: Any, linktype: int, front: bytes, begins: str) -> None:
    data = front + make.tcp_frame(linktype=101).data
    assert summary(Frame(linktype, data, len(data))) == f"{begins} 192.168.1.100:51514 > 192.168.1.5:http S"


def test_above_udp_and_sctp() -> None:
    from scapy.layers.dns import DNS, DNSQR
    from scapy.layers.inet import IP, UDP
    from scapy.layers.sctp import SCTP, SCTPChunkInit

    dns = bytes(IP() / UDP() / DNS(qd=DNSQR(qname="example.org\x1b")))
    assert "DNS Qry" in summary(Frame(101, dns, len(dns)))
    assert "\x1b" not in summary(Frame(101, dns, len(dns)))
    sctp = bytes(IP() / SCTP() / SCTPChunkInit())
    assert "SCTP" in summary(Frame(101, sctp, len(sctp)))


def test_what_scapy_cannot_take_is_raw() -> None:
    assert summary(Frame(105, b"\x08\x00", 60)) == "Raw 60 bytes"
    assert summary(Frame(1, b"", 60)) == "Raw 60 bytes"


def test_deep_nesting_gives_a_bounded_line() -> None:
    tags = bytes(12) + struct.pack(">HH", 0x8100, 1) * 16000
    text = summary(Frame(1, tags, len(tags)))
    assert len(text) <= 401


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276]), st.binary(max_size=150))
def test_any_bytes_give_a_printable_line(linktype: int, data: bytes) -> None:
    text = summary(Frame(linktype, data, len(data)))
    assert text
    assert printable(text) == text


def test_scapy_stays_silent_and_is_imported_late(make: Any) -> None:
    code = """
import sys
import pfw.record.recorder
from pfw.record.summary import summary
from pfw.model.command import Frame
assert not any(name.startswith("scapy") for name in sys.modules), "too early"
for linktype in (0, 1, 101, 113, 276):
    for seed in range(200):
        data = bytes((seed * 7 + at * at) & 255 for at in range(seed))
        summary(Frame(linktype, b"E" + data, len(data)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_plain_one(make: Any) -> None:
    flow = make.tcp_flow()
    assert plain_summary(None, flow) == "TCP 192.168.1.100:51514 > 192.168.1.5:80"
    assert plain_summary(make.tcp_frame(), None) == "TCP 192.168.1.100:51514 > 192.168.1.5:80"
    assert plain_summary(Frame(1, b"short", 5), None) == "Raw 5 bytes"
    assert plain_summary(None, None) == "Raw"
    assert describe_kind(flow) == "TCP 192.168.1.100 > 192.168.1.5:80"
    ping = Flow(direction=Direction.IN, protocol=58, source=bytes(16), destination=bytes(15) + b"\1", icmp_type=128)
    assert describe_kind(ping) == "ICMPv6 :: > ::1 type 128"
    six = make.tcp_frame("2001:db8::1", "2001:db8::2")
    assert plain_summary(six, None) == "TCP [2001:db8::1]:51514 > [2001:db8::2]:80"
