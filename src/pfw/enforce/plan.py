"""From a policy to steps: what `policy/match.py` means, in questions that a kernel can answer.

The order of a chain is the order of the policy: what belongs to a connection, what belongs to none, base
rules, rules, default. Whoever changes a meaning in `match.py` changes it here; random policies with real
packets compare the two (`tests/netns/test_same_meaning.py`).

A TCP packet that would begin a connection and is no SYN belongs to none: a kernel left to itself would take it
as the first packet of a connection the other way round, and a connection that was cut would go on by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from pfw.enforce import conditions as c
from pfw.enforce.conditions import CannotError, Condition, Place, Plan, State, Step, Verdict
from pfw.enforce.owners import Owners, owner_conditions, user_list
from pfw.enforce.programs import Labelling, make_classes, names_programs, of_rule
from pfw.enforce.schedules import Clock, time_conditions
from pfw.model.address import AddressSet, Range
from pfw.model.flow import Direction
from pfw.model.packet import ICMP, ICMPV6
from pfw.model.policy import Policy
from pfw.model.prompt import wants_facts
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy.base import LOOPBACK_INTERFACE, base_rules
from pfw.policy.blocking import with_lists

INVALID_NAME = "base invalid"
"""The name under which packets that belong to no connection are counted, here as in the monitor."""
BAN_NAME = "base ban"
ANSWERED_NAME, REFUSED_NAME = "answered with allow", "answered with block"
UNKNOWN_NAME = "base unknown program"
_PROGRAM_NAMES = (
    (UNKNOWN_NAME, Action.ASK),
    (ANSWERED_NAME, Action.ALLOW),
    (REFUSED_NAME, Action.BLOCK),
)
"""The names under which is counted what the daemon was asked, and what a person's answers did."""

_DIRECTIONS = {
    Place.IN: Direction.IN,
    Place.OUT: Direction.OUT,
    Place.FORWARD: Direction.FORWARD,
    Place.PUBLISHED: Direction.FORWARD,
}
_ENDS = ("from", "to", "remote")

_NEEDS_DAEMON = 'which needs "pfw daemon", and it is not there'

_TOLD = tuple(name for name in Rule.__struct_fields__ if name not in ("name", "note"))
_TOLD_IF_SET = ("scripts",)
"""Fields that came later: a rule without them keeps the counter that it had before there were any."""

Conditions = tuple[Condition, ...]


class Surroundings(Struct, frozen=True):
    """What this machine adds to a policy: who its users are, its clock, and how programs are told apart, where there
    is somebody to do it."""

    owners: Owners
    clock: Clock
    labelling: Labelling | None = None


def make_plan(policy: Policy, around: Surroundings, lists: Mapping[str, AddressSet]) -> Plan:
    """The steps of a policy. `lists` holds the addresses of its block lists, as far as they are known.

    Raises PlanError with everything in it that no kernel can do.
    """
    planner = _Planner(with_lists(policy, lists), around)
    chains = {place: planner.chain(place) for place in Place}
    if planner.faults:
        raise PlanError(planner.faults)
    allowing = {direction for direction, action in policy.defaults.items() if action is Action.ALLOW}
    passing = frozenset(place for place in Place if _DIRECTIONS[place] in allowing)
    return Plan(tuple(planner.verdicts), chains, passing, planner.programs, tuple(planner.notes))


def find_classes(policy: Policy, around: Surroundings) -> c.Classes | None:
    """The classes of programs of a policy; None where it needs none, or nobody tells them apart. Raises CannotError."""
    if around.labelling is None or not names_programs(policy):
        return None
    receivers = [
        user_list(rule, index, around.owners)
        for index, rule in enumerate(policy.rules)
        if rule.enabled and rule.users is not None and Direction.IN in rule.directions
    ]
    return make_classes(policy, around.labelling, receivers)


def without_units(plan: Plan) -> Plan:
    """The plan without the steps that name a control group: at a boot there is none yet, and a ruleset that names one
    is refused whole. Such steps only allow, so what is left is stricter."""

    def named(step: Step) -> bool:
        return any(isinstance(condition, c.OfUnit) for condition in step.conditions)

    chains = {place: replace(chain, rules=tuple(step for step in chain.rules if not named(step)))
              for place, chain in plan.chains.items()}  # fmt: skip
    return plan if chains == plan.chains else replace(plan, chains=chains)


def only_bans() -> Plan:
    """The plan of a machine without a policy: nothing is dropped but what is banned."""
    return Plan(tuple(_always()), {}, frozenset(Place))


def _always() -> list[Verdict]:
    return [Verdict(name, Action.BLOCK, counter_name(name, b"")) for name in (INVALID_NAME, BAN_NAME)]


class PlanError(Exception):
    """All that cannot be done, in the order of the policy."""

    def __init__(self, faults: list[CannotError]) -> None:
        super().__init__("\n".join(fault.what for fault in faults))
        self.faults = faults


class _Planner:
    def __init__(self, policy: Policy, around: Surroundings) -> None:
        self._policy = policy
        self._around = around
        self.faults: list[CannotError] = []
        self.notes: list[str] = []
        self.verdicts = _always()
        self.programs: c.Classes | None = None
        if names_programs(policy) and around.labelling is not None:
            self.verdicts += [Verdict(name, action, counter_name(name, b"")) for name, action in _PROGRAM_NAMES]
            try:
                self.programs = find_classes(policy, around)
            except CannotError as error:
                self.faults.append(error)
        self._rules: list[tuple[int, int, int | None, Rule, Conditions]] = []
        for always_there in (*policy.list_rules, *base_rules(policy.base)):
            self._add_rule(None, always_there)
        for index, rule in enumerate(policy.rules):
            self._add_rule(index, rule)
        self._defaults: dict[Direction, int] = {}
        for direction in Direction:
            action = policy.defaults[direction]
            self._defaults[direction] = self._add_verdict(f"default {direction}", action, None, action.encode())
            if action is Action.ASK and around.labelling is None:
                self._fault(f'the default for "{direction}" is "ask", {_NEEDS_DAEMON}', None, None)

    def _add_verdict(
        self, name: str, action: Action, index: int | None, content: bytes, log: bool = False, quiet: bool = False
    ) -> int:
        self.verdicts.append(Verdict(name, action, counter_name(name, content), index, log, quiet))
        return len(self.verdicts) - 1

    def _fault(self, what: str, index: int | None, field: str | None) -> None:
        self.faults.append(CannotError(what, index, field))

    def _add_rule(self, index: int | None, rule: Rule) -> None:
        """A rule with the conditions that do not depend on the place; its verdict, though it may never match."""
        if index is None and self.verdicts[-1].name == rule.name:
            number = len(self.verdicts) - 1  # the other direction of a block list
        else:
            content = b"" if index is None else _content(rule)
            number = self._add_verdict(rule.name, rule.action, index, content, rule.log, _is_loopback(index, rule))
            if rule.action is Action.ASK and wants_facts(rule):
                self.verdicts[number] = replace(self.verdicts[number], narrow=True)
        if not rule.enabled:
            return
        if self._around.labelling is None:
            if rule.action is Action.ASK:
                self._fault(f'the action is "ask", {_NEEDS_DAEMON}', index, "action")
            if rule.apps is not None and rule.directions != {Direction.FORWARD}:
                self._fault(f"the rule is about programs, {_NEEDS_DAEMON}", index, "app")
        times = time_conditions(rule, self._around.clock)
        if times is None:
            self.notes.append(f'rule "{rule.name}" has expired')
            return
        bucket = len(self._rules)
        self._rules.append((number, bucket, index, rule, times))

    def chain(self, place: Place) -> c.Chain:
        end = Step((), self._defaults[_DIRECTIONS[place]])
        return c.Chain(tuple(self._connections(place)), tuple(self._steps(place)), end)

    def _steps(self, place: Place) -> Iterator[Step]:
        direction = _DIRECTIONS[place]
        for number, bucket, index, rule, times in self._rules:
            if direction not in rule.directions or _is_not_forwarded(rule, direction) or _is_loopback(index, rule):
                continue
            try:
                for found in self._places(rule, place, index):
                    if rule.scripts is not None:
                        # Only who looks at its arguments can tell which script it is, and then decides all.
                        yield Step((*found, *times), c.UNKNOWN)
                        continue
                    limit = (c.UnderLimit(bucket, rule.limit),) if rule.limit is not None else ()
                    yield Step((*found, *times, *limit), number)
            except CannotError as error:
                if all(fault.what != error.what or fault.index != error.index for fault in self.faults):
                    self.faults.append(error)

    def _connections(self, place: Place) -> Iterator[Step]:
        """What comes before any rule: packets by the state of their connection."""
        base = self._policy.base
        if place is Place.PUBLISHED:
            return  # asked in FORWARD, from where it is reached
        if base.loopback and place in (Place.IN, Place.OUT):
            loopback = next(number for number, _, index, rule, _ in self._rules if _is_loopback(index, rule))
            yield Step((c.OnInterface((LOOPBACK_INTERFACE,), leaving=place is Place.OUT),), loopback)
        yield Step((c.InState(State.ESTABLISHED),), None)
        if base.icmp_errors or place is Place.OUT:
            # Leaving, this is also how a "reject" is told to the other end.
            yield Step((c.InState(State.RELATED),), None)
        yield Step((c.InState(State.INVALID),), c.INVALID)
        yield Step((c.Stray(),), c.INVALID)

    def _owners(self, rule: Rule, place: Place, index: int | None) -> Iterator[Conditions]:
        """Whose socket it is. Going out, a kernel knows users by itself; coming in, they are part of the label."""
        received = place is Place.IN and rule.users is not None
        if self.programs is None or place not in (Place.IN, Place.OUT) or not (rule.apps is not None or received):
            yield from owner_conditions(rule, place, index, self._around.owners)
            return
        users = user_list(rule, index, self._around.owners) if received else None
        program = of_rule(rule, self.programs, users)
        without = replace(rule, users=None) if received else rule
        for owner in owner_conditions(without, place, index, self._around.owners):
            yield (*owner, program)

    def _places(self, rule: Rule, place: Place, index: int | None) -> Iterator[Conditions]:
        """The conditions of a rule at a place, once for each combination of family, ICMP protocol and owner."""
        front: Conditions = ()
        if rule.interfaces is not None:
            front = (c.OnInterface(rule.interfaces, leaving=place is Place.OUT),)
        for owner in self._owners(rule, place, index):
            for family in _families(rule, place):
                # A block list is about who is reached, a rule about what was asked for.
                sent = place is Place.PUBLISHED and index is not None
                addresses = tuple(_addresses(rule, place, family, sent=sent))
                for transport in _transports(rule, place, family):
                    yield (*front, *transport, *addresses, *owner)


def counter_name(name: str, content: bytes) -> str:
    """The counter of a rule: the same as long as the rule says the same."""
    return "r_" + blake2b(name.encode(errors="surrogateescape") + b"\0" + content, digest_size=8).hexdigest()


def _content(rule: Rule) -> bytes:
    """What tells a rule from what it was before: long lists by their digest, notes not at all."""
    parts: list[object] = []
    for name in _TOLD:
        value = getattr(rule, name)
        if value is None and name in _TOLD_IF_SET:
            continue
        if value is None:
            parts.append("")
        elif isinstance(value, AddressSet):
            parts.append((len(value), hash(value)))
        else:
            parts.append(sorted(value) if isinstance(value, frozenset) else value)
    return repr(parts).encode(errors="surrogateescape")


def _is_loopback(index: int | None, rule: Rule) -> bool:
    """Whether it is the base rule for loopback, which comes before everything and tells nobody."""
    return index is None and rule.interfaces == (LOOPBACK_INTERFACE,)


def _is_not_forwarded(rule: Rule, direction: Direction) -> bool:
    """A forwarded connection has no one other end and no socket here."""
    if direction is not Direction.FORWARD:
        return False
    return any(field is not None for field in (rule.remote, rule.apps, rule.users, rule.units))


def _ends(rule: Rule, place: Place) -> tuple[AddressSet | None, AddressSet | None]:
    """Source and destination that the rule wants at this place."""
    if rule.remote is None:
        return rule.source, rule.destination
    return (rule.remote, None) if place is Place.IN else (None, rule.remote)


def _families(rule: Rule, place: Place) -> list[int | None]:
    """The families for which the rule needs steps of their own; None alone where one step serves both."""
    ends = [end for end in _ends(rule, place) if end is not None]
    if not ends:
        return [None]
    return [family for family in (c.IPV4, c.IPV6) if all(_of_family(end, family) for end in ends)]


def _of_family(addresses: AddressSet, family: int) -> tuple[Range, ...]:
    return addresses.by_family[family == c.IPV6]


def _addresses(rule: Rule, place: Place, family: int | None, *, sent: bool) -> Iterator[Condition]:
    if family is None:
        return
    for end, destination in zip(_ends(rule, place), (False, True), strict=True):
        if end is not None:
            yield c.HasAddress(family, _of_family(end, family), destination, sent and destination)


def _transports(rule: Rule, place: Place, family: int | None) -> Iterator[Conditions]:
    """Protocol, ports and ICMP types; a step for each protocol's types."""
    if rule.icmp_types is not None:
        for protocol, own in ((ICMP, c.IPV4), (ICMPV6, c.IPV6)):
            types = tuple(sorted(number for of, number in rule.icmp_types if of == protocol))
            if types and family in (own, None):
                yield (c.IcmpType(protocol, types),)
        return
    sent = place is Place.PUBLISHED and rule.ports is not None
    for protocols in _protocols(rule, apart=sent):
        found: list[Condition] = [c.OfProtocol(protocols)] if protocols else []
        if rule.ports is not None:
            found.append(c.HasPort(rule.ports, destination=True, sent=sent))
        if rule.source_ports is not None:
            found.append(c.HasPort(rule.source_ports, destination=False))
        yield tuple(found)


def _protocols(rule: Rule, *, apart: bool) -> list[tuple[int, ...]]:
    """The rule's protocols for one step, or a step each: what was sent has ports in nft only behind one protocol."""
    if rule.protocols is None:
        return [()]
    numbers = sorted(rule.protocols)
    return [(number,) for number in numbers] if apart else [tuple(numbers)]
