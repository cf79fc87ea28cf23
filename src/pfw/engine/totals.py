"""What is counted: packets, connections, bytes, by the rule that decided. Nothing is left uncounted.

Every packet is in exactly one place: the row of the rule or default that decided its connection, the row
`invalid`, `undecodable`, or `not_ip` by its kind.
"""

from __future__ import annotations

from msgspec import Struct

from pfw.model.verdict import Action, Verdict

NOT_IP_KINDS_MAX = 64
"""Kinds of frames without IP that are told apart; the rest is `other`. A sender can make up 65,536."""

INVALID = Verdict(
    action=Action.BLOCK, rule="base invalid", base=True, reason="belongs to no connection and cannot start one"
)


class Row:
    """What one rule, base rule or default decided."""

    __slots__ = ("action", "bytes", "connections", "name", "packets")

    def __init__(self, name: str, action: Action) -> None:
        self.name = name
        self.action = action
        self.connections = 0
        self.packets = 0
        self.bytes = 0


class RuleTotals(Struct, frozen=True):
    """A row as it is shown."""

    name: str
    action: Action
    connections: int
    packets: int
    bytes: int


class Totals(Struct, frozen=True):
    """Everything counted. packets = sum of rules' packets + undecodable + sum of not_ip, and so for bytes."""

    packets: int
    bytes: int
    connections: int
    allowed: int
    blocked: int
    rejected: int
    asked: int
    unknown: int
    undecodable: int
    undecodable_bytes: int
    not_ip: dict[str, int]
    not_ip_bytes: int
    midstream: int
    """Connections that were older than the watching: the first packet seen was not the first sent."""
    untracked: int
    """Connections judged but not remembered because the table was full."""
    evicted: int
    """Connections forgotten before their time because the table was full."""
    rules: tuple[RuleTotals, ...]


def row_name(verdict: Verdict) -> str:
    """The rule's name, or that of the default (`default in`)."""
    return verdict.rule or verdict.reason


class Counters:
    """Counts as the engine goes."""

    def __init__(self) -> None:
        self.packets = 0
        self.undecodable = 0
        self._undecodable_bytes = 0
        self._not_ip_bytes = 0
        self.midstream = 0
        self.untracked = 0
        self.not_ip: dict[str, int] = {}
        self.judged: dict[Action, int] = dict.fromkeys(Action, 0)
        self._rows: dict[tuple[str, Action], Row] = {}
        self.invalid = self.row(INVALID)

    def row(self, verdict: Verdict) -> Row:
        key = (row_name(verdict), verdict.action)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(key[0], verdict.action)
        return row

    def judge(self, verdict: Verdict) -> Row:
        """The row of a new connection, counted there."""
        row = self.row(verdict)
        row.connections += 1
        self.judged[verdict.action] += 1
        return row

    def count_invalid(self, packets: int, size: int) -> None:
        self.invalid.packets += packets
        self.invalid.bytes += size

    def count_undecodable(self, size: int) -> None:
        self.undecodable += 1
        self._undecodable_bytes += size

    def count_not_ip(self, kind: str, size: int) -> None:
        self._not_ip_bytes += size
        if kind not in self.not_ip and len(self.not_ip) >= NOT_IP_KINDS_MAX:
            kind = "other"
        self.not_ip[kind] = self.not_ip.get(kind, 0) + 1

    def totals(self, live: dict[Row, tuple[int, int]], evicted: int) -> Totals:
        """The counts so far; `live` is what connections still hold for their rows: packets and bytes."""
        rows = []
        for row in self._rows.values():
            packets, size = live.get(row, (0, 0))
            rows.append(RuleTotals(row.name, row.action, row.connections, row.packets + packets, row.bytes + size))
        return Totals(
            packets=self.packets,
            bytes=self._undecodable_bytes + self._not_ip_bytes + sum(row.bytes for row in rows),
            connections=sum(self.judged.values()),
            allowed=self.judged[Action.ALLOW],
            blocked=self.judged[Action.BLOCK],
            rejected=self.judged[Action.REJECT],
            asked=self.judged[Action.ASK],
            unknown=self.judged[Action.UNKNOWN],
            undecodable=self.undecodable,
            undecodable_bytes=self._undecodable_bytes,
            not_ip=dict(self.not_ip),
            not_ip_bytes=self._not_ip_bytes,
            midstream=self.midstream,
            untracked=self.untracked,
            evicted=evicted,
            rules=tuple(rows),
        )
