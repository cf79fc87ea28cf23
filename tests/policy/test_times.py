"""Schedules against a slow twin that asks every minute of the week; limits and expiries by example."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import PolicyError
from pfw.policy.load import load
from pfw.policy.times import DAYS, make_schedule, read_expiry


def rule_with(**fields: object):
    return load(json.dumps({"version": 2, "rules": [{"name": "r", "action": "allow", **fields}]})).rules[0]


def fault_of(**fields: object) -> str:
    with pytest.raises(PolicyError) as caught:
        rule_with(**fields)
    (fault,) = caught.value.faults
    return f"{fault.where}: {fault.what}".removeprefix("rules[0].")


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(0, 1440))
def test_a_schedule_holds_in_the_minutes_that_its_days_and_times_say(days, begin, end) -> None:
    if begin == end:
        return
    schedule = make_schedule(sorted(days), begin, end)
    for minute in range(0, 7 * 1440, 7):
        day, at = divmod(minute, 1440)
        today = day in days and begin <= at < (end if end > begin else 1440)
        since_yesterday = end < begin and (day - 1) % 7 in days and at < end
        assert schedule.holds(minute) is (today or since_yesterday)
    assert all(0 <= first < last <= 7 * 1440 for first, last in schedule.windows)
    assert all(last < first for (_, last), (first, _) in zip(schedule.windows, schedule.windows[1:], strict=False))


def test_what_a_schedule_takes_for_granted() -> None:
    assert rule_with(schedule={"days": "Mon"}).schedule.windows == ((0, 1440),)
    assert rule_with(schedule={"days": ["tuesday", "mon"]}).schedule.windows == ((0, 2880),)
    assert rule_with(schedule={"from": "9:00"}).schedule.windows == tuple(
        (d * 1440 + 540, d * 1440 + 1440) for d in range(7)
    )
    assert rule_with(schedule={"days": ["sun"], "from": "23:00", "until": "01:00"}).schedule.windows == (
        (0, 60),
        (10020, 10080),
    )
    assert rule_with(schedule={"days": list(DAYS[:2]), "until": "12:30"}).schedule.text == "mon, tue 00:00-12:30"


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ({}, 'schedule: says nothing; give it "days", "from" or "until"'),
        ([], 'schedule: must be an object with "days", "from" and "until", not a list'),
        (
            {"days": ["mo"]},
            'schedule.days[0]: "mo" is not a day (mon, tue, wed, thu, fri, sat, sun); did you mean "mon"?',
        ),
        ({"days": []}, "schedule.days: is an empty list, which nothing can match; give a value or leave the field out"),
        ({"from": "24:00"}, 'schedule.from: "24:00" is not a time of day (00:00-23:59)'),
        ({"until": "24:01"}, 'schedule.until: "24:01" is not a time of day (00:00-23:59)'),
        ({"from": 9}, 'schedule.from: must be a time such as "09:00", not a number'),
        (
            {"from": "09:00", "until": "09:00"},
            'schedule.until: is the same as "from"; a whole day is from "00:00" until "24:00"',
        ),
        ({"to": "09:00"}, "schedule.to: is not a field of a schedule"),
    ],
)
def test_a_schedule_that_does_not_fit(schedule, fault) -> None:
    assert fault_of(schedule=schedule) == fault


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_an_expiry_is_the_moment_that_datetime_reads(moment, offset_minutes) -> None:
    moment = moment.replace(microsecond=0)
    local = read_expiry(moment.isoformat())
    assert (local.time, local.local) == (moment.replace(tzinfo=UTC).timestamp(), True)
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    zoned = read_expiry(f"{moment.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}")
    expected = moment.replace(tzinfo=UTC) - timedelta(minutes=offset_minutes)
    assert (zoned.time, zoned.local) == (expected.timestamp(), False)


def test_a_date_alone_ends_with_that_day_by_the_local_clock() -> None:
    expiry = read_expiry("2026-12-01")
    assert (expiry.time, expiry.local) == (datetime(2026, 12, 2, tzinfo=UTC).timestamp(), True)
    assert read_expiry("9999-12-31").text == "9999-12-31"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tomorrow", "is not a time"),
        ("2026-13-01", "does not exist"),
        ("2026-02-29T10:00Z", "does not exist"),
        ("2026-01-01T24:00Z", "does not exist"),
        ("0000-01-01", "does not exist"),
        ("2026-01-01T10:00+99:00", "an offset from UTC that does not exist"),
        ("2026-01-01Z", "is not a time"),
        ("2026-01-01\n", "is not a time"),
    ],
)
def test_an_expiry_that_is_no_time(text, reason) -> None:
    assert reason in fault_of(expires=text)


@pytest.mark.parametrize(
    "limit", ["0/minute", "1000001/second", "6", "6/", "-1/minute", "6/minute burst 0", "6/minute burst"]
)
def test_a_limit_that_is_none(limit) -> None:
    assert fault_of(limit=limit).startswith("limit: ")
