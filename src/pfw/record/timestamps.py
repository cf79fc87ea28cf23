"""Times as files and other programs want them, all in UTC.

Seconds since 1970 come from captures and may be anything: what is no time between 1970 and 9999 becomes
the nearest that is.
"""

from __future__ import annotations

from functools import lru_cache
from time import gmtime, localtime, strftime

_LAST_US = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the last with four digits."""


def _microseconds(time_s: float) -> int:
    if not time_s > 0:  # NaN is not either
        return 0
    return _LAST_US if time_s >= _LAST_US / 1e6 else round(time_s * 1e6)


@lru_cache(maxsize=64)
def _date_and_time(second: int) -> tuple[str, str]:
    moment = gmtime(second)
    return (
        f"{moment.tm_year:04}-{moment.tm_mon:02}-{moment.tm_mday:02}",
        f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}",
    )


def whole_seconds(time_s: float) -> int:
    """Seconds since 1970, of any number."""
    return _microseconds(time_s) // 1_000_000


def log_time(time_s: float) -> str:
    """`2026-11-23 02:05:00,123`, as in the text log."""
    second, microsecond = divmod(_microseconds(time_s), 1_000_000)
    date, clock = _date_and_time(second)
    return f"{date} {clock},{microsecond // 1000:03}"


def eve_time(time_s: float) -> str:
    """`2026-11-23T02:05:00.123456+0000`, as in EVE: no colon in the zone."""
    second, microsecond = divmod(_microseconds(time_s), 1_000_000)
    date, clock = _date_and_time(second)
    return f"{date}T{clock}.{microsecond:06}+0000"


def rfc5424_time(time_s: float) -> str:
    """`2026-11-23T02:05:00.123456Z`, as in RFC 5424 (section 6.2.3)."""
    return eve_time(time_s)[:-5] + "Z"


def rfc3164_time(time_s: float) -> str:
    """`Nov 23 02:05:00`, as in RFC 3164 (section 4.1.2), by the local clock as /dev/log expects it."""
    moment = localtime(whole_seconds(time_s))
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[moment.tm_mon - 1]
    return f"{month} {moment.tm_mday:2} {strftime('%H:%M:%S', moment)}"
