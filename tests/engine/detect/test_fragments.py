"""Fragments of one datagram: those that fit, in any order and twice, say nothing; the others do."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.fragments import (
    COMPLETE_S,
    DATAGRAMS_MAX,
    FRAGMENTS_MAX,
    KEEP_S,
    TINY_BYTES,
    FragmentWatch,
)
from pfw.model.packet import UDP, Fragment, Packet

ENDS = (b"\xc0\0\2\1", b"\xc6\x33\x64\2", UDP)


def piece(offset: int, size: int, more: bool = True, ident: int = 1) -> Packet:
    source, destination, protocol = ENDS
    return Packet(
        source=source, destination=destination, protocol=protocol, fragment=Fragment(ident, offset, more, size)
    )


def follow(watch: FragmentWatch, *packets: Packet, time: float = 0.0) -> list[str]:
    return [name for packet in packets for name in watch.follow(packet, time)]


WHOLE = [piece(0, 1480), piece(1480, 1480), piece(2960, 500, more=False)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 0, 1, 1, 2, 2), (0, 1, 2, 0, 1, 2)])
def test_what_fits(order):
    watch = FragmentWatch()
    assert follow(watch, *[WHOLE[at] for at in order]) == []
    assert watch.gaps() == []


def test_a_number_that_is_used_again():
    watch = FragmentWatch()
    other = [piece(0, 800), piece(800, 10, more=False)]
    assert follow(watch, *WHOLE) == []
    assert watch.gaps(0.0) == []
    assert follow(watch, *other, time=COMPLETE_S + 1) == []
    assert follow(watch, *WHOLE, time=2 * COMPLETE_S + 2) == []


@pytest.mark.parametrize(
    "other",
    [piece(8, 1480), piece(1472, 1480), piece(1480, 1472), piece(0, 1488), piece(2960, 508, more=False),
     piece(3000, 8), piece(4000, 8, more=False)],
)  # fmt: skip
def test_what_overlaps_or_lies_beyond_the_end(other):
    assert follow(FragmentWatch(), WHOLE[0], WHOLE[2], WHOLE[1], other)[:1] == ["overlap"]


def test_each_name_once_for_a_datagram():
    watch = FragmentWatch()
    assert follow(watch, piece(0, 80), piece(40, 80), piece(56, 80)) == ["overlap"]
    assert follow(watch, piece(0, 80, ident=2), piece(40, 80, ident=2)) == ["overlap"]


@pytest.mark.parametrize(("offset", "size", "more", "found"), [
    (0, TINY_BYTES - 8, True, ["tiny"]), (0, TINY_BYTES, True, []), (1472, 8, False, []), (1472, 8, True, []),
])  # fmt: skip
def test_tiny_ones(offset, size, more, found):
    assert follow(FragmentWatch(), piece(offset, size, more)) == found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_hole_that_stays_and_that_no_loss_makes(order):
    watch = FragmentWatch()
    pieces = piece(0, 1472), piece(1480, 1480)
    follow(watch, *[pieces[at] for at in order])
    assert watch.gaps(KEEP_S) == []
    assert watch.gaps(KEEP_S + 1) == [ENDS]
    assert len(watch) == 0


@pytest.mark.parametrize("there", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_what_was_lost_is_ordinary(there):
    watch = FragmentWatch()
    follow(watch, *[WHOLE[at] for at in there])
    assert watch.gaps() == []


def test_too_many():
    watch = FragmentWatch()
    assert follow(watch, *[piece(at * 80, 80) for at in range(FRAGMENTS_MAX)]) == []
    assert follow(watch, *[piece(at * 80, 80) for at in range(FRAGMENTS_MAX, 500)]) == ["too_many"]
    assert len(next(iter(watch._datagrams.values())).ranges) == FRAGMENTS_MAX


def test_all_in_one_piece_says_nothing():
    watch = FragmentWatch()
    assert follow(watch, piece(0, 8, more=False), piece(0, 16, more=False)) == []
    assert len(watch) == 0


def test_the_number_of_datagrams_is_bounded():
    watch = FragmentWatch()
    follow(watch, *[piece(0, 80, ident=ident) for ident in range(DATAGRAMS_MAX + 10)])
    assert len(watch) == DATAGRAMS_MAX


@given(cuts=st.sets(st.integers(6, 800), min_size=1, max_size=20), seed=st.integers(0, 99))
def test_any_cut_in_any_order_fits(cuts, seed):
    places = [0, *(each * 8 for each in sorted(cuts)), 801 * 8]
    pieces = [piece(at, end - at, end != places[-1]) for at, end in pairwise(places)]
    Random(seed).shuffle(pieces)
    watch = FragmentWatch()
    assert set(follow(watch, *pieces)) <= {"tiny"}
    assert watch.gaps() == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20), st.integers(0, 20), st.booleans()), max_size=60))
def test_never_raises(told):
    watch = FragmentWatch()
    for time, (ident, offset, size, more) in enumerate(told):
        watch.follow(piece(offset * 8, size * 8, more, ident), float(time))
        watch.gaps(float(time))
    watch.gaps()
