"""What detection found in captures: a table for people, the same facts as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from time import localtime, strftime

from msgspec import Struct

from pfw.cli.screen import encode
from pfw.cli.table import Column, table
from pfw.model.address import format_address
from pfw.model.observation import Alert
from pfw.model.text import counted, printable

_COLUMNS = (
    Column("first seen"),
    Column("what"),
    Column("from"),
    Column("to"),
    Column("score", right=True),
    Column("evidence"),
)
_MANY = "many"
_MAC_BYTES = 6


class Facts(Struct):
    """`errors` are the files that could not be read to their end, `refused` is what there was no room to look at,
    `dropped` what the capturing system lost, `duration_s` how long it took, `sampled` the packets of floods that were
    counted only."""

    alerts: Sequence[Alert]
    packets: int
    refused: int
    errors: Sequence[str]
    dropped: int
    duration_s: float
    sampled: int = 0


def json_lines(facts: Facts) -> list[str]:
    found = {
        "alerts": [_alert(each) for each in facts.alerts],
        "packets": facts.packets,
        "duration_s": round(facts.duration_s, 4),
        "refused": facts.refused,
        "sampled": facts.sampled,
        "dropped": facts.dropped,
        "errors": [printable(each) for each in facts.errors],
    }
    return [encode(found)]


def _alert(alert: Alert) -> dict[str, object]:
    return {
        "kind": alert.kind,
        "source": None if alert.source is None else _address(alert.source),
        "target": None if alert.target is None else _address(alert.target),
        "first": alert.first,
        "last": alert.last,
        "score": alert.score,
        "evidence": printable(alert.evidence),
        "would_ban": [_address(each) for each in alert.ban],
    }


def text_lines(facts: Facts) -> list[str]:
    """One alert a line, its evidence last and whole; whom one could ban stands with it."""
    rate = round(facts.packets / facts.duration_s) if facts.duration_s > 0 else 0
    lines = table(_COLUMNS, [_row(each) for each in facts.alerts], None) if facts.alerts else []
    summary = f"{counted(len(facts.alerts), 'alert')} in {counted(facts.packets, 'packet')}"
    asides = [f"{facts.refused:,} not looked at for want of room"] if facts.refused else []
    asides += [f"{counted(facts.sampled, 'packet')} of floods counted only"] if facts.sampled else []
    asides += [f"{counted(facts.dropped, 'packet')} lost by the capturing system"] if facts.dropped else []
    took = f"{facts.duration_s:.2f} s ({rate:,} packets/s)"
    return [*lines, *([""] if lines else []), ", ".join([summary, *asides, took])]


def _row(alert: Alert) -> tuple[str, ...]:
    ban = f" (could be banned: {', '.join(map(_address, alert.ban))})" if alert.ban else ""
    return (
        _time(alert.first),
        alert.kind,
        _MANY if alert.source is None else _address(alert.source),
        _MANY if alert.target is None else _address(alert.target),
        str(alert.score),
        printable(alert.evidence) + ban,
    )


def _address(packed: bytes) -> str:
    return packed.hex(":") if len(packed) == _MAC_BYTES else format_address(packed)


def _time(time: float) -> str:
    """Local; the number itself where it is no time."""
    try:
        return strftime("%Y-%m-%d %H:%M:%S", localtime(time))
    except (OverflowError, ValueError, OSError):
        return f"{time:.0f}"
