"""Hostile block lists: whatever a server sends, out come ranges that block less than everything, or a WireError."""

from __future__ import annotations

import gzip
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import IPV4_LAST, IPV6_FIRST, IPV6_LAST, AddressSet
from pfw.wire.blocklist import SAMPLE_CHARACTERS_MAX, SAMPLES_MAX, Parsed, parse
from pfw.wire.blocklist_line import EVERYTHING, read_line
from pfw.wire.error import WireError

SEEDS = [
    b"1.10.16.0/20 ; SBL256894\n",
    b'{"cidr":"1.10.16.0/20","sblid":"SBL256894"}\n{"type":"metadata"}\n',
    b'"2026-01-01","1.2.3.4","443","a, b"\n',
    b"a:1.2.3.4-1.2.3.9\n0.0.0.0 ads.example\n",
    b"1.2.3.0\t1.2.3.255\t24\tx\n[2001:db8::1]:443\n",
    b"\xef\xbb\xbf1.2.3.0/255.255.255.0\r\n::ffff:1.2.3.4 # x\r",
    gzip.compress(b"1.2.3.4\n2001:db8::/32\n", mtime=0),
]
PIECES = [
    *(bytes([byte]) for byte in b'"{},:-/#;[] \t\n\r\0%\x85\xa0\xff'),
    *(b"//", b"9" * 30, b"0.0.0.0", b"::", b"/0", b"\x1f\x8b", b"\\u0000", b"1.1.1.1", b"-255.255.255.255"),
]
ALPHABET = st.sampled_from(
    [*'0123456789abcf.:/-,;#" \t[]{}%x\n\r', "1.2.3.4", "::", "0.0.0.0", "2001:db8::1", '{"cidr":"', "255.255.255.0"]
)


def check(data: bytes) -> None:
    try:
        parsed = parse(data)
    except WireError:
        return
    assert isinstance(parsed, Parsed)
    for first, last in parsed.ranges:
        assert 0 <= first <= last <= IPV4_LAST or IPV6_FIRST <= first <= last <= IPV6_LAST
        assert (first, last) not in EVERYTHING
    AddressSet(parsed.ranges)
    lines = data.replace(b"\r", b"\n").count(b"\n") + 1
    assert data.startswith(b"\x1f\x8b") or len(parsed.ranges) + parsed.skipped <= lines
    assert len(parsed.samples) == min(parsed.skipped, SAMPLES_MAX)
    for sample in parsed.samples:
        assert "\n" not in sample
        assert "\x1b" not in sample
        assert len(sample) <= 4 * SAMPLE_CHARACTERS_MAX


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_mutated_lists(data) -> None:
    mutated = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(mutated)))
        size = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20]))
        mutated[at : at + size] = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=2)))
    check(bytes(mutated))


@settings(deadline=None, max_examples=400)
@given(st.lists(ALPHABET, max_size=40).map("".join))
def test_the_right_characters_in_the_wrong_places(text) -> None:
    check(text.encode())
    for line in text.splitlines():
        with suppress(ValueError):
            read_line(line)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_anything(data) -> None:
    check(data)
    check(gzip.compress(data))
    check(b"\x1f\x8b" + data)
