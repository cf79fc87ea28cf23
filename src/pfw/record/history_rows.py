"""What one transaction writes: connections, how they went on, alerts, and what was seen for the first time.

Many rows go into one statement. Python's sqlite3 lets other threads run for the time of each step of a statement, and
takes the interpreter back behind it: with a row a step, a writer beside a busy thread had 1,000 rows a second.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from msgspec import Struct

from pfw.model.history import Entry, Finish, FirstSeen, New, Noticed, Traffic
from pfw.model.verdict import Action
from pfw.record.history_query import micros
from pfw.record.history_schema import NEWS, TRAFFIC_COLUMNS, UNSEEN, number_or_none
from pfw.record.history_words import Words, cut

_MOST = 1 << 50
"""Of anything counted: thousands of these still fit into the 63 bits of a sum."""
_KNOWN_MOST = 16_384
"""Of what was seen that needs no look into the file."""
_STOPPED = (Action.BLOCK, Action.REJECT)

_ROWS = 200
"""In one statement; far from SQLITE_MAX_VARIABLE_NUMBER, which is 32,766 or more."""
_INSERT = "INSERT OR IGNORE INTO connection VALUES {values}"
_CARRIED = ", ".join(f"{column} = max({column}, column{at})" for at, column in enumerate(TRAFFIC_COLUMNS, 2))
"""What was carried only grows: an end of which nobody saw how much it was takes nothing away."""
_GOES_ON = f"UPDATE connection SET {_CARRIED} FROM (VALUES {{values}}) WHERE id = column1"
_ENDED = (
    f"UPDATE connection SET {_CARRIED}, took = max(0, column6 - id + late) FROM (VALUES {{values}}) WHERE id = column1"
)
_SEEN = "INSERT OR IGNORE INTO first_seen(new, what, by, time) VALUES (?, CAST(? AS TEXT), CAST(? AS TEXT), ?)"
_ALERT = "INSERT INTO alert VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT))"
_TOO_MANY = "DELETE FROM alert WHERE id <= (SELECT id FROM alert ORDER BY id DESC LIMIT 1 OFFSET ?)"

Row = tuple[int | bytes | None, ...]


class Part(Struct, frozen=True):
    """What was given, as much of it as goes into a transaction."""

    entries: list[Entry]
    ends: list[Finish]
    seen: list[FirstSeen]
    alerts: list[Noticed]


def next_id(last: int, start: float) -> int:
    """The id of a connection that begins then, after the one with the id `last`."""
    return max(last + 1, micros(start, 0))


def write_part(words: Words, part: Part, shift: int) -> None:
    """All but what was seen first. The ids of connections are written as so much higher."""
    file = words.file
    _write_rows(file, _INSERT, [_entry_row(words, entry, entry.id + shift) for entry in part.entries])
    open_still = [(end.id + shift, *_carried(end.traffic)) for end in part.ends if end.end is None]
    over = [(end.id + shift, *_carried(end.traffic), micros(end.end, 0)) for end in part.ends if end.end is not None]
    _write_rows(file, _GOES_ON, open_still)
    _write_rows(file, _ENDED, over)
    for alert in part.alerts:
        _write_alert(file, alert)


def _write_rows(file: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Rows of the same length, each with an id of its own."""
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        values = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        file.execute(statement.format(values=values), tuple(chain.from_iterable(some)))


def keep_alerts(file: sqlite3.Connection, most: int) -> None:
    """Forget the oldest beyond so many."""
    file.execute(_TOO_MANY, (most,))


def forget_first_seen(file: sqlite3.Connection, kind: New, count: int) -> int:
    """Forget the oldest of a kind, about so many; how many are gone."""
    number = NEWS.index(kind)
    edge = file.execute(
        "SELECT time FROM first_seen WHERE new = ? ORDER BY time LIMIT 1 OFFSET ?", (number, count - 1)
    ).fetchone()
    which = (number, float("inf") if edge is None else edge[0])
    return file.execute("DELETE FROM first_seen WHERE new = ? AND time <= ?", which).rowcount


class FirstSeenTable:
    """What was seen, each kind bounded: of remote ends the oldest make room, of others newcomers find none."""

    def __init__(self, file: sqlite3.Connection, most: int) -> None:
        self._file = file
        self._most = most
        self._known: set[tuple[New, str]] = set()
        found = file.execute("SELECT new, count(*) FROM first_seen GROUP BY new").fetchall()
        self._counts = dict.fromkeys(NEWS, 0) | {NEWS[number]: count for number, count in found}

    def remember(self, seen: list[FirstSeen]) -> None:
        for kind in NEWS:
            found = [each for each in seen if each.new is kind and (kind, each.what) not in self._known]
            if found:
                self._remember(kind, found)

    def _remember(self, kind: New, found: list[FirstSeen]) -> None:
        if len(self._known) > _KNOWN_MOST:
            self._known.clear()
        for each in found:
            if kind is not New.REMOTE and self._counts[kind] >= self._most:
                return
            row = (NEWS.index(kind), cut(each.what), cut(each.by), each.time)
            self._counts[kind] += max(0, self._file.execute(_SEEN, row).rowcount)
            self._known.add((kind, each.what))
        if self._counts[kind] > self._most:
            spare = self._counts[kind] - self._most + self._most // 10
            self._counts[kind] -= forget_first_seen(self._file, kind, spare)
            self._known.clear()


def _entry_row(words: Words, entry: Entry, number: int) -> Row:
    start = micros(entry.start, 0)
    took: int | None = None
    if entry.end is not None:
        took = max(0, micros(entry.end, 0) - start)
    elif entry.subject.action in _STOPPED:
        took = UNSEEN
    return (
        number,
        words.subject(entry.subject),
        entry.remote,
        number_or_none(entry.from_port),
        words.text(entry.name),
        max(0, number - start),
        took,
        *_carried(entry.traffic),
        min(max(entry.count, 0), _MOST),
    )


def _carried(traffic: Traffic) -> tuple[int, int, int, int]:
    found = (traffic.sent_bytes, traffic.sent_packets, traffic.received_bytes, traffic.received_packets)
    if 0 <= found[0] | found[1] | found[2] | found[3] < _MOST:
        return found
    sent_bytes, sent_packets, received_bytes, received_packets = (min(max(each, 0), _MOST) for each in found)
    return sent_bytes, sent_packets, received_bytes, received_packets


def _write_alert(file: sqlite3.Connection, alert: Noticed) -> None:
    (last,) = file.execute("SELECT coalesce(max(id), 0) FROM alert").fetchone()
    texts = (cut(alert.evidence), cut(alert.program), cut(alert.response))
    ends = (alert.source, alert.target, alert.first, alert.last)
    file.execute(_ALERT, (next_id(last, alert.time), alert.time, alert.kind.value, *ends, alert.score, *texts))
