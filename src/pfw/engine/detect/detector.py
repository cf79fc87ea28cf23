"""What a detector is, and the bounded tables that detectors keep.

A detector is told of the kinds of observations that it names in `wants`, in the order of time, and returns alerts: for
each source and target as often as it likes, what is too much is folded (`detection.py`). It keeps no more than stated
bounds: a full table refuses newcomers and counts them, since who forges sources could otherwise push out all others;
where most of what it holds says nothing yet, that makes room instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from pfw.model.observation import Alert

Key = TypeVar("Key")
Value = TypeVar("Value")


class Detector(Protocol):
    """One kind of suspicion. `wants` are the classes of observations that `observe` is called with."""

    wants: tuple[type, ...]

    @property
    def refused(self) -> int:
        """How often something was not looked at for want of room."""

    def observe(self, seen: Any, /) -> Iterable[Alert]:
        """What an observation leads to. Never raises."""

    def end(self, now: float, /) -> Iterable[Alert]:
        """What can be said now that nothing more comes, or that a while has passed (called once a minute, too)."""


_LOOKED_AT = 8


class Table(Generic[Key, Value]):
    """At most `capacity` values, made by `make` when first asked for; those unused for `keep_s` make room.

    With `may_go` those of which that is true do so sooner, if they are among the few that were used longest ago;
    `let_go` counts them. What is worth keeping must not be of them.
    """

    def __init__(
        self, capacity: int, keep_s: float, make: Callable[[], Value], may_go: Callable[[Value], bool] | None = None
    ) -> None:
        self.refused = self.let_go = 0
        self._may_go = may_go
        self._capacity = capacity
        self._keep_s = keep_s
        self._make = make
        # Used last, last. In a plain dict looking for the first takes ever longer when the first ones are taken out.
        self._held: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key, now: float) -> Value | None:
        """The value of a key; None where there is no room for another."""
        found = self._held.get(key)
        if found is None and len(self._held) >= self._capacity and not self._make_room(now):
            self.refused += 1
            return None
        # A clock that was set back is no reason to keep anything for longer.
        value = self._make() if found is None or abs(now - found[0]) > self._keep_s else found[1]
        self._held[key] = (now, value)
        self._held.move_to_end(key)
        return value

    def peek(self, key: Key) -> Value | None:
        found = self._held.get(key)
        return None if found is None else found[1]

    def drop(self, key: Key) -> None:
        self._held.pop(key, None)

    def items(self) -> list[tuple[Key, Value]]:
        return [(key, value) for key, (_, value) in self._held.items()]

    def __len__(self) -> int:
        return len(self._held)

    def _make_room(self, now: float) -> bool:
        for key, (used, value) in islice(self._held.items(), 1 if self._may_go is None else _LOOKED_AT):
            is_early = abs(now - used) <= self._keep_s
            if is_early and (self._may_go is None or not self._may_go(value)):
                continue
            self.let_go += is_early
            del self._held[key]
            return True
        return False
