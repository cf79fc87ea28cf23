"""Times as people write and read them, by the local clock: `2h`, `yesterday 14:00`; `3 h 5 min`, `just now`."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from time import localtime, strftime

from pfw.cli.parser_change import duration_s

_MOMENT = re.compile(
    r"(?:(?P<day>today|yesterday|[0-9]{4}-[0-9]{2}-[0-9]{2})(?:[ T]|$))?"
    r"(?P<clock>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?(?P<utc>Z)?"
)
_SHAPES = "as in 30s, 2h, 7d, 14:00, yesterday, 2026-11-20 or '2026-11-20 14:00'"


def read_moment(text: str, now: float) -> float:
    """The time that is meant, in seconds since 1970: so long ago, or a local date and time (UTC with a Z behind it, as
    JSON has it). A date is its beginning, a time of day the last one that has been; `ever` is 1970. Raises ValueError
    with a reason that can stand behind the text."""
    try:
        before_s = duration_s(text)
        return now - before_s if before_s else 0.0
    except ArgumentTypeError:
        pass
    match = _MOMENT.fullmatch(text)
    if match is None or (match["day"] is None and match["clock"] is None):
        raise ValueError(f"is not a time, {_SHAPES}")
    try:
        return _moment(match["day"], match["clock"] or "0:00", now, is_utc=match["utc"] is not None)
    except (ValueError, OverflowError, OSError):
        raise ValueError("is not a time that there is") from None


def _moment(day: str | None, clock: str, now: float, *, is_utc: bool) -> float:
    from datetime import UTC, date, datetime, time, timedelta

    zone = UTC if is_utc else None
    today = datetime.fromtimestamp(now, zone).date()
    hour, minute, *rest = clock.split(":")
    second, _, fraction = (rest[0] if rest else "0").partition(".")
    at = time(int(hour), int(minute), int(second), int(fraction.ljust(6, "0")), tzinfo=zone)
    if day is None:
        moment = datetime.combine(today, at).timestamp()
        return moment if moment <= now else datetime.combine(today - timedelta(days=1), at).timestamp()
    known = {"today": today, "yesterday": today - timedelta(days=1)}
    return datetime.combine(known.get(day) or date.fromisoformat(day), at).timestamp()


def moment_text(time: float) -> str:
    """`2026-11-24 17:01:02`; the number itself where it is no time."""
    try:
        return strftime("%Y-%m-%d %H:%M:%S", localtime(time))
    except (ValueError, OverflowError, OSError):
        return f"{time:.0f}"


def span_text(seconds: float) -> str:
    """`3 h 5 min`, roughly."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if rest >= size and len(parts) < 2:
            parts.append(f"{rest // size} {unit}")
            rest %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def brief_text(seconds: float) -> str:
    """How long something took that may be quick: `12 ms`, `1.5 s`, `3 h 5 min`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else span_text(seconds)


def ago_text(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{span_text(seconds)} ago"
