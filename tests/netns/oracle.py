"""What a policy says about a packet, place by place, as the deciding half of the product says it."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace
from tests.netns.prober import INTERFACES, LOCAL, PUBLISHED, PUBLISHED_PORTS, leaves_by
from tests.netns.probes import CLIENT, HERE, SERVER, Probe
from tests.netns.random_policies import names_of

from pfw.engine.limits import Buckets
from pfw.model.address import AddressSet, parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, SCTP, TCP, UDP
from pfw.model.policy import Policy
from pfw.model.verdict import Action, Verdict
from pfw.policy.blocking import with_lists
from pfw.policy.decide import Decider
from pfw.policy.match import Answer, answer, decide_slowly

INVALID = "base invalid"
QUIET = "base loopback"
ANSWERED = (TCP, UDP, ICMP, ICMPV6, SCTP)
"""Of others the kernel wants checksums that they do not have, and answers only where these happen to be right
(nf_reject_verify_csum)."""


class Expected(Struct, frozen=True):
    """What shall become of a packet. `answered` is None where that is not looked at."""

    decided: list[tuple[str, str]]
    arrives: str | None
    answered: bool | None = None


class Oracle:
    """One policy and its limits. Packets are asked about in the order in which they are sent."""

    def __init__(self, policy: Policy, lists: dict[str, AddressSet]) -> None:
        self._policy = with_lists(policy, lists)
        self._decider = Decider(self._policy)
        self._unlisted, self._unlisted_decider = policy, Decider(policy)
        self._buckets = {index: Buckets(rule.limit) for index, rule in enumerate(policy.rules) if rule.limit}
        self._list_names = {rule.name for rule in self._policy.list_rules}

    def expect(self, probe: Probe, moment: Moment) -> Expected:
        published = (
            probe.destination in PUBLISHED
            and probe.sender != HERE
            and probe.protocol in (TCP, UDP)
            and PUBLISHED_PORTS[0] <= probe.port <= PUBLISHED_PORTS[1]
        )
        end = PUBLISHED[probe.destination] if published else probe.destination
        local = end in LOCAL
        if probe.sender == HERE:
            steps = [(Direction.OUT, leaves_by(end))] + ([(Direction.IN, "lo")] if local else [])
        else:
            steps = [(Direction.IN if local else Direction.FORWARD, INTERFACES[probe.sender])]
        decided: list[tuple[str, str]] = []
        for direction, interface in steps:
            name, action = self._judged(probe, direction, interface, moment, end)
            if name != QUIET:
                decided.append((direction.value, name))
            if name in self._list_names:
                return Expected(decided, None, False)
            if action is not Action.ALLOW:
                return Expected(decided, None, self._answered(probe, action, name, looked_at=not published))
        side = HERE if local else CLIENT if leaves_by(end) == INTERFACES[CLIENT] else SERVER
        return Expected(decided, side)

    def _answered(self, probe: Probe, action: Action, name: str, *, looked_at: bool) -> bool | None:
        if not looked_at or probe.sender == HERE or probe.is_untracked:
            return None
        rejected = action is Action.REJECT and name != INVALID
        return rejected if not rejected or probe.protocol in ANSWERED else None

    def _judged(
        self, probe: Probe, direction: Direction, interface: str, moment: Moment, end: str
    ) -> tuple[str, Action]:
        """Who decides: loopback before all else, then what belongs to no connection, then the policy, its block lists
        first. Of what is published they are about where it really goes."""
        if interface == "lo" and self._policy.base.loopback:
            return QUIET, Action.ALLOW
        if probe.starts_nothing:
            return INVALID, Action.BLOCK
        flow = flow_of(probe, direction, interface)
        policy, decider = self._policy, self._decider
        if end != probe.destination:
            reached = replace(flow, destination=parse_address(end))
            for rule in policy.list_rules:
                if answer(rule, reached, moment)[0] is Answer.YES:
                    return rule.name, rule.action
            policy, decider = self._unlisted, self._unlisted_decider
        verdict = self._decided(policy, decider, flow, moment)
        return verdict.rule or f"default {direction}", verdict.action

    def _decided(self, policy: Policy, decider: Decider, flow: Flow, moment: Moment) -> Verdict:
        over: dict[int, bool] = {}

        def over_limit(index: int) -> bool:
            if index not in over:
                over[index] = self._buckets[index].over(flow.source, moment.time)
            return over[index]

        verdict = decide_slowly(policy, flow, moment, over_limit)
        assert decider.decide(flow, moment, over_limit) == verdict
        return verdict


def flow_of(probe: Probe, direction: Direction, interface: str) -> Flow:
    has_ports = probe.protocol in PORT_PROTOCOLS
    return Flow(
        direction=direction,
        protocol=probe.protocol,
        source=parse_address(probe.source),
        destination=parse_address(probe.destination),
        source_port=probe.source_port if has_ports else None,
        port=probe.port if has_ports else None,
        icmp_type=probe.icmp_type if probe.protocol in (ICMP, ICMPV6) else None,
        interface=interface,
        users=names_of(probe.uid, probe.gid) if direction is Direction.OUT else None,
    )
