"""Headers made by hand, byte by byte, for tests that decode them."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

SOURCE, DESTINATION = bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
SOURCE6, DESTINATION6 = bytes.fromhex("20010db8" + "0" * 23 + "1"), bytes.fromhex("20010db8" + "0" * 23 + "2")


def ethernet(payload: bytes, ethertype: int = 0x0800, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """`tags` are pairs (EtherType of the tag, VLAN)."""
    types = b"".join(struct.pack(">HH", tag, vlan) for tag, vlan in tags)
    return b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + types + struct.pack(">H", ethertype) + payload


def ipv4(
    payload: bytes,
    protocol: int = 6,
    *,
    options: bytes = b"",
    fragment: int = 0x4000,
    total: int | None = None,
    first: int | None = None,
    ttl: int = 64,
) -> bytes:
    header = 20 + len(options)
    first = 0x40 | header // 4 if first is None else first
    total = header + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", first, 0, total, 7, fragment, ttl, protocol, 0)
    return head + SOURCE + DESTINATION + options + payload


def ipv6(payload: bytes, following: int = 6, *, length: int | None = None, first: int = 0x60, hops: int = 64) -> bytes:
    length = len(payload) if length is None else length
    return struct.pack(">B3xHBB", first, length, following, hops) + SOURCE6 + DESTINATION6 + payload


def tcp(payload: bytes = b"", *, flags: int = 0x18, options: bytes = b"", words: int | None = None) -> bytes:
    words = 5 + len(options) // 4 if words is None else words
    return struct.pack(">HHIIBBHHH", 40000, 443, 1, 2, words << 4, flags, 512, 0, 0) + options + payload


def udp(payload: bytes = b"", *, length: int | None = None) -> bytes:
    return struct.pack(">HHHH", 40000, 53, 8 + len(payload) if length is None else length, 0) + payload


def icmp(kind: int, code: int = 0, rest: bytes = b"\x12\x34\0\1", payload: bytes = b"") -> bytes:
    return struct.pack(">BBH", kind, code, 0) + rest + payload


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    return SimpleNamespace(
        ethernet=ethernet,
        ipv4=ipv4,
        ipv6=ipv6,
        tcp=tcp,
        udp=udp,
        icmp=icmp,
        source=SOURCE,
        destination=DESTINATION,
        source6=SOURCE6,
        destination6=DESTINATION6,
    )
