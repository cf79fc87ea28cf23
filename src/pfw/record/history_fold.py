"""Keeping the history within its budget: the oldest connections are folded into hours, older hours into days, and the
oldest days forgotten. What is folded keeps its sums.

A line stands for the connections of a subject with one remote end under one name. Where an hour or a day has too many
lines, the rarest are joined: first without the remote end (`x''`), then without port and own address, at last by
direction, protocol, program and action, or without the program. Connections that are open stay whole for a day, unless
nothing else is left. Everything is done in pieces of some milliseconds, within the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from operator import add
from typing import Any

from pfw.model.history import New
from pfw.record.history_file import log_bytes, pages_most
from pfw.record.history_rows import forget_first_seen
from pfw.record.history_schema import DAY_S, HOUR_S, LATE_US, MICRO, PAGE_BYTES, SUBJECT_COLUMNS
from pfw.record.history_words import Row, Words

_PIECE = 4000
"""Rows of a piece of work: some 10 ms."""
_SOFT = 0.92
"""From this part of the budget on there is folding."""
_HARD = 0.96
"""Beyond this part of it only folding may go."""
_LINE_BYTES = 64
_HOURS_KEPT_S = 2 * DAY_S
_FREE_LEAST = 256
"""Pages that may be free before the file is made smaller; besides a tenth of all."""
_VACUUM = 256
_SWEEP_AFTER, _ROWS_A_PAGE = 200_000, 40
"""Texts and subjects are swept when so many rows are gone, and half as many as there are: all rows are looked at."""

_COLUMNS = "first, last, count, sent_bytes, sent_packets, received_bytes, received_packets"
_ADDED = ("count", "sent_bytes", "sent_packets", "received_bytes", "received_packets")
_ON_CONFLICT = (
    " ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last), "
    + ", ".join(f"{column} = {column} + excluded.{column}" for column in _ADDED)
)
_SUMS = ", ".join(f"sum({column})" for column in _ADDED)
_SECOND = f"(id - late) / {MICRO}"
_HOUR = f"{_SECOND} / {HOUR_S} * {HOUR_S}"
_OPEN_STAYS = "id > ? AND id <= ? AND (took IS NOT NULL OR id - late < ?)"
_ALL = "id > ? AND id <= ?"

# What is left of a subject's columns when lines are joined ever more coarsely.
_LEVELS = (
    frozenset(SUBJECT_COLUMNS) - {"local", "port", "icmp_type"},
    frozenset({"direction", "protocol", "program", "action"}),
    frozenset({"direction", "protocol", "action"}),
)


class Folding:
    """What is to be done to the file, and how far it has come."""

    def __init__(self, file: sqlite3.Connection, words: Words, budget_bytes: int, keep_s: float) -> None:
        self._file = file
        self._words = words
        self._keep_s = keep_s
        self._pages = pages_most(budget_bytes)
        self._soft_pages, self._hard_pages = int(self._pages * _SOFT), int(self._pages * _HARD)
        periods = keep_s / DAY_S + (_HOURS_KEPT_S + DAY_S) / HOUR_S
        # All lines there may be at once take half of the budget, so that bad days never push out the others.
        self.lines_most = max(64, int((budget_bytes - log_bytes(budget_bytes)) / 2 / periods / _LINE_BYTES))
        self._whole_least = budget_bytes // 1024
        file.execute(f"PRAGMA max_page_count = {self._hard_pages}")
        self._folded_to = -1
        self._pass_began = 0.0
        self._pass_removed = 0
        self._open_too = False
        self._surplus_pieces = 0
        self._piece = min(_PIECE, max(64, self._whole_least // 4))
        self._sweep_first = max(64, self._whole_least // 16)
        self._removed = self._sweep_first  # what the run before left is not known

    def stop_growing(self, pages: int, spare_bytes: int) -> None:
        """The disk is full: from now on what the file has is its budget. What makes room may take half of `spare_bytes`
        for a moment."""
        self._hard_pages = min(self._hard_pages, pages)
        self._soft_pages = min(self._soft_pages, int(pages * _SOFT / _HARD))
        self._pages = min(self._pages, pages + spare_bytes // 2 // PAGE_BYTES)

    @contextmanager
    def all_pages(self) -> Iterator[None]:
        """What makes room may for a moment take what is kept back for it."""
        self._file.execute(f"PRAGMA max_page_count = {self._pages}")
        try:
            yield
        finally:
            self._file.execute(f"PRAGMA max_page_count = {self._hard_pages}")

    def step(self, now: float, forget_before: float) -> bool:
        """Do a piece of work; False when there is none."""
        if self._forget_aged(forget_before):
            return True
        if self._words.sweeping:
            return self._go_on_sweeping()
        if self._pages_used() > self._soft_pages:
            return self.make_room(now)
        if self._removed >= max(_SWEEP_AFTER, self._pages_used() * _ROWS_A_PAGE):
            self._begin_sweep()
            return True
        return self._shrink()

    def make_room(self, now: float) -> bool:
        """Do a piece of what makes the file smaller, the least loss first."""
        return (
            (self._words.sweeping and self._go_on_sweeping())
            or self._fold_hour()
            or self._fold_whole(now, self._whole_least)
            or (self._removed >= self._sweep_first and self._begin_sweep())
            or self._forget_oldest()
            or self._fold_whole(now, 0)
            or self._forget_seen()
        )

    def has_room(self) -> bool:
        """Whether there are free pages within the file, enough for some commits."""
        count = self._pragma("page_count")
        return self._pragma("freelist_count") > max(min(_FREE_LEAST, count // 8), count // 50)

    def _pages_used(self) -> int:
        return self._pragma("page_count") - self._pragma("freelist_count")

    def _pragma(self, name: str) -> int:
        return int(self._file.execute(f"PRAGMA {name}").fetchone()[0])

    def _shrink(self) -> bool:
        free = self._pragma("freelist_count")
        if free <= max(_FREE_LEAST, self._pragma("page_count") // 10):
            return False
        self._file.execute(f"PRAGMA incremental_vacuum({_VACUUM})").fetchall()
        return True

    def _begin_sweep(self) -> bool:
        self._removed = 0
        return self._words.sweep()

    def _go_on_sweeping(self) -> bool:
        self._words.sweep()
        return True

    def _forget_aged(self, before: float) -> bool:
        gone = 0
        for period_s in (DAY_S, HOUR_S):
            gone += self._gone(
                "DELETE FROM folded WHERE period_s = ? AND start ="
                " (SELECT min(start) FROM folded WHERE period_s = ?) AND start + period_s <= ?",
                (period_s, period_s, before),
            )
        edge = before * MICRO
        for old in ("id < ?", f"late > {LATE_US} AND id - late < ?"):
            gone += self._gone(
                f"DELETE FROM connection WHERE id IN (SELECT id FROM connection WHERE {old} LIMIT {_PIECE})", (edge,)
            )
        self._file.execute("DELETE FROM alert WHERE id < ?", (edge,))
        return gone > 0

    def _gone(self, statement: str, parameters: tuple[int | float | bytes, ...]) -> int:
        gone = self._file.execute(statement, parameters).rowcount
        self._removed += gone
        return gone

    def _fold_whole(self, now: float, least: int) -> bool:
        """Fold a piece of the oldest whole connections, where there are more than that many."""
        if now - self._pass_began > HOUR_S or now < self._pass_began:
            self._begin_pass(now)  # what was open before may be over
        if not self._has_more_than(least):
            return False
        last, is_end = self._end_of_piece()
        self._fold_piece(last, now)
        self._folded_to = last
        if is_end:
            self._open_too = not self._pass_removed
            self._begin_pass(now)
        return True

    def _begin_pass(self, now: float) -> None:
        self._folded_to, self._pass_began, self._pass_removed = -1, now, 0

    def _has_more_than(self, least: int) -> bool:
        if self._surplus_pieces > 0 and least:
            self._surplus_pieces -= 1
            return True
        wide = "SELECT 1 FROM connection LIMIT 1 OFFSET ?"
        if least and self._file.execute(wide, (least + 8 * self._piece,)).fetchone():
            self._surplus_pieces = 7
            return True
        return self._file.execute(wide, (least,)).fetchone() is not None

    def _end_of_piece(self) -> tuple[int, bool]:
        found = self._file.execute(
            f"SELECT id FROM connection WHERE id > ? ORDER BY id LIMIT 1 OFFSET {self._piece - 1}", (self._folded_to,)
        ).fetchone()
        return (1 << 62, True) if found is None else (found[0], False)

    def _fold_piece(self, last: int, now: float) -> None:
        parameters: tuple[int, ...]
        which, parameters = _ALL, (self._folded_to, last)
        if not self._open_too:
            which, parameters = _OPEN_STAYS, (*parameters, round((now - DAY_S) * MICRO))
        lines = self._file.execute(
            f"SELECT {HOUR_S}, {_HOUR}, subject, remote, name, min({_SECOND} % {HOUR_S}), max({_SECOND} % {HOUR_S}),"
            f" {_SUMS} FROM connection WHERE {which} GROUP BY 2, 3, 4, 5",
            parameters,
        ).fetchall()
        self._pass_removed += self._gone(f"DELETE FROM connection WHERE {which}", parameters)
        self._add_lines(lines)

    def _add_lines(self, lines: list[tuple[Any, ...]]) -> None:
        """What they stand for must be gone already: where all is full, only its pages can be written to."""
        self._file.executemany(f"INSERT INTO folded VALUES ({', '.join('?' * 12)}){_ON_CONFLICT}", lines)
        for period_s, start in sorted({line[:2] for line in lines}):
            self._join_if_many(period_s, start)

    def _fold_hour(self) -> bool:
        """Fold the oldest hour into its day, where it is old enough."""
        oldest, newest = self._file.execute(
            f"SELECT (SELECT min(start) FROM folded WHERE period_s = {HOUR_S}),"
            f" (SELECT max(start) FROM folded WHERE period_s = {HOUR_S})"
        ).fetchone()
        if oldest is None or newest - oldest < _HOURS_KEPT_S + DAY_S:
            return False
        day = oldest // DAY_S * DAY_S
        offset = oldest - day
        lines = self._file.execute(
            f"SELECT {DAY_S}, ?, subject, remote, name, ? + first, ? + last, {', '.join(_ADDED)} FROM folded"
            f" WHERE period_s = {HOUR_S} AND start = ?",
            (day, offset, offset, oldest),
        ).fetchall()
        self._gone(f"DELETE FROM folded WHERE period_s = {HOUR_S} AND start = ?", (oldest,))
        self._add_lines(lines)
        return True

    def _forget_oldest(self) -> bool:
        oldest = self._file.execute(
            "SELECT start, period_s FROM (SELECT min(start) start, period_s FROM folded WHERE period_s = ?"
            " UNION ALL SELECT min(start), period_s FROM folded WHERE period_s = ?)"
            " WHERE start IS NOT NULL ORDER BY start LIMIT 1",
            (DAY_S, HOUR_S),
        ).fetchone()
        return oldest is not None and self._gone("DELETE FROM folded WHERE start = ? AND period_s = ?", oldest) > 0

    def _forget_seen(self) -> bool:
        """When there is nothing else: what was seen for the first time long ago, of remote ends before the others."""
        return any(forget_first_seen(self._file, kind, _PIECE) for kind in (New.REMOTE, New.LISTENER, New.PROGRAM))

    def _join_if_many(self, period_s: int, start: int) -> None:
        (lines,) = self._file.execute(
            "SELECT count(*) FROM folded WHERE period_s = ? AND start = ?", (period_s, start)
        ).fetchone()
        if lines > self.lines_most:
            self._join(period_s, start)

    def _join(self, period_s: int, start: int) -> None:
        """Join the rarer half of the lines."""
        rows = self._file.execute(
            f"SELECT subject, remote, name, {_COLUMNS} FROM folded WHERE period_s = ? AND start = ?"
            " ORDER BY count DESC, subject, remote, name LIMIT -1 OFFSET ?",
            (period_s, start, self.lines_most // 2),
        ).fetchall()
        joined = self._coarser({row[0] for row in rows})
        sums: dict[int, list[int]] = {}
        for subject, _, _, first, last, *counts in rows:
            sum_ = sums.get(joined[subject])
            if sum_ is None:
                sums[joined[subject]] = [first, last, *counts]
            else:
                sum_[:] = min(sum_[0], first), max(sum_[1], last), *map(add, sum_[2:], counts)
        self._file.executemany(
            "DELETE FROM folded WHERE period_s = ? AND start = ? AND subject = ? AND remote = ? AND name = ?",
            [(period_s, start, *row[:3]) for row in rows],
        )
        self._file.executemany(
            f"INSERT INTO folded VALUES (?, ?, ?, x'', -1, ?, ?, ?, ?, ?, ?, ?){_ON_CONFLICT}",
            [(period_s, start, subject, *sum_) for subject, sum_ in sums.items()],
        )
        self._removed += len(rows)

    def _coarser(self, subjects: set[int]) -> dict[int, int]:
        """For each subject one that says less, as little less as makes them few."""
        few = self.lines_most // 4
        if len(subjects) <= few:
            for subject in subjects:
                self._words.note(subject)
            return {subject: subject for subject in subjects}
        less: dict[int, Row] = {}
        for kept in _LEVELS:
            rows = self._file.execute(
                f"SELECT id, {_columns(kept)} FROM subject WHERE id IN (SELECT value FROM json_each(?))",
                (dumps(list(subjects)),),
            )
            less = {row[0]: row[1:] for row in rows}
            if len(set(less.values())) <= few:
                break
        numbers = {columns: self._words.subject_of(columns) for columns in set(less.values())}
        return dict.fromkeys(subjects, -1) | {number: numbers[columns] for number, columns in less.items()}


def _columns(kept: frozenset[str]) -> str:
    """The columns of a subject, those that are not kept as unknown."""
    return ", ".join(name if name in kept else "x''" if name == "local" else "-1" for name in SUBJECT_COLUMNS)
