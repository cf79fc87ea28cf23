"""Rules in words: what one says in a line, and what the fields of it are called where they changed.

Texts are short whatever the length of a list or a name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pfw.model.flow import Direction
from pfw.model.packet import ICMP, ICMPV6, protocol_name
from pfw.model.rule import Rule
from pfw.model.text import counted
from pfw.policy.reason import MOST_VALUES, joined, wanted_text
from pfw.policy.times import DEFAULT_BURST, PERIODS_S
from pfw.policy.values import ICMP_TYPES

LONGEST = 120
"""Characters of one text."""

_ATTRIBUTES: dict[str, str] = {
    "action": "action", "direction": "directions", "from": "source", "to": "destination", "remote": "remote",
    "protocol": "protocols", "port": "ports", "from_port": "source_ports", "icmp_type": "icmp_types",
    "interface": "interfaces", "app": "apps", "script": "scripts", "user": "users", "unit": "units",
    "schedule": "schedule", "expires": "expires", "log": "log", "enabled": "enabled", "note": "note",
}  # fmt: skip
"""Fields of a policy file and of the model; `limit` and `burst` are one there."""

_NOUNS: dict[str, str] = {
    "from": "range", "to": "range", "remote": "range", "protocol": "protocol", "port": "range", "from_port": "range",
    "icmp_type": "type", "interface": "interface", "app": "program", "script": "script", "user": "user", "unit": "unit",
}  # fmt: skip
"""What the values of a list are called where they are only counted."""

_LABELS: dict[str, str] = {
    "icmp_type": "", "from": "from ", "to": "to ", "remote": "remote ", "from_port": "from port ", "interface": "on ",
    "app": "app ", "script": "script ", "user": "user ", "unit": "unit ",
}  # fmt: skip
"""What stands before a condition in a summary."""

_PERIODS = {period_s: word for word, period_s in PERIODS_S.items()}


def summary(rule: Rule) -> str:
    """A rule in one line: `allow in tcp 22 from 10.0.0.0/8, 172.16.0.0/12 limit 6/minute`."""
    parts = [rule.action.value, direction_text(rule.directions)]
    conditions = [_protocol(rule)] if rule.protocols is not None else []
    if rule.ports is not None:
        conditions.append(wanted_text(rule, "port"))
    for field, label in _LABELS.items():
        if getattr(rule, _ATTRIBUTES[field]) is not None:
            conditions.append(f"{label}{_few(rule, field)}")
    if rule.schedule is not None:
        conditions.append(rule.schedule.text)
    parts += conditions or ["anything"]
    if rule.limit is not None:
        burst = f" burst {rule.limit.burst}" if rule.limit.burst != DEFAULT_BURST else ""
        parts.append(f"limit {_limit(rule)}{burst}")
    if rule.expires is not None:
        parts.append(f"until {rule.expires.text}")
    parts += [word for word, holds in (("log", rule.log), ("(off)", not rule.enabled)) if holds]
    return " ".join(parts)


def field_change(old: Rule, new: Rule) -> Iterator[tuple[str, str | None, str | None]]:
    """Each field in which two rules differ, by its name in the file, with its text before and now.

    None is the text of a field that is not there. Of long lists their lengths are told, and how many values
    came and went.
    """
    for field, attribute in _ATTRIBUTES.items():
        before, now = getattr(old, attribute), getattr(new, attribute)
        if before == now:
            continue
        if field in _NOUNS and before is not None and now is not None and _is_long(old, new, field):
            gone, come = set(_values(old, field)), set(_values(new, field))
            came = f"(+{len(come - gone):,}, -{len(gone - come):,})"
            yield field, _value_text(old, field), f"{_value_text(new, field)} {came}"
        else:
            yield field, _value_text(old, field), _value_text(new, field)
    if old.limit != new.limit:
        if _limit(old) != _limit(new):
            yield "limit", _limit(old), _limit(new)
        bursts = [None if rule.limit is None else str(rule.limit.burst) for rule in (old, new)]
        if None not in bursts and bursts[0] != bursts[1]:
            yield "burst", bursts[0], bursts[1]


def _is_long(old: Rule, new: Rule, field: str) -> bool:
    return any(len(_values(rule, field)) > MOST_VALUES for rule in (old, new))


def _values(rule: Rule, field: str) -> Collection[object]:
    """The values of a field that is a list of them."""
    value = getattr(rule, _ATTRIBUTES[field])
    if value is None:
        return ()
    return value.ranges if field in ("from", "to", "remote") else tuple(value)


def _value_text(rule: Rule, field: str) -> str | None:
    """What a rule has of a field, None for nothing."""
    match field:
        case "action":
            return rule.action.value
        case "direction":
            return direction_text(rule.directions)
        case "schedule":
            return rule.schedule.text if rule.schedule else None
        case "expires":
            return rule.expires.text if rule.expires else None
        case "log" | "enabled":
            return flag_text(getattr(rule, _ATTRIBUTES[field]))
        case "note":
            return note_text(rule.note)
    values = _values(rule, field)
    if getattr(rule, _ATTRIBUTES[field]) is None:
        return None
    if len(values) > MOST_VALUES:
        return counted(len(values), _NOUNS[field])
    return _few(rule, field)


def _few(rule: Rule, field: str) -> str:
    """The first few values of a field that has some."""
    match field:
        case "protocol":
            return _protocol(rule)
        case "icmp_type":
            return joined(_icmp_types(rule))
    return shortened(wanted_text(rule, field))


def direction_text(directions: frozenset[Direction]) -> str:
    return "both" if len(directions) > 1 else "".join(directions)


def flag_text(is_on: bool) -> str:
    return "true" if is_on else "false"


def note_text(note: str) -> str | None:
    return f'"{shortened(note)}"' if note else None


def _protocol(rule: Rule) -> str:
    """In the words of a policy file, where `icmp` is that of both families."""
    numbers = set(rule.protocols or ())
    names = ["icmp"] if {ICMP, ICMPV6} <= numbers else []
    names += [protocol_name(number).lower() for number in sorted(numbers - ({ICMP, ICMPV6} if names else set()))]
    return "/".join(names) if len(names) <= MOST_VALUES else counted(len(numbers), "protocol")


def _icmp_types(rule: Rule) -> list[str]:
    """Their names, for both families where the rule is for both; of the others the numbers."""
    left = set(rule.icmp_types or ())
    texts: list[str] = []
    for name, pairs in ICMP_TYPES.items():
        mine = {pair for pair in pairs if rule.protocols is None or pair[0] in rule.protocols}
        if mine and mine <= left:
            texts.append(name)
            left -= mine
    for of, number in sorted(left):
        both = {(ICMP, number), (ICMPV6, number)} <= left
        if not both:
            texts.append(f"{protocol_name(of)} {number}")
        elif of == ICMP:
            texts.append(str(number))
    return texts


def _limit(rule: Rule) -> str | None:
    if rule.limit is None:
        return None
    return f"{rule.limit.count}/{_PERIODS.get(rule.limit.period_s) or f'{rule.limit.period_s} s'}"


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
