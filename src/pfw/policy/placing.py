"""Where a new rule goes among the others, and whether it has any effect there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from pfw.model.address import ALL_RANGES, AddressSet, Range, from_int
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP
from pfw.model.policy import Policy
from pfw.model.rule import App, PortRange, Rule
from pfw.model.verdict import Action
from pfw.policy.base import base_rules
from pfw.policy.decide import Decider
from pfw.policy.match import Answer, app_fits, fits
from pfw.policy.overlap import ends, overlap
from pfw.policy.ports import LAST_PORT

T = TypeVar("T")

MOST_SAMPLES = 8
"""Of one field of a rule, where no value of it is free of earlier rules."""

_NOBODYS_PROTOCOL = 253
"""For experiments (RFC 3692): stands for all that a rule without a protocol matches besides the common ones."""
_NO_INTERFACE = " "
"""No pattern of a rule fits it. That an interface is known and another one is what is asked here."""


def default_place(policy: Policy, action: str) -> int | None:
    """Where a new rule goes unless somebody says: the index that it shall have, None for behind all.

    What stops connections goes first, to hold at once. What allows goes last, but before rules at the end
    that leave nothing over.
    """
    if action in (Action.BLOCK, Action.REJECT):
        return 0
    place = None
    for index in range(len(policy.rules) - 1, -1, -1):
        rule = policy.rules[index]
        if rule.enabled and (rule.action is Action.ALLOW or not _matches_all(rule)):
            break
        if rule.enabled:
            place = index
    return place


def _matches_all(rule: Rule) -> bool:
    """Whether a rule has no condition but a direction."""
    plain = Rule(
        name=rule.name,
        action=rule.action,
        directions=rule.directions,
        log=rule.log,
        enabled=rule.enabled,
        note=rule.note,
    )
    return rule == plain


def shadowed_by(policy: Policy, index: int, moment: Moment) -> str | None:
    """The rule that decides in place of the one with this index, whatever connection comes now.

    None where this rule decides on some. Connections are tried that it matches and, where there are such,
    none of the rules before it: so the answer is a good one, no proof. Earlier rules with a limit do not
    count, since what is above their limit comes through. The base rules do.
    """
    rule = replace(policy.rules[index], enabled=True, schedule=None, expires=None)
    earlier = [each for each in policy.rules[:index] if each.limit is None and overlap(each, rule)]
    decider = Decider(replace(policy, rules=(*earlier, rule)))
    name = None
    for flow in _flows(rule, [*base_rules(policy.base), *earlier]):
        verdict = decider.decide(flow, moment)
        if verdict.index == len(earlier) or verdict.action is Action.UNKNOWN:
            return None
        name = name or verdict.rule
    return name


def _flows(rule: Rule, earlier: list[Rule]) -> Iterator[Flow]:
    """Connections that a rule matches, those first which earlier rules do not."""
    for direction in sorted(rule.directions):
        for protocol in sorted(rule.protocols or _protocols(earlier)):
            rivals = [
                each
                for each in earlier
                if direction in each.directions and (each.protocols is None or protocol in each.protocols)
            ]
            for family in ALL_RANGES:
                if protocol != (ICMPV6 if family[0] == 0 else ICMP):
                    yield from _flows_of(rule, rivals, direction, protocol, family)


def _protocols(earlier: list[Rule]) -> set[int]:
    """Those that a rule without protocols is tried with."""
    named = set().union(*(each.protocols for each in earlier if each.protocols is not None))
    free = next((number for number in range(_NOBODYS_PROTOCOL, -1, -1) if number not in named), TCP)
    return {TCP, UDP, ICMP, ICMPV6, free}


def _flows_of(rule: Rule, rivals: list[Rule], direction: Direction, protocol: int, family: Range) -> Iterator[Flow]:
    samples: dict[str, list[object]] = {"interface": _texts(rule.interfaces, _NO_INTERFACE, "interfaces", rivals)}
    for side, field in enumerate(("source", "destination")):
        taken = [wanted for each in rivals if (wanted := ends(each, direction)[side]) is not None]
        samples[field] = [from_int(value) for value in _addresses(ends(rule, direction)[side], taken, family)]
    if protocol in PORT_PROTOCOLS:
        samples["port"] = [*_ports(rule.ports, [each.ports for each in rivals])]
        samples["source_port"] = [*_ports(rule.source_ports, [each.source_ports for each in rivals])]
    elif protocol in (ICMP, ICMPV6):
        samples["icmp_type"] = [*_icmp_types(rule, rivals, protocol)]
    if direction is not Direction.FORWARD:
        samples["program"] = [*_programs(rule.apps, rivals)]
        samples["script"] = _texts(rule.scripts, "", "scripts", rivals)
        samples["unit"] = _texts(rule.units, "", "units", rivals)
        samples["users"] = [
            frozenset({user}) if user else frozenset() for user in _texts(rule.users, "", "users", rivals)
        ]
    if all(samples.values()):
        for facts in _one_after_another(samples):
            program = facts.pop("program", None)
            if isinstance(program, App):
                facts |= {"app": program.path, "app_sha256": program.sha256}
            yield Flow(direction=direction, protocol=protocol, **facts)  # type: ignore[arg-type]


def _one_after_another(samples: dict[str, list[object]]) -> Iterator[dict[str, object]]:
    """The first sample of each field, then with one field changed after the other, then with all changed."""
    first = {field: values[0] for field, values in samples.items()}
    yield first
    for field, values in samples.items():
        yield from ({**first, field: value} for value in values[1:])
    yield {field: values[-1] for field, values in samples.items()}


def _few(free: Iterable[T], values: Sequence[T]) -> list[T]:
    """A value that is free of earlier rules, if there is one; first, last and others of all values if not."""
    found = next(iter(free), None)
    few = values[: MOST_SAMPLES - 1] if found is None else values[:1]
    return list(dict.fromkeys([*([] if found is None else [found]), *few, *values[-1:]]))


def _few_numbers(mine: AddressSet, taken: Iterable[AddressSet]) -> list[int]:
    """Rules that take all are no matter here: whatever the number is, it is another field that keeps them off."""
    narrower = [each for each in taken if not _covers(each, mine)]
    free = mine.without(AddressSet().union(*narrower))
    return _few(free.firsts, [value for pair in mine.ranges for value in pair])


def _covers(one: AddressSet, other: AddressSet) -> bool:
    """Whether all of the other is in the one."""
    for first, last in zip(other.firsts, other.lasts, strict=True):
        at = bisect_right(one.firsts, first) - 1
        if at < 0 or one.lasts[at] < last:
            return False
    return True


def _addresses(wanted: AddressSet | None, taken: list[AddressSet], family: Range) -> list[int]:
    everywhere = AddressSet([family])
    mine = everywhere if wanted is None else wanted.without(AddressSet([each for each in ALL_RANGES if each != family]))
    return _few_numbers(mine, taken)


def _ports(wanted: tuple[PortRange, ...] | None, taken: Iterable[tuple[PortRange, ...] | None]) -> list[int]:
    """Ports are numbers on a line as addresses are."""
    mine = AddressSet(wanted if wanted is not None else ((0, LAST_PORT),))
    return _few_numbers(mine, (AddressSet(ranges) for ranges in taken if ranges is not None))


def _icmp_types(rule: Rule, rivals: list[Rule], protocol: int) -> list[int]:
    def numbers(types: frozenset[tuple[int, int]]) -> list[int]:
        return sorted(number for of, number in types if of == protocol)

    mine = list(range(256)) if rule.icmp_types is None else numbers(rule.icmp_types)
    each_taken = [set(numbers(each.icmp_types)) for each in rivals if each.icmp_types is not None]
    taken = set().union(*(each for each in each_taken if not each.issuperset(mine)))
    return _few((number for number in mine if number not in taken), mine)


def _texts(wanted: tuple[str, ...] | None, other: str, field: str, rivals: list[Rule]) -> list[object]:
    """Names that fit the rule's patterns; where it has none, one that fits no pattern at all."""
    if wanted is None:
        return [other]
    names = [name for pattern in wanted for name in _fitting(pattern)]
    each_taken = [{name for name in names if _fits_any(getattr(each, field), name)} for each in rivals]
    taken = set().union(*(each for each in each_taken if not each.issuperset(names)))
    return [*_few((name for name in names if name not in taken), names)]


def _programs(wanted: tuple[App, ...] | None, rivals: list[Rule]) -> list[App]:
    """The same for programs; what the file holds is nothing that a rule names, where this one does not."""
    if wanted is None:
        return [App("", "")]
    programs = [App(path, app.sha256 or "") for app in wanted for path in _fitting(app.path)]
    each_taken = [{program for program in programs if _runs_any(each.apps, program)} for each in rivals]
    taken = set().union(*(each for each in each_taken if not each.issuperset(programs)))
    return _few((program for program in programs if program not in taken), programs)


def _runs_any(wanted: tuple[App, ...] | None, program: App) -> bool:
    return any(app_fits(app, program.path, program.sha256) is Answer.YES for app in wanted or ())


def _fitting(pattern: str) -> list[str]:
    return [f"{pattern[:-1]}0", f"{pattern[:-1]}~"] if pattern.endswith("*") else [pattern]


def _fits_any(patterns: tuple[str, ...] | None, name: str) -> bool:
    return any(fits(pattern, name) for pattern in patterns or ())
