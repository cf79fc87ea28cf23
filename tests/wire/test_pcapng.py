from __future__ import annotations

import struct

import pytest

from pfw.model.event import Source
from pfw.wire.capture import CaptureReader
from pfw.wire.error import WireError
from pfw.wire.pcap import BATCH_FRAMES
from pfw.wire.pcapng import LATEST_S, MAX_INTERFACES


class Writer:
    def __init__(self, order="<"):
        self.order = order

    def pack(self, layout, *values):
        return struct.pack(self.order + layout, *values)

    def block(self, kind, body, length=None, trailer=None):
        body += bytes(-len(body) & 3)
        length = 12 + len(body) if length is None else length
        return self.pack("II", kind, length) + body + self.pack("I", length if trailer is None else trailer)

    def option(self, code, value):
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) & 3)

    def section(self, major=1):
        return self.block(0x0A0D0D0A, self.pack("IHHq", 0x1A2B3C4D, major, 0, -1))

    def interface(self, linktype=1, snaplen=0, options=b""):
        return self.block(1, self.pack("HHI", linktype, 0, snaplen) + options)

    def packet(self, frame, ticks=0, number=0, size=None, captured=None):
        captured = len(frame) if captured is None else captured
        head = self.pack(
            "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, captured, len(frame) if size is None else size
        )
        return self.block(6, head + frame)

    def simple(self, frame, size):
        return self.block(3, self.pack("I", size) + frame)

    def old_packet(self, frame, ticks, number=0):
        return self.block(
            2, self.pack("HHIIII", number, 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)) + frame
        )

    def statistics(self, number, options=b""):
        return self.block(5, self.pack("III", number, 0, 0) + options)


W = Writer()
BEGIN = W.section() + W.interface()


def read(data):
    reader = CaptureReader()
    found = [
        (source, time, bytes(buffer[at:end]), size)
        for source, buffer, frames in reader.feed(data)
        for time, at, end, size in frames
    ]
    return found, reader.finish()


@pytest.mark.parametrize("order", ["<", ">"])
def test_blocks_of_all_kinds(order):
    w = Writer(order)
    data = (
        w.section()
        + w.block(0x0BAD, b"what nobody knows")
        + w.interface(113, options=w.option(2, b"eth0") + w.option(0, b""))
        + w.packet(b"abc", 1_700_000_000_250_000, size=9)
        + w.simple(b"defgh", 5)
        + w.old_packet(b"i", 1_700_000_001_000_000)
        + w.block(4, bytes(8))
    )
    found, ending = read(data)
    source = Source(113, "eth0")
    assert found == [
        (source, 1_700_000_000.25, b"abc", 9),
        (source, 1_700_000_000.25, b"defgh", 5),
        (source, 1_700_000_001.0, b"i", 1),
    ]
    assert ending.text is None


def test_many_interfaces_and_sections_keep_their_order():
    big = Writer(">")
    data = W.section() + W.interface(1) + W.interface(101, options=W.option(2, b"tun0"))
    data += W.packet(b"a") + W.packet(b"b", number=1) + W.packet(b"c") + W.packet(b"d")
    data += big.section() + big.interface(113) + big.packet(b"e")
    found, _ = read(data)
    assert [(source.linktype, frame) for source, _, frame, _ in found] == [
        (1, b"a"),
        (101, b"b"),
        (1, b"c"),
        (1, b"d"),
        (113, b"e"),
    ]


@pytest.mark.parametrize(
    ("options", "ticks", "time"),
    [
        (W.option(9, b"\x09"), 1_700_000_000_500_000_000, 1_700_000_000.5),
        (W.option(9, b"\x03"), 1500, 1.5),
        (W.option(9, b"\x00"), 7, 7.0),
        (W.option(9, b"\x8a"), 1536, 1.5),
        (W.option(9, b"\xff"), 2**64 - 1, 0.0),
        (W.option(9, b"\x7f"), 2**64 - 1, 0.0),
        (W.option(9, b"\x00"), 2**64 - 1, LATEST_S),
        (W.option(14, struct.pack("<q", 1000)), 500_000, 1000.5),
        (W.option(14, struct.pack("<q", -(2**63))), 500_000, 0.0),
        (W.option(14, struct.pack("<q", 2**63 - 1)), 500_000, LATEST_S),
        (W.option(9, b"\x09\x09"), 1_000_000, 1.0),
    ],
)
def test_times(options, ticks, time):
    data = W.section() + W.interface(options=options) + W.packet(b"x", ticks) * 2
    assert [found[1] for found in read(data)[0]] == [pytest.approx(time)] * 2


def test_names_of_interfaces_are_printable_and_short():
    name = b"\x1b[31m" + b"\xff" + b"e" * 500
    found, _ = read(W.section() + W.interface(options=W.option(2, name)) + W.packet(b"x"))
    interface = found[0][0].interface
    assert interface.isprintable()
    assert interface.startswith("?[31m")
    assert len(interface) == 64


def test_simple_packets_end_at_the_snapshot_length():
    found, _ = read(W.section() + W.interface(snaplen=4) + W.simple(b"abcd", 1000))
    assert found[0][2:] == (b"abcd", 1000)


def test_drops_are_the_last_statistics_of_each_interface():
    drops = [W.option(5, struct.pack("<Q", count)) for count in (3, 10, 7)]
    data = BEGIN + W.interface() + W.statistics(0, drops[0]) + W.statistics(0, drops[1]) + W.statistics(1, drops[2])
    assert read(data + W.statistics(9, drops[2]))[1].dropped == 17


def test_batches_are_bounded():
    batches = list(CaptureReader().feed(BEGIN + W.packet(b"x" * 60, 5) * 600))
    assert [len(frames) for _, _, frames in batches] == [BATCH_FRAMES, BATCH_FRAMES, 600 - 2 * BATCH_FRAMES]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (W.block(6, bytes(20), length=31), "length of 31"),
        (W.block(6, bytes(20), length=28), "length of 28"),
        (W.block(6, bytes(20), length=0), "length of 0"),
        (W.block(99, bytes(20), length=8), "length of 8"),
        (W.block(6, bytes(20), trailer=36), "another length"),
        (W.block(6, bytes(20), length=1 << 30), "1073741824 bytes"),
        (W.packet(b"abcd", captured=5), "packet of 5 bytes"),
        (W.packet(b"abcd", captured=2**32 - 1), "packet of 4294967295 bytes"),
        (W.packet(b"abcd", number=1), "interface 1 of 1"),
        (W.section() + W.simple(b"", 0), "interface 0 of 0"),
        (W.section(major=2), "version 2"),
        (W.block(0x0A0D0D0A, bytes(16)), "byte order"),
        (W.interface() * MAX_INTERFACES, f"more than {MAX_INTERFACES}"),
    ],
)
def test_blocks_that_lie_end_the_file_after_what_stood_before(block, reason):
    before = []
    with pytest.raises(WireError, match=reason) as caught:
        before.extend(CaptureReader().feed(BEGIN + W.packet(b"good") + block + bytes(100)))
    assert [len(frames) for _, _, frames in before] == [1]
    assert "\n" not in str(caught.value)


def test_skipped_blocks_may_be_of_any_size():
    data = BEGIN + W.block(0x0BAD, bytes(1 << 20)) + W.packet(b"x")
    reader = CaptureReader()
    found = [frames for at in range(0, len(data), 1000) for _, _, frames in reader.feed(data[at : at + 1000])]
    assert len(found) == 1
    assert reader.finish().text is None


def test_a_file_that_ends_in_the_middle():
    found, ending = read((BEGIN + W.packet(b"x" * 60) * 2)[:-10])
    assert len(found) == 1
    assert ending.truncated_bytes == 82
    _, ending = read(BEGIN + struct.pack("<II", 0x0BAD, 1 << 30) + bytes(50))
    assert "middle" in ending.text
