"""Hostile bytes at the packet decoder and the capture readers. `corpus/` is where the mutations begin.

A file in `corpus/packets` is a frame, and its name begins with the number of its link type.
"""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.event import Source
from pfw.model.flow import Direction, make_flow, reverse_key, split_key
from pfw.model.packet import Packet
from pfw.wire.anomaly import ANOMALY_TEXTS
from pfw.wire.capture import CaptureReader, Ending
from pfw.wire.error import WireError
from pfw.wire.link import LINKS
from pfw.wire.packet import decode, in_order
from pfw.wire.pcap import BATCH_FRAMES, MAX_FRAME_BYTES
from pfw.wire.scan import scan

CORPUS = Path(__file__).parent / "corpus"
PACKETS = [(int(path.name.split("-")[0]), path.read_bytes()) for path in sorted((CORPUS / "packets").iterdir())]
FILES = [path.read_bytes() for path in sorted((CORPUS / "pcap").iterdir())]
LINKTYPES = sorted(LINKS)
SEED = 20_240_229
MUTATIONS = 4000


def check_packet(linktype, frame, size):
    """All that is promised of a packet, whatever the bytes."""
    packet = decode(linktype, frame, size)
    assert isinstance(packet, Packet)
    assert set(packet.anomalies) <= set(ANOMALY_TEXTS)
    assert packet.not_ip is None or packet.not_ip.isprintable()
    assert (packet.not_ip is None) or not packet.undecodable
    if packet.undecodable or packet.not_ip:
        assert packet.key is None
    elif packet.key is None:
        assert packet.fragment is not None
    for key in (packet.key, packet.quoted_key):
        if key is not None:
            assert reverse_key(reverse_key(key)) == key
            assert len(split_key(key)[1]) == len(split_key(key)[2])
    if packet.key is not None:
        flow = make_flow(*split_key(packet.key), Direction.IN)
        assert (flow.protocol, flow.source, flow.destination) == (packet.protocol, packet.source, packet.destination)
        assert (flow.source_port, flow.port) == (packet.source_port, packet.port)
    at, end = 3, 3 + len(frame)
    item = scan(Source(linktype), b"abc" + frame, [(1.0, at, end, size)])[0]
    assert item == (packet.key, 1.0, size, packet.tcp_flags, at, end, None if in_order(packet) else packet)


def mutate(chance, data):
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        action = chance.randrange(5)
        if action == 0:
            changed[at : at + 1] = bytes((chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))),))
        elif action == 1:
            changed[at : at + 4] = chance.randrange(1 << 32).to_bytes(4, chance.choice(("little", "big")))
        elif action == 2:
            del changed[at : at + chance.randint(1, 12)]
        elif action == 3:
            changed[at:at] = changed[at : at + chance.randint(1, 40)]
        elif at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
    return bytes(changed)


@given(st.sampled_from([*LINKTYPES, 147]), st.binary(max_size=200), st.integers(-5, 70_000))
@settings(deadline=None, max_examples=300)
def test_random_bytes_are_decoded(linktype, frame, size):
    check_packet(linktype, frame, size)


@given(st.sampled_from(PACKETS), st.integers(0, 100), st.sampled_from(LINKTYPES))
@settings(deadline=None, max_examples=200)
def test_cut_packets_are_decoded(packet, cut, other_linktype):
    linktype, frame = packet
    check_packet(linktype, frame[:cut], len(frame))
    check_packet(linktype, frame[:cut], cut)
    check_packet(other_linktype, frame[:cut], len(frame))


def test_mutated_packets_are_decoded():
    chance = random.Random(SEED)
    for _ in range(MUTATIONS):
        linktype, frame = chance.choice(PACKETS)
        changed = mutate(chance, frame)
        check_packet(linktype, changed, len(changed) + chance.choice((0, 0, 0, 1, 100)))


def read(data, steps):
    """What a reader gives for a file that comes in chunks of the sizes that `steps` yields."""
    reader = CaptureReader()
    found = []
    at = 0
    try:
        while at < len(data):
            chunk = data[at : at + next(steps)]
            at += len(chunk)
            for source, buffer, frames in reader.feed(chunk):
                assert 0 < len(frames) <= BATCH_FRAMES
                for time, begin, end, size in frames:
                    assert 0 <= begin <= end <= len(buffer)
                    assert end - begin <= MAX_FRAME_BYTES
                    assert 0 <= time < 1e12
                    found.append((source, time, bytes(buffer[begin:end]), size))
        ending = reader.finish()
    except WireError as error:
        text = str(error)
        assert text.isprintable()
        return found, text
    assert isinstance(ending, Ending)
    return found, ending


def always(step):
    while True:
        yield step


def check_file(chance, data):
    whole = read(data, always(max(1, len(data))))
    assert read(data, always(chance.choice((1, 2, 5, 13, 64)))) == whole
    assert read(data, iter(lambda: chance.randint(1, 200), 0)) == whole


@pytest.mark.parametrize("data", FILES, ids=[path.name for path in sorted((CORPUS / "pcap").iterdir())])
def test_the_corpus_reads_the_same_in_any_chunks(data):
    check_file(random.Random(SEED), data)


def test_mutated_files_read_the_same_in_any_chunks():
    chance = random.Random(SEED)
    for _ in range(MUTATIONS // 4):
        check_file(chance, mutate(chance, chance.choice(FILES)))


@given(st.sampled_from([b"", *(data[:24] for data in FILES)]), st.binary(max_size=300), st.integers(0, 1000))
@settings(deadline=None, max_examples=200)
def test_random_files_read_the_same_in_any_chunks(head, rest, seed):
    check_file(random.Random(seed), head + rest)


def test_what_real_packets_become_when_bytes_change(captures):
    chance = random.Random(SEED)
    for path in captures:
        data = path.read_bytes()[:20_000]
        for source, buffer, frames in CaptureReader().feed(data):
            for _, at, end, _ in frames[:12]:
                check_packet(source.linktype, mutate(chance, buffer[at:end]), end - at)
            break
        for _ in range(4):
            found, _ = read(mutate(chance, data), always(4096))
            assert len(found) <= len(data) // 12


@pytest.mark.parametrize("data", FILES, ids=[path.name for path in sorted((CORPUS / "pcap").iterdir())])
def test_memory_is_bounded_whatever_a_file_says(data):
    """Six megabytes of junk behind each file: what is kept of it is a record at most."""
    reader = CaptureReader()
    junk = random.Random(SEED).randbytes(1 << 16)
    tracemalloc.start()
    try:
        for chunk in (data, *[junk] * 100):
            for _ in reader.feed(chunk):
                pass
    except WireError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
