"""The clock: the time, and the local zone's distance from UTC."""

from __future__ import annotations

import time
from functools import lru_cache

from pfw.model.flow import Moment

_STEP_S = 900
"""Zones change on quarters of an hour: within one the offset is the same."""


def now() -> float:
    """Seconds since 1970."""
    return time.time()


def awake_s() -> float:
    """Seconds that go on whatever the clock is set to, but not while the machine sleeps."""
    return time.monotonic()


def moment() -> Moment:
    """Now, by both clocks."""
    at = now()
    return Moment(at, utc_offset_s(at))


def utc_offset_s(at: float) -> int:
    """What the local clock adds to UTC at a time; 0 for times that it cannot tell."""
    return _offset_s(int(at // _STEP_S))


@lru_cache(maxsize=1024)
def _offset_s(step: int) -> int:
    try:
        return time.localtime(step * _STEP_S).tm_gmtoff
    except (ValueError, OverflowError, OSError):
        return 0
