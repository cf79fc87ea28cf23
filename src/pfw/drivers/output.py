"""Lines to standard output that are not waited for: a slow terminal must not make the capture lose packets."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque

LINES_MAX = 5_000
"""What may wait for the terminal; beyond it lines are left out, and counted."""


class Output:
    """Standard output. With `wait` every line is written before the next is taken, and none is left out."""

    def __init__(self, *, wait: bool) -> None:
        self.left_out = 0
        self.closed = False
        """Whether the reader has gone (`pfw … | head`)."""
        self._lines: deque[str] = deque()
        self._work = threading.Condition()
        self._ending = False
        self._thread = None if wait else threading.Thread(target=self._run, name="output", daemon=True)
        if self._thread is not None:
            self._thread.start()

    def write(self, lines: list[str]) -> None:
        """Raises BrokenPipeError when there is a line to write and the reader has gone."""
        if self.closed and lines:
            raise BrokenPipeError
        if self._thread is None:
            self._print(lines)
            return
        with self._work:
            room = LINES_MAX - len(self._lines)
            self._lines.extend(lines[:room])
            self.left_out += max(0, len(lines) - room)
            self._work.notify()

    def close(self, last: list[str], timeout_s: float = 2.0) -> None:
        """Write what is waiting and then these lines, as far as it goes in this time."""
        if self._thread is None:
            self._print(last)
            return
        with self._work:
            self._lines.extend(last)
            self._ending = True
            self._work.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            # Nobody reads. To flush at exit would be to wait for the thread, which waits for ever.
            self.closed = True
            print(f"pfw: nobody reads the output: {len(self._lines):,} lines or more are left out", file=sys.stderr)
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def _run(self) -> None:
        while True:
            with self._work:
                while not self._lines and not self._ending:
                    self._work.wait()
                lines = list(self._lines)
                self._lines.clear()
            if not lines:
                return
            self._print(lines)

    def _print(self, lines: list[str]) -> None:
        if self.closed or not lines:
            return
        try:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
        except (BrokenPipeError, ValueError):
            self.closed = True
        except OSError:
            self.left_out += len(lines)
