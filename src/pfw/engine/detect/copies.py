"""Packets that a capture has twice: of all devices at once, a bridge and its port, or both sides of a mirror port.

Who counts them twice takes a client for one that tries again, and a failed login for a longer session. They are looked
for in those connections alone whose first packet came twice, which costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from pfw.model.event import Item

COPY_S = 0.001
"""A copy is made at once; the shortest that TCP waits before it sends anew is 200 ms (Linux, TCP_RTO_MIN)."""
COPIES_MAX = 3
"""Of one packet. What comes more often is sent by somebody."""
WATCHED_MAX = 65_536
"""Directions of connections; the oldest makes room."""


class Copies:
    """The last packet of each direction that is watched: when it came, what it was, and how many copies came of it."""

    def __init__(self, numbers: Callable[[Item], tuple[int, int] | None] | None) -> None:
        self._numbers = numbers
        self._last: dict[bytes, tuple[float, object, int]] = {}

    def __len__(self) -> int:
        return len(self._last)

    def watch(self, item: Item, back: bytes) -> None:
        """A first packet has come twice: look at what follows it, and at the answers."""
        for key, last in ((back, (0.0, None, 0)), (item[0] or b"", (item[1], self._what(item), 1))):
            self._last.pop(key, None)
            self._last[key] = last
            if len(self._last) > WATCHED_MAX:
                del self._last[next(iter(self._last))]

    def is_one(self, item: Item) -> bool:
        """Whether a packet is a copy of the last one."""
        key, time = item[0] or b"", item[1]
        last = self._last.get(key)
        if last is None:
            return False
        what = self._what(item)
        since, before, copies = last
        if what is not None and what == before and abs(time - since) < COPY_S and copies < COPIES_MAX:
            self._last[key] = since, before, copies + 1
            return True
        self._last[key] = time, what, 0
        return False

    def _what(self, item: Item) -> object:
        numbers = None if self._numbers is None else self._numbers(item)
        return None if numbers is None else (*numbers, item[2], item[3])
