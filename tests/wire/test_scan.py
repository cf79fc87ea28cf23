"""The fast way against the careful one: the same items, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.event import Source
from pfw.wire.capture import CaptureReader
from pfw.wire.packet import decode, in_order
from pfw.wire.scan import scan

LINKTYPES = (1, 113, 101, 12, 276, 0, 228)
PREFIXES = {1: bytes(12), 113: bytes(14), 101: b"", 12: b"", 276: b"", 0: b"\x02\0\0\0", 228: b""}


def careful(linktype, buffer, frames):
    items = []
    for time, at, end, size in frames:
        packet = decode(linktype, buffer[at:end], size)
        items.append((packet.key, time, size, packet.tcp_flags, at, end, None if in_order(packet) else packet))
    return items


def lay_out(frames):
    """Frames one behind the other, as a reader gives them; the last ends with the buffer."""
    buffer = bytearray(b"header")
    places = []
    for number, (frame, more) in enumerate(frames):
        places.append((float(number), len(buffer), len(buffer) + len(frame), len(frame) + more))
        buffer += frame
    return bytes(buffer), places


def packets(make):
    """Strategies need values, not fixtures: this gives them."""
    small = st.integers(0, 255)
    options = st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8), b"\2\4\5\xb4", b"\2\3\5\xb4"])
    payload = st.binary(max_size=24)
    segment = st.builds(
        lambda body, flags, opts: (6, make.tcp(body, flags=flags, options=opts)), payload, small, options
    )
    datagram = st.builds(lambda body: (17, make.udp(body)), payload)
    other = st.builds(lambda kind, body: (kind, make.tcp(body)), st.sampled_from([1, 47, 58, 132]), payload)
    transport = segment | datagram | other
    four = st.builds(
        lambda inner, opts, part: (4, make.ipv4(inner[1], inner[0], options=opts, fragment=part)),
        transport,
        st.sampled_from([b"", b"", b"\x94\x04\0\0"]),
        st.sampled_from([0, 0x4000, 0x4000, 0x8000, 0x2000, 0x0004]),
    )
    six = st.builds(
        lambda inner, first: (6, make.ipv6(inner[1], inner[0], first=first)), transport, st.integers(0x60, 0x6F)
    )
    return four | six


def framed(make, linktype, version, packet, tagged):
    ethertype = b"\x08\0" if version == 4 else b"\x86\xdd"
    if linktype == 1 and tagged:
        return bytes(12) + b"\x81\0\0\x05" + ethertype + packet
    if linktype in (1, 113):
        return PREFIXES[linktype] + ethertype + packet
    return (ethertype + bytes(18) if linktype == 276 else PREFIXES[linktype]) + packet


@st.composite
def frame_lists(draw, make, linktype):
    frames = []
    for _ in range(draw(st.integers(1, 6))):
        version, packet = draw(packets(make))
        frame = bytearray(framed(make, linktype, version, packet, draw(st.integers(0, 3)) == 0))
        for at, byte in draw(st.lists(st.tuples(st.integers(0, 79), st.integers(0, 255)), max_size=3)):
            if at < len(frame):
                frame[at] = byte
        cut = draw(st.sampled_from([0, 0, 0, 1, 8, 20, 40]))
        padding = draw(st.sampled_from([0, 0, 6]))
        whole = bytes(frame) + bytes(padding)
        frames.append((whole[: max(0, len(whole) - cut)], draw(st.sampled_from([0, cut, cut, 1, -4]))))
    return frames


@pytest.mark.parametrize("linktype", LINKTYPES)
def test_mutated_packets(make, linktype):
    @given(frame_lists(make, linktype))
    @settings(deadline=None, max_examples=70)
    def check(frames):
        buffer, places = lay_out(frames)
        assert scan(Source(linktype), buffer, places) == careful(linktype, buffer, places)
        assert scan(Source(linktype), memoryview(buffer), places) == careful(linktype, buffer, places)

    check()


@given(st.sampled_from(LINKTYPES), st.lists(st.tuples(st.binary(max_size=90), st.just(0)), max_size=5))
@settings(deadline=None, max_examples=200)
def test_random_bytes(linktype, frames):
    buffer, places = lay_out(frames)
    assert scan(Source(linktype), buffer, places) == careful(linktype, buffer, places)


def test_every_bit_of_every_header(make):
    """Each single bit of each plain packet turned over: all that the fast way looks at, and all it does not."""
    for linktype in (1, 113, 101):
        for version, packet in plain_packets(make):
            frame = framed(make, linktype, version, packet, tagged=False)
            frames = []
            for bit in range(8 * len(frame)):
                changed = bytearray(frame)
                changed[bit // 8] ^= 1 << bit % 8
                frames.append((bytes(changed), 0))
            buffer, places = lay_out(frames)
            assert scan(Source(linktype), buffer, places) == careful(linktype, buffer, places)


def plain_packets(make):
    return [
        (4, make.ipv4(make.tcp(b"x" * 8, options=b"\1\1\1\1"))),
        (4, make.ipv4(make.udp(b"x" * 8), 17)),
        (6, make.ipv6(make.tcp(b"x" * 8))),
        (6, make.ipv6(make.udp(b"x" * 8), 17)),
    ]


@pytest.mark.parametrize("linktype", [1, 113, 101])
def test_every_cut_of_every_packet(make, linktype):
    """Snapped, or short on the wire as well; other bytes follow in the buffer, so that no layout hits its end."""
    for version, packet in plain_packets(make):
        frame = framed(make, linktype, version, packet, tagged=False)
        frames = [(frame[:cut], more) for cut in range(len(frame)) for more in (0, len(frame) - cut)]
        buffer, places = lay_out([*frames, (bytes(200), 0)])
        assert scan(Source(linktype), buffer, places) == careful(linktype, buffer, places)


def test_every_small_length(make):
    frames = []
    for length in range(64):
        frames.append((make.ethernet(make.ipv4(make.tcp(b"x" * 30), total=length)), 0))
        frames.append((make.ethernet(make.ipv6(make.tcp(b"x" * 30), length=length), 0x86DD), 0))
        for udp_length in (length - 20, length - 19, length - 21):
            datagram = make.udp(b"x" * 42, length=max(0, udp_length))
            frames.append((make.ethernet(make.ipv4(datagram, 17, total=length)), 0))
            frames.append((make.ethernet(make.ipv6(datagram, 17, length=max(0, length - 20)), 0x86DD), 0))
    buffer, places = lay_out(frames)
    items = scan(Source(1), buffer, places)
    assert items == careful(1, buffer, places)
    assert 100 < sum(item[6] is None for item in items) < 250


def test_plain_packets_carry_no_packet(make):
    frames = [make.ethernet(make.ipv4(make.tcp())), make.ethernet(make.ipv4(make.udp(), 17))]
    frames += [make.ethernet(make.ipv6(make.tcp(flags=2)), 0x86DD), make.ethernet(make.ipv6(make.udp(), 17), 0x86DD)]
    frames += [make.ethernet(make.ipv4(make.tcp(), 132)), make.ethernet(make.ipv4(make.tcp()), 0x0800, ((0x8100, 3),))]
    buffer, places = lay_out([(frame, 0) for frame in frames])
    items = scan(Source(1), buffer, places)
    assert [item[6] for item in items] == [None] * len(frames)
    assert [item[3] for item in items] == [0x18, 0, 2, 0, 0, 0x18]
    assert items[0][0] == items[5][0] == make.source + make.destination + b"\x9c\x40\x01\xbb"
    assert items[1] == (
        b"\x11" + make.source + make.destination + b"\x9c\x40\x00\x35",
        1.0,
        42,
        0,
        *places[1][1:3],
        None,
    )


def test_echo_requests_and_fragments_carry_their_packet(make):
    frames = [
        make.ethernet(make.ipv4(make.icmp(8), 1)),
        make.ethernet(make.ipv4(make.udp(b"x" * 8), 17, fragment=0x2000)),
    ]
    buffer, places = lay_out([(frame, 0) for frame in frames])
    for item in scan(Source(1), buffer, places):
        assert item[6] is not None
        assert item[0] == item[6].key


def test_real_captures(captures):
    count = 0
    for path in captures:
        for source, buffer, frames in CaptureReader().feed(path.read_bytes()):
            assert scan(source, buffer, frames) == careful(source.linktype, buffer, frames)
            count += len(frames)
    assert count > 40_000


def test_every_syn_has_its_options_checked(make):
    segment = make.tcp(flags=2, options=b"\2\3\5\xb4")
    buffer, places = lay_out([(make.ethernet(make.ipv4(segment)), 0), (make.ethernet(make.ipv6(segment), 0x86DD), 0)])
    for item in scan(Source(1), buffer, places):
        assert item[6].anomalies == ("decoder.tcp.opt_invalid_len",)
