"""Repeats, folded: the first of a kind passes, the others are counted and become one line.

Pure: time is an argument, in seconds, and may jump (captures do). When the table is full (a flood from
forged sources makes every packet a kind of its own), what it does not know is folded by a coarser kind that
the caller names. Only where that table is full too does it pass unfolded, and is counted.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import ceil

from msgspec import Struct

WINDOW_S = 60
CAPACITY = 4096
COARSE_CAPACITY = 256


class Folded(Struct, frozen=True):
    """What became of one kind: `count` more within `span_s` seconds, known by `time`."""

    text: str
    count: int
    span_s: int
    time: float


class _Window(Struct):
    text: str
    start: float
    last: float
    count: int = 0


class Folder:
    """At most `capacity` kinds and `COARSE_CAPACITY` coarse ones at a time, each for `window_s` from its first.

    Use: `ended(now)` first, then `repeats(key, coarse, now)`, and where that is False `begin` with the same
    kinds. `folded` counts what was folded, `unfolded` what passed because there was no place.
    """

    def __init__(self, window_s: int = WINDOW_S, capacity: int = CAPACITY) -> None:
        self.window_s = window_s
        self.capacity = capacity
        self.folded = 0
        self.unfolded = 0
        # In the order of their beginnings, so that those to end stand in front.
        self._windows: dict[Hashable, _Window] = {}
        self._coarse: dict[Hashable, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows) + len(self._coarse)

    def repeats(self, key: Hashable, coarse: Hashable, now: float) -> bool:
        """Whether this one is folded into an earlier one of its kind."""
        window = self._windows.get(key)
        if window is None and len(self._windows) >= self.capacity:
            window = self._coarse.get(coarse)
        if window is None:
            return False
        window.count += 1
        window.last = now
        self.folded += 1
        return True

    def begin(self, key: Hashable, text: str, coarse: Hashable, coarse_text: str, now: float) -> None:
        """The first of a kind passed; the texts are what repeats of it, or of its coarse kind, will be called."""
        if len(self._windows) < self.capacity:
            self._windows[key] = _Window(text, now, now)
        elif len(self._coarse) < COARSE_CAPACITY:
            self._coarse[coarse] = _Window(coarse_text, now, now)
        else:
            self.unfolded += 1

    def ended(self, now: float) -> list[Folded]:
        """The kinds with repeats whose window is over by now. They may begin again."""
        return self._ended(self._windows, now) + self._ended(self._coarse, now)

    def flush(self) -> list[Folded]:
        """The kinds with repeats, all of them; the table is empty then."""
        windows = [*self._windows.values(), *self._coarse.values()]
        self._windows.clear()
        self._coarse.clear()
        return [self._fold(window, window.last, 1) for window in windows if window.count]

    def _ended(self, windows: dict[Hashable, _Window], now: float) -> list[Folded]:
        done: list[Folded] = []
        while windows:
            key, window = next(iter(windows.items()))
            if abs(now - window.start) < self.window_s:
                break
            del windows[key]
            if window.count:
                done.append(self._fold(window, max(window.last, window.start + self.window_s), self.window_s))
        return done

    def _fold(self, window: _Window, time: float, least_s: int) -> Folded:
        span_s = abs(window.last - window.start)
        # Times of a capture may be no numbers at all.
        return Folded(window.text, window.count, max(least_s, ceil(span_s)) if span_s < 1e9 else least_s, time)
