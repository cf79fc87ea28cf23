from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.event import Source
from pfw.wire.capture import CaptureReader
from pfw.wire.error import WireError
from pfw.wire.pcap import BATCH_FRAMES, MAX_FRAME_BYTES, write_pcap_header, write_record

FRAMES = [b"a" * 60, b"", b"b" * 1500]


def read(data):
    reader = CaptureReader()
    found = [
        (source, time, bytes(buffer[at:end]), size)
        for source, buffer, frames in reader.feed(data)
        for time, at, end, size in frames
    ]
    return found, reader.finish()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "parts"), [(0xA1B2C3D4, 10**6), (0xA1B23C4D, 10**9), (0xA1B2CD34, 10**6)])
def test_all_variants(order, magic, parts):
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 113)
    for number, frame in enumerate(FRAMES):
        data += struct.pack(order + "IIII", 1_700_000_000 + number, parts // 4, len(frame), len(frame) + 5)
        data += (bytes(8) if magic == 0xA1B2CD34 else b"") + frame
    found, ending = read(data)
    assert found == [
        (Source(113), 1_700_000_000.25 + number, frame, len(frame) + 5) for number, frame in enumerate(FRAMES)
    ]
    assert (ending.truncated_bytes, ending.text) == (0, None)


@given(
    st.lists(st.tuples(st.integers(0, 2**42), st.binary(max_size=50), st.integers(0, 9)), max_size=9),
    st.integers(0, 300),
)
@settings(deadline=None)
def test_what_was_written_is_read(records, linktype):
    data = write_pcap_header(linktype)
    for micros, frame, more in records:
        data += write_record(micros / 1e6, frame, len(frame) + more)
    found, _ = read(data)
    assert [(frame, size - len(frame)) for _, _, frame, size in found] == [(frame, more) for _, frame, more in records]
    for (_, time, _, _), (micros, _, _) in zip(found, records, strict=True):
        assert time == pytest.approx(micros / 1e6, abs=1e-6)


def test_bits_about_check_sequences_are_no_link_type():
    found, _ = read(write_pcap_header(0x5400_0001) + write_record(0, b"x", 1))
    assert found[0][0] == Source(1)


def test_frames_point_into_the_chunk():
    data = write_pcap_header(1) + b"".join(write_record(1.5, b"x" * 100, 100) for _ in range(600))
    batches = list(CaptureReader().feed(data))
    assert all(buffer is data for _, buffer, _ in batches)
    assert [len(frames) for _, _, frames in batches] == [BATCH_FRAMES, BATCH_FRAMES, 600 - 2 * BATCH_FRAMES]


def test_a_file_that_ends_in_the_middle_gives_what_is_whole():
    data = write_pcap_header(1) + write_record(1, b"x" * 80, 80) + write_record(2, b"y" * 80, 80)
    for cut in (1, 80, 95):
        found, ending = read(data[:-cut])
        assert [frame for _, _, frame, _ in found] == [b"x" * 80]
        assert ending.truncated_bytes == 96 - cut
        assert str(96 - cut) in ending.text


@pytest.mark.parametrize("captured", [MAX_FRAME_BYTES + 1, 2**31, 2**32 - 1])
def test_a_record_that_lies_ends_the_file_after_the_ones_before_it(captured):
    good = write_pcap_header(1) + write_record(1, b"x" * 80, 80)
    reader = CaptureReader()
    given_before = []
    batches = reader.feed(good + struct.pack("<IIII", 0, 0, captured, captured) + bytes(100))
    with pytest.raises(WireError, match=f"byte {len(good)} claims {captured} bytes") as caught:
        given_before.extend(batches)
    assert [len(frames) for _, _, frames in given_before] == [1]
    assert "\n" not in str(caught.value)
    with pytest.raises(WireError):
        list(reader.feed(b"more"))


def test_the_largest_record_is_taken():
    found, _ = read(write_pcap_header(1) + write_record(1, bytes(MAX_FRAME_BYTES), MAX_FRAME_BYTES))
    assert len(found[0][2]) == MAX_FRAME_BYTES


def test_an_unknown_version_is_refused():
    with pytest.raises(WireError, match=r"version 3\.0"):
        read(struct.pack("<IHHIIII", 0xA1B2C3D4, 3, 0, 0, 0, 0, 1))
