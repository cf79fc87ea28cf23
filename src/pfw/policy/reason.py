"""Verdicts with their reasons in words, and the words for what a field of a rule wants.

Used by the slow and the fast matcher alike, so that both give the same reasons, and by `explain.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from pfw.model.address import format_range
from pfw.model.flow import Direction
from pfw.model.packet import protocol_name
from pfw.model.policy import Policy
from pfw.model.rule import App, Limit, PortRange, Rule
from pfw.model.verdict import Action, Verdict
from pfw.policy.times import PERIODS_S

MOST_VALUES = 3
"""How many values of a list are named before the rest is only counted: lists may be very long."""

_HASH_SHOWN = 16
"""Digits of a hash."""

_PERIODS = {period_s: word for word, period_s in PERIODS_S.items()}
_SUBJECTS = {
    "from": "the source",
    "to": "the destination",
    "remote": "the other end",
    "from_port": "the source port",
    "port": "the port",
    "icmp_type": "the ICMP type",
    "interface": "the interface",
    "app": "the program",
    "script": "the script",
    "user": "the user",
    "unit": "the unit",
}


def default_verdict(policy: Policy, direction: Direction) -> Verdict:
    """The verdict where no rule matches."""
    return Verdict(action=policy.defaults[direction], reason=f"default {direction}")


def rule_verdict(rule: Rule, index: int | None) -> Verdict:
    """The verdict of a rule that matches. Base rules have no index."""
    reason = rule.name if index is None else f'rule "{rule.name}"'
    return Verdict(action=rule.action, rule=rule.name, index=index, base=index is None, log=rule.log, reason=reason)


def limit_reached_never(rule: Rule, index: int | None) -> Verdict:
    """The verdict of a rule with a limit that nobody counts, so that it is taken as not reached."""
    verdict = rule_verdict(rule, index)
    if rule.limit is None:
        return verdict
    return replace(verdict, reason=f"{verdict.reason}, while {limit_text(rule.limit)}")


def unsure_verdict(
    rule: Rule, index: int | None, unknown: Iterable[str], protocol: int, end: Verdict, others: int
) -> Verdict:
    """The verdict where a rule may match and would do something else than what is certain to be the end.

    `unknown` are the rule's fields about which nothing is known, `others` is the number of further rules
    that may match before the end.
    """
    conditions = [f"{_SUBJECTS[field]} is {wanted_text(rule, field, protocol, ' or ')}" for field in unknown]
    if rule.limit:
        conditions.append(limit_text(rule.limit))
    more = ""
    if others:
        more = f", {others} more {'rule' if others == 1 else 'rules'} may match"
    name = rule.name if index is None else f'rule "{rule.name}"'
    reason = f"{rule.action} if {' and '.join(conditions)} ({name}){more}, otherwise {end.action} ({end.reason})"
    return Verdict(action=Action.UNKNOWN, rule=rule.name, index=index, base=index is None, log=rule.log, reason=reason)


def limit_text(limit: Limit) -> str:
    """`under 6/minute from one address`."""
    return f"under {limit.count}/{_PERIODS.get(limit.period_s) or f'{limit.period_s} s'} from one address"


def wanted_text(rule: Rule, field: str, protocol: int | None = None, last_joint: str = ", ") -> str:
    """What a rule wants of a field that it has: short, whatever the length of its list.

    Of the ICMP types those of one protocol, where that is given.
    """
    match field:
        case "enabled":
            return "true"
        case "expires":
            return f"before {rule.expires.text}" if rule.expires else ""
        case "schedule":
            return rule.schedule.text if rule.schedule else ""
        case "direction":
            return joined(sorted(rule.directions), last_joint)
        case "from" | "to" | "remote":
            return _addresses(rule, field, last_joint)
        case "protocol":
            return joined([protocol_name(number) for number in sorted(rule.protocols or ())], last_joint)
        case "from_port" | "port":
            return _ports((rule.source_ports if field == "from_port" else rule.ports) or (), last_joint)
        case "icmp_type":
            return _icmp_types(rule, protocol, last_joint)
        case "app":
            return joined([app_text(app) for app in rule.apps or ()], last_joint)
    names = {"interface": rule.interfaces, "script": rule.scripts, "user": rule.users, "unit": rule.units}[field]
    return joined(names or (), last_joint)


def app_text(app: App) -> str:
    """`/usr/bin/curl`, and of its hash so much that a person tells it from another."""
    return app.path if app.sha256 is None else f"{app.path} (sha256 {app.sha256[:_HASH_SHOWN]}…)"


def joined(texts: Sequence[str], last_joint: str = ", ") -> str:
    """`a, b or c`; of more than `MOST_VALUES` the first few and how many more there are."""
    if not texts:
        return "nothing"
    if len(texts) > MOST_VALUES:
        return f"{', '.join(texts[:MOST_VALUES])}{last_joint}{len(texts) - MOST_VALUES} more"
    return last_joint.join((", ".join(texts[:-1]), texts[-1])) if len(texts) > 1 else texts[0]


def _addresses(rule: Rule, field: str, last_joint: str) -> str:
    wanted = {"from": rule.source, "to": rule.destination, "remote": rule.remote}[field]
    if wanted is None:
        return ""
    few = zip(wanted.firsts[:MOST_VALUES], wanted.lasts[:MOST_VALUES], strict=True)
    more = len(wanted) - MOST_VALUES
    texts = [format_range(first, last) for first, last in few] + [""] * max(more, 0)
    return joined(texts, last_joint)


def _ports(ranges: Sequence[PortRange], last_joint: str) -> str:
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    return joined(texts, last_joint)


def _icmp_types(rule: Rule, protocol: int | None, last_joint: str) -> str:
    pairs = sorted(rule.icmp_types or ())
    if protocol is not None:
        return joined([str(number) for of, number in pairs if of == protocol], last_joint)
    return joined([f"{protocol_name(of)} {number}" for of, number in pairs], last_joint)
