"""What of a rule has to do with time: schedule, limit, expiry. No clock is read here."""

from __future__ import annotations

import re

from pfw.model.rule import MINUTES_A_DAY, MINUTES_A_WEEK, Expiry, Limit, Schedule
from pfw.policy.locate import Path
from pfw.policy.report import MisfitError, Report, describe, shown, wrong_type

DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FULL_DAYS: tuple[str, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""Any case counts, here and above."""

SCHEDULE_KEYS: tuple[str, ...] = ("days", "from", "until")

PERIODS_S: dict[str, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

DEFAULT_BURST = 5
"""What nftables takes where a limit names no burst."""

MAX_COUNT = 1_000_000
"""Of a limit and its burst: more than a machine has connections in a second."""

TIME_OF_DAY = r"([01]?[0-9]|2[0-3]):([0-5][0-9])"
_LIMIT = r"([0-9]{1,10}) ?/ ?([a-z]+)(?: burst ([0-9]{1,10}))?"
EXPIRY_SHAPE = (
    r"^([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?(Z|z|[+-][0-9]{2}:?[0-9]{2})?)?$"
)


def read_day(value: object) -> int:
    """0 for Monday."""
    if not isinstance(value, str):
        raise wrong_type('a day such as "mon"', value)
    word = value.lower()
    for names in (DAYS, FULL_DAYS):
        if word in names:
            return names.index(word)
    raise MisfitError(f"{shown(value)} is not a day ({', '.join(DAYS)})", word, DAYS + FULL_DAYS)


def read_time_of_day(value: object) -> int:
    """Minutes since midnight, 0 to 1439."""
    if not isinstance(value, str):
        raise wrong_type('a time such as "09:00"', value)
    match = re.fullmatch(TIME_OF_DAY, value)
    if match is None:
        raise MisfitError(f"{shown(value)} is not a time of day (00:00-23:59)")
    return int(match[1]) * 60 + int(match[2])


def read_end_of_day(value: object) -> int:
    """`read_time_of_day`, and 24:00."""
    return MINUTES_A_DAY if value == "24:00" else read_time_of_day(value)


def read_schedule(report: Report, path: Path, value: object) -> Schedule | None:
    """Days and times of the local clock as windows in the week."""
    if not isinstance(value, dict):
        report.fault(path, f'must be an object with "days", "from" and "until", not {describe(value)}')
        return None
    faults = report.count
    for key in value:
        if key not in SCHEDULE_KEYS:
            report.unknown_key((*path, key), "a field of a schedule", SCHEDULE_KEYS)
    if not value:
        report.fault(path, 'says nothing; give it "days", "from" or "until"')
    days = report.read_each((*path, "days"), value.get("days", list(DAYS)), read_day)
    begin = report.read((*path, "from"), value.get("from", "00:00"), read_time_of_day)
    end = report.read((*path, "until"), value.get("until", "24:00"), read_end_of_day)
    if begin is not None and begin == end:
        report.fault((*path, "until"), 'is the same as "from"; a whole day is from "00:00" until "24:00"')
    if report.count > faults or days is None or begin is None or end is None:
        return None
    return make_schedule(sorted(set(days)), begin, end)


def make_schedule(days: list[int], begin: int, end: int) -> Schedule:
    """The windows that begin on these days; an end before the begin is that of the next day."""
    length = (end - begin) % MINUTES_A_DAY or MINUTES_A_DAY
    pieces: list[tuple[int, int]] = []
    for day in days:
        first = day * MINUTES_A_DAY + begin
        last = first + length
        pieces.append((first, min(last, MINUTES_A_WEEK)))
        if last > MINUTES_A_WEEK:
            pieces.append((0, last - MINUTES_A_WEEK))
    windows: list[tuple[int, int]] = []
    for first, last in sorted(pieces):
        if windows and first <= windows[-1][1]:
            windows[-1] = windows[-1][0], max(last, windows[-1][1])
        else:
            windows.append((first, last))
    which = "every day" if len(days) == 7 else ", ".join(DAYS[day] for day in days)
    return Schedule(tuple(windows), f"{which} {begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}")


def read_burst(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("a number", value)
    if not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise MisfitError(f"{shown(value)} is not a burst (1-{MAX_COUNT})")
    return value


def read_limit(value: object) -> tuple[int, int, int | None]:
    """Count, period in seconds, and the burst if the text holds one."""
    if not isinstance(value, str):
        raise wrong_type('a text such as "6/minute"', value)
    match = re.fullmatch(_LIMIT, value)
    if match is None:
        raise MisfitError(f'{shown(value)} is not a limit; write a number and a time, as in "6/minute"')
    if match[2] not in PERIODS_S:
        raise MisfitError(f"{shown(match[2])} is not one of {', '.join(PERIODS_S)}", match[2], PERIODS_S)
    count = int(match[1])
    if not 1 <= count <= MAX_COUNT:
        raise MisfitError(f"{shown(value)} does not count from 1 to {MAX_COUNT}")
    return count, PERIODS_S[match[2]], None if match[3] is None else read_burst(int(match[3]))


def make_limit(read: tuple[int, int, int | None], burst: int | None) -> Limit:
    count, period_s, written = read
    return Limit(count, period_s, burst or written or DEFAULT_BURST)


def read_expiry(value: object) -> Expiry:
    """An ISO 8601 time. Without a zone it is by the local clock; a date alone ends with that day."""
    if not isinstance(value, str):
        raise wrong_type('a time such as "2026-12-01T18:00:00Z"', value)
    match = re.fullmatch(EXPIRY_SHAPE, value)
    if match is None:
        raise MisfitError(f'{shown(value)} is not a time; write it as "2026-12-01T18:00:00Z" or "2026-12-01"')
    from datetime import date, time

    try:
        day = date(int(match[1]), int(match[2]), int(match[3])).toordinal() - date(1970, 1, 1).toordinal()
        if match[4] is None:
            return Expiry(float((day + 1) * 86400), local=True, text=value)
        at = time(int(match[4]), int(match[5]), int(match[6] or 0))
    except ValueError:
        raise MisfitError(f"{shown(value)} is a day or time that does not exist") from None
    seconds = float(day * 86400 + at.hour * 3600 + at.minute * 60 + at.second)
    if match[7] is None:
        return Expiry(seconds, local=True, text=value)
    return Expiry(seconds - _offset_s(match[7], value), local=False, text=value)


def _offset_s(zone: str, value: str) -> int:
    if zone in ("Z", "z"):
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 14 or minutes > 59:
        raise MisfitError(f"{shown(value)} has an offset from UTC that does not exist")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
