"""Reading the history: read-only, while the daemon writes it or without one.

No question keeps the file busy for long: entries are read in pieces, each in a transaction of its own, so that the
writer can go on using its log from the start. What is folded between two pieces of one question may be left out of its
answer. Sums that must agree are of one transaction, which takes a few seconds at most: meanwhile the log only grows.
Nothing is escaped here: texts are what they were, and screens must not trust them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from itertools import chain, islice
from json import dumps
from types import TracebackType
from typing import Any

from pfw.model.history import By, Entry, FirstSeen, Group, New, Noticed, Query, Subject, Total, Traffic
from pfw.model.observation import Kind
from pfw.model.verdict import Action
from pfw.record.history_access import open_reading, refusal
from pfw.record.history_query import (
    PERIODS,
    InRanges,
    Where,
    began_between,
    both,
    may_have_begun_between,
    of_ends,
    of_subjects,
    span_of,
)
from pfw.record.history_schema import (
    LATE_US,
    MICRO,
    NEWS,
    SUBJECT_COLUMNS,
    TRAFFIC_COLUMNS,
    HistoryError,
    decode_text,
    read_subject,
)
from pfw.record.history_sums import BY_GROUP, BY_HOUR, BY_NAME, BY_REMOTE, BY_SUBJECT, READ, Key, Sums, added_up

__all__ = ["HistoryError", "Reader", "open_history"]

Row = tuple[Any, ...]

_FIRST_PIECE, _PIECE = 500, 10_000
"""Rows that are read at once: few at first, so that something is seen soon."""
_REMEMBERED = 65_536
"""Subjects and texts that are kept decoded."""

_WHOLE = f"id, subject, remote, from_port, name, late, took, {', '.join(TRAFFIC_COLUMNS)}, count"
_SUMS = f"count, {', '.join(TRAFFIC_COLUMNS)}"
_FOLDED = f"start, subject, remote, name, {_SUMS}, period_s"
_STOPPED = (Action.BLOCK, Action.REJECT)
_RANKED = {By.REMOTE: BY_REMOTE, By.NAME: BY_NAME, By.HOUR: BY_HOUR}
"""What SQLite adds up by itself; everything else is a part of the subject."""
_ALERT = "time, kind, source, target, first, last, score, evidence, program, response"
_PUNCTUAL = f"FROM connection WHERE late <= {LATE_US}"
# Ids of what began at once are in order to within LATE_US only.
_ENDS = (
    f"SELECT min(id - late) {_PUNCTUAL} AND id <= (SELECT id {_PUNCTUAL} ORDER BY id LIMIT 1) + {LATE_US}",
    f"SELECT max(id - late) {_PUNCTUAL} AND id >= (SELECT id {_PUNCTUAL} ORDER BY id DESC LIMIT 1) - {LATE_US}",
    f"SELECT min(id - late) FROM connection WHERE late > {LATE_US}",
    f"SELECT max(id - late) FROM connection WHERE late > {LATE_US}",
)


class Reader:
    """An open history; `with` closes it. Everything raises HistoryError where the file cannot be read."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self.path = path
        self._file = connection
        self._file.text_factory = decode_text
        self._subjects: dict[int, Subject] = {}
        self._texts: dict[int, str | None] = {-1: None}
        self._functions: dict[tuple[tuple[int, int], ...], str] = {}

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def entries(
        self, query: Query, *, after: int | None = None, newest_first: bool = False, limit: int | None = None
    ) -> Iterator[Entry]:
        """Whole ones in the order of id, those above `after` only; without it folded ones come before them."""
        whole = self._whole(query, after or 0, newest_first)
        folded = self._folded(query, newest_first) if after is None else iter(())
        return islice(chain(whole, folded) if newest_first else chain(folded, whole), limit)

    def unfinished(self, limit: int) -> list[Entry]:
        """The newest connections of which no end is written, at most so many."""
        with self._reading():
            rows = self._file.execute(
                f"SELECT {_WHOLE} FROM connection WHERE took IS NULL ORDER BY id DESC LIMIT ?", (limit,)
            )
            return [self._entry(row) for row in rows.fetchall()]

    def last_id(self) -> int:
        """The highest id; 0 where there is none."""
        with self._reading():
            return int(self._file.execute("SELECT coalesce(max(id), 0) FROM connection").fetchone()[0])

    def totals(self, query: Query, by: By, *, limit: int | None = None) -> list[Total]:
        """Biggest count first; by hour in order of time. Lines folded into a day count for its first hour."""
        return self.tables(query, {by: limit})[by]

    def tables(self, query: Query, limits: Mapping[By, int | None]) -> dict[By, list[Total]]:
        """Totals by each of these, at most so many, all of one state of the file: their sums agree."""
        with self._reading():
            subjects = [] if limits.keys() <= _RANKED.keys() else self._by_subject(query)
            return {
                by: self._ranked(query, by, limit) if by in _RANKED else _grouped(subjects, by)[:limit]
                for by, limit in limits.items()
            }

    def groups(self, query: Query) -> Iterator[Group]:
        """The connections by subject, remote end and name, in no order."""
        with self._reading(), self._added_up(query, BY_GROUP) as table:
            rows = self._file.execute(f"SELECT key, remote, {READ} FROM {table}").fetchall()
            pairs = {row[0] for row in rows}
            known = {pair: (self._subject(pair >> 32), self._text((pair & 0xFFFFFFFF) - 1)) for pair in pairs}
        for pair, remote, _, count, *carried, first, last in rows:
            subject, name = known[pair]
            yield Group(subject, remote, name, count, Traffic(*carried), first / MICRO, last / MICRO)

    def first_seen(self, since: float | None = None, new: New | None = None) -> list[FirstSeen]:
        """In the order of time."""
        parts = [Where("TRUE")]
        if since is not None:
            parts.append(Where("time >= ?", (since,)))  # type: ignore[arg-type]
        if new is not None:
            parts.append(Where("new = ?", (NEWS.index(new),)))
        wanted = both(*parts)
        with self._reading():
            rows = self._file.execute(
                f"SELECT time, new, what, by FROM first_seen WHERE {wanted.sql} ORDER BY time, new, what",
                wanted.parameters,
            )
            return [FirstSeen(time, NEWS[kind], what, by) for time, kind, what, by in rows]

    def alerts(self, since: float | None = None) -> list[Noticed]:
        """In the order in which they were written."""
        return self.alerts_after(0, since)[1]

    def alerts_after(self, number: int, since: float | None = None) -> tuple[int, list[Noticed]]:
        """The number of the last alert, and those that were written after the one with this number."""
        with self._reading():
            (last,) = self._file.execute("SELECT coalesce(max(id), 0) FROM alert").fetchone()
            rows = self._file.execute(
                f"SELECT {_ALERT} FROM alert WHERE id > ? AND time >= ? ORDER BY id",
                (number, float("-inf") if since is None else since),
            )
            found = [
                Noticed(
                    time=time, kind=Kind(kind), source=source, target=target, first=first, last=last, score=score,
                    evidence=evidence, program=program, response=response,
                )
                for time, kind, source, target, first, last, score, evidence, program, response in rows
            ]  # fmt: skip
        return last, found

    def span(self) -> tuple[float, float] | None:
        """When the first and the last of what is remembered began; None where nothing is."""
        found: list[int] = []
        with self._reading():
            for sql in _ENDS:
                found += (row[0] for row in self._file.execute(sql) if row[0] is not None)
            for period_s in PERIODS:
                for function, part in (("min", "first"), ("max", "last")):
                    (edge,) = self._file.execute(
                        f"SELECT {function}(start) FROM folded WHERE period_s = ?", (period_s,)
                    ).fetchone()
                    rows = self._file.execute(
                        f"SELECT {function}(start + {part}) FROM folded WHERE period_s = ? AND start = ?",
                        (period_s, edge),
                    )
                    found += (row[0] * MICRO for row in rows if row[0] is not None)
        return (min(found) / MICRO, max(found) / MICRO) if found else None

    def _whole(self, query: Query, after: int, newest_first: bool) -> Iterator[Entry]:
        at, limit = (1 << 62 if newest_first else after), _FIRST_PIECE
        beyond, order = ("id < ?", "DESC") if newest_first else ("id > ?", "ASC")
        with self._reading():
            wanted = both(self._time_of_whole(query), *self._wanted(query), Where("id > ?", (after,)))
        while True:
            with self._reading():
                rows = self._file.execute(
                    f"SELECT {_WHOLE} FROM connection WHERE {wanted.sql} AND {beyond} ORDER BY id {order} LIMIT ?",
                    (*wanted.parameters, at, limit),
                ).fetchall()
                entries = [self._entry(row) for row in rows]
            yield from entries
            if len(rows) < limit:
                return
            at, limit = rows[-1][0], _PIECE

    def _folded(self, query: Query, newest_first: bool) -> Iterator[Entry]:
        since, until = span_of(query)
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        with self._reading():
            wanted = both(Where("TRUE"), *self._wanted(query))
        for period_s in reversed(PERIODS) if newest_first else PERIODS:
            here = both(may_have_begun_between(since, until, period_s), wanted)
            more, limit = Where("TRUE"), _FIRST_PIECE
            while True:
                with self._reading():
                    rows = self._file.execute(
                        f"SELECT {_FOLDED} FROM folded WHERE {here.sql} AND {more.sql} ORDER BY start {order},"
                        f" subject {order}, remote {order}, name {order} LIMIT ?",
                        (*here.parameters, *more.parameters, limit),
                    ).fetchall()
                    entries = [self._folded_entry(row) for row in rows]
                yield from entries
                if len(rows) < limit:
                    break
                more, limit = Where(f"(start, subject, remote, name) {beyond} (?, ?, ?, ?)", rows[-1][:4]), _PIECE

    def _ranked(self, query: Query, by: By, limit: int | None) -> list[Total]:
        order = "key" if by is By.HOUR else "count DESC, key"
        with self._added_up(query, _RANKED[by]) as table:
            rows = self._file.execute(
                f"SELECT key, {READ} FROM {table} ORDER BY {order} LIMIT ?", (-1 if limit is None else limit,)
            ).fetchall()
        key_of = {By.REMOTE: lambda key: key or None, By.NAME: self._text}.get(by, lambda key: key)
        return [Sums(*row).total(key_of(number)) for number, *row in rows]

    def _by_subject(self, query: Query) -> list[tuple[Subject, Sums]]:
        with self._added_up(query, BY_SUBJECT) as table:
            rows = self._file.execute(f"SELECT key, {READ} FROM {table}").fetchall()
        found = [(self._subject(number), Sums(*row)) for number, *row in rows]
        for subject, sums in found:
            if subject.action in _STOPPED:
                sums.blocked = sums.count
        return found

    def _added_up(self, query: Query, key: Key) -> AbstractContextManager[str]:
        wanted, span = self._wanted(query), span_of(query)
        folded = [both(may_have_begun_between(*span, period_s), *wanted) for period_s in PERIODS]
        return added_up(self._file, key, both(self._time_of_whole(query), *wanted), folded)

    def _wanted(self, query: Query) -> list[Where]:
        return [*of_subjects(query, self._ids_of), *of_ends(query, self._ids_of, self._in_ranges)]

    def _time_of_whole(self, query: Query) -> Where:
        since, until = span_of(query)
        low, high = self._file.execute(
            f"SELECT min(id), max(id) FROM connection WHERE late > {LATE_US} AND id - late >= ? AND id - late < ?",
            (since, until),
        ).fetchone()
        return began_between(since, until, since if low is None else low, until if high is None else high)

    def _ids_of(self, fits: Callable[[str], bool]) -> str:
        return dumps([number for number, text in self._file.execute("SELECT id, text FROM text") if fits(text)])

    def _in_ranges(self, ranges: tuple[tuple[int, int], ...]) -> str:
        """The name of a function that tells whether an address is in them."""
        name = self._functions.get(ranges)
        if name is None:
            name = self._functions[ranges] = f"in_ranges_{len(self._functions)}"
            self._file.create_function(name, 1, InRanges(ranges), deterministic=True)
        return name

    def _entry(self, row: Row) -> Entry:
        number, subject, remote, from_port, name, late, took, *carried, count = row
        start = number - late
        return Entry(
            id=number,
            subject=self._subject(subject),
            remote=remote,
            start=start / MICRO,
            end=None if took is None or took < 0 else (start + took) / MICRO,
            from_port=None if from_port < 0 else from_port,
            name=self._text(name),
            traffic=Traffic(*carried),
            count=count,
        )

    def _folded_entry(self, row: Row) -> Entry:
        start, subject, remote, name, count, *carried, period_s = row
        return Entry(
            id=0,
            subject=self._subject(subject),
            remote=remote,
            start=float(start),
            name=self._text(name),
            traffic=Traffic(*carried),
            count=count,
            period_s=period_s,
        )

    def _subject(self, number: int) -> Subject:
        found = self._subjects.get(number)
        if found is None:
            row = self._file.execute(
                f"SELECT {', '.join(SUBJECT_COLUMNS)} FROM subject WHERE id = ?", (number,)
            ).fetchone()
            if row is None:
                raise HistoryError(f"{self.path} is damaged: a subject is missing")
            found = read_subject(row, self._text)
            if len(self._subjects) >= _REMEMBERED:
                self._subjects.clear()
            self._subjects[number] = found
        return found

    def _text(self, number: int) -> str | None:
        if number in self._texts:
            return self._texts[number]
        row = self._file.execute("SELECT text FROM text WHERE id = ?", (number,)).fetchone()
        if len(self._texts) >= _REMEMBERED:
            self._texts = {-1: None}
        self._texts[number] = text = None if row is None else row[0]
        return text

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One state of the file for all that is asked in here."""
        try:
            self._file.execute("BEGIN")
            try:
                yield
            finally:
                if self._file.in_transaction:
                    self._file.execute("COMMIT")
        except (sqlite3.Error, ValueError, IndexError, TypeError) as error:
            raise refusal(self.path, error) from None


def open_history(path: str | os.PathLike[str]) -> Reader:
    """Raises HistoryError with a line that says whose fault it is and what to do."""
    name = os.fspath(path)
    return Reader(open_reading(name), name)


def _grouped(subjects: list[tuple[Subject, Sums]], by: By) -> list[Total]:
    """The sums of subjects by a part of them, the biggest first."""
    sums: dict[str | int | None, Sums] = {}
    for subject, part in subjects:
        key = _key_of(subject, by)
        if key in sums:
            sums[key].add(part)
        else:
            sums[key] = copy(part)
    found = [each.total(key) for key, each in sums.items()]
    return sorted(found, key=lambda total: (-total.count, total.key is None, type(total.key) is str, total.key))


def _key_of(subject: Subject, by: By) -> str | int | None:
    match by:
        case By.PROGRAM:
            return subject.program
        case By.PORT:
            return subject.port
        case By.RULE:
            return subject.rule
        case _:
            return subject.uid if subject.user is None else subject.user
