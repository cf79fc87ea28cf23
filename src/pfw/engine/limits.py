"""`limit` of a rule: a token bucket for each source address, as nftables' `limit` in a dynamic set.

A bucket is one number, the time at which it will be full again (the virtual scheduling form of the generic
cell rate algorithm, ITU-T I.371): tokens now = burst - rate * (that time - now). Bounded: when a rule knows
too many sources, the one unseen for longest makes room if its bucket is full again, and otherwise the
newcomer counts as over the limit, so that forging sources gains nothing.
"""

from __future__ import annotations

from pfw.model.rule import Limit

SOURCES_MAX = 32_768
"""About 160 bytes each. An nftables set holds 65,535 unless told otherwise."""

_ROUNDING_S = 1e-6
"""Times of packets are not exact beyond this."""


class Buckets:
    """The buckets of one rule. Times in seconds; they may run backwards a little without harm."""

    def __init__(self, limit: Limit, capacity: int = SOURCES_MAX) -> None:
        self._token_s = 1 / limit.rate_hz
        self._capacity_s = limit.burst * self._token_s
        self._capacity = capacity
        # When the bucket is full again, the longest unseen source first.
        self._full_at: dict[bytes, float] = {}

    def over(self, source: bytes, now: float) -> bool:
        """Take a token for this source; True when there is none."""
        full_at = self._full_at.pop(source, None)
        if full_at is None:
            if len(self._full_at) >= self._capacity and not self._make_room(now):
                return True
            full_at = now
        # It can lack no more than all its tokens, also where the clock was set back.
        full_at = min(max(full_at, now), now + self._capacity_s)
        after = full_at + self._token_s
        over = after - now > self._capacity_s + _ROUNDING_S
        self._full_at[source] = full_at if over else after
        return over

    def _make_room(self, now: float) -> bool:
        oldest = next(iter(self._full_at))
        if self._full_at[oldest] > now:
            return False
        del self._full_at[oldest]
        return True
