"""What proves a source, without detectors: in company of others, and by itself."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.proof import (
    KNOWN_MAX,
    MEMBERS_MAX,
    PLACES_MAX,
    PLACES_S,
    RECENT_MAX,
    RECENT_PLACES_MAX,
    TOGETHER_S,
    Company,
    Handshakes,
    Latest,
    are_proof,
    is_alone,
    is_by_reset,
)
from pfw.model.observation import Began, Confirmed, Ended, HalfOpen, Met, Reply
from pfw.model.packet import TCP, UDP


def source(number: int) -> bytes:
    return number.to_bytes(4)


@pytest.mark.parametrize(
    ("resets", "tried", "least", "proved"),
    [(0, 10, 1, False), (1, 10, 1, True), (1, 10, 2, False), (5, 10, 1, True), (6, 10, 1, False), (2, 3, 2, False)],
)
def test_enough_resets_and_not_too_many(resets, tried, least, proved):
    assert are_proof(resets, tried, least) is proved


@pytest.mark.parametrize(
    ("by_reset", "port", "proof"),
    [(True, 1024, True), (True, 1023, False), (True, None, False), (False, 50_000, False)],
)
def test_which_resets_count(by_reset, port, proof):
    began = Began(1.0, TCP, source(1), source(2), port, 22)
    assert is_by_reset(Confirmed(2.0, began, by_reset)) is proof


@pytest.mark.parametrize(
    ("by_reset", "received", "proof"),
    [
        (False, (3, 210), True),  # closed by both
        (True, (1, 74), True),  # a scanner that resets what was accepted
        (True, (2, 128), False),  # we reset: the acknowledgement was one of 66,000 that were tried
        (True, (4, 236), False),
        (True, (4, 282), False),  # answered three times meanwhile: whoever guesses may take their time
        (True, (2, 190), True),  # a greeting was sent: the machine itself believes the handshake
    ],
)
def test_a_number_that_may_be_guessed_proves_nothing(by_reset, received, proof):
    handshakes = Handshakes(3600.0)
    began = Began(1.0, TCP, source(1), source(2), 40_000, 22, None, 74)
    handshakes.confirmed(Confirmed(2.0, began))
    packets, size = received
    assert handshakes.ended(Ended(3.0, began, 128, 2, size, packets, by_reset)) is proof


def leave(handshakes, number, port, time) -> bool:
    """Opens a port and leaves it: whether that counts."""
    began = Began(time, TCP, source(number), source(2), 40_000, port, None, 74)
    handshakes.confirmed(Confirmed(time, began))
    return handshakes.ended(Ended(time, began, 206, 3, 74, 1, by_reset=True))


def test_a_port_that_let_its_source_in_before_proves_nothing():
    handshakes = Handshakes(3600.0)
    assert leave(handshakes, 1, 22, 100.0)
    assert [leave(handshakes, 1, 22, time) for time in (110.0, 3_000.0, 6_000.0)] == [False] * 3
    assert leave(handshakes, 1, 80, 110.0)
    assert leave(handshakes, 3, 22, 110.0)
    assert leave(handshakes, 1, 22, 6_000.0 + 3601.0)


def test_a_long_session_is_known_until_its_end():
    handshakes = Handshakes(3600.0)
    began = Began(0.0, TCP, source(1), source(2), 40_001, 22, None, 74)
    handshakes.confirmed(Confirmed(1.0, began))
    assert not handshakes.ended(Ended(9_000.0, began, 90_000, 100, 90_000, 100))
    assert not leave(handshakes, 1, 22, 10_000.0)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Met(9.0, Began(9.0, TCP, source(1), source(2), 1, 22), Reply.REFUSED), True),
        (Met(1e6, Began(1e6, TCP, source(1), source(2), 1, 22), Reply.SILENT), True),
        (Met(9.0, Began(9.0, TCP, source(1), source(2), 1, 23), Reply.REFUSED), False),
        (Met(9.0, Began(9.0, TCP, source(1), source(3), 1, 22), Reply.REFUSED), False),
        (Met(9.0, Began(9.0, TCP, source(3), source(2), 1, 22), Reply.REFUSED), False),
        (Met(9.0, Began(9.0, UDP, source(1), source(2), 1, 22), Reply.SILENT), False),
        (Confirmed(9.0, Began(9.0, TCP, source(1), source(2), 1, 22), by_reset=True), False),
        (HalfOpen(9.0, Began(9.0, TCP, source(1), source(2), 1, 22)), False),
    ],
)
def test_what_once_let_in_and_does_not_answer_is_an_outage(seen, expected):
    handshakes = Handshakes(3600.0)
    assert not handshakes.is_outage(seen)
    reset = Began(4.0, TCP, source(1), source(2), 1, 22)
    handshakes.confirmed(Confirmed(4.0, reset, by_reset=True))
    assert not handshakes.is_outage(seen)
    leave(handshakes, 1, 22, 5.0)
    assert handshakes.is_outage(seen) is expected


def test_what_is_known_is_bounded_and_the_latest_is_kept():
    handshakes = Handshakes(3600.0)
    for number in range(KNOWN_MAX + 9):
        leave(handshakes, number, 22, 10.0)
        leave(handshakes, 0, 22, 10.0)
    assert len(handshakes._known) == KNOWN_MAX
    assert not leave(handshakes, 0, 22, 11.0)
    assert leave(handshakes, 1, 22, 11.0)


def test_the_latest_time_of_each_and_of_too_many_the_oldest_is_forgotten():
    latest = Latest[int](2)
    noted = [latest.note(number, time) for number, time in ((1, 5.0), (2, 6.0), (1, 7.0), (3, 8.0))]
    assert noted == [None, None, 5.0, None]
    assert [latest.get(number) for number in (1, 2, 3)] == [7.0, None, 8.0]
    assert 1 in latest
    assert 2 not in latest


def tried(things, first=100.0, last=110.0) -> SimpleNamespace:
    return SimpleNamespace(first=first, last=last, things=set(things))


def alone(own, *others) -> bool:
    return is_alone(own, len(own.things), others, lambda one, other: len(one.things & other.things))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (tried(range(10)), False),
        (tried(range(1_000)), False),
        (tried(range(5, 100)), False),
        (tried(range(6, 100)), True),
        (tried(range(10), last=100 - TOGETHER_S - 0.1, first=50.0), True),
        (tried(range(10), last=100 - TOGETHER_S, first=50.0), False),
        (tried(range(10), first=110 + TOGETHER_S + 0.1, last=200.0), True),
        (None, True),
    ],
)
def test_who_tries_largely_the_same_at_the_same_time(other, expected):
    assert alone(tried(range(10)), other) is expected
    assert alone(tried(range(10)), tried([99]), other) is expected


def test_company_is_kept_by_place():
    company = Company()
    for number in range(3):
        company.joined("a", source(number), 1.0)
    company.joined("b", source(3), 1.0)
    assert company.others("a", source(1)) == [source(0), source(2)]
    assert company.others("b", source(3)) == []
    assert company.others("c", source(1)) is None


def test_who_came_long_ago_makes_room():
    company = Company()
    for number in range(MEMBERS_MAX):
        company.joined("a", source(number), 1.0)
    for number in range(MEMBERS_MAX - 1):
        company.joined("a", source(number), 500.0)
    company.joined("a", source(1_000), 2.0 + PLACES_S)
    others = company.others("a", source(1_000))
    assert others is not None
    assert source(MEMBERS_MAX - 1) not in others
    company.joined("a", source(1_001), 3.0 + PLACES_S)
    assert company.others("a", source(1_001)) is None


def test_who_has_just_begun_the_same_is_company_whatever_comes_of_it():
    company = Company()
    for port in range(10):
        for who in range(3 if port < 5 else 2):
            company.began("a", source(who), port, 100.0 + port)
        company.began("a", source(9), port + 1_000, 100.0 + port)
        company.began("b", source(8), port, 100.0 + port)
    assert not company.is_alone_at("a", source(0), 109.0)
    assert not company.is_alone_at("a", source(1), 109.0)
    assert company.is_alone_at("a", source(9), 109.0)
    assert company.is_alone_at("b", source(8), 109.0)
    assert company.is_alone_at("c", source(0), 109.0)
    assert company.is_alone_at("a", source(0), 120.0)


def test_of_many_decoys_the_latest_tell():
    company = Company()
    for port in range(10):
        for who in range(RECENT_MAX):
            company.began("a", source(who), port, 100.0)
    assert not company.is_alone_at("a", source(7), 100.0)
    for place in range(2 * RECENT_PLACES_MAX):
        company.began(place, source(1), 1, 100.0)
    assert len(company._recent) == RECENT_PLACES_MAX


def test_places_are_bounded():
    company = Company()
    for number in range(2 * PLACES_MAX):
        company.joined(number, source(1), 1.0)
    assert len(company._places) == PLACES_MAX
    assert company.others(2 * PLACES_MAX - 1, source(1)) == []
    assert company.others(0, source(1)) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.floats(0, 1e9)), max_size=200))
def test_never_raises_and_never_tells_of_oneself(steps):
    company = Company()
    for place, number, now in steps:
        company.joined(place, source(number), now)
        others = company.others(place, source(number))
        assert others is None or (source(number) not in others and len(others) < MEMBERS_MAX)
