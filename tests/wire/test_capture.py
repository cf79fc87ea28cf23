from __future__ import annotations

import gzip

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from pfw.wire.capture import CaptureReader
from pfw.wire.error import WireError
from pfw.wire.pcap import write_pcap_header, write_record


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (gzip.compress(b"x", mtime=0), "compressed with gzip: use zcat FILE"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "zstdcat"),
        (b"BZh91AY&SY", "bzcat"),
        (b"\xfd7zXZ\0\0", "xzcat"),
        (b"#!/bin/sh\n", "neither a pcap nor a pcapng file"),
    ],
)
def test_what_is_no_capture_says_so(head, reason):
    with pytest.raises(WireError, match=reason):
        list(CaptureReader().feed(head))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x1f\x8b", "gzip"),
        (b"ab", "neither"),
        (write_pcap_header(1)[:20], "too short"),
    ],
)
def test_files_too_short_to_be_one(data, reason):
    reader = CaptureReader()
    assert list(reader.feed(data)) == []
    with pytest.raises(WireError, match=reason):
        reader.finish()


def test_a_capture_without_packets():
    reader = CaptureReader()
    assert list(reader.feed(write_pcap_header(1))) == []
    assert reader.finish().text is None


def read_in(data, step):
    reader = CaptureReader()
    found = [
        (source, time, bytes(buffer[at:end]), size)
        for start in range(0, len(data), step)
        for source, buffer, frames in reader.feed(data[start : start + step])
        for time, at, end, size in frames
    ]
    return found, reader.finish()


@pytest.mark.parametrize("step", [1, 3, 16, 17, 100, 4096])
def test_chunks_of_any_size_give_the_same(step):
    data = write_pcap_header(1) + b"".join(
        write_record(number / 8, bytes([number]) * number, 200) for number in range(200)
    )
    assert read_in(data, step) == read_in(data, len(data))


@pytest.mark.parametrize("step", [7, 1000, 65536])
def test_real_captures_in_chunks(captures, step):
    small = [path for path in captures if path.stat().st_size < (20_000 if step < 100 else 400_000)]
    for path in small:
        data = path.read_bytes()
        assert read_in(data, step) == read_in(data, len(data))


def test_scapy_reads_the_same_records(captures):
    for path in captures:
        if path.stat().st_size > 250_000:
            continue
        found, ending = read_in(path.read_bytes(), 1 << 16)
        assert ending.text is None
        newer = path.suffix == ".pcapng"
        with (RawPcapNgReader if newer else RawPcapReader)(str(path)) as theirs:
            expected = list(theirs)
        assert [(frame, size) for _, _, frame, size in found] == [
            (bytes(frame), about.wirelen) for frame, about in expected
        ]
        if newer:
            continue
        for (_, time, _, _), (_, about) in zip(found, expected, strict=True):
            assert time == pytest.approx(about.sec + about.usec / 1e6, abs=1e-6)
