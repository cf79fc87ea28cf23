"""History: what is remembered of every connection, and what is asked of it.

Times are seconds since 1970, sizes bytes, addresses packed. `local` is this machine's end and `remote` the other one;
of a forwarded connection `local` is the end that began it. Bytes and packets are `sent` by the local end. The words are
those of `record/history.py`, which keeps them, and of every screen that shows them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pfw.model.flow import Direction
from pfw.model.observation import Kind
from pfw.model.program import Certainty
from pfw.model.verdict import Action


class Subject(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What many connections have in common: everything that a rule can ask for but the other end, and what was decided.

    `port` is the service's port, on whichever side it is. `program` is the path of the executable, or what the kernel
    calls it where it has none; None where it is not known. `rule` is None for a default,
    and empty where it is not known.
    """

    direction: Direction
    protocol: int
    local: bytes
    port: int | None = None
    icmp_type: int | None = None
    interface: str | None = None
    program: str | None = None
    uid: int | None = None
    user: str | None = None
    unit: str | None = None
    certainty: Certainty | None = None
    action: Action
    rule: str | None = None


class Traffic(Struct, frozen=True, gc=False):
    """What was carried, as seen from this machine."""

    sent_bytes: int = 0
    sent_packets: int = 0
    received_bytes: int = 0
    received_packets: int = 0


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """A connection, or many that were folded into one line.

    `id` is its place in the history: microseconds since 1970 at which it began, made unique. `from_port` is the port of
    the end that began it, `name` one under which DNS gave the remote address here. `end` is None while it is open, and
    where nobody saw it end. A folded entry stands for `count` connections that began within `period_s` seconds from
    `start` on; it has no `from_port`, and its `id` is 0. Of what was blocked `count` are the packets of one flow that
    were folded.
    """

    id: int
    subject: Subject
    remote: bytes
    start: float
    end: float | None = None
    from_port: int | None = None
    name: str | None = None
    traffic: Traffic = Traffic()
    count: int = 1
    period_s: int = 0


class Finish(Struct, frozen=True, gc=False):
    """The end of a connection that was written before; where it goes on (`end` None), what it has carried so far."""

    id: int
    end: float | None
    traffic: Traffic


class Noticed(Struct, frozen=True, kw_only=True):
    """An alert as it is kept. `source` and `target` are as in `Alert`; `response` says what was done, empty where
    nothing was."""

    time: float
    kind: Kind
    source: bytes | None
    target: bytes | None
    first: float
    last: float
    score: int
    evidence: str
    program: str | None = None
    response: str = ""


class Query(Struct, frozen=True, kw_only=True):
    """Which entries are wanted: all that fit every field that is given.

    `since` and `until` are of the start. `program` is a path, a name (the last part of a path) or a path with `*`;
    `remotes` are ranges of addresses as numbers (`model/address.py: Range`), `name` a host's name or a part of it
    behind a dot. `blocked` wants what was blocked or rejected, or (False) what was allowed. `rule` is a rule's name, or
    a default's as screens have it (`default in`, `(default)`).
    """

    since: float | None = None
    until: float | None = None
    program: str | None = None
    user: str | None = None
    remotes: tuple[tuple[int, int], ...] = ()
    name: str | None = None
    port: int | None = None
    protocol: int | None = None
    direction: Direction | None = None
    blocked: bool | None = None
    rule: str | None = None


class By(StrEnum):
    """What totals are made by."""

    PROGRAM = "program"
    REMOTE = "remote"
    NAME = "name"
    PORT = "port"
    RULE = "rule"
    USER = "user"
    HOUR = "hour"
    """Of time: the key is the hour's beginning in seconds since 1970."""


class Total(Struct, frozen=True, gc=False):
    """The connections that have `key` in common: a text, a packed address, a number, or None where it is not known."""

    key: str | bytes | int | None
    count: int
    blocked: int
    """How many of them were blocked or rejected."""
    traffic: Traffic
    first: float
    last: float


class Group(Struct, frozen=True, gc=False):
    """The connections of a subject with one remote end."""

    subject: Subject
    remote: bytes
    name: str | None
    count: int
    traffic: Traffic
    first: float
    last: float


class New(StrEnum):
    """What can be seen for the first time."""

    PROGRAM = "program"
    """`what` is its path."""
    REMOTE = "remote"
    """`what` is the address, or the name where there is one; `by` the program that had to do with it."""
    LISTENER = "listener"
    """`what` is protocol, address and port (`tcp [::]:22`), `by` the program that listens."""


class FirstSeen(Struct, frozen=True, gc=False):
    """Something that was seen for the first time."""

    time: float
    new: New
    what: str
    by: str | None = None
