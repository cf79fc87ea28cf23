"""The fast matcher: verdicts whose cost does not grow in step with the number of rules or of list entries.

It gives the verdicts of `match.decide_slowly`, which says what they mean; what changes there changes here.
Each field is looked up once for all rules (`index.py`), and only the fields that some rule of this
direction and protocol asks about. A fact that is not known leaves the rules that ask for it among the
candidates and marks them as in doubt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import chain
from typing import TypeVar

from msgspec import Struct

from pfw.model.address import AddressSet, as_int
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS
from pfw.model.policy import Policy
from pfw.model.rule import PortRange, Rule
from pfw.model.verdict import Action, Verdict
from pfw.policy.base import LOOPBACK_INTERFACE, families_of, interface_of, rules_in_order
from pfw.policy.index import Line, LineBuilder, Members, Names, Programs, vector
from pfw.policy.match import OverLimit, answer, minute_of_week
from pfw.policy.reason import default_verdict, limit_reached_never, rule_verdict, unsure_verdict

T = TypeVar("T")

_IN, _OUT = Direction.IN, Direction.OUT

_MOST_UNSURE = 1024
"""Verdicts with a reason made for the occasion that are kept."""


class _Plan(Struct, frozen=True):
    """What is to be looked up for the connections of one direction and protocol.

    `candidates` are the rules that this direction and protocol leave. A field is None, or empty, when
    none of them asks about it.
    """

    candidates: int
    default: Verdict
    timed: bool
    by_source: tuple[Line, ...]
    by_destination: tuple[Line, ...]
    source_ports: Line | None
    ports: Line | None
    icmp_types: dict[int | None, int] | None
    interfaces: Names | None
    owned: bool


class Decider:
    """A policy made ready to decide."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        numbered = rules_in_order(policy)
        rules = [rule for _, rule in numbered]
        self._rules = rules
        self._base_count = len(rules) - len(policy.rules)
        self._certain = [None if rule.limit else rule_verdict(rule, index) for index, rule in numbered]
        self._by_action = {action: vector(rule.action is action for rule in rules) for action in Action}
        self._unsure: dict[tuple[object, ...], Verdict] = {}
        self._plans: dict[Direction, dict[int, _Plan]] = {direction: {} for direction in Direction}
        self._plans_in, self._plans_out = self._plans[_IN], self._plans[_OUT]
        self._plans_forward = self._plans[Direction.FORWARD]
        self._index_times()
        self._index_headers()
        self._index_owners()

    def _wanting(self, has_condition: Callable[[Rule], object]) -> tuple[int, int]:
        """The rules with a condition, and those without."""
        wanting = vector(has_condition(rule) is not None for rule in self._rules)
        return wanting, wanting ^ (1 << len(self._rules)) - 1

    def _index_times(self) -> None:
        timed, _ = self._wanting(lambda rule: rule.schedule or rule.expires)
        self._timed = timed
        self.asks_time = bool(timed)
        """Whether any rule depends on the moment."""
        everything = (1 << len(self._rules)) - 1
        week, utc, local = LineBuilder(), LineBuilder(), LineBuilder()
        for place, rule in enumerate(self._rules):
            if rule.schedule is not None:
                week.add(1 << place, _borders(rule.schedule.windows, 0))
            if rule.expires is not None:
                (local if rule.expires.local else utc).add(1 << place, [rule.expires.time])
        self._week = week.build(self._wanting(lambda rule: rule.schedule)[1])
        self._expiries_utc = utc.build(everything)
        self._expiries_local = local.build(everything)

    def _index_headers(self) -> None:
        rules = self._rules
        self._wants_source, self._sources = self._addresses(lambda rule: rule.source)
        self._wants_destination, self._destinations = self._addresses(lambda rule: rule.destination)
        self._wants_remote, self._remotes = self._addresses(lambda rule: rule.remote)
        self._wants_source_port, self._source_ports = self._ports(lambda rule: rule.source_ports)
        self._wants_port, self._ports_line = self._ports(lambda rule: rule.ports)
        self._wants_icmp_type, free = self._wanting(lambda rule: rule.icmp_types)
        icmp_types: dict[int, dict[int | None, int]] = {ICMP: {None: free}, ICMPV6: {None: free}}
        _, self._any_protocol = self._wanting(lambda rule: rule.protocols)
        self._by_protocol: dict[int, int] = {}
        for place, rule in enumerate(rules):
            for number in rule.protocols or ():
                self._by_protocol[number] = self._by_protocol.get(number, self._any_protocol) | 1 << place
            for protocol, number in rule.icmp_types or ():
                by_type = icmp_types.setdefault(protocol, {})
                for key in (number, None):
                    by_type[key] = by_type.get(key, free) | 1 << place
        self._icmp_types, self._no_icmp_type = icmp_types, free

    def _addresses(self, field: Callable[[Rule], AddressSet | None]) -> tuple[int, Line]:
        wanting, free = self._wanting(field)
        builder = LineBuilder()
        for place, rule in enumerate(self._rules):
            wanted = field(rule)
            if wanted is not None:
                builder.add(1 << place, chain(wanted.firsts, [last + 1 for last in wanted.lasts]))
        return wanting, builder.build(free)

    def _ports(self, field: Callable[[Rule], tuple[PortRange, ...] | None]) -> tuple[int, Line]:
        wanting, free = self._wanting(field)
        builder = LineBuilder()
        for place, rule in enumerate(self._rules):
            wanted = field(rule)
            if wanted is not None:
                builder.add(1 << place, _borders(wanted, 1))
        return wanting, builder.build(free)

    def _index_owners(self) -> None:
        self._wants_interface, free = self._wanting(lambda rule: rule.interfaces)
        self._interfaces = Names(free, self._bits_of(lambda rule: rule.interfaces))
        # An interface that is not known is not loopback.
        self._some_interface = free | vector(
            any(pattern != LOOPBACK_INTERFACE for pattern in rule.interfaces or ()) for rule in self._rules
        )
        self._wants_app, free = self._wanting(lambda rule: rule.apps)
        self._programs = Programs(free, self._bits_of(lambda rule: rule.apps))
        self._wants_script, free = self._wanting(lambda rule: rule.scripts)
        self._scripts = Members(free, self._bits_of(lambda rule: rule.scripts))
        self._wants_user, free = self._wanting(lambda rule: rule.users)
        self._users = Members(free, self._bits_of(lambda rule: rule.users))
        self._wants_unit, free = self._wanting(lambda rule: rule.units)
        self._units = Members(free, self._bits_of(lambda rule: rule.units))
        self._wants_owner = self._wants_app | self._wants_script | self._wants_user | self._wants_unit

    def _bits_of(self, field: Callable[[Rule], tuple[T, ...] | None]) -> Iterable[tuple[int, tuple[T, ...]]]:
        for place, rule in enumerate(self._rules):
            wanted = field(rule)
            if wanted is not None:
                yield 1 << place, wanted

    def _plan(self, direction: Direction, protocol: int) -> _Plan:
        candidates = self._by_protocol.get(protocol, self._any_protocol)
        candidates &= vector(rule.enabled and direction in rule.directions for rule in self._rules)
        if protocol not in PORT_PROTOCOLS:
            candidates &= ~(self._wants_source_port | self._wants_port)
        if protocol not in (ICMP, ICMPV6):
            candidates &= ~self._wants_icmp_type
        if direction is Direction.FORWARD:
            candidates &= ~(self._wants_remote | self._wants_owner)
        sources = [self._sources] if candidates & self._wants_source else []
        destinations = [self._destinations] if candidates & self._wants_destination else []
        if candidates & self._wants_remote:
            (sources if direction is _IN else destinations).append(self._remotes)
        plan = _Plan(
            candidates=candidates,
            default=default_verdict(self.policy, direction),
            timed=bool(candidates & self._timed),
            by_source=tuple(sources),
            by_destination=tuple(destinations),
            source_ports=self._source_ports if candidates & self._wants_source_port else None,
            ports=self._ports_line if candidates & self._wants_port else None,
            icmp_types=self._icmp_types[protocol] if candidates & self._wants_icmp_type else None,
            interfaces=self._interfaces if candidates & self._wants_interface else None,
            owned=bool(candidates & self._wants_owner),
        )
        self._plans[direction][protocol] = plan
        return plan

    def decide(self, flow: Flow, moment: Moment, over_limit: OverLimit | None = None) -> Verdict:
        """The verdict on a connection, as `match.decide_slowly` gives it."""
        direction = flow.direction
        plans = self._plans_in if direction is _IN else self._plans_out if direction is _OUT else self._plans_forward
        plan = plans.get(flow.protocol) or self._plan(direction, flow.protocol)
        matching, doubted = self._candidates(plan, flow, moment)
        if doubted:
            doubted &= matching
            matching ^= doubted
        while matching:
            first = matching & -matching
            place = first.bit_length() - 1
            end = self._certain[place]
            if end is None:
                end = self._limited(place, over_limit)
            if end is not None:
                return self._weigh(doubted & first - 1, place, flow, moment, end) if doubted else end
            matching ^= first
        return self._weigh(doubted, -1, flow, moment, plan.default) if doubted else plan.default

    def _limited(self, place: int, over_limit: OverLimit | None) -> Verdict | None:
        index = place - self._base_count
        if over_limit is None:
            return limit_reached_never(self._rules[place], index)
        return None if over_limit(index) else rule_verdict(self._rules[place], index)

    def _candidates(self, plan: _Plan, flow: Flow, moment: Moment) -> tuple[int, int]:
        """The rules that match or may match, and rules that are in doubt if they are among them."""
        matching = plan.candidates
        doubted = 0
        if plan.timed:
            matching &= self._holding(moment)
        if not (flow.source and flow.destination):
            matching, doubted = _nameless(plan, flow, matching)
        if plan.by_source and flow.source:
            value = as_int(flow.source)
            for line in plan.by_source:
                matching &= line.vectors[bisect_right(line.starts, value)]
        if plan.by_destination and flow.destination:
            value = as_int(flow.destination)
            for line in plan.by_destination:
                matching &= line.vectors[bisect_right(line.starts, value)]
        if plan.ports is not None:
            if flow.port is None:
                doubted |= self._wants_port
            else:
                matching &= plan.ports.vectors[bisect_right(plan.ports.starts, flow.port)]
        if plan.source_ports is not None:
            if flow.source_port is None:
                doubted |= self._wants_source_port
            else:
                matching &= plan.source_ports.vectors[bisect_right(plan.source_ports.starts, flow.source_port)]
        if plan.icmp_types is not None:
            matching &= plan.icmp_types.get(flow.icmp_type, self._no_icmp_type)
            if flow.icmp_type is None:
                doubted |= self._wants_icmp_type
        if plan.interfaces is not None:
            interface = flow.interface or interface_of(flow)
            if interface is None:
                matching &= self._some_interface
                doubted |= self._wants_interface
            else:
                matching &= plan.interfaces.at(interface)
        return self._owned(flow, matching, doubted) if plan.owned else (matching, doubted)

    def _owned(self, flow: Flow, matching: int, doubted: int) -> tuple[int, int]:
        if flow.app is None:
            doubted |= self._wants_app
        else:
            met, unsure = self._programs.at(flow.app, flow.app_sha256)
            matching &= met
            doubted |= unsure
        if flow.script is None:
            doubted |= self._wants_script
        else:
            matching &= self._scripts.at(frozenset((flow.script,)))
        if flow.users is None:
            doubted |= self._wants_user
        else:
            matching &= self._users.at(flow.users)
        if flow.unit is None:
            doubted |= self._wants_unit
        else:
            matching &= self._units.at(frozenset((flow.unit,)))
        return matching, doubted

    def _holding(self, moment: Moment) -> int:
        """The rules that are not kept from matching by the time."""
        local_time = moment.time + moment.utc_offset_s
        holding = self._week.vectors[bisect_right(self._week.starts, minute_of_week(moment))]
        holding &= self._expiries_utc.vectors[bisect_right(self._expiries_utc.starts, moment.time)]
        return holding & self._expiries_local.vectors[bisect_right(self._expiries_local.starts, local_time)]

    def _weigh(self, maybes: int, place: int, flow: Flow, moment: Moment, end: Verdict) -> Verdict:
        """The end, or UNKNOWN when a rule that may match before it would do something else."""
        differing = maybes & ~self._by_action[end.action]
        if not differing:
            return end
        first = (differing & -differing).bit_length() - 1
        others = maybes.bit_count() - 1
        owner = (flow.users, flow.unit, flow.script)
        blanks = (interface_of(flow), *owner, flow.source_port, flow.port, flow.icmp_type)
        sizes = len(flow.source), len(flow.destination)
        app_doubted = flow.app is None or self._programs.at(flow.app, flow.app_sha256)[1] >> first & 1
        known = (*sizes, *(blank is None for blank in blanks))
        key = (first, place, end.reason, others, flow.protocol, bool(app_doubted), *known)
        verdict = self._unsure.get(key)
        if verdict is None:
            if len(self._unsure) >= _MOST_UNSURE:
                self._unsure.clear()
            rule = self._rules[first]
            unknown = answer(rule, flow, moment)[1]
            index = None if first < self._base_count else first - self._base_count
            verdict = unsure_verdict(rule, index, unknown, flow.protocol, end, others)
            self._unsure[key] = verdict
        return verdict


def _nameless(plan: _Plan, flow: Flow, matching: int) -> tuple[int, int]:
    """The rules that may match where an address is not known, and those that are in doubt for it."""
    doubted = 0
    lines = (*(() if flow.source else plan.by_source), *(() if flow.destination else plan.by_destination))
    for line in lines:
        some, every = 0, -1
        for first, last in families_of(flow):
            for found in set(line.vectors[bisect_right(line.starts, first) : bisect_right(line.starts, last) + 1]):
                some, every = some | found, every & found
        matching &= some
        doubted |= some & ~every
    return matching, doubted


def _borders(ranges: tuple[tuple[int, int], ...], beyond_last: int) -> list[int]:
    """Where ranges begin and where they have ended, with those that touch or overlap made one.

    `beyond_last` is how far behind the last value of a range its end lies: 0 for half-open ranges.
    """
    borders: list[int] = []
    for first, last in sorted(ranges):
        if borders and first <= borders[-1]:
            borders[-1] = max(borders[-1], last + beyond_last)
        else:
            borders += (first, last + beyond_last)
    return borders
