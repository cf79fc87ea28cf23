"""The forged flood is what it says: correct packets of so many sources, and the victim's answers."""

from __future__ import annotations

from collections import Counter

import pytest

from detecting import flood
from ends import LOCAL4
from pfw.model.address import parse_address
from pfw.model.packet import ACK, SYN
from pfw.wire.link import ETHERNET
from pfw.wire.packet import decode

HERE = parse_address(LOCAL4)


@pytest.fixture(scope="module")
def packets():
    return [decode(ETHERNET, frame, len(frame)) for _, frame in flood(2_000, 300)]


def test_a_flood_has_so_many_packets_of_so_many_sources(packets):
    assert len(packets) == 2_000
    assert len({packet.source for packet in packets if packet.destination == HERE}) == 300


def test_most_are_to_the_victim_and_a_few_are_its_answers(packets):
    flags = Counter((packet.destination == HERE, packet.tcp_flags) for packet in packets)
    assert set(flags) == {(True, SYN), (False, SYN | ACK)}
    assert 5 * flags[False, SYN | ACK] == pytest.approx(flags[True, SYN], rel=0.01)


def test_packets_are_whole(packets):
    assert not any(packet.anomalies for packet in packets)


def test_the_same_flood_is_the_same_bytes():
    assert list(flood(200, 30)) == list(flood(200, 30))
