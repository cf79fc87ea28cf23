"""What people see of a rehearsal: a sentence, then a table for each way in which connections would end otherwise.
Pure; times local on screen, UTC in JSON.

Programs, rules and names of hosts are other people's words: all of them pass through `printable` here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pfw.cli.screen import utc_time
from pfw.cli.table import Column, clip, columns, table
from pfw.cli.times import moment_text
from pfw.model.address import format_address
from pfw.model.flow import Direction
from pfw.model.packet import protocol_name
from pfw.model.text import counted, printable
from pfw.model.verdict import Action
from pfw.policy.rehearsed import CHANGES, Outcome, Rehearsed, Row, Sum

ROWS_SHOWN = 20
"""Of one table; JSON has the rows of all."""

_SENTENCE = {
    Outcome.BLOCKED: "{} would be blocked that {} not",
    Outcome.ALLOWED: "{} would be allowed that {} not",
    Outcome.ASKED: "{} would be asked about",
    Outcome.OTHERWISE: "{} would be stopped in another way",
    Outcome.TIME: "{} would end by the time of day, which is not kept for them",
}
_HEADS = (
    Column("program", 16),
    Column("", 0),
    Column("remote", 20),
    Column("service", 8),
    Column("connections", 0, True),
    Column("last", 19),
    Column("was -> would be", 0),
)
_BESIDE = 88
"""What the columns take before the last one, cut to their least."""
_INDENT = "    "
_ARROWS = {Direction.IN: "<-", Direction.OUT: "->", Direction.FORWARD: "=>"}


def lines(found: Rehearsed, since: float, width: int | None) -> Iterator[str]:
    """For a person."""
    yield sentence(found, since)
    for outcome in (*CHANGES, Outcome.UNKNOWN):
        sums = [each for each in found.sums if each.row.outcome is outcome]
        if not sums:
            continue
        yield ""
        yield f"{outcome.value}:"
        yield from _table([_cells(each) for each in sums[:ROWS_SHOWN]], width)
        if len(sums) > ROWS_SHOWN:
            left = sum(each.row.count for each in sums[ROWS_SHOWN:])
            yield f"… {counted(len(sums) - ROWS_SHOWN, 'more row')}, {counted(left, 'connection')} (--json has them)"
    notes = list(remarks(found))
    yield from ("", *notes) if notes else ()


def sentence(found: Rehearsed, since: float) -> str:
    """`Of 812,004 connections since 2026-11-17 10:02:11, 120 would be blocked that were not, …`."""
    if not found.connections:
        return f"No connection is remembered since {moment_text(since)}: nothing can be said."
    parts = [_SENTENCE[outcome].format(f"{found.counts[outcome]:,}", "was" if found.counts[outcome] == 1 else "were")
             for outcome in CHANGES if found.counts[outcome]]  # fmt: skip
    said = ", ".join(parts) or "none would end otherwise"
    unknown = found.counts[Outcome.UNKNOWN]
    more = f"; of {unknown:,} it cannot be told" if unknown else ""
    return f"Of {counted(found.connections, 'connection')} since {moment_text(since)}, {said}{more}."


def _table(rows: list[list[str]], width: int | None) -> Iterator[str]:
    """What decides is never cut for what stands before it: where there is no room beside that, it stands beneath."""
    if width is None or _BESIDE + max(columns(row[-1]) for row in rows) <= width:
        yield from table(_HEADS, rows, width)
        return
    head, *lines = table(_HEADS[:-2], [row[:-2] for row in rows], width)
    yield head
    for line, row in zip(lines, rows, strict=True):
        yield line
        yield from _beneath(row[-2], row[-1], width)


def _beneath(last: str, decided: str, width: int) -> Iterator[str]:
    """In two lines, if need be."""
    text = f"{_INDENT}{decided}, last {last}"
    if columns(text) <= width:
        yield text
        return
    was, _, would_be = decided.partition(" -> ")
    yield clip(f"{_INDENT}{was}, last {last}", width)
    yield clip(f"{_INDENT}-> {would_be}", width)


def remarks(found: Rehearsed) -> Iterator[str]:
    """What one has to know to believe it."""
    yield from limit_remarks(found.limited)
    for name in found.expired:
        yield f'rule "{printable(name)}" has expired, and is left out'
    if found.before:
        yield f"{counted(found.before, 'connection')} stopped by bans or as invalid, before a policy is asked"
    if found.left_out:
        yield f"{counted(found.left_out, 'connection')} with so many remote ends that not all are listed"


def limit_remarks(limited: Mapping[str, int]) -> Iterator[str]:
    """`limited` are connections by the rule that took them."""
    for name, count in limited.items():
        yield f'rule "{printable(name)}" has a limit, which is taken as never reached: {counted(count, "connection")}'


def _cells(each: Sum) -> list[str]:
    row = each.row
    why = row.why if row.outcome in (Outcome.TIME, Outcome.UNKNOWN) else _decided(row.new_action, row.new_rule)
    return [
        program_text(row),
        _ARROWS[row.direction],
        remote_text(row, each.remotes),
        service_text(row),
        f"{row.count:,}",
        moment_text(row.last),
        f"{_decided(row.old_action, row.old_rule)} -> {why}",
    ]


def program_text(row: Row) -> str:
    if row.program is None:
        return "-"
    return f"{printable(row.program)}{' (a guess)' if row.is_guess else ''}"


def remote_text(row: Row, remotes: int) -> str:
    address = address_text(row.remote)
    one = address if row.name is None else f"{printable(row.name)} ({address})"
    return one if remotes < 2 else f"{one} and {remotes - 1:,} more"


def address_text(packed: bytes) -> str:
    return format_address(packed) if len(packed) in (4, 16) else packed.hex() or "-"


def service_text(row: Row) -> str:
    """`tcp 443`, `icmp 8`."""
    number = row.icmp_type if row.port is None else row.port
    name = protocol_name(row.protocol).lower()
    return name if number is None else f"{name} {number}"


def _decided(action: Action, rule: str | None) -> str:
    return f"{action.value} by default" if rule is None else f'{action.value} by "{printable(rule)}"'


def facts(found: Rehearsed, file: str, since: float) -> dict[str, object]:
    """The same as JSON."""
    counts = {outcome.name.lower(): found.counts[outcome] for outcome in Outcome}
    return {
        "file": printable(file),
        "since": utc_time(since),
        "connections": found.connections,
        "changes": found.changes,
        "counts": counts,
        "rows": [_row_facts(row) for row in found.rows],
        "sums": [{**_row_facts(each.row), "remotes": each.remotes} for each in found.sums],
        "left_out": found.left_out,
        "limited": {printable(name): count for name, count in found.limited.items()},
        "expired": [printable(name) for name in found.expired],
        "before_policy": found.before,
    }


def _row_facts(row: Row) -> dict[str, object]:
    return {
        "outcome": row.outcome.name.lower(),
        "direction": row.direction,
        "protocol": protocol_name(row.protocol).lower(),
        "port": row.port,
        "icmp_type": row.icmp_type,
        "program": None if row.program is None else printable(row.program),
        "is_guess": row.is_guess,
        "remote": address_text(row.remote),
        "name": None if row.name is None else printable(row.name),
        "connections": row.count,
        "first": utc_time(row.first),
        "last": utc_time(row.last),
        "old": {"verdict": row.old_action, "rule": None if row.old_rule is None else printable(row.old_rule)},
        "new": {"verdict": row.new_action, "rule": None if row.new_rule is None else printable(row.new_rule)},
        "why": printable(row.why),
    }
