"""The summary of a watch and the report of a replay: text for people, the same facts as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pfw.cli.screen import LABELS
from pfw.engine.totals import Totals
from pfw.model.flow import Direction
from pfw.model.text import counted, printable

_ROWS_MAX = 40
"""Rules shown in text; the others are summed up in a line. JSON has all."""


def size_text(size: int) -> str:
    """Bytes in a unit that a person reads."""
    if size < 1000:
        return f"{size} B"
    value = size / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def totals_facts(totals: Totals) -> dict[str, object]:
    """The counters as JSON: packets = the sum over `rules` + `undecodable` + `not_ip`."""
    return {
        "packets": totals.packets,
        "bytes": totals.bytes,
        "undecodable": totals.undecodable,
        "undecodable_bytes": totals.undecodable_bytes,
        "not_ip": sum(totals.not_ip.values()),
        "not_ip_bytes": totals.not_ip_bytes,
        "not_ip_kinds": {printable(kind): count for kind, count in totals.not_ip.items()},
        "connections": totals.connections,
        "allowed": totals.allowed,
        "blocked": totals.blocked,
        "rejected": totals.rejected,
        "asked": totals.asked,
        "unknown": totals.unknown,
        "midstream": totals.midstream,
        "untracked": totals.untracked,
        "evicted": totals.evicted,
        "rules": [
            {
                "name": printable(row.name),
                "action": row.action,
                "connections": row.connections,
                "packets": row.packets,
                "bytes": row.bytes,
            }
            for row in totals.rules
        ],
    }


def totals_lines(totals: Totals) -> list[str]:
    """The counters for a person: two lines, then a table of rules."""
    lines = [
        f"{counted(totals.packets, 'packet')} ({size_text(totals.bytes)}), "
        f"{counted(totals.connections, 'connection')}: "
        f"{totals.allowed:,} allowed, {totals.blocked:,} blocked, {totals.rejected:,} rejected"
        + (f", {totals.asked:,} to ask about" if totals.asked else "")
        + (f", {totals.unknown:,} unknown here" if totals.unknown else "")
    ]
    asides = [f"{counted(totals.undecodable, 'packet')} undecodable"]
    asides += [f"{count:,} {printable(kind)}" for kind, count in sorted(totals.not_ip.items())]
    lines.append(", ".join(asides))
    if totals.midstream:
        lines.append(
            f"{counted(totals.midstream, 'connection')} older than this watch, judged by the first packet seen"
        )
    if totals.untracked or totals.evicted:
        lines.append(
            f"table of connections full: {totals.evicted:,} forgotten early, {totals.untracked:,} not remembered"
        )
    return lines + _table(totals)


def _is_always_there(name: str) -> bool:
    """Whether a row is no rule of the policy's; these names are reserved (`policy/values.py`)."""
    return name.startswith("base ") or name in {f"default {direction}" for direction in Direction}


def _table(totals: Totals) -> list[str]:
    rows = [row for row in totals.rules if row.connections or row.packets]
    matched = {row.name for row in rows}
    idle = sum(1 for row in totals.rules if row.name not in matched and not _is_always_there(row.name))
    shown = rows[:_ROWS_MAX]
    if not shown:
        return []
    names = [printable(row.name) for row in shown]
    width = max(4, *(min(len(name), 40) for name in names))
    lines = ["", f"{'rule':<{width}}  {'verdict':<8}  {'connections':>11}  {'packets':>11}  {'bytes':>9}"]
    for name, row in zip(names, shown, strict=True):
        label = LABELS[row.action].lower()
        lines.append(
            f"{name:<{width}}  {label:<8}  {row.connections:>11,}  {row.packets:>11,}  {size_text(row.bytes):>9}"
        )
    if len(rows) > len(shown):
        lines.append(f"… and {counted(len(rows) - len(shown), 'more rule')} (all of them: --json)")
    if idle > 0:
        lines.append(f"{counted(idle, 'rule')} without a match")
    return lines


def losses_lines(losses: Mapping[str, int]) -> list[str]:
    """One line that names each loss, zero as well: what was measured, never silence."""
    return ["lost: " + ", ".join(f"{count:,} {name}" for name, count in losses.items())]


def top_lines(title: str, rows: list[tuple[str, int]]) -> list[str]:
    """A list of the most frequent, with how often."""
    if not rows:
        return []
    width = max(len(name) for name, _ in rows)
    return ["", title, *(f"  {printable(name):<{width}}  {count:>9,}" for name, count in rows)]
