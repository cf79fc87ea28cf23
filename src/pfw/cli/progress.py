"""A progress bar on standard error, for what takes longer than a second and only on a terminal."""

from __future__ import annotations

import sys
import time

_AFTER_S, _EVERY_S = 1.0, 0.1
_WIDTH = 30


class Progress:
    """`total_bytes` None: the size is not known, so only what was read is shown."""

    def __init__(self, total_bytes: int | None, *, shown: bool | None = None) -> None:
        self._total = total_bytes
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._done = 0
        self._next = time.monotonic() + _AFTER_S
        self._drawn = False

    def advance(self, size_bytes: int) -> None:
        self._done += size_bytes
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            self._drawn = True
            sys.stderr.write(f"\r{self._line()}\x1b[K")
            sys.stderr.flush()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self) -> str:
        done = f"{self._done / 1e6:,.0f} MB"
        if not self._total:
            return f"read {done}"
        part = min(1.0, self._done / self._total)
        bar = "#" * round(part * _WIDTH)
        return f"[{bar:<{_WIDTH}}] {part:4.0%} of {self._total / 1e6:,.0f} MB"
