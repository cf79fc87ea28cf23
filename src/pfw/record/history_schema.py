"""The history's file: its tables, its numbers, and how a subject is written in columns.

Whoever changes a table raises VERSION and adds the step that brings an older file there to STEPS. Times are
microseconds since 1970 unless their name says otherwise. An address is its packed bytes; x'' stands for many that were
joined. What is not known is -1 (x'' for `local`), because UNIQUE takes no NULL for the same as another.

    connection.id     when it began, made unique: never less than that, more where the clock went back
    connection.late   how much more, so that `id - late` is when it began
    connection.took   NULL while it is open, UNSEEN where nobody saw it end
    folded            what began within `period_s` from `start` (s) on, of one subject with one remote end under one
                      name; `first` and `last` are the seconds from `start` on in which the first and last of it began

SQLite's file format: sqlite.org/fileformat2.html. AUTOINCREMENT, because a number that came back with another meaning
would deceive a reader that remembers what it stood for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pfw.model.flow import Direction
from pfw.model.history import New, Subject
from pfw.model.program import Certainty
from pfw.model.verdict import Action

FILE = "history.db"
"""Its name in the state folder."""
APPLICATION_ID = 0x70667768
"""`pfwh` in the file's header (PRAGMA application_id): it is one of ours."""
VERSION = 1
"""PRAGMA user_version."""
STEPS: dict[int, str] = {}
"""Statements that bring a file of this version to the next one."""

PAGE_BYTES = 4096
MICRO = 1_000_000
UNSEEN = -1
LATE_US = MICRO
"""What began longer than this before its id is found by an index of its own."""
HOUR_S, DAY_S = 3600, 86400

# A number in the file is a place in one of these: new ones go to the end, none ever moves.
DIRECTIONS = (Direction.IN, Direction.OUT, Direction.FORWARD)
CERTAINTIES = (Certainty.LABEL, Certainty.SOCKET, Certainty.PROC, Certainty.GUESS)
ACTIONS = (Action.ALLOW, Action.BLOCK, Action.REJECT, Action.ASK, Action.UNKNOWN)
NEWS = (New.PROGRAM, New.REMOTE, New.LISTENER)
STOPPED = tuple(number for number, action in enumerate(ACTIONS) if action in (Action.BLOCK, Action.REJECT))

SUBJECT_COLUMNS = (
    "direction", "protocol", "local", "port", "icmp_type", "interface", "program", "uid", "user", "unit", "certainty",
    "rule", "action",
)  # fmt: skip
TEXT_COLUMNS = ("interface", "program", "user", "unit", "rule")
"""Those that name a row of `text`."""

TRAFFIC_COLUMNS = ("sent_bytes", "sent_packets", "received_bytes", "received_packets")

TABLES = f"""
CREATE TABLE text(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE subject(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    direction INTEGER NOT NULL, protocol INTEGER NOT NULL, local BLOB NOT NULL, port INTEGER NOT NULL,
    icmp_type INTEGER NOT NULL, interface INTEGER NOT NULL, program INTEGER NOT NULL, uid INTEGER NOT NULL,
    user INTEGER NOT NULL, unit INTEGER NOT NULL, certainty INTEGER NOT NULL, rule INTEGER NOT NULL,
    action INTEGER NOT NULL,
    UNIQUE({", ".join(SUBJECT_COLUMNS)})
) STRICT;
CREATE TABLE connection(
    id INTEGER PRIMARY KEY, subject INTEGER NOT NULL, remote BLOB NOT NULL, from_port INTEGER NOT NULL,
    name INTEGER NOT NULL, late INTEGER NOT NULL, took INTEGER, sent_bytes INTEGER NOT NULL,
    sent_packets INTEGER NOT NULL, received_bytes INTEGER NOT NULL, received_packets INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;
CREATE INDEX late ON connection(id - late) WHERE late > {LATE_US};
CREATE TABLE folded(
    period_s INTEGER NOT NULL, start INTEGER NOT NULL, subject INTEGER NOT NULL, remote BLOB NOT NULL,
    name INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    sent_bytes INTEGER NOT NULL, sent_packets INTEGER NOT NULL, received_bytes INTEGER NOT NULL,
    received_packets INTEGER NOT NULL,
    PRIMARY KEY(period_s, start, subject, remote, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE first_seen(
    new INTEGER NOT NULL, what TEXT NOT NULL, by TEXT, time REAL NOT NULL, PRIMARY KEY(new, what)
) STRICT, WITHOUT ROWID;
CREATE TABLE alert(
    id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, source BLOB, target BLOB, first REAL NOT NULL,
    last REAL NOT NULL, score INTEGER NOT NULL, evidence TEXT NOT NULL, program TEXT, response TEXT NOT NULL
) STRICT;
"""


class HistoryError(Exception):
    """The history cannot be used. One line that says whose fault it is and what to do."""


def encode_text(text: str) -> bytes:
    """As it stands in the file: a path's bytes that are no UTF-8 are kept as they are."""
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace")


def decode_text(data: bytes) -> str:
    """The inverse of `encode_text`."""
    return data.decode(errors="surrogateescape")


def subject_row(subject: Subject, text_id: Callable[[str | None], int]) -> tuple[int | bytes, ...]:
    """The columns of a subject, in the order of SUBJECT_COLUMNS."""
    certainty = -1 if subject.certainty is None else CERTAINTIES.index(subject.certainty)
    return (
        DIRECTIONS.index(subject.direction),
        subject.protocol,
        subject.local,
        number_or_none(subject.port),
        number_or_none(subject.icmp_type),
        text_id(subject.interface),
        text_id(subject.program),
        number_or_none(subject.uid),
        text_id(subject.user),
        text_id(subject.unit),
        certainty,
        text_id(subject.rule),
        ACTIONS.index(subject.action),
    )


def read_subject(row: Sequence[int | bytes], text_of: Callable[[int], str | None]) -> Subject:
    """The inverse of `subject_row`. Raises HistoryError for what no version wrote."""
    direction, protocol, local, port, icmp_type, interface, program, uid, user, unit, certainty, rule, action = row
    try:
        return Subject(
            direction=DIRECTIONS[direction],  # type: ignore[index]
            protocol=protocol,  # type: ignore[arg-type]
            local=local,  # type: ignore[arg-type]
            port=_known(port),
            icmp_type=_known(icmp_type),
            interface=text_of(interface),  # type: ignore[arg-type]
            program=text_of(program),  # type: ignore[arg-type]
            uid=_known(uid),
            user=text_of(user),  # type: ignore[arg-type]
            unit=text_of(unit),  # type: ignore[arg-type]
            certainty=None if certainty == -1 else CERTAINTIES[certainty],  # type: ignore[index]
            rule=text_of(rule),  # type: ignore[arg-type]
            action=ACTIONS[action],  # type: ignore[index]
        )
    except IndexError:
        raise HistoryError("the history is damaged: it has a subject that cannot be") from None


def number_or_none(value: int | None) -> int:
    """As it stands in a column: -1 for None."""
    return -1 if value is None else value


def _known(value: int | bytes) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
