"""What the detectors of scans share: which tries count as one, how many came how fast, and the walk of two hypotheses.

A scan is many different things tried. So whoever has tried one thing alone is kept in a place of its own, where it is
soon forgotten: a flood with forged sources goes through that one, and not through the place of those that try many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pfw.engine.detect.detector import Key, Table, Value
from pfw.model.observation import Confirmed, HalfOpen, Met, Stray

Try = TypeVar("Try", bound=Met | Confirmed | HalfOpen | Stray)

THETA_0, THETA_1 = 0.8, 0.2
"""How likely a first contact of an honest host succeeds, and one of a scanner (Jung, Paxson, Berger, Balakrishnan: Fast
Portscan Detection Using Sequential Hypothesis Testing, 2004, section 4)."""
DETECTED, FALSE_ALARMS = 0.99, 0.01
"""P_D and P_F of the same."""
SCANNER_ABOVE = DETECTED / FALSE_ALARMS
HONEST_BELOW = (1 - DETECTED) / (1 - FALSE_ALARMS)

FRESH_MAX = 16_384
FRESH_S = 600.0
"""Who tries one thing and within this time no other is forgotten: nmap's slowest timing (-T0) waits 300 s."""

SERVICE_BELOW = 1024
"""UDP from such a port to one above is an answer that came late, or whose question was not seen."""

_MULTICAST_V4 = range(224, 256)
_MULTICAST_V6 = 0xFF


class Walk:
    """Threshold random walk: each first contact makes one of the two hypotheses likelier."""

    __slots__ = ("ratio",)

    def __init__(self) -> None:
        self.ratio = 1.0

    def failed(self) -> None:
        self.ratio = min(self.ratio * (1 - THETA_1) / (1 - THETA_0), SCANNER_ABOVE * 2)

    def succeeded(self) -> None:
        self.ratio = max(self.ratio * THETA_1 / THETA_0, HONEST_BELOW)

    @property
    def is_scanner(self) -> bool:
        return self.ratio > SCANNER_ABOVE


class Pace:
    """The times of the last different tries: whether `many` came within so long. They need not be in order: that nobody
    answered is known later than that somebody refused."""

    __slots__ = ("_times",)

    def __init__(self, longest: int) -> None:
        self._times: deque[float] = deque(maxlen=longest)

    def add(self, time: float) -> None:
        self._times.append(time)

    def reached(self, many: int, within_s: float) -> bool:
        if len(self._times) < many:
            return False
        last = list(self._times)[-many:]
        return max(last) - min(last) <= within_s


class _Fresh(Generic[Try]):
    __slots__ = ("first", "successes", "thing")

    def __init__(self) -> None:
        self.first: Try | None = None
        self.thing: Hashable = None
        self.successes = 0


class Suspects(Generic[Key, Value, Try]):
    """Values for those that tried two different things; `take` gives the tries that are to be counted. Of too many,
    those that `may_go` make room: all that nobody was told of should, since many forged sources that try a little each
    would leave no room for a scanner."""

    def __init__(
        self,
        capacity: int,
        keep_s: float,
        make: Callable[[], Value],
        fresh_s: float = FRESH_S,
        may_go: Callable[[Value], bool] | None = None,
    ) -> None:
        self._fresh: Table[Key, _Fresh[Try]] = Table(FRESH_MAX, fresh_s, _Fresh, may_go=lambda _: True)
        self._known: Table[Key, Value] = Table(capacity, keep_s, make, may_go)

    @property
    def refused(self) -> int:
        return self._fresh.let_go + self._known.refused + self._known.let_go

    def __len__(self) -> int:
        return len(self._fresh) + len(self._known)

    def known(self, key: Key) -> Value | None:
        return self._known.peek(key)

    def succeeded(self, key: Key) -> None:
        """Somebody who tried one thing was let in elsewhere."""
        fresh = self._fresh.peek(key)
        if fresh is not None:
            fresh.successes += 1

    def take(self, key: Key, thing: Hashable, seen: Try) -> tuple[Value, int, tuple[Try, ...]] | None:
        """The value, successes that came before there was one, and the tries to count: this, with the first one where
        this is the second thing. None for a first one, and where there is no room."""
        now = seen.time
        if self._known.peek(key) is not None:
            value = self._known.get(key, now)
            return None if value is None else (value, 0, (seen,))
        fresh = self._fresh.get(key, now)
        if fresh is None:
            return None
        if fresh.first is None or fresh.thing == thing:
            fresh.first, fresh.thing = seen, thing
            return None
        value = self._known.get(key, now)
        if value is None:
            return None
        self._fresh.drop(key)
        return value, fresh.successes, (fresh.first, seen)

    def values(self) -> list[tuple[Key, Value]]:
        return self._known.items()


def is_for_many(address: bytes) -> bool:
    """Multicast, or what may be a broadcast address: no single host is tried there."""
    if len(address) == 4:
        return address[0] in _MULTICAST_V4 or address[3] == 255
    return address[0] == _MULTICAST_V6


def near(address: bytes) -> bytes:
    """The network in which neighbours of an address are swept: a /24, for IPv6 a /64."""
    return address[:3] if len(address) == 4 else address[:8]


def counted(*parts: tuple[int, str]) -> str:
    """What there was, for sentences: `3 refused, 2 silent`."""
    return ", ".join(f"{count} {text}" for count, text in parts if count)


def lasted(first: float, last: float) -> str:
    """A time for sentences."""
    seconds = abs(last - first)
    if seconds < 1:
        return f"{max(seconds * 1000, 1):.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} h"
