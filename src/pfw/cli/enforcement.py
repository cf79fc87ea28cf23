"""What `up` and `status` say: text for people, facts for programs. Everything from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from pfw.cli.report import size_text
from pfw.cli.screen import utc_time
from pfw.cli.times import ago_text as ago_text
from pfw.cli.times import moment_text as moment_text
from pfw.cli.times import span_text as span_text
from pfw.model.text import counted, printable


class RuleStatus(Struct, frozen=True):
    """A rule and what it did: packets that it decided (the first of each connection), when the last was."""

    name: str
    action: str
    packets: int
    bytes: int
    last_hit: float | None
    untold: int = 0
    always: bool = False


class ListStatus(Struct, frozen=True):
    """A block list as it is on the disk; `loaded` tells whether it is in force."""

    name: str
    source: str
    ranges: int
    fetched: float | None
    error: str | None = None
    loaded: bool = True


class BanStatus(Struct, frozen=True):
    what: str
    since: float
    until: float | None
    why: str


class Status(Struct, frozen=True, kw_only=True):
    """All that `pfw status` tells. `intact` is False where somebody else has changed our part of the ruleset, `daemon`
    where the policy needs the daemon and it does not run."""

    active: bool
    backend: str | None = None
    policy: str | None = None
    applied: float | None = None
    changed_since: bool | None = None
    intact: bool | None = None
    daemon: bool | None = None
    panic: bool = False
    pending_until: float | None = None
    rules: Sequence[RuleStatus] = ()
    bans: Sequence[BanStatus] = ()
    lists: Sequence[ListStatus] = ()
    notes: Sequence[str] = ()


_BANS_SHOWN = 10


def status_facts(status: Status) -> dict[str, object]:
    """As JSON; times are UTC, names escaped."""
    return {
        "active": status.active,
        "backend": status.backend,
        "policy": _safe(status.policy),
        "applied": _when(status.applied),
        "changed_since": status.changed_since,
        "intact": status.intact,
        "daemon": status.daemon,
        "panic": status.panic,
        "pending_until": _when(status.pending_until),
        "rules": [
            {
                "name": printable(rule.name),
                "action": rule.action,
                "packets": rule.packets,
                "bytes": rule.bytes,
                "last_hit": _when(rule.last_hit),
                "untold": rule.untold,
            }
            for rule in status.rules
        ],
        "bans": [ban_facts(ban) for ban in status.bans],
        "lists": [list_facts(each) for each in status.lists],
        "notes": [printable(note) for note in status.notes],
    }


def ban_facts(ban: BanStatus) -> dict[str, object]:
    return {"address": ban.what, "since": _when(ban.since), "until": _when(ban.until), "why": printable(ban.why)}


def list_facts(each: ListStatus) -> dict[str, object]:
    return {
        "name": each.name,
        "source": printable(each.source),
        "ranges": each.ranges,
        "fetched": _when(each.fetched),
        "error": _safe(each.error),
        "loaded": each.loaded,
    }


def status_lines(status: Status, now: float) -> list[str]:
    """For a person."""
    lines = [_headline(status)]
    if status.panic:
        lines.append("PANIC: everything is cut off but loopback (pfw panic --off ends it)")
    if status.pending_until is not None:
        lines.append(f"taken back at {moment_text(status.pending_until)} unless confirmed: pfw confirm")
    if status.intact is False:
        lines.append("somebody else has changed our part of the ruleset: pfw up puts it right, pfw doctor says more")
    if status.daemon is False:
        lines.append("pfw daemon does not run: new programs, and what is asked, are dropped until it does")
    if status.changed_since:
        lines.append("the policy file has changed since: pfw up puts it in force")
    lines += [printable(note) for note in status.notes]
    if status.rules:
        lines += ["", *_rule_lines(status.rules, now)]
    lines += ban_lines(status.bans, now)
    lines += list_lines(status.lists, now)
    return lines


def _headline(status: Status) -> str:
    if not status.active:
        return "off: nothing is filtered (pfw up puts a policy in force)"
    if status.policy is None:
        return f"on ({status.backend}), without a policy: only bans are dropped"
    since = f", since {moment_text(status.applied)}" if status.applied else ""
    return f"on ({status.backend}), policy {printable(status.policy)}{since}"


def _rule_lines(rules: Sequence[RuleStatus], now: float) -> list[str]:
    shown = [rule for rule in rules if not rule.always or rule.packets]
    names = [printable(rule.name) for rule in shown]
    width = max([4, *(min(len(name), 50) for name in names)])
    lines = [f"{'rule':<{width}}  {'action':<6}  {'packets':>11}  {'bytes':>9}  last hit"]
    for name, rule in zip(names, shown, strict=True):
        last = ago_text(now - rule.last_hit) if rule.last_hit is not None else "-"
        lines.append(f"{name:<{width}}  {rule.action:<6}  {rule.packets:>11,}  {size_text(rule.bytes):>9}  {last}")
    return lines


def ban_lines(bans: Sequence[BanStatus], now: float, most: int = _BANS_SHOWN) -> list[str]:
    if not bans:
        return []
    lines = ["", counted(len(bans), "ban")]
    for ban in bans[:most]:
        left = "for good" if ban.until is None else f"{span_text(ban.until - now)} left"
        lines.append(f"  {ban.what:<20}  {left}{f'  {printable(ban.why)}' if ban.why else ''}")
    if len(bans) > most:
        lines.append(f"  … and {len(bans) - most:,} more (pfw ban list)")
    return lines


def list_lines(lists: Sequence[ListStatus], now: float) -> list[str]:
    if not lists:
        return []
    lines = ["", counted(len(lists), "block list")]
    for each in lists:
        age = "never fetched" if each.fetched is None else f"fetched {ago_text(now - each.fetched)}"
        trouble = f"; {printable(each.error)}" if each.error else ""
        loaded = "" if each.loaded else ", not in force"
        lines.append(f"  {each.name}: {counted(each.ranges, 'range')}, {age}{loaded}{trouble}")
    return lines


def _safe(text: str | None) -> str | None:
    return None if text is None else printable(text)


def _when(time: float | None) -> str | None:
    return None if time is None else utc_time(time)
