"""Texts and subjects by number, as the history's rows name them, and the sweeping away of those that nothing names.

A sweep goes over the file in pieces: what connections and folded lines name is noted, the rest is deleted. Meanwhile
everything is noted that is asked for. A row can only move to where the sweep has not been yet: from `connection` to
`folded`, and there from hours to days; lines that are joined move against it, so whoever joins them notes the subject.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from pfw.model.history import Subject
from pfw.record.history_schema import SUBJECT_COLUMNS, TEXT_COLUMNS, encode_text, subject_row

_CACHED = 16_384
"""Texts, and subjects, whose numbers are remembered."""
_TEXT_MOST = 4096
"""Characters of a text that are kept: a path's most (PATH_MAX)."""
_PIECE = 10_000
"""Rows of a piece that are looked at."""
_DELETED = 2500
"""Rows that are deleted at once: each may change a page of the index of its own, and all of them go to the log."""

Row = tuple[int | bytes, ...]

_FIND = f"SELECT id FROM subject WHERE {' AND '.join(f'{column} = ?' for column in SUBJECT_COLUMNS)}"
_MAKE = f"INSERT INTO subject({', '.join(SUBJECT_COLUMNS)}) VALUES ({', '.join('?' * len(SUBJECT_COLUMNS))})"
_TEXTS = " UNION ".join(f"SELECT {column} FROM subject WHERE id > :low AND id <= :high" for column in TEXT_COLUMNS)


def cut(text: str | None) -> bytes | None:
    """As it is kept."""
    return None if text is None else encode_text(text[:_TEXT_MOST])


class Words:
    """The numbers of texts and subjects; new ones are made within the transaction that asks."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self.file = file
        self._texts: dict[str, int] = {}
        self._subjects: dict[Subject, int] = {}
        self._sweep: Iterator[None] | None = None
        self._asked_subjects: set[int] = set()
        self._asked_texts: set[int] = set()

    @property
    def sweeping(self) -> bool:
        return self._sweep is not None

    def subject(self, subject: Subject) -> int:
        found = self._subjects.get(subject)
        if found is None:
            found = self.subject_of(subject_row(subject, self.text))
            _remember(self._subjects, subject, found)
        return found

    def subject_of(self, row: Row) -> int:
        """The number of a subject by its columns."""
        known = self.file.execute(_FIND, row).fetchone()
        found = int(known[0] if known else self.file.execute(_MAKE, row).lastrowid or 0)
        self.note(found)
        return found

    def text(self, text: str | None) -> int:
        if text is None:
            return -1
        found = self._texts.get(text)
        if found is None:
            data = cut(text)
            known = self.file.execute("SELECT id FROM text WHERE text = CAST(? AS TEXT)", (data,)).fetchone()
            made = "INSERT INTO text(text) VALUES (CAST(? AS TEXT))"
            found = int(known[0] if known else self.file.execute(made, (data,)).lastrowid or 0)
            _remember(self._texts, text, found)
            if self._sweep is not None:
                self._asked_texts.add(found)
        return found

    def note(self, subject: int) -> None:
        """Something names this subject now."""
        if self._sweep is not None:
            self._asked_subjects.add(subject)

    def forget(self) -> None:
        """After a rollback: what was made is not there."""
        self._texts.clear()
        self._subjects.clear()
        self._sweep = None

    def sweep(self) -> bool:
        """Do a piece of it, beginning one where none is under way; False when it is over."""
        if self._sweep is None:
            # From here on each number in use is asked for once more, and noted.
            self._texts.clear()
            self._subjects.clear()
            self._asked_subjects.clear()
            self._asked_texts.clear()
            self._sweep = self._pieces()
        try:
            next(self._sweep)
        except StopIteration:
            self._sweep = None
            return False
        return True

    def _pieces(self) -> Iterator[None]:
        for kind in ("subject", "text"):
            self.file.execute(f"CREATE TABLE IF NOT EXISTS temp.used_{kind}(id INTEGER PRIMARY KEY)")
            self.file.execute(f"DELETE FROM temp.used_{kind}")
        last_subject, last_text = self._last("subject"), self._last("text")
        yield
        yield from self._note_connections()
        yield from self._note_folded()
        for low, high in self._ranges("subject", last_subject, _DELETED):
            self._note("subject", self._asked_subjects)
            self._delete("subject", low, high)
            yield
        for low, high in self._ranges("subject", 1 << 62):
            self.file.execute(f"INSERT OR IGNORE INTO temp.used_text {_TEXTS}", {"low": low, "high": high})
            yield
        for low, high in self._ranges("text", last_text, _DELETED):
            self._note("text", self._asked_texts)
            self._delete("text", low, high)
            yield

    def _note_connections(self) -> Iterator[None]:
        for low, high in self._ranges("connection", 1 << 62):
            for kind, column in (("subject", "subject"), ("text", "name")):
                self.file.execute(
                    f"INSERT OR IGNORE INTO temp.used_{kind} SELECT {column} FROM connection WHERE id > ? AND id <= ?",
                    (low, high),
                )
            yield

    def _note_folded(self) -> Iterator[None]:
        at: Row = (0, 0, 0, b"", 0)
        key = "(period_s, start, subject, remote, name)"
        while True:
            rows = self.file.execute(
                f"SELECT period_s, start, subject, remote, name FROM folded WHERE {key} > (?, ?, ?, ?, ?)"
                f" ORDER BY period_s, start, subject, remote, name LIMIT {_PIECE // 4}",
                at,
            ).fetchall()
            self._note("subject", {row[2] for row in rows})
            self._note("text", {row[4] for row in rows})
            if len(rows) < _PIECE // 4:
                return
            at = rows[-1]
            yield

    def _ranges(self, table: str, last: int, piece: int = _PIECE) -> Iterator[tuple[int, int]]:
        """The numbers up to this one in pieces: behind `low`, up to `high`."""
        low = -(1 << 62)
        while True:
            found = self.file.execute(
                f"SELECT id FROM {table} WHERE id > ? AND id <= ? ORDER BY id LIMIT 1 OFFSET {piece}", (low, last)
            ).fetchone()
            if found is None:
                yield low, last
                return
            yield low, found[0]
            low = found[0]

    def _note(self, kind: str, numbers: set[int]) -> None:
        self.file.executemany(f"INSERT OR IGNORE INTO temp.used_{kind} VALUES (?)", [(each,) for each in numbers])

    def _delete(self, table: str, low: int, high: int) -> None:
        self.file.execute(
            f"DELETE FROM {table} WHERE id > ? AND id <= ? AND id NOT IN (SELECT id FROM temp.used_{table})",
            (low, high),
        )

    def _last(self, table: str) -> int:
        return int(self.file.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0])


def _remember(known: dict, key: object, number: int) -> None:  # type: ignore[type-arg]
    """Of what is full the older half goes."""
    if len(known) >= _CACHED:
        for old in list(known)[: _CACHED // 2]:
            del known[old]
    known[key] = number
