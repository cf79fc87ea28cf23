"""Reflection in dialogues of made observations. Whoever reflects is innocent, and neither named nor banned."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.detect.dialogue import alerts
from tests.engine.detect.flooding import (
    ATTACKER,
    SEEN,
    TARGET,
    flows,
    forged,
    in_time,
    is_sound,
    met,
    stream,
    wanted,
)

from pfw.engine.detect.reflection import REFLECTORS, REPEATED_MIN, Reflection
from pfw.model.address import parse_address
from pfw.model.observation import Kind, Stray
from pfw.model.packet import ACK, RST, SYN, UDP


def answers(many, rate, port, sources=5_000, **others):
    return flows(
        many,
        rate,
        UDP,
        source=lambda number: forged(number % sources),
        source_port=port,
        port=lambda number: 20_000 + number,
        size_bytes=400,
        **others,
    )


@pytest.mark.parametrize("port", sorted(REFLECTORS))
def test_answers_that_nobody_asked_for(port):
    found = alerts(Reflection(), answers(4_300, 180_000, port))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.REFLECTION, None, TARGET, ())
    }  # fmt: skip
    assert found[-1].score >= 80
    assert f"4300 answers of {REFLECTORS[port]}" in found[-1].evidence


def test_many_servers_that_send_little_each():
    assert alerts(Reflection(), answers(50, 500, 123))[-1].target == TARGET


def test_few_are_none():
    assert alerts(Reflection(), answers(200, 20, 53)) == []
    assert alerts(Reflection(), answers(600, 60, 53, sources=20)) == []
    assert alerts(Reflection(), answers(400, 200, 53, sources=3)) == []


def test_a_single_reflector_that_sends_much():
    [first] = answers(1, 1, 11211)
    assert alerts(Reflection(), [first, *stream(first, 2, 5_000, size_bytes=1_400)])[-1].ban == ()
    assert alerts(Reflection(), [first, *stream(first, 2, 5_000, size_bytes=1_400, is_answered=True)]) == []


def test_clients_that_ask_from_the_port_of_the_service_are_answered():
    first = answers(3_000, 1_000, 123)
    assert alerts(Reflection(), in_time(first, met(first))) == []


def test_many_that_answer_a_search_are_none():
    [search] = flows(1, 1, UDP, source=TARGET, target=parse_address("239.255.255.250"), port=1900, start=99.0)
    found = answers(150, 1_000, 1900, sources=30)
    assert alerts(Reflection(), [search, *found]) == []
    assert alerts(Reflection(), found) != []
    assert alerts(Reflection(), [search, *answers(4_000, 4_000, 1900)]) != []


def syn_acks(many, rate, sources, flags=SYN | ACK, port=80):
    return [
        Stray(100.0 + number / rate, forged(number % sources), TARGET, port, 1_024 + number, flags)
        for number in range(many)
    ]


def test_syn_acks_of_many_servers():
    found = alerts(Reflection(), syn_acks(3_000, 1_000, 500))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.REFLECTION, None, TARGET, ())
    }  # fmt: skip


def test_one_direction_of_ordinary_connections_is_none():
    data = syn_acks(3_000, 1_000, 500, ACK)
    assert alerts(Reflection(), in_time(syn_acks(3_000, 1_000, 500), data)) == []


def test_backscatter_is_none():
    """A server is flooded in the name of many: each of them gets a SYN-ACK some times, or a reset."""
    seen = [
        Stray(100.0 + wait, ATTACKER, forged(number), 80, 999, SYN | ACK) for number in range(300) for wait in (0, 1, 3)
    ]
    assert alerts(Reflection(), in_time(seen)) == []
    assert alerts(Reflection(), syn_acks(3_000, 1_000, 1)) == []
    assert alerts(Reflection(), syn_acks(3_000, 1_000, 500, RST | ACK)) == []


@pytest.mark.parametrize(("times", "told"), [(6, False), (REPEATED_MIN - 1, False), (REPEATED_MIN, True)])
def test_a_syn_ack_that_comes_without_end(times, told):
    """Linux sends one 6 times."""
    seen = [Stray(100.0 + 2 * number, ATTACKER, TARGET, 21, 21, SYN | ACK) for number in range(times)]
    found = alerts(Reflection(), seen)
    assert [(each.source, each.target, each.ban) for each in found] == [(None, TARGET, ())] * told


@settings(deadline=None, max_examples=60)
@given(st.lists(SEEN, max_size=60))
def test_never_raises_names_nobody_and_bans_nobody(seen):
    detector = Reflection(3)
    for each in alerts(detector, wanted(detector, seen)):
        assert is_sound(each)
        assert each.ban == ()
        assert each.source is None or each.score


def test_its_tables_are_bounded():
    detector = Reflection(20)
    for each in answers(500, 1_000, 53, target=lambda number: forged(70_000 + number)):
        list(detector.observe(each))
    assert (len(detector._floods), detector.refused) == (20, 0)
