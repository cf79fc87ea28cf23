"""Trouble with one place that takes records: what was lost and why, when to try again, what to say of it.

Every sink (file, syslog, journal) has one of these and raises nothing while it runs. A series of failures
is told once when it begins and once when it is over, and a new series within `QUIET_S` of the last is
counted only.
"""

from __future__ import annotations

from collections.abc import Callable

RETRY_S = 5.0
QUIET_S = 60.0


class Trouble:
    """`lost_lines`, `lost_bytes` and `reasons` (a text and how many lines it cost) only grow."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self.name = name
        self.lost_lines = 0
        self.lost_bytes = 0
        self.recovered = 0
        self.reasons: dict[str, int] = {}
        self._tell = tell
        self._reason: str | None = None
        self._failed_at = 0.0
        self._told_at: float | None = None
        self._told = False
        self._lost_before = 0

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._reason is not None

    def waits(self, now: float) -> bool:
        """Whether it is too early for another attempt."""
        return self._reason is not None and abs(now - self._failed_at) < RETRY_S

    def lose(self, size_bytes: int) -> None:
        """A line is lost without an attempt."""
        self.lost_lines += 1
        self.lost_bytes += size_bytes
        if self._reason is not None:
            self.reasons[self._reason] = self.reasons.get(self._reason, 0) + 1

    def fail(self, error: OSError, size_bytes: int, now: float) -> None:
        """An attempt failed; `size_bytes` is 0 where it cost no line."""
        began = self._reason is None
        # There are only so many of these; str(error) may hold paths.
        self._reason = error.strerror or type(error).__name__
        self._failed_at = now
        if began:
            self._lost_before = self.lost_lines
            self._told = self._told_at is None or abs(now - self._told_at) >= QUIET_S
            if self._told:
                self._told_at = now
                self._tell(f"{self.name}: cannot write: {self._reason}; what is lost is counted")
        if size_bytes:
            self.lose(size_bytes)

    def work(self) -> None:
        """An attempt worked."""
        if self._reason is None:
            return
        self._reason = None
        self.recovered += 1
        if self._told:
            self._tell(f"{self.name}: writing again, {self.lost_lines - self._lost_before} lines were lost")
