"""Why a policy decides as it does: the verdict, and what kept each rule before from deciding.

It asks the slow matcher, rule after rule; who wants nothing but verdicts takes `decide.Decider`. What is
asked, as people write it, is read by `question.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile

from msgspec import Struct

from pfw.model.address import format_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, protocol_name
from pfw.model.policy import Policy
from pfw.model.rule import MINUTES_A_DAY, App, Rule
from pfw.model.verdict import Verdict
from pfw.policy.base import LOOPBACK_INTERFACE, interface_of, rules_in_order
from pfw.policy.match import Answer, answer, clock_for, decide_slowly, minute_of_week
from pfw.policy.reason import app_text, joined, wanted_text
from pfw.policy.times import DAYS

_FORWARDED = "a forwarded connection"


class Mismatch(Struct, frozen=True):
    """A field that does not match, or may not: what the rule wants and what the connection has."""

    field: str
    wants: str
    has: str


class Passed(Struct, frozen=True, omit_defaults=True):
    """A rule that did not decide. `answer` is `no` or `unknown`; base rules have no index and no line."""

    name: str
    answer: str
    mismatches: tuple[Mismatch, ...]
    index: int | None = None
    line: int | None = None


class Explanation(Struct, frozen=True):
    """A verdict with the line of its rule, and every rule before the one that is certain to decide."""

    verdict: Verdict
    line: int | None
    passed: tuple[Passed, ...]


def explain(policy: Policy, flow: Flow, moment: Moment, line_of: Callable[[int], int] | None = None) -> Explanation:
    """Explain a verdict. `line_of` gives the line in the file of the rule with an index, from 1.

    Limits are taken as not reached. What a rule wants is given in short, however long its lists are.
    """

    def line(index: int | None) -> int | None:
        return None if index is None or line_of is None else line_of(index)

    answers = ((index, rule, *answer(rule, flow, moment)) for index, rule in rules_in_order(policy))
    passed = tuple(
        Passed(
            name=rule.name,
            answer=given.value,
            mismatches=tuple(_mismatch(rule, field, flow, moment) for field in fields),
            index=index,
            line=line(index),
        )
        for index, rule, given, fields in takewhile(lambda row: row[2] is not Answer.YES, answers)
    )
    verdict = decide_slowly(policy, flow, moment)
    return Explanation(verdict, line(verdict.index), passed)


def render(explanation: Explanation) -> list[str]:
    """The explanation as lines for a person: the verdict, then a line for each rule before.

    What comes from the policy file or the question stands in it as it is; the screen escapes it.
    """
    verdict = explanation.verdict
    place = f", line {explanation.line}" if explanation.line is not None else ""
    return [f"{verdict.action}: {verdict.reason}{place}", *map(_passed_line, explanation.passed)]


def _passed_line(passed: Passed) -> str:
    name = passed.name if passed.index is None else f'rule "{passed.name}"'
    place = f", line {passed.line}" if passed.line is not None else ""
    outcome = "may match" if passed.answer == Answer.UNKNOWN.value else "no match"
    fields = "; ".join(f"{each.field} wants {each.wants}, is {each.has}" for each in _telling(passed.mismatches))
    return f"  {outcome:9}  {name}{place}: {fields}"


def _telling(mismatches: tuple[Mismatch, ...]) -> list[Mismatch]:
    """Those that a person wants to read: of a rule for the other direction nothing else, and nothing of
    ports and ICMP types where the protocol is another."""
    fields = {each.field for each in mismatches}
    if "direction" in fields:
        return [each for each in mismatches if each.field == "direction"]
    dropped = {"from_port", "port", "icmp_type"} if "protocol" in fields else set()
    return [each for each in mismatches if each.field not in dropped]


def _mismatch(rule: Rule, field: str, flow: Flow, moment: Moment) -> Mismatch:
    return Mismatch(field, wanted_text(rule, field), _found(rule, field, flow, moment))


def _found(rule: Rule, field: str, flow: Flow, moment: Moment) -> str:
    """What the connection, or the moment, has of a field."""
    match field:
        case "enabled":
            return "false"
        case "expires":
            return _clock_text(clock_for(rule.expires, moment)) if rule.expires else ""
        case "schedule":
            return _week_text(minute_of_week(moment))
        case "direction":
            return flow.direction.value
        case "from":
            return _address(flow.source)
        case "to":
            return _address(flow.destination)
        case "remote":
            return _remote(flow)
        case "protocol":
            return protocol_name(flow.protocol)
        case "app" if flow.direction is not Direction.FORWARD:
            return _program(flow.app, flow.app_sha256, any(app.sha256 for app in rule.apps or ()))
    return _found_further(field, flow)


def _found_further(field: str, flow: Flow) -> str:
    match field:
        case "from_port":
            return _number(flow.source_port, flow.protocol, PORT_PROTOCOLS, "port")
        case "port":
            return _number(flow.port, flow.protocol, PORT_PROTOCOLS, "port")
        case "icmp_type":
            return _number(flow.icmp_type, flow.protocol, (ICMP, ICMPV6), "ICMP type")
        case "interface":
            return interface_of(flow) or f"unknown, but not {LOOPBACK_INTERFACE}"
    if flow.direction is Direction.FORWARD:
        return _FORWARDED
    match field:
        case "script":
            return "none" if flow.script == "" else _known(flow.script)
        case "unit":
            return _known(flow.unit)
    return _known(None if flow.users is None else joined(sorted(flow.users)))


def _program(path: str | None, sha256: str | None, is_hash_wanted: bool) -> str:
    if not path:
        return "unknown" if path is None else "none that has a path"
    if not is_hash_wanted:
        return path
    return app_text(App(path, sha256)) if sha256 else f"{path} (sha256 unknown)"


def _known(text: str | None) -> str:
    return "unknown" if text is None else text


def _number(number: int | None, protocol: int, having: Iterable[int], what: str) -> str:
    if protocol not in having:
        return f"{protocol_name(protocol)}, which has no {what}"
    told = "unknown" if number is None else str(number)
    return f"{protocol_name(protocol)} {told}" if protocol in (ICMP, ICMPV6) else told


def _remote(flow: Flow) -> str:
    if flow.direction is Direction.FORWARD:
        return _FORWARDED
    return _address(flow.source if flow.direction is Direction.IN else flow.destination)


def _address(packed: bytes) -> str:
    return format_address(packed) if packed else "unknown"


def _week_text(minute: int) -> str:
    day, minute_of_day = divmod(minute, MINUTES_A_DAY)
    return f"{DAYS[day]} {minute_of_day // 60:02}:{minute_of_day % 60:02}"


def _clock_text(seconds: float) -> str:
    from datetime import datetime, timedelta  # only here: slow to import

    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=int(seconds))).isoformat()
    except OverflowError:
        return f"{seconds} s"
