"""Local times in UTC: schedules over the years, minute by minute where clocks are changed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest

from pfw.enforce.conditions import BeforeTime, InSchedule
from pfw.enforce.schedules import HORIZON_DAYS, Clock, intervals, periods, time_conditions, utc_windows
from pfw.model.flow import Direction, Moment
from pfw.model.rule import Expiry, Rule, Schedule
from pfw.model.verdict import Action
from pfw.policy.match import minute_of_week
from pfw.policy.times import make_schedule

NOW = datetime(2026, 11, 24, 10, 7, 33, tzinfo=UTC).timestamp()
DAY_S = 86400
ZONES = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "Pacific/Chatham",
         "America/Santiago", "Africa/Casablanca"]  # fmt: skip
SCHEDULES = [
    make_schedule([0, 1, 2, 3, 4], 9 * 60, 17 * 60),
    make_schedule([6], 22 * 60 + 30, 6 * 60),  # over midnight, from the last day of the week into the first
    make_schedule([5, 6], 0, 24 * 60),
    make_schedule(list(range(7)), 0, 24 * 60),
    make_schedule([6], 2 * 60, 3 * 60),  # the hour that is skipped, or comes twice
    make_schedule([3], 23 * 60 + 59, 1),
]


@lru_cache
def zone(name: str) -> Callable[[float], int]:
    info = ZoneInfo(name)

    @lru_cache(maxsize=100_000)
    def utc_offset(at: float) -> int:
        offset = datetime.fromtimestamp(at, info).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    return utc_offset


@lru_cache
def laid_out(schedule: Schedule, name: str) -> InSchedule:
    return InSchedule(schedule, periods(Clock(NOW, zone(name))))


def is_inside(pieces: list[tuple[int, int]], second: int) -> bool:
    at = bisect_right(pieces, (second, 1 << 40)) - 1
    return at >= 0 and second <= pieces[at][1]


def holds(schedule: Schedule, at: float, name: str) -> bool:
    return schedule.holds(minute_of_week(Moment(at, zone(name)(at))))


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.text)
def test_it_means_what_the_local_clock_shows(schedule, name) -> None:
    condition = laid_out(schedule, name)
    pieces = intervals(condition)
    seconds = {int(NOW) + Random(7).randrange(HORIZON_DAYS * DAY_S - 2 * DAY_S) for _ in range(300)}
    for change in [period.first for period in condition.periods[1:5]]:
        # Every minute around a change of the clock.
        seconds |= {int(change) + minute * 60 + near for minute in range(-200, 200) for near in (0, 59)}
    for second in sorted(seconds):
        assert is_inside(pieces, second) == holds(schedule, second, name), datetime.fromtimestamp(second, UTC)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.text)
def test_borders_are_exact_to_the_second(schedule) -> None:
    pieces = intervals(laid_out(schedule, "Australia/Lord_Howe"))
    for first, last in pieces[1:40]:
        for second in (first - 1, first, last, last + 1):
            assert holds(schedule, second, "Australia/Lord_Howe") == (first <= second <= last)


@pytest.mark.parametrize("name", ZONES)
def test_pieces_are_sorted_and_apart(name) -> None:
    for schedule in SCHEDULES:
        pieces = intervals(laid_out(schedule, name))
        assert all(first <= last for first, last in pieces)
        assert all(before[1] + 1 < behind[0] for before, behind in pairwise(pieces))


def test_always_is_one_piece_up_to_the_horizon() -> None:
    pieces = intervals(laid_out(SCHEDULES[3], "Europe/Berlin"))
    assert len(pieces) == 1
    assert pieces[0][0] < NOW
    assert pieces[0][1] > NOW + (HORIZON_DAYS - 2) * DAY_S


@pytest.mark.parametrize("name", ZONES)
def test_periods_are_those_of_the_zone(name) -> None:
    found = periods(Clock(NOW, zone(name)))
    for period in found:
        middle = (period.first + period.end) / 2
        assert [zone(name)(at) for at in (period.first, middle, period.end - 1)] == [period.utc_offset_s] * 3
    assert all(before.end == behind.first for before, behind in pairwise(found))
    assert all(before.utc_offset_s != behind.utc_offset_s for before, behind in pairwise(found))
    assert found[0].first <= NOW - DAY_S / 2
    assert found[-1].end >= NOW + (HORIZON_DAYS - 2) * DAY_S


@pytest.mark.parametrize("offset_s", [0, 3600, -3600, 5 * 3600 + 45 * 60, -9 * 3600 - 30 * 60, 14 * 3600, -12 * 3600])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.text)
def test_weekly_windows_in_utc_are_the_intervals_of_one_week(schedule, offset_s) -> None:
    pieces = intervals(InSchedule(schedule, periods(Clock(NOW, lambda _: offset_s))))
    windows = utc_windows(schedule, offset_s)
    assert all(0 <= day <= 6 and 0 <= first <= last < DAY_S for day, first, last in windows)
    monday = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp())
    for second in range(monday, monday + 7 * DAY_S, 60):
        day, at = divmod(second - monday, DAY_S)
        inside = any(day == its and first <= at <= last for its, first, last in windows)
        assert inside == is_inside(pieces, second)


def _rule(**fields: object) -> Rule:
    return Rule(name="x", action=Action.ALLOW, directions=frozenset(Direction), **fields)


@pytest.mark.parametrize(
    ("written", "local", "end"),
    [
        ("2026-12-01T18:00:00Z", False, "2026-12-01T18:00:00Z"),
        ("2026-12-01T18:00", True, "2026-12-01T17:00:00Z"),  # winter in Berlin
        ("2027-07-01T18:00", True, "2027-07-01T16:00:00Z"),  # summer
        ("2027-03-28T04:00", True, "2027-03-28T02:00:00Z"),  # just behind the change
        ("2027-03-28T01:30", True, "2027-03-28T00:30:00Z"),  # just before it
    ],
)
def test_an_expiry_is_a_time_in_utc(written, local, end) -> None:
    at = datetime.fromisoformat(written.removesuffix("Z")).replace(tzinfo=UTC).timestamp()
    found = time_conditions(_rule(expires=Expiry(at, local, written)), Clock(NOW, zone("Europe/Berlin")))
    assert found == (BeforeTime(int(datetime.fromisoformat(end).timestamp())),)


def test_an_expiry_within_a_second_is_over_with_it() -> None:
    found = time_conditions(_rule(expires=Expiry(NOW + 0.25, False, "t")), Clock(NOW, lambda _: 0))
    assert found == (BeforeTime(int(NOW) + 1),)


@pytest.mark.parametrize("local", [True, False])
def test_what_has_expired_is_no_rule(local) -> None:
    offset_s = 3600
    end = NOW + (offset_s if local else 0)
    for at, expired in ((end, True), (end - 1, True), (end + 1, False)):
        found = time_conditions(_rule(expires=Expiry(at, local, "t")), Clock(NOW, lambda _: offset_s))
        assert (found is None) is expired


def test_expiry_and_schedule_are_both_asked() -> None:
    rule = _rule(expires=Expiry(NOW + 60, False, "t"), schedule=SCHEDULES[0])
    found = time_conditions(rule, Clock(NOW, lambda _: 0))
    assert found is not None
    assert [type(each) for each in found] == [BeforeTime, InSchedule]
    assert time_conditions(_rule(), Clock(NOW, lambda _: 0)) == ()
