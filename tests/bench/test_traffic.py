"""The made-up traffic is what it says: counted, repeatable, correct to the checksum, whole conversations."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from ends import LOCAL4, LOCAL6
from pfw.engine.engine import Engine
from pfw.engine.totals import Totals
from pfw.model.address import AddressSet, parse_range
from pfw.model.command import Suspicious
from pfw.model.event import LocalAddresses, Packets, Source
from pfw.model.flow import Direction, reverse_key
from pfw.model.policy import Policy
from pfw.model.verdict import Action
from pfw.wire.link import ETHERNET
from pfw.wire.packet import decode
from traffic import Frame, Mix, generate, read_capture, write_capture

MIX = Mix(4_000, 200)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return generate(MIX)


def words_sum(data: bytes) -> int:
    """The sum of 16-bit words with carries, word by word (RFC 1071); 0xFFFF for data with a right checksum in it."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def judged(frames: list[Frame]) -> tuple[Totals, list[Suspicious]]:
    engine = Engine(Policy(defaults=dict.fromkeys(Direction, Action.ALLOW)))
    engine.step(LocalAddresses(AddressSet([parse_range(LOCAL4), parse_range(LOCAL6)])), 0.0)
    suspicious = []
    for time, frame in frames:
        packet = decode(ETHERNET, frame, len(frame))
        item = (packet.key, time, len(frame), packet.tcp_flags, 0, len(frame), packet)
        commands = engine.step(Packets(Source(ETHERNET), frame, [item]), time)
        suspicious += [each for each in commands if isinstance(each, Suspicious)]
    return engine.totals(), suspicious


def test_has_exactly_the_packets_and_flows_asked_for(frames):
    keys = {decode(ETHERNET, frame, len(frame)).key for _, frame in frames}
    flows = {min(key, reverse_key(key)) for key in keys}
    assert (len(frames), len(flows)) == (MIX.packets, MIX.flows)


def test_the_same_mix_is_the_same_bytes(frames):
    assert generate(Mix(4_000, 200)) == frames
    assert generate(Mix(4_000, 200, seed=2)) != frames


def test_is_in_order_of_time_and_conversations_overlap(frames):
    times = [time for time, _ in frames]
    ports = [frame[34:38] for _, frame in frames]
    assert times == sorted(times)
    assert sum(one != other for one, other in pairwise(ports)) > len(ports) / 2


def test_all_packets_belong_to_whole_connections(frames):
    totals, suspicious = judged(frames)
    assert (totals.packets, totals.connections, totals.undecodable, totals.midstream) == (4_000, 200, 0, 0)
    assert next(row for row in totals.rules if row.name == "base invalid").packets == 0
    assert suspicious == []


def test_checksums_are_right(frames):
    for _, frame in frames:
        is_ipv6 = frame[12:14] == b"\x86\xdd"
        addresses, segment = (frame[22:54], frame[54:]) if is_ipv6 else (frame[26:34], frame[34:])
        protocol = frame[20] if is_ipv6 else frame[23]
        pseudo = addresses + protocol.to_bytes(2) + len(segment).to_bytes(2)
        assert words_sum(pseudo + segment) == 0xFFFF
        assert is_ipv6 or words_sum(frame[14:34]) == 0xFFFF


def test_is_a_mix(frames):
    packets = [decode(ETHERNET, frame, len(frame)) for _, frame in frames]
    protocols = Counter(packet.protocol for packet in packets)
    families = Counter(len(packet.source) for packet in packets)
    assert protocols[6] > protocols[17] > 0
    assert families[4] > families[16] > 0
    assert {53, 443} <= {packet.port for packet in packets}


def test_fits_through_ethernet(frames):
    assert max(len(frame) for _, frame in frames) == 1514


def test_payloads_can_be_kept_small():
    assert max(len(frame) for _, frame in generate(Mix(400, 20, payload_bytes=64))) <= 14 + 40 + 40 + 64


def test_tcp_alone():
    frames = generate(Mix(900, 50, tcp_only=True))
    assert {decode(ETHERNET, frame, len(frame)).protocol for _, frame in frames} == {6}


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match="10 packets do not make 20 flows"):
        generate(Mix(10, 20))


def test_a_capture_is_read_back(frames, tmp_path: Path):
    path = tmp_path / "made.pcap"
    write_capture(path, frames)
    assert read_capture(path) == [frame for _, frame in frames]
