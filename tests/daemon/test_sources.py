"""Capture files as batches: whole, cut short, filtered, through a pipe."""

import os

import pytest

from pfw.daemon.sources import CaptureFile
from pfw.drivers.bpf import FilterError


def frames_of(file):
    return [bytes(batch.buffer[at:end]) for batch in file.batches() for _, at, end, _ in batch.frames]


def test_every_packet_in_order(capture_file, made):
    file = CaptureFile(capture_file())
    assert frames_of(file) == list(made.frames)
    assert (file.error, file.filtered, file.dropped) == (None, 0, 0)


def test_one_that_ends_in_the_middle_gives_the_whole_packets_and_says_so(capture_file, made):
    file = CaptureFile(capture_file(cut=3))
    assert frames_of(file) == list(made.frames[:-1])
    assert file.error


def test_what_is_no_capture_gives_nothing_and_says_so(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a capture, but quite some text all the same")
    file = CaptureFile(str(path))
    assert frames_of(file) == []
    assert file.error


def test_a_filter_leaves_out_and_counts(capture_file, made):
    file = CaptureFile(capture_file(), "udp port 52 or udp port 54")
    assert frames_of(file) == [made.frames[1], made.frames[3]]
    assert file.filtered == 3


def test_a_filter_that_is_wrong(capture_file):
    with pytest.raises(FilterError):
        frames_of(CaptureFile(capture_file(), "udp prt 5"))


def test_how_far_it_is_read_is_told(capture_file):
    read = []
    path = capture_file()
    frames_of(CaptureFile(path, None, read.append))
    assert sum(read) == os.path.getsize(path)


def test_a_silent_pipe_lets_time_pass(made):
    read, write = os.pipe()
    content = made.pcap(*made.frames)
    os.write(write, content[:60])
    batches = CaptureFile(f"/dev/fd/{read}").batches()
    first = [next(batches) for _ in range(2)]
    assert [len(batch.frames) for batch in first if batch.frames] in ([], [1])
    assert any(not batch.frames for batch in first)
    os.write(write, content[60:])
    os.close(write)
    rest = [bytes(batch.buffer[at:end]) for batch in batches for _, at, end, _ in batch.frames]
    assert rest == list(made.frames[len(made.frames) - len(rest) :])
    assert len(rest) >= 4
    os.close(read)
