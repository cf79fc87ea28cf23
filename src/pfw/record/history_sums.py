"""Adding up connections by a key, in a table that lives for one question.

A B-tree that is filled by upserts stays within the processor's cache where there are not too many keys; it is two to
three times as fast as GROUP BY, which sorts all rows first (1,000,000 connections by subject: 0.6 s and not 1.8 s). A
number as key is twice as fast as anything else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from pfw.model.history import Total, Traffic
from pfw.record.history_query import Where
from pfw.record.history_schema import HOUR_S, MICRO, STOPPED, TRAFFIC_COLUMNS

_STOPPED = f"count * (subject IN (SELECT id FROM subject WHERE action IN {STOPPED}))"
_ADDED = ("blocked", "count", *TRAFFIC_COLUMNS)
_SUMS = ", ".join(("count", *TRAFFIC_COLUMNS))
READ = ", ".join((*_ADDED, "first", "last"))
"""The columns that `Sums` is made of, in its order."""


class Key(Struct, frozen=True):
    """What is added up by. `columns` and `unique` declare it; `whole` and `folded` are its values in the two tables,
    `blocked` how much of a row's count was stopped: 0 where the key tells."""

    columns: str
    unique: str
    whole: str
    folded: str
    blocked: str


_NUMBER = "key INTEGER PRIMARY KEY"
BY_SUBJECT = Key(_NUMBER, "", "subject", "subject", "0")
BY_NAME = Key(_NUMBER, "", "name", "name", _STOPPED)
BY_REMOTE = Key("key BLOB UNIQUE", "", "remote", "remote", _STOPPED)
BY_HOUR = Key(
    _NUMBER, "", f"(id - late) / {HOUR_S * MICRO} * {HOUR_S}", f"start / {HOUR_S} * {HOUR_S}", _STOPPED
)  # fmt: skip
_PAIR = "(subject << 32) | (name + 1), remote"
BY_GROUP = Key("key INTEGER, remote BLOB", ", UNIQUE(key, remote)", _PAIR, _PAIR, "0")
"""The key is the subject's number and, in the lower 32 bits, one more than the name's."""


class Sums(Struct):
    """What is being added up; times in microseconds."""

    blocked: int
    count: int
    sent_bytes: int
    sent_packets: int
    received_bytes: int
    received_packets: int
    first: int
    last: int

    def add(self, other: Sums) -> None:
        self.blocked += other.blocked
        self.count += other.count
        self.sent_bytes += other.sent_bytes
        self.sent_packets += other.sent_packets
        self.received_bytes += other.received_bytes
        self.received_packets += other.received_packets
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)

    @property
    def traffic(self) -> Traffic:
        return Traffic(self.sent_bytes, self.sent_packets, self.received_bytes, self.received_packets)

    def total(self, key: str | bytes | int | None) -> Total:
        return Total(key, self.count, self.blocked, self.traffic, self.first / MICRO, self.last / MICRO)


@contextmanager
def added_up(file: sqlite3.Connection, key: Key, whole: Where, folded: Sequence[Where]) -> Iterator[str]:
    """The name of a table, one at a time, with a row for each key; its columns are the key's and those of READ."""
    table = "temp.sums"
    file.execute(f"CREATE TABLE {table}({key.columns}, {READ}{key.unique})")
    try:
        _add(file, table, key.whole, key.blocked, "id - late, id - late FROM connection", whole)
        moments = f"(start + first) * {MICRO}, (start + last) * {MICRO} FROM folded"
        for wanted in folded:
            _add(file, table, key.folded, key.blocked, moments, wanted)
        yield table
    finally:
        file.execute(f"DROP TABLE {table}")


def _add(file: sqlite3.Connection, table: str, key: str, blocked: str, moments: str, wanted: Where) -> None:
    added = ", ".join(f"{column} = {column} + excluded.{column}" for column in _ADDED)
    parameters: tuple[Any, ...] = wanted.parameters
    file.execute(
        f"INSERT INTO {table} SELECT {key}, {blocked}, {_SUMS}, {moments} WHERE {wanted.sql}"
        f" ON CONFLICT DO UPDATE SET {added}, first = min(first, excluded.first), last = max(last, excluded.last)",
        parameters,
    )
