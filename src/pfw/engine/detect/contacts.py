"""What the detectors of scans share: which tries count as one, how many came how fast, and the walk of two hypotheses.

A scan is many different things tried. So whoever has tried one thing alone is kept in a place of its own, where it is
soon forgotten: a flood with forged sources fills that one, and not the place of those that try many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from pfw.engine.detect.detector import Key, Table, Value
from pfw.model.observation import Began, Confirmed, Ended, Met, Stray

Try = TypeVar("Try", bound=Met | Confirmed | Stray)

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
MANY_MAX = 64
QUIET_PACKETS = 5
"""SYN (perhaps twice), ACK, FIN, ACK or RST: a connection that was opened and left without a word."""
OPEN_MAX = 8_192
LEFT_MAX = 4_096
LEFT_S = 3600.0

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


class Numbers:
    """Which numbers below 65,536 were there: some dozens in a set, more in 8 KiB of bits."""

    __slots__ = ("_bits", "_few", "count")

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._bits: bytearray | None = None
        self.count = 0

    def add(self, number: int) -> bool:
        """Whether it is a new one."""
        if number in self:
            return False
        self.count += 1
        if self._bits is None:
            self._few.add(number)
            if len(self._few) > MANY_MAX:
                self._bits = bytearray(8192)
                for each in self._few:
                    self._bits[each >> 3] |= 1 << (each & 7)
                self._few = set()
        else:
            self._bits[number >> 3] |= 1 << (number & 7)
        return True

    def __contains__(self, number: int) -> bool:
        if self._bits is None:
            return number in self._few
        return bool(self._bits[number >> 3] & 1 << (number & 7))


class _Fresh(Generic[Try]):
    __slots__ = ("first", "successes", "thing")

    def __init__(self) -> None:
        self.first: Try | None = None
        self.thing: Hashable = None
        self.successes = 0


class Suspects(Generic[Key, Value, Try]):
    """Values for those that tried two different things; `take` gives the tries that are to be counted."""

    def __init__(self, capacity: int, keep_s: float, make: Callable[[], Value], fresh_s: float = FRESH_S) -> None:
        self._fresh: Table[Key, _Fresh[Try]] = Table(FRESH_MAX, fresh_s, _Fresh)
        self._known: Table[Key, Value] = Table(capacity, keep_s, make)

    @property
    def refused(self) -> int:
        return self._fresh.refused + self._known.refused

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


class Handshakes:
    """Which TCP connections were opened by a whole handshake, to tell those that were then left without a word. Whoever
    tries a port with `connect` does so, and nobody who forges an address can. Of too many the oldest is let go."""

    def __init__(self) -> None:
        self._open: dict[tuple[bytes, bytes, int | None, int | None], None] = {}
        self._left: Table[tuple[bytes, bytes], Numbers] = Table(LEFT_MAX, LEFT_S, Numbers)

    def confirmed(self, seen: Confirmed) -> None:
        if not seen.by_reset:
            self._open[_ends(seen.began)] = None
            if len(self._open) > OPEN_MAX:
                del self._open[next(iter(self._open))]

    def ended(self, seen: Ended) -> bool:
        """Whether it was left without a word."""
        began, ends = seen.began, _ends(seen.began)
        if ends not in self._open:
            return False
        del self._open[ends]
        # No packet without payload is longer than the first one, whose options are the most.
        quiet = seen.sent_packets <= QUIET_PACKETS and seen.sent_bytes <= seen.sent_packets * began.size_bytes
        if seen.is_open or not quiet:
            return False
        ports = self._left.get((began.source, began.destination), seen.time)
        if ports is not None:
            ports.add(began.port or 0)
        return True

    def left(self, source: bytes, destination: bytes) -> int:
        """How many ports of a host a source has left so."""
        ports = self._left.peek((source, destination))
        return 0 if ports is None else ports.count


def _ends(began: Began) -> tuple[bytes, bytes, int | None, int | None]:
    return began.source, began.destination, began.source_port, began.port


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
