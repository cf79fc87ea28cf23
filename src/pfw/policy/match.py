"""What a rule means: the slow and obvious matcher, read by people and asked by tests and `explain`.

`decide.py` gives the very same verdicts fast. Whoever changes a meaning here changes it there, in
`explain.py` the words for it, and the ruleset that `enforce` makes of it.

A field's condition has three answers, because some facts are not known everywhere: which program, which
user, by which interface. Unknown is not no: a rule that might match stands between the connection and the
rules behind it. Nothing is allowed on the strength of an unknown fact.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from pfw.model.address import AddressSet
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS
from pfw.model.policy import Policy
from pfw.model.rule import MINUTES_A_DAY, MINUTES_A_WEEK, App, Expiry, PortRange, Rule
from pfw.model.verdict import Verdict
from pfw.policy.base import LOOPBACK_INTERFACE, families_of, interface_of, rules_in_order
from pfw.policy.reason import default_verdict, limit_reached_never, rule_verdict, unsure_verdict

OverLimit = Callable[[int], bool]
"""Whether the rule with this index in `policy.rules` is above its limit for the connection's source.
Asking may take a token of it, so it is asked once, and only when everything else of the rule matches."""


class Answer(Enum):
    """Whether a condition holds."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def decide_slowly(policy: Policy, flow: Flow, moment: Moment, over_limit: OverLimit | None = None) -> Verdict:
    """The verdict of a policy on a connection: the first rule that matches, else the default.

    Rules that may match and come before that are harmless when they would do the same. Otherwise the
    verdict is UNKNOWN and names the first of them that would not. Without `over_limit` no limit is taken
    as reached, and the reason says so.
    """
    maybes: list[tuple[int | None, Rule]] = []
    for index, rule in rules_in_order(policy):
        given, _ = answer(rule, flow, moment)
        if given is Answer.UNKNOWN:
            maybes.append((index, rule))
        elif given is Answer.YES:
            if rule.limit is None or index is None:
                return _weigh(maybes, flow, moment, rule_verdict(rule, index))
            if over_limit is None:
                return _weigh(maybes, flow, moment, limit_reached_never(rule, index))
            if not over_limit(index):
                return _weigh(maybes, flow, moment, rule_verdict(rule, index))
    return _weigh(maybes, flow, moment, default_verdict(policy, flow.direction))


def _weigh(maybes: list[tuple[int | None, Rule]], flow: Flow, moment: Moment, end: Verdict) -> Verdict:
    for index, rule in maybes:
        if rule.action != end.action:
            unknown = answer(rule, flow, moment)[1]
            return unsure_verdict(rule, index, unknown, flow.protocol, end, len(maybes) - 1)
    return end


def answer(rule: Rule, flow: Flow, moment: Moment) -> tuple[Answer, tuple[str, ...]]:
    """Whether a rule matches, its limit aside, and the fields because of which it does not or may not."""
    answers = conditions(rule, flow, moment)
    for worst in (Answer.NO, Answer.UNKNOWN):
        blamed = tuple(field for field, given in answers.items() if given is worst)
        if blamed:
            return worst, blamed
    return Answer.YES, ()


def conditions(rule: Rule, flow: Flow, moment: Moment) -> dict[str, Answer]:
    """Whether each condition of a rule but the limit holds, by the field's name in the policy file."""
    return {
        "enabled": _yes_or_no(rule.enabled),
        "expires": _yes_or_no(rule.expires is None or clock_for(rule.expires, moment) < rule.expires.time),
        "schedule": _yes_or_no(rule.schedule is None or rule.schedule.holds(minute_of_week(moment))),
        "direction": _yes_or_no(flow.direction in rule.directions),
        "from": _address(rule.source, flow.source, flow),
        "to": _address(rule.destination, flow.destination, flow),
        "remote": _remote(rule.remote, flow),
        "protocol": _yes_or_no(rule.protocols is None or flow.protocol in rule.protocols),
        "from_port": _ports(rule.source_ports, flow, flow.source_port),
        "port": _ports(rule.ports, flow, flow.port),
        "icmp_type": _icmp_type(rule.icmp_types, flow),
        "interface": _interface(rule.interfaces, interface_of(flow)),
        "app": _app(rule.apps, flow),
        "script": _script(rule.scripts, flow),
        "user": _user(rule.users, flow),
        "unit": _unit(rule.units, flow),
    }


def _yes_or_no(holds: bool) -> Answer:
    return Answer.YES if holds else Answer.NO


def clock_for(expiry: Expiry, moment: Moment) -> float:
    """What the clock shows that an expiry is written by, in seconds since 1970 there."""
    return moment.time + moment.utc_offset_s if expiry.local else moment.time


def minute_of_week(moment: Moment) -> int:
    """Minutes since Monday 00:00 by the local clock. 1970 began on a Thursday."""
    minutes = int((moment.time + moment.utc_offset_s) // 60)
    return (minutes + 3 * MINUTES_A_DAY) % MINUTES_A_WEEK


def _address(wanted: AddressSet | None, packed: bytes, flow: Flow) -> Answer:
    if wanted is None or packed:
        return _yes_or_no(wanted is None or packed in wanted)
    possible = AddressSet(families_of(flow))
    left = possible.without(wanted)
    return Answer.UNKNOWN if left and left != possible else _yes_or_no(not left)


def _remote(wanted: AddressSet | None, flow: Flow) -> Answer:
    """Both ends of a forwarded connection are remote, so neither is the other end."""
    if flow.direction is Direction.FORWARD:
        return _yes_or_no(wanted is None)
    return _address(wanted, flow.source if flow.direction is Direction.IN else flow.destination, flow)


def _ports(wanted: tuple[PortRange, ...] | None, flow: Flow, port: int | None) -> Answer:
    if wanted is None:
        return Answer.YES
    if flow.protocol not in PORT_PROTOCOLS:
        return Answer.NO
    if port is None:
        return Answer.UNKNOWN
    return _yes_or_no(any(first <= port <= last for first, last in wanted))


def _icmp_type(wanted: frozenset[tuple[int, int]] | None, flow: Flow) -> Answer:
    if wanted is None:
        return Answer.YES
    if flow.protocol not in (ICMP, ICMPV6):
        return Answer.NO
    types = {number for protocol, number in wanted if protocol == flow.protocol}
    if flow.icmp_type is None and types:
        return Answer.UNKNOWN
    return _yes_or_no(flow.icmp_type in types)


def _interface(wanted: tuple[str, ...] | None, name: str | None) -> Answer:
    """An interface that is not known is not loopback: see `interface_of` for what would be."""
    if wanted is None:
        return Answer.YES
    if name is None:
        only_loopback = all(pattern == LOOPBACK_INTERFACE for pattern in wanted)
        return Answer.NO if only_loopback else Answer.UNKNOWN
    return _yes_or_no(any(fits(pattern, name) for pattern in wanted))


def fits(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, or begins with it where the pattern ends in `*`."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _app(wanted: tuple[App, ...] | None, flow: Flow) -> Answer:
    """Of several programs one that is certain is enough; what the file holds is asked only where its path fits."""
    answers = [app_fits(app, flow.app or "", flow.app_sha256) for app in wanted or ()]
    best = next((each for each in (Answer.YES, Answer.UNKNOWN) if each in answers), Answer.NO)
    return _owner(wanted, flow, flow.app, best)


def app_fits(wanted: App, path: str, sha256: str | None) -> Answer:
    """Whether a program is the one that a rule names. Without a path it is none that a rule can name."""
    if not path or not fits(wanted.path, path):
        return Answer.NO
    if wanted.sha256 is not None and sha256 is None:
        return Answer.UNKNOWN
    return _yes_or_no(wanted.sha256 in (None, sha256))


def _script(wanted: tuple[str, ...] | None, flow: Flow) -> Answer:
    return _owner(wanted, flow, flow.script, _yes_or_no(bool(flow.script) and flow.script in (wanted or ())))


def _user(wanted: tuple[str, ...] | None, flow: Flow) -> Answer:
    holds = flow.users is not None and any(user in flow.users for user in wanted or ())
    return _owner(wanted, flow, flow.users, _yes_or_no(holds))


def _unit(wanted: tuple[str, ...] | None, flow: Flow) -> Answer:
    return _owner(wanted, flow, flow.unit, _yes_or_no(flow.unit in (wanted or ())))


def _owner(wanted: object, flow: Flow, known: object, if_known: Answer) -> Answer:
    """Whose the socket at this end is. A forwarded connection has no socket here, so nobody's."""
    if wanted is None:
        return Answer.YES
    if flow.direction is Direction.FORWARD:
        return Answer.NO
    return Answer.UNKNOWN if known is None else if_known
