"""Bans one by one, for `pfw ban show`: why, since when, until when, by what, and how often before."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pfw.cli.screen import utc_time
from pfw.cli.times import moment_text, span_text
from pfw.model.text import counted, printable


class Banned(Struct, frozen=True, kw_only=True):
    """What is known of an address or a range. `ban` is what is banned and holds it, None where nothing is; `by` is the
    kind of alert, None for a person. `before` tells how many bans of it by alerts are remembered beside this one, and
    `last` when the last of them ended. Until `forgiven` no alert bans it."""

    what: str
    ban: str | None = None
    since: float | None = None
    until: float | None = None
    why: str = ""
    by: str | None = None
    evidence: str = ""
    before: int = 0
    last: float | None = None
    forgiven: float | None = None


def facts(found: Banned) -> dict[str, object]:
    return {
        "address": found.what,
        "banned": found.ban is not None,
        "ban": found.ban,
        "since": _utc(found.since),
        "until": _utc(found.until),
        "why": printable(found.why),
        "by": (found.by or "hand") if found.ban is not None else None,
        "evidence": printable(found.evidence),
        "bans_before": found.before,
        "last_ban_until": _utc(found.last),
        "forgiven_until": _utc(found.forgiven),
    }


def lines(every: Sequence[Banned], now: float) -> list[str]:
    """A few lines each, an empty one between them."""
    shown: list[str] = []
    for found in every:
        shown += [""] if shown else []
        shown += _ban_lines(found, now) if found.ban is not None else [f"{found.what} is not banned"]
        if found.before:
            ended = f", until {moment_text(found.last)}" if found.ban is None and found.last is not None else ""
            shown.append(f"  before    {counted(found.before, 'ban')} of it that count{ended}")
        if found.forgiven is not None:
            shown.append(f"  forgiven  until {moment_text(found.forgiven)}: no alert bans it before then")
    return shown


def _ban_lines(found: Banned, now: float) -> list[str]:
    inside = "" if found.ban == found.what else f", by the ban on {found.ban}"
    shown = [f"{found.what} is banned{inside}"]
    if found.since is not None:
        shown.append(f"  since     {moment_text(found.since)}")
    left = f" ({span_text(found.until - now)} left)" if found.until is not None else ""
    shown.append(f"  until     {'lifted by hand' if found.until is None else moment_text(found.until)}{left}")
    shown.append(f"  by        {'hand' if found.by is None else f'an alert: {printable(found.by)}'}")
    shown += [f"  why       {printable(found.why)}"] if found.why else []
    shown += [f"  evidence  {printable(found.evidence)}"] if found.evidence else []
    return shown


def _utc(time: float | None) -> str | None:
    return None if time is None else utc_time(time)
