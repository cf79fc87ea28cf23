"""`limit` of a rule: a token bucket for each source address, as nftables' `limit` in a dynamic set.

Bounded: when a rule knows too many sources, the one unseen for longest makes room if its bucket is full
again, and otherwise the newcomer counts as over the limit, so that forging sources gains nothing.
"""

from __future__ import annotations

from pfw.model.rule import Limit

SOURCES_MAX = 65_535
"""As many as an nftables set holds unless told otherwise."""


class Buckets:
    """The buckets of one rule. Times in seconds; they may run backwards a little without harm."""

    def __init__(self, limit: Limit, capacity: int = SOURCES_MAX) -> None:
        self._burst = float(limit.burst)
        self._rate_hz = limit.rate_hz
        self._refill_s = limit.burst / limit.rate_hz
        self._capacity = capacity
        # Tokens left and when that was true, the longest unseen source first.
        self._buckets: dict[bytes, tuple[float, float]] = {}

    def over(self, source: bytes, now: float) -> bool:
        """Take a token for this source; True when there is none."""
        bucket = self._buckets.pop(source, None)
        if bucket is None:
            if len(self._buckets) >= self._capacity and not self._make_room(now):
                return True
            bucket = (self._burst, now)
        tokens = min(self._burst, bucket[0] + max(0.0, now - bucket[1]) * self._rate_hz)
        over = tokens < 1.0
        self._buckets[source] = (tokens if over else tokens - 1.0, now)
        return over

    def _make_room(self, now: float) -> bool:
        oldest = next(iter(self._buckets))
        if self._buckets[oldest][1] + self._refill_s > now:
            return False
        del self._buckets[oldest]
        return True
