"""What a policy tells apart: places on lines, held against the rules themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

import pytest

from pfw.model.address import from_int
from pfw.model.rule import MINUTES_A_WEEK
from pfw.policy.apart import Apart
from pfw.policy.load import load
from pfw.policy.match import minute_of_week

from .histories import HOUR_S, MONDAY

WEEK_S = 7 * 86400.0


def apart(*rules: dict, utc_offset_s: Callable[[float], int] = lambda time: 0) -> Apart:
    named = [{"name": str(number), "action": "block", **rule} for number, rule in enumerate(rules)]
    return Apart(load(json.dumps({"version": 2, "rules": named})), utc_offset_s)


@pytest.mark.parametrize("field", ["from", "to", "remote"])
def test_addresses_and_ports_change_places_where_a_rule_begins_or_ends(field):
    found = apart({field: "10.0.0.4-10.0.0.6"}, {"protocol": "tcp", "from_port": [7, "20-30"]})
    places = [found.address(from_int((10 << 24) + last)) for last in range(3, 9)]
    assert places[1] == places[2] == places[3] != places[0]
    assert places[4] == places[5] != places[3]
    ports = [found.port(number) for number in (6, 7, 8, 19, 20, 30, 31)]
    assert ports[2] == ports[3]
    assert ports[4] == ports[5]
    assert len(set(ports)) == 5
    assert found.port(None) == -1


def test_families_and_what_is_no_address_are_apart():
    found = apart()
    assert len({found.address(each) for each in (bytes(4), bytes(16), bytes(15) + b"\1", b"", b"\x7f\0\0\1")}) == 5


def test_phases_are_those_of_the_minutes_between():
    chance = Random(1)
    for offset_s in (0, 3600, -5 * 3600):
        found = apart(
            {"schedule": {"from": "08:00", "until": "12:00"}},
            {"schedule": {"days": ["sat", "sun"]}},
            {"schedule": {"from": "23:30", "until": "00:15"}},
            utc_offset_s=lambda time, offset_s=offset_s: offset_s,
        )
        for _ in range(60):
            first = MONDAY + chance.randrange(int(WEEK_S))
            length_s = chance.choice([0, 60, 3 * HOUR_S, 30 * HOUR_S, 2 * WEEK_S])
            seconds = range(0, int(min(length_s, WEEK_S)) + 1, 60)
            expected = {found.phases(first + second, first + second)[0] for second in seconds}
            phases = found.phases(first, first + length_s)
            assert sorted(phases) == sorted(expected)


@pytest.mark.parametrize(("before_s", "after_s"), [(36000, 39600), (39600, 36000), (-12600, -9000), (-1800, -3600)])
def test_over_a_change_of_the_clock_phases_are_all_that_it_showed(before_s, after_s):
    chance = Random(2)
    change = MONDAY + 2 * 86400
    found = apart(
        {"schedule": {"from": "11:30", "until": "13:00"}},
        {"schedule": {"from": "01:20", "until": "02:10"}},
        utc_offset_s=lambda time: before_s if time < change else after_s,
    )
    for _ in range(200):
        first = change - chance.randrange(2 * 86400)
        last = first + chance.randrange(3 * 86400)
        # The week has no end: what is before its first border is behind its last one, too.
        shown = {found.phases(time, time)[0] or 28 for time in (*range(int(first), int(last), 60), last)}
        phases = [phase or 28 for phase in found.phases(first, last)]
        assert shown <= set(phases)
        # Where the clock goes forward it shows no more than that.
        assert len(phases) == len(set(phases))
        assert after_s < before_s or shown == set(phases)


def test_a_time_that_ends_before_a_border_has_one_phase():
    found = apart({"schedule": {"from": "12:00", "until": "13:00"}})
    noon = MONDAY + 12 * HOUR_S
    assert len(found.phases(noon - HOUR_S, noon - 1)) == 1
    assert len(found.phases(noon - HOUR_S, noon)) == 2


def test_a_moment_is_of_its_phase():
    found = apart({"schedule": {"days": ["tue"], "from": "10:00", "until": "11:00"}})
    for phase in found.phases(0.0, WEEK_S):
        moment = found.moment(phase)
        same = found.phases(moment.time, moment.time)
        assert same[0] in (phase, 0, 2)
        assert (minute_of_week(moment) - (1440 + 600)) % MINUTES_A_WEEK < 60 or phase != 1


def test_without_schedules_there_is_one_phase_and_too_many_are_none():
    assert apart().phases(0.0, WEEK_S) == (0,)
    many = [{"schedule": {"from": f"{m // 60:02}:{m % 60:02}", "until": "23:59"}} for m in range(70)]
    assert apart(*many).phases(0.0, WEEK_S) == ()
    assert len(apart(*many).phases(0.0, 0.0)) == 1
    assert apart({"schedule": {"days": ["mon"]}, "enabled": False}).phases(0.0, WEEK_S) == (0,)
