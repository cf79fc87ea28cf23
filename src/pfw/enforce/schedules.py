"""Times in a ruleset: a kernel knows UTC alone, and a policy speaks of the local clock.

A schedule is laid out for the years to come, in periods between the days on which the clocks change, so that it
means the same in summer and in winter without anybody touching the ruleset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from pfw.enforce.conditions import BeforeTime, Condition, InSchedule, Period
from pfw.model.rule import MINUTES_A_DAY, MINUTES_A_WEEK, Rule, Schedule

HORIZON_DAYS = 5 * 366
"""How far ahead schedules are laid out: who never applies his policy again has five years."""

_DAY_S = 86_400
_MONDAY_S = 4 * _DAY_S
"""1970 began on a Thursday; its first Monday began here."""


class Clock(Struct, frozen=True):
    """Now, in seconds since 1970, and the local clock's distance from UTC at a time."""

    now: float
    utc_offset: Callable[[float], int]


def time_conditions(rule: Rule, clock: Clock) -> tuple[Condition, ...] | None:
    """What the rule asks of the time; None for one that has expired."""
    found: list[Condition] = []
    if rule.expires is not None:
        end = rule.expires.time
        if rule.expires.local:
            # The offset that holds then, which is that of the time found with the offset of about then.
            end -= clock.utc_offset(end - clock.utc_offset(end))
        if end <= clock.now:
            return None
        found.append(BeforeTime(int(-(-end // 1))))
    if rule.schedule is not None:
        found.append(InSchedule(rule.schedule, periods(clock)))
    return tuple(found)


def periods(clock: Clock) -> tuple[Period, ...]:
    """The stretches of one offset from yesterday to the horizon."""
    return _periods(int(clock.now // _DAY_S) - 1, clock.utc_offset)


def _periods(first_day: int, utc_offset: Callable[[float], int]) -> tuple[Period, ...]:
    begin = float(first_day * _DAY_S)
    offset = utc_offset(begin)
    found: list[Period] = []
    for day in range(first_day + 1, first_day + HORIZON_DAYS + 1):
        if (then := utc_offset(float(day * _DAY_S))) != offset:
            change = _change(float((day - 1) * _DAY_S), offset, utc_offset)
            found.append(Period(begin, change, offset))
            begin, offset = change, then
    found.append(Period(begin, float((first_day + HORIZON_DAYS) * _DAY_S), offset))
    return tuple(found)


def _change(day: float, before: int, utc_offset: Callable[[float], int]) -> float:
    """When within a day the offset stops being what it was: clocks change on quarters of an hour."""
    for quarter in range(97):
        if utc_offset(day + quarter * 900) != before:
            return day + quarter * 900
    return day + _DAY_S


def intervals(condition: InSchedule) -> list[tuple[int, int]]:
    """The schedule as stretches of time, first and last second, sorted and apart."""
    pieces: list[tuple[int, int]] = []
    for period in condition.periods:
        for first, end in _weeks(condition.schedule, period):
            begin, stop = max(first, int(period.first)), min(end, int(period.end))
            if begin < stop:
                if pieces and pieces[-1][1] + 1 >= begin:
                    pieces[-1] = pieces[-1][0], stop - 1
                else:
                    pieces.append((begin, stop - 1))
    return pieces


def _weeks(schedule: Schedule, period: Period) -> Iterator[tuple[int, int]]:
    """The windows of every week that a period touches, half-open, in UTC."""
    week_s = MINUTES_A_WEEK * 60
    week = int((period.first + period.utc_offset_s - _MONDAY_S) // week_s) * week_s + _MONDAY_S
    while week - period.utc_offset_s < period.end:
        for first, end in schedule.windows:
            yield week + first * 60 - period.utc_offset_s, week + end * 60 - period.utc_offset_s
        week += week_s


def utc_windows(schedule: Schedule, utc_offset_s: int) -> list[tuple[int, int, int]]:
    """The schedule in UTC as (weekday, first second, last second) within that day; 0 is Monday."""
    day_s = MINUTES_A_DAY * 60
    found: list[tuple[int, int, int]] = []
    for first, end in schedule.windows:
        at, stop = first * 60 - utc_offset_s, end * 60 - utc_offset_s
        while at < stop:
            until = min(stop, (at // day_s + 1) * day_s)
            found.append((at // day_s % 7, at % day_s, (until - 1) % day_s))
            at = until
    return sorted(found)
