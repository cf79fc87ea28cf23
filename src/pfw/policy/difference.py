"""What another policy file changes, in terms of rules: for people as lines, for programs as facts.

Rules are the same by their names. Texts are short however long a list is, so that a screen holds them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, compress, pairwise
from typing import Any

from msgspec import Struct

from pfw.model.flow import Direction
from pfw.model.policy import Ask, Base, Blocklist, Policy, Respond, public_source
from pfw.model.rule import Rule
from pfw.policy.blocklists import UNITS_S
from pfw.policy.overlap import overlap
from pfw.policy.responding import respond_texts
from pfw.policy.wording import direction_text, field_change, flag_text, note_text, shortened, summary

MOST_LINES = 50
"""Lines for people; the rest is counted."""

_MOST_COMPARED = 30_000
"""Pairs of rules that are looked at to tell whether their order matters; beyond, it is taken to."""


class Change(Struct, frozen=True):
    """A field, or a switch, and what it was and is now; None where it has nothing."""

    field: str
    old: str | None
    new: str | None


class Changed(Struct, frozen=True):
    """A rule or block list that is in both files, and not the same."""

    name: str
    changes: tuple[Change, ...]


class Moved(Struct, frozen=True):
    """A rule whose place among the others changed, and its index before and now."""

    name: str
    old: int
    new: int


class Difference(Struct, frozen=True, kw_only=True):
    """From one policy to another. The rules of both are in the order of their files."""

    added: tuple[Rule, ...] = ()
    removed: tuple[Rule, ...] = ()
    changed: tuple[Changed, ...] = ()
    moved: tuple[Moved, ...] = ()
    defaults: tuple[Change, ...] = ()
    base: tuple[Change, ...] = ()
    ask: tuple[Change, ...] = ()
    respond: tuple[Change, ...] = ()
    blocklists_added: tuple[Blocklist, ...] = ()
    blocklists_removed: tuple[Blocklist, ...] = ()
    blocklists_changed: tuple[Changed, ...] = ()

    @property
    def empty(self) -> bool:
        return not any(getattr(self, field) for field in self.__struct_fields__)


def difference(old: Policy | None, new: Policy) -> Difference:
    """What changes from one policy to another; from none, everything is new."""
    rules_before = {} if old is None else {rule.name: rule for rule in old.rules}
    rules_now = {rule.name: rule for rule in new.rules}
    lists_before, lists_now = _blocklists(old), _blocklists(new)
    return Difference(
        added=tuple(rule for name, rule in rules_now.items() if name not in rules_before),
        removed=tuple(rule for name, rule in rules_before.items() if name not in rules_now),
        changed=tuple(
            Changed(name, _rule_changes(rules_before[name], rule))
            for name, rule in rules_now.items()
            if name in rules_before and rules_before[name] != rule
        ),
        moved=tuple(_moved(list(rules_before), rules_now)),
        defaults=tuple(_default_changes(old, new)),
        base=tuple(_base_changes(Base() if old is None else old.base, new.base)),
        ask=tuple(_ask_changes(Ask() if old is None else old.ask, new.ask)),
        respond=tuple(_respond_changes(Respond() if old is None else old.respond, new.respond)),
        blocklists_added=tuple(each for name, each in lists_now.items() if name not in lists_before),
        blocklists_removed=tuple(each for name, each in lists_before.items() if name not in lists_now),
        blocklists_changed=tuple(
            Changed(name, _blocklist_changes(lists_before[name], each))
            for name, each in lists_now.items()
            if name in lists_before and lists_before[name] != each
        ),
    )


def lines(difference: Difference) -> list[str]:
    """The difference for people, at most `MOST_LINES` of it and a line that counts the rest."""
    told = [
        *(_change_line("default", change) for change in difference.defaults),
        *(_change_line("base", change) for change in difference.base),
        *(_change_line("ask", change) for change in difference.ask),
        *(_change_line("respond", change) for change in difference.respond),
        *(f'+ blocklist "{each.name}": {_source(each)}' for each in difference.blocklists_added),
        *(f'- blocklist "{each.name}"' for each in difference.blocklists_removed),
        *(_changed_line("blocklist", changed) for changed in difference.blocklists_changed),
        *(f'+ rule "{rule.name}": {summary(rule)}' for rule in difference.added[:MOST_LINES]),
        *(f'- rule "{rule.name}"' for rule in difference.removed[:MOST_LINES]),
        *(_changed_line("rule", changed) for changed in difference.changed[:MOST_LINES]),
        *(f'~ rule "{each.name}": place {each.old + 1} -> {each.new + 1}' for each in difference.moved[:MOST_LINES]),
    ]
    every = sum(len(getattr(difference, field)) for field in difference.__struct_fields__)
    if every <= MOST_LINES:
        return told
    return [*told[:MOST_LINES], f"and {every - MOST_LINES:,} more"]


def facts(difference: Difference) -> dict[str, Any]:
    """The difference for programs, whole. Places count from 0."""
    return {
        "added": [{"name": rule.name, "summary": summary(rule)} for rule in difference.added],
        "removed": [{"name": rule.name, "summary": summary(rule)} for rule in difference.removed],
        "changed": [_changed_facts(changed) for changed in difference.changed],
        "moved": [{"name": each.name, "place": [each.old, each.new]} for each in difference.moved],
        "defaults": _fields(difference.defaults),
        "base": _fields(difference.base),
        "ask": _fields(difference.ask),
        "respond": _fields(difference.respond),
        "blocklists": {
            "added": [{"name": each.name, "source": _source(each)} for each in difference.blocklists_added],
            "removed": [{"name": each.name, "source": _source(each)} for each in difference.blocklists_removed],
            "changed": [_changed_facts(changed) for changed in difference.blocklists_changed],
        },
    }


def _fields(changes: Iterable[Change]) -> dict[str, list[str | None]]:
    return {change.field: [change.old, change.new] for change in changes}


def _changed_facts(changed: Changed) -> dict[str, Any]:
    return {"name": changed.name, "fields": _fields(changed.changes)}


def _change_line(what: str, change: Change) -> str:
    if change.old is None:
        return f"+ {what} {change.field}: {change.new}"
    return f"~ {what} {change.field}: {change.old} -> {change.new}"


def _changed_line(what: str, changed: Changed) -> str:
    told = (f"{each.field} {_or_none(each.old)} -> {_or_none(each.new)}" for each in changed.changes)
    return f'~ {what} "{changed.name}": {"; ".join(told)}'


def _or_none(text: str | None) -> str:
    return "none" if text is None else text


def _rule_changes(old: Rule, new: Rule) -> tuple[Change, ...]:
    return tuple(Change(field, before, now) for field, before, now in field_change(old, new))


def _default_changes(old: Policy | None, new: Policy) -> Iterable[Change]:
    for direction in Direction:
        before = None if old is None else old.defaults[direction]
        if before != new.defaults[direction]:
            yield Change(direction.value, before and before.value, new.defaults[direction].value)


def _base_changes(old: Base, new: Base) -> Iterable[Change]:
    for field in Base.__struct_fields__:
        before, now = getattr(old, field), getattr(new, field)
        if before != now:
            yield Change(field, _switch(before), _switch(now))


def _ask_changes(old: Ask, new: Ask) -> Iterable[Change]:
    if old.timeout_s != new.timeout_s:
        yield Change("timeout", f"{old.timeout_s:g} s", f"{new.timeout_s:g} s")
    if old.unattended is not new.unattended:
        yield Change("unattended", old.unattended.value, new.unattended.value)


def _respond_changes(old: Respond, new: Respond) -> Iterable[Change]:
    """By the names of the policy file. Of a webhook only what may be shown."""
    before, now = respond_texts(old), respond_texts(new)
    for field, same in (
        ("when", old.reactions == new.reactions),
        ("never", old.never == new.never),
        ("command", old.command == new.command),
        ("webhook", old.webhook == new.webhook),
    ):
        if not same:
            note = " (another address or key)" if before[field] == now[field] else ""
            yield Change(field, shortened(before[field]), shortened(now[field]) + note)


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"


def _blocklists(policy: Policy | None) -> dict[str, Blocklist]:
    return {} if policy is None else {each.name: each for each in policy.blocklists}


def _blocklist_changes(old: Blocklist, new: Blocklist) -> tuple[Change, ...]:
    """By the names of the policy file. Of a source only what may be shown."""
    before, now = _source(old), _source(new)
    changes = [
        Change("source", before, now if before != now else f"{now} (another password or query)"),
        Change("refresh", _period_text(old.refresh_s), _period_text(new.refresh_s)),
        Change("direction", direction_text(old.directions), direction_text(new.directions)),
        Change("enabled", flag_text(old.enabled), flag_text(new.enabled)),
        Change("note", note_text(old.note), note_text(new.note)),
    ]
    differs = (
        old.source != new.source,
        old.refresh_s != new.refresh_s,
        old.directions != new.directions,
        old.enabled != new.enabled,
        old.note != new.note,
    )
    return tuple(compress(changes, differs))


def _source(blocklist: Blocklist) -> str:
    return shortened(public_source(blocklist.source))


def _period_text(seconds: int) -> str:
    """As a file writes it: `90m`, `1d`."""
    unit = max((unit for unit, length in UNITS_S.items() if seconds % length == 0), key=UNITS_S.__getitem__, default="")
    return f"{seconds // UNITS_S.get(unit, 1)}{unit or ' s'}"


def _moved(before: list[str], now: dict[str, Rule]) -> list[Moved]:
    """The fewest rules that must be moved to come from one order to the other, of them those that it matters for.

    Rules that are in one file alone are left out of both orders.
    """
    old_places = {name: index for index, name in enumerate(before)}
    common = [(name, old_places[name]) for name in now if name in old_places]
    order = [place for _, place in common]
    if all(first < second for first, second in pairwise(order)):
        return []
    staying = _longest_rising(order)
    new_places = {name: index for index, name in enumerate(now)}
    passings = _Passings([now[name] for name, _ in common], order)
    return [
        Moved(name, place, new_places[name])
        for at, (name, place) in enumerate(common)
        if place not in staying and passings.matter(at)
    ]


class _Passings:
    """Which rules changed places with each other; `order` are the places that they had, in the order that they have."""

    def __init__(self, rules: Sequence[Rule], order: Sequence[int]) -> None:
        self._rules = rules
        self._order = order
        self._highest = list(accumulate(order, max))
        self._lowest = list(accumulate(reversed(order), min))[::-1]
        self._compared = 0

    def matter(self, at: int) -> bool:
        """Whether a rule passed one that does something else to connections that both match."""
        mine, place = self._rules[at], self._order[at]
        # Further out there is none that it has passed.
        nearby = range(min(bisect_right(self._highest, place), at), max(bisect_left(self._lowest, place), at))
        self._compared += len(nearby)
        if self._compared > _MOST_COMPARED:
            return True
        passed = (self._rules[each] for each in nearby if (each < at) is (self._order[each] > place) and each != at)
        effect = _effect(mine)
        return any(_effect(other) != effect and overlap(mine, other) for other in passed)


def _effect(rule: Rule) -> tuple[object, ...]:
    """What a rule does; a rule with a limit does something of its own, and shares its tokens with nobody."""
    return rule.action, rule.log, rule.name if rule.limit else ""


def _longest_rising(numbers: Sequence[int]) -> set[int]:
    """A longest rising subsequence of numbers that are all different."""
    tails: list[int] = []  # of the rising sequences of each length, the lowest last number
    before: dict[int, int | None] = {}
    for number in numbers:
        at = bisect_left(tails, number)
        before[number] = tails[at - 1] if at else None
        tails[at : at + 1] = [number]
    found: set[int] = set()
    last = tails[-1] if tails else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found


__all__ = ["Change", "Changed", "Difference", "Moved", "difference", "facts", "lines", "summary"]
