"""The history: every connection in one SQLite file, by one writer.

What is given is kept in memory until `commit`, which writes it in a transaction, or a few where it is much; what could
not be written can be tried again. Each is brought to the disk (synchronous=FULL): with NORMAL, SQLite leaves the log to
the kernel, and a power cut takes the last half minute along.

An id is given once (`next_id`) and never again, whatever the clock does: where a run begins with ids that the file has
already, all of that run are written as much higher. The file tells when a connection began all the same.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from msgspec.structs import replace

from pfw.model.history import Entry, Finish, FirstSeen, Noticed
from pfw.record.history_file import (
    code_of,
    identity,
    is_damage,
    is_overwritten,
    is_sound,
    log_bytes,
    open_eye,
    open_file,
    put_aside,
)
from pfw.record.history_fold import Folding
from pfw.record.history_reserve import Reserve
from pfw.record.history_rows import FirstSeenTable, Part, keep_alerts, next_id, write_part
from pfw.record.history_words import Words

__all__ = ["BUDGET_BYTES", "KEEP_S", "History", "next_id"]

BUDGET_BYTES = 256 << 20
KEEP_S = 90 * 86400.0
TEND_S = 0.01
"""How long `tend` works, about."""
FIRST_SEEN_MOST = 100_000
"""Of each kind, where the budget is not too small for that."""
ALERTS_MOST = 20_000
BELIEVED_S = 3600.0
"""How long a clock that jumped ahead must stay there before anything is forgotten for being old."""
_JUMP_S = 86400.0
_AGAIN_S = 60.0
"""Not more than one file is put aside in this time."""
_CHECK_S = 1.0
_PART_MOST = 2000
"""Things of a kind that are written in one transaction: each may change some pages of its own, 4 KB each in the log."""
_ROOM_S = 10.0
"""How long room is made for what does not fit."""
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
"""After these the open file is as good as before."""
_STRANGE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG)
"""What no statement of ours meets in a sound file."""
_TROUBLE = (sqlite3.Error, OSError, TypeError, ValueError, KeyError, IndexError, OverflowError)

_YOUNG_PAGES = 256
"""A file of 1 MiB."""

T = TypeVar("T")


class History:
    """The one writer. Everything but `commit`, `tend` and `close` is memory only.

    Raises HistoryError where the file is of a newer version, sqlite3.Error or OSError where the system refuses; what
    was given stays for the next `commit`. `tell` hears of a file that was put aside.
    """

    def __init__(
        self,
        path: str,
        budget_bytes: int = BUDGET_BYTES,
        keep_s: float = KEEP_S,
        tell: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._budget_bytes = budget_bytes
        self._keep_s = keep_s
        self._tell = tell
        self._monotonic = monotonic
        self._entries: dict[int, Entry] = {}
        self._ends: dict[int, Finish] = {}
        self._seen: list[FirstSeen] = []
        self._alerts: list[Noticed] = []
        self._shift: int | None = None
        self._aside_at: float | None = None
        self._checked_at = 0.0
        self._believed: float | None = None
        self._doubted_at: float | None = None
        self._first_seen_most = min(FIRST_SEEN_MOST, max(64, budget_bytes // 2048))
        self._alerts_most = min(ALERTS_MOST, max(64, budget_bytes // 8192))
        self._reserve = Reserve(f"{path}-reserve", log_bytes(budget_bytes) // 4)
        self._pages_then: int | None = None
        self._is_known = False
        self._last_before: int | None = None
        self._file: sqlite3.Connection | None = None
        self._eye: int | None = None
        self._part_most = min(_PART_MOST, max(256, budget_bytes >> 17))
        self._open()

    def write(self, entries: Sequence[Entry]) -> None:
        """Connections that began, or that are over already. Their ids are those of `next_id`."""
        for entry in entries:
            self._entries[entry.id] = entry

    def finish(self, ends: Sequence[Finish]) -> None:
        """Connections that are over, or go on. Of one that is not kept any more nothing is changed."""
        for end in ends:
            entry = self._entries.get(end.id)
            if entry is None:
                self._ends[end.id] = end
            else:
                self._entries[end.id] = replace(entry, end=end.end, traffic=end.traffic)

    def first_seen(self, found: Sequence[FirstSeen]) -> None:
        """What of this has not been seen before is remembered."""
        self._seen += found

    def note(self, alerts: Sequence[Noticed]) -> None:
        self._alerts += alerts

    @property
    def waiting(self) -> int:
        """How many things a `commit` would write."""
        return len(self._entries) + len(self._ends) + len(self._seen) + len(self._alerts)

    def drop(self) -> None:
        """Give up what was not committed."""
        self._entries, self._ends, self._seen, self._alerts = {}, {}, [], []

    def commit(self) -> None:
        """Write what was given."""
        while self.waiting:
            part = self._next_part()
            self._careful(partial(self._write_part, part))
            for entry in part.entries:
                del self._entries[entry.id]
            for end in part.ends:
                del self._ends[end.id]
            del self._seen[: len(part.seen)]
            del self._alerts[: len(part.alerts)]

    def tend(self, now: float) -> bool:
        """Fold and forget for a moment; whether there is more to do."""
        if abs(now - self._checked_at) >= _CHECK_S:
            self._checked_at = now
            if identity(self.path) != self._identity or self._eye is None or is_overwritten(self._eye):
                self._close()  # somebody moved or deleted it, or wrote into it
        if self._pages_then is not None and self._reserve.hold():
            self._pages_then, self._is_known = None, False  # there is room on the disk again
        forget_before = self._believable(now) - self._keep_s
        return self._careful(lambda: self._tend(now, forget_before))

    def close(self) -> None:
        """What was not committed is lost."""
        self._close()
        self._reserve.give_up()

    def _open(self) -> sqlite3.Connection:
        file = open_file(self.path, self._budget_bytes, self._tell)
        self._file, self._is_known = file, False
        self._eye = open_eye(self.path)
        self._identity = identity(self.path)
        self._know(file)
        self._reserve.hold()
        return file

    def _know(self, file: sqlite3.Connection) -> None:
        """Forget all that was known of the file, and look."""
        self._words = Words(file)
        self._folding = Folding(file, self._words, self._budget_bytes, self._keep_s)
        if self._last_before is None:
            (self._last_before,) = file.execute("SELECT coalesce(max(id), 0) FROM connection").fetchone()
        if self._pages_then is not None:
            self._folding.stop_growing(self._pages_then, self._reserve.size_bytes)
        self._first_seen = FirstSeenTable(file, self._first_seen_most)
        if self._believed is None:
            self._believed = oldest(file)
        self._is_known = True

    def _close(self) -> None:
        file, self._file = self._file, None
        self._is_known = False
        eye, self._eye = self._eye, None
        try:
            if file is not None:
                file.close()
        finally:
            if eye is not None:
                os.close(eye)

    def _careful(self, work: Callable[[], T]) -> T:
        """Have it done in a transaction, once more where room could be made or a broken file was put aside."""
        tried: set[str] = set()
        while True:
            try:
                return self._in_transaction(self._file or self._open(), work)
            except _TROUBLE as error:
                cure = self._cure_for(error)
                if cure is None or cure.__name__ in tried:
                    if code_of(error) not in _HELD:
                        self._close()  # to look at it anew
                    raise
                tried.add(cure.__name__)
                cure(error)

    def _in_transaction(self, file: sqlite3.Connection, work: Callable[[], T]) -> T:
        self._bound_log(file)
        file.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_known:
                self._know(file)
            result = work()
            file.execute("COMMIT")
        except BaseException:
            self._is_known = False
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        return result

    def _bound_log(self, file: sqlite3.Connection) -> None:
        """See that the log is within its part of the budget, which a reader that never ends can prevent."""
        most = log_bytes(self._budget_bytes) // 4 * 3  # the rest is the reserve's
        if _size(f"{self.path}-wal") <= most:
            return
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if _size(f"{self.path}-wal") > most:
            raise BlockingIOError(errno.EAGAIN, "another process has been reading for too long")

    def _cure_for(self, error: Exception) -> Callable[[Exception], None] | None:
        if code_of(error) == sqlite3.SQLITE_FULL:
            return self._make_room
        is_strange = code_of(error) in _STRANGE or not isinstance(error, sqlite3.Error | OSError)
        if is_damage(error) or (is_strange and self._is_damaged()):
            return self._begin_anew
        return None

    def _is_damaged(self) -> bool:
        """Look at the whole file."""
        if self._file is None:
            return False
        try:
            return not is_sound(self._file)
        except sqlite3.Error as error:
            return is_damage(error)

    def _begin_anew(self, error: Exception) -> None:
        now = self._monotonic()
        if self._aside_at is not None and now - self._aside_at < _AGAIN_S:
            raise error
        self._aside_at = now
        self._close()
        put_aside(self.path, f"is damaged ({error})", self._tell)

    def _make_room(self, error: Exception) -> None:
        """What is full may be the disk or the budget: free pages within the file help with both."""
        file = self._file
        if file is None:
            raise error
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        if self._reserve.is_tight:
            if pages < _YOUNG_PAGES:
                raise error  # all that it could forget would make no room to speak of
            if self._pages_then is None:
                self._pages_then = pages
            self._reserve.give_up()
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        until = self._monotonic() + _ROOM_S
        while self._in_transaction(file, self._make_some_room) and self._monotonic() < until:
            pass

    def _make_some_room(self) -> bool:
        if self._folding.has_room():
            return False
        with self._folding.all_pages():
            return self._folding.make_room(time.time())

    def _tend(self, now: float, forget_before: float) -> bool:
        until = self._monotonic() + TEND_S
        with self._folding.all_pages():
            while self._folding.step(now, forget_before):
                if self._monotonic() >= until:
                    return True
        return False

    def _believable(self, now: float) -> float:
        """This time, or the one before it jumped ahead, until it has stayed there for a while: a wrong clock must not
        make the history forget everything."""
        if self._believed is None or now <= self._believed + _JUMP_S:
            self._believed, self._doubted_at = now, None
        elif self._doubted_at is None:
            self._doubted_at = self._monotonic()
        elif self._monotonic() - self._doubted_at >= BELIEVED_S:
            self._believed, self._doubted_at = now, None
        return self._believed

    def _next_part(self) -> Part:
        most = self._part_most
        return Part(
            list(islice(self._entries.values(), most)),
            list(islice(self._ends.values(), most)),
            self._seen[:most],
            self._alerts[:most],
        )

    def _write_part(self, part: Part) -> None:
        if part.entries and self._shift is None:
            self._shift = max(0, (self._last_before or 0) + 1 - min(self._entries))
        write_part(self._words, part, self._shift or 0)
        self._first_seen.remember(part.seen)
        if part.alerts:
            keep_alerts(self._words.file, self._alerts_most)


def oldest(file: sqlite3.Connection) -> float | None:
    """When the first of what is remembered began. Not the last: that may be what a wrong clock wrote."""
    found = file.execute("SELECT min(start) + 0.0 FROM folded").fetchone()
    if found[0] is None:
        found = file.execute("SELECT (id - late) / 1e6 FROM connection ORDER BY id LIMIT 1").fetchone()
    return None if found is None or found[0] is None else float(found[0])


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
