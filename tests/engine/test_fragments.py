"""Fragments follow their first one, whatever the order, and none is left uncounted."""

import pytest

from pfw.engine.fragments import DATAGRAMS_MAX, FRAGMENT_TIMEOUT_S, Fragments
from pfw.model.event import Finish
from pfw.model.packet import TCP, UDP, Fragment, Packet

BOTH = pytest.mark.parametrize("family", ["out", "out6"])


def pieces(wire, family: str, ident: int = 99) -> list[bytes]:
    way = getattr(wire, family)
    return way.fragments(UDP, way.datagram(bytes(60)), 24, ident)


@BOTH
def test_in_order(script, wire, family):
    s = script()
    s >> pieces(wire, family)
    assert s.answers.pop(0).startswith("#1 out UDP ")
    assert s.rule("default out") == (1, 3)
    s >> Finish() << "#1 ended: shutdown, new, 3/0 packets, 0 s"


@BOTH
@pytest.mark.parametrize("order", [(2, 1, 0), (1, 0, 2), (2, 0, 1)])
def test_out_of_order(script, wire, family, order):
    s = script()
    first, second, third = pieces(wire, family)
    for at in order:
        s >> [(first, second, third)[at]]
        if at == 0:
            assert s.answers.pop(0).startswith("#1 out UDP ")
    assert s.rule("default out") == (1, 3)


@BOTH
def test_without_the_first_they_belong_to_nothing(script, wire, family):
    s = script()
    s >> pieces(wire, family)[1:]
    assert s.rule("base invalid") == (0, 2)
    s >> Finish()
    assert s.rule("base invalid") == (0, 2)


@BOTH
def test_a_first_one_that_comes_too_late_is_another_datagram(script, wire, family):
    s = script()
    first, second, third = pieces(wire, family)
    s >> second >> FRAGMENT_TIMEOUT_S + 1 >> first
    assert s.answers.pop(0).startswith("#1 out UDP ")
    s >> third
    assert s.rule("base invalid") == (0, 1)
    assert s.rule("default out") == (1, 2)


def test_datagrams_are_told_apart_by_number_and_ends(script, wire):
    s = script()
    one, other = pieces(wire, "out", 1), pieces(wire, "out", 2)
    elsewhere = wire.Path(wire.here, wire.other).fragments(UDP, wire.out.datagram(bytes(60)), 24, 1)
    s >> one[0]
    s.answers.clear()
    s >> [one[1], other[1], elsewhere[1]]
    assert s.rule("default out") == (1, 2)
    assert s.rule("base invalid") == (0, 2)


def test_later_fragments_of_tcp_have_no_flags_and_are_no_null_scan(script, wire):
    s = script()
    s >> wire.out.tcp("S") << "#1 out TCP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"
    s >> wire.out.back.tcp("SA") >> wire.out.tcp("A")
    s >> wire.out.fragments(TCP, wire.out.segment("PA", bytes(80)), 48)
    assert s.rule("default out") == (1, 6)
    assert s.rule("base invalid") == (0, 0)
    s >> Finish() << "#1 ended: shutdown, established, 5/1 packets, 0 s SPA/SA"


def test_a_first_fragment_too_short_for_its_header_starts_nothing(script, wire):
    s = script()
    s >> wire.out.fragments(TCP, wire.out.segment("S", bytes(20)), 8)
    assert [answer for answer in s.answers if not answer.startswith("suspicious")] == []
    s.answers.clear()
    assert s.rule("base invalid") == (0, 5)


def test_the_number_of_datagrams_is_bounded():
    fragments = Fragments()
    for ident in range(DATAGRAMS_MAX + 100):
        packet = Packet(protocol=UDP, source=bytes(4), destination=bytes(4), fragment=Fragment(ident, 8, True))
        assert fragments.follow(packet, 0.0, 50) == (None, (0, 0))
    assert len(fragments._datagrams) == DATAGRAMS_MAX
    assert fragments.waiting == (DATAGRAMS_MAX + 100, 50 * (DATAGRAMS_MAX + 100))
    assert fragments.lost_packets == 100


def test_early_ones_are_handed_over_once():
    fragments = Fragments()
    ends = {"protocol": UDP, "source": bytes(4), "destination": bytes(4)}
    later = Packet(**ends, fragment=Fragment(1, 8, False))
    first = Packet(**ends, key=b"the key", fragment=Fragment(1, 0, True))
    fragments.follow(later, 0.0, 30)
    assert fragments.follow(first, 0.0, 40) == (b"the key", (1, 30))
    assert fragments.follow(later, 0.0, 30) == (b"the key", (0, 0))
    assert fragments.waiting == (0, 0)


@BOTH
def test_a_later_one_starts_nothing(script, wire, family):
    way = getattr(wire, family)
    s = script()
    # A SYN and ACK that nobody asked for: the first fragment is invalid, and so is all of its datagram.
    s >> way.fragments(TCP, way.segment("SA", bytes(60)), 24)
    assert s.rule("base invalid") == (0, 4)
