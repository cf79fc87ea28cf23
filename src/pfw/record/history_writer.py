"""The queue before the history: whoever has something to remember never waits for a disk.

A thread writes twice a second. What is waiting is bounded by count and by bytes; what does not fit is counted in `lost`
and told once in a while. While the file cannot be written, what was taken stays for the next attempt.
"""

from __future__ import annotations

import errno
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from msgspec import Struct

from pfw.model.history import Entry, Finish, FirstSeen, Noticed
from pfw.record.history import BUDGET_BYTES, KEEP_S, History, next_id
from pfw.record.history_file import code_of
from pfw.record.history_schema import HistoryError
from pfw.record.trouble import QUIET_S, Trouble

COMMIT_S = 0.5
THINGS_MOST = 131_072
BYTES_MOST = 64 << 20
"""An estimate of the memory that things which wait take."""
_THING_BYTES = 400
"""One with short texts, about."""
_HURRY = 20_000
"""So many things do not wait for the half second to be over."""
_TEND_S = 0.2
"""The longest that folding goes on between two commits."""
_CLOSE_S = 5.0
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)  # fmt: skip
"""What the system or the disk is to blame for: another attempt may work. Of anything else we are."""


class _Given(Struct):
    """What was given since the thread last looked."""

    entries: list[Entry] = []
    ends: list[Finish] = []
    seen: list[FirstSeen] = []
    alerts: list[Noticed] = []
    things: int = 0
    size_bytes: int = 0


class HistoryWriter:
    """The history's thread. `write`, `finish`, `first_seen` and `note` are as in `History`; they never wait, and raise
    nothing. One thread calls them. `tell` is called by that one and by the history's.

    `last_id` is the highest id that the file has: after it, ids of earlier runs are what they are.

    `off` is why there is no history, None while there is one. `lost` and `written` count things and only grow.
    """

    def __init__(
        self,
        path: str,
        budget_bytes: int = BUDGET_BYTES,
        keep_s: float = KEEP_S,
        tell: Callable[[str], None] = lambda _: None,
        *,
        last_id: int = 0,
        things_most: int = THINGS_MOST,
        bytes_most: int = BYTES_MOST,
    ) -> None:
        self.path = path
        self.off: str | None = None
        self.lost = 0
        self.written = 0
        self._open = partial(History, path, budget_bytes, keep_s, tell)
        self._tell = tell
        self._trouble = Trouble(f"history {path}", tell)
        self._things_most = things_most
        self._bytes_most = bytes_most
        self._last_id = last_id
        self._told_at: float | None = None
        self._history: History | None = None
        self._given, self._taken = _Given(), _Given()
        self._is_handed = False
        self._changed = threading.Condition()
        self._hurry = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def next_id(self, start: float) -> int:
        """The id of a connection that began then."""
        self._last_id = next_id(self._last_id, start)
        return self._last_id

    def write(self, entries: Sequence[Entry]) -> None:
        size = sum([_THING_BYTES + len(each.name or "") + len(each.subject.program or "") for each in entries])
        with self._changed:
            if self._fits(len(entries), size):
                self._given.entries += entries

    def finish(self, ends: Sequence[Finish]) -> None:
        with self._changed:
            if self._fits(len(ends), _THING_BYTES * len(ends)):
                self._given.ends += ends

    def first_seen(self, found: Sequence[FirstSeen]) -> None:
        with self._changed:
            if self._fits(len(found), sum([_THING_BYTES + len(each.what) for each in found])):
                self._given.seen += found

    def note(self, alerts: Sequence[Noticed]) -> None:
        with self._changed:
            if self._fits(len(alerts), sum([_THING_BYTES + len(each.evidence) for each in alerts])):
                self._given.alerts += alerts

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Wait until what was given is in the file; whether it is."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self.off is not None or not self._given.things + self._taken.things, timeout_s
            )

    def close(self, timeout_s: float = _CLOSE_S) -> None:
        """Write what is waiting, for no longer than this; the rest is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            self.off = self.off or "closed"
            self._lose(self._given.things + self._taken.things)
            self._given, self._taken = _Given(), _Given()

    def _fits(self, things: int, size_bytes: int) -> bool:
        """Whether there is room for more; counted as lost where there is none. To be asked under the lock."""
        given, taken = self._given, self._taken
        if (
            self.off is not None
            or given.things + taken.things + things > self._things_most
            or given.size_bytes + taken.size_bytes + size_bytes > self._bytes_most
        ):
            self._lose(things)
            return False
        given.things += things
        given.size_bytes += size_bytes
        if given.things >= _HURRY and not self._hurry:
            self._hurry = True
            self._changed.notify_all()
        return True

    def _lose(self, things: int) -> None:
        self.lost += things
        self._trouble.lost_lines += things
        now = time.monotonic()
        if (
            things
            and self.off is None
            and not self._trouble.failing
            and (self._told_at is None or now - self._told_at >= QUIET_S)
        ):
            self._told_at = now
            self._tell(f"history {self.path}: the disk is too slow, {self.lost} things were not written so far")

    def _run(self) -> None:
        while self.off is None:
            with self._changed:
                if not self._closing and not self._hurry:
                    self._changed.wait(COMMIT_S)
                self._hurry = False
                closing = self._closing
                if not self._taken.things:
                    self._taken, self._given = self._given, _Given()
                    self._is_handed = False
            if closing or not self._trouble.waits(time.monotonic()):
                self._round()
            if closing and (self._taken.things or not self._given.things):
                break
        if self._history is not None:
            with suppress(sqlite3.Error):
                self._history.close()

    def _round(self) -> None:
        """One attempt to write, and to tend the file."""
        try:
            history = self._history = self._history or self._open()
            self._hand(history)
            history.commit()
            self._done()
            until = time.monotonic() + _TEND_S
            while history.tend(time.time()) and time.monotonic() < until and self._given.things < _HURRY:
                pass
            self._trouble.work()
        except HistoryError as error:
            self._end(str(error))
        except Exception as error:
            if code_of(error) in _PASSING:
                self._trouble.fail(OSError(errno.EIO, str(error)), 0, time.monotonic())
            elif isinstance(error, OSError):
                self._trouble.fail(error, 0, time.monotonic())
            elif code_of(error) not in _HELD:
                self._give_up(error)

    def _end(self, why: str) -> None:
        """There is no history from here on."""
        with self._changed:
            self.off = why
            self._lose(self._taken.things + self._given.things)
            self._taken, self._given = _Given(), _Given()
            self._changed.notify_all()
        self._tell(why)

    def _give_up(self, error: Exception) -> None:
        """A fault of ours: something is of a kind that no column takes. The others shall not wait for it for ever."""
        if self._history is not None:
            self._history.drop()
        with self._changed:
            things, self._taken = self._taken.things, _Given()
            self.lost += things
            self._changed.notify_all()
        self._trouble.fail(OSError(errno.EINVAL, f"{type(error).__name__}: {error}"), 0, time.monotonic())

    def _hand(self, history: History) -> None:
        if not self._is_handed:
            self._is_handed = True
            history.write(self._taken.entries)
            history.finish(self._taken.ends)
            history.first_seen(self._taken.seen)
            history.note(self._taken.alerts)

    def _done(self) -> None:
        with self._changed:
            self.written += self._taken.things
            self._taken = _Given()
            self._changed.notify_all()
