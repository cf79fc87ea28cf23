"""How a rehearsal went (`rehearsal.py`): connections by what would become of them, the worst first."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pfw.model.flow import Direction
from pfw.model.verdict import Action


class Outcome(StrEnum):
    """How a policy's verdict stands to what was done, in the order in which a person wants to know."""

    BLOCKED = "newly blocked"
    ALLOWED = "newly allowed"
    ASKED = "would ask"
    OTHERWISE = "stopped otherwise"
    """Blocked instead of rejected, or the other way round."""
    TIME = "depends on the time"
    """Of connections that were folded, so that nobody knows when within an hour or a day they began."""
    UNKNOWN = "cannot be told"
    SAME = "as before"


CHANGES = (Outcome.BLOCKED, Outcome.ALLOWED, Outcome.ASKED, Outcome.OTHERWISE, Outcome.TIME)


class Row(Struct, frozen=True, kw_only=True):
    """Connections that would end the same way, of one program with one remote end. `new_rule` is None for a default;
    `why` says what makes the difference where the outcome is no verdict."""

    outcome: Outcome
    direction: Direction
    protocol: int
    port: int | None
    icmp_type: int | None
    program: str | None
    is_guess: bool
    old_action: Action
    old_rule: str | None
    new_action: Action
    new_rule: str | None
    why: str
    remote: bytes
    name: str | None
    count: int
    first: float
    last: float


class Sum(Struct, frozen=True):
    """The rows that differ in nothing but the remote end, as one: that of the end with most of it, empty where none was
    kept. `remotes` are so many ends as have a row."""

    row: Row
    remotes: int


class Rehearsed(Struct, frozen=True, kw_only=True):
    """How it went. `counts` are connections by outcome; `left_out` are those of them that have no row.

    `limited` says how many connections each rule with a limit took, `expired` which rules have ended by now, and
    `before` how many connections were stopped before a policy is asked.
    """

    connections: int
    counts: dict[Outcome, int]
    rows: tuple[Row, ...]
    sums: tuple[Sum, ...]
    left_out: int
    limited: dict[str, int]
    expired: tuple[str, ...]
    before: int

    @property
    def changes(self) -> int:
        """How many connections would end otherwise, or might by the time."""
        return sum(self.counts[outcome] for outcome in CHANGES)


_PLACES = {outcome: place for place, outcome in enumerate(Outcome)}
_DIRECTIONS = {Direction.IN: 0, Direction.FORWARD: 1, Direction.OUT: 2}


def danger(row: Row) -> tuple[object, ...]:
    """What is newly let in before what is newly let out, of the rest what happens most; then a fixed order."""
    direction = _DIRECTIONS[row.direction] if row.outcome is Outcome.ALLOWED else 0
    rest = row.program or "", row.name or "", row.remote, row.protocol, row.port or 0, row.icmp_type or 0
    return (_PLACES[row.outcome], direction, -row.count, -row.last, *rest)
