"""The base rules: ordinary rules that stand before those of the file, each of which `base` can turn off.

Without them a policy that blocks everything would cut a machine off from itself, from its router and from
its address. ICMP errors that belong to a connection have no rule here: they are part of that connection,
and so the affair of whoever knows the connections (the engine, the kernel's conntrack).
"""

from __future__ import annotations

from pfw.model.address import ALL_RANGES, IPV4_LAST, IPV6_FIRST, IPV6_LAST, AddressSet, Range
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ICMP, ICMPV6, UDP
from pfw.model.policy import Base, Policy
from pfw.model.rule import Rule
from pfw.model.verdict import Action

LOOPBACK_INTERFACE = "lo"

_LOOPBACK_IPV6 = bytes(15) + b"\x01"
_LINK_LOCAL_IPV6: Range = (IPV6_FIRST | 0xFE80 << 112, (IPV6_FIRST | 0xFEC0 << 112) - 1)
_ANY_IPV4: Range = (0, IPV4_LAST)
_ANY_IPV6: Range = (IPV6_FIRST, IPV6_LAST)

# Router solicitation and advertisement, neighbour solicitation and advertisement (RFC 4861). Redirect is
# left out: nothing stops working without it, and it moves a route.
_NEIGHBOUR_DISCOVERY_TYPES = (133, 134, 135, 136)


def base_rules(base: Base) -> tuple[Rule, ...]:
    """The rules that stand before all others, those that are on."""
    rules: list[Rule] = []
    both = frozenset((Direction.IN, Direction.OUT))
    if base.loopback:
        rules.append(Rule(name="base loopback", action=Action.ALLOW, directions=both, interfaces=(LOOPBACK_INTERFACE,)))
    if base.neighbour_discovery:
        rules.append(
            Rule(
                name="base neighbour discovery",
                action=Action.ALLOW,
                directions=both,
                protocols=frozenset((ICMPV6,)),
                icmp_types=frozenset((ICMPV6, number) for number in _NEIGHBOUR_DISCOVERY_TYPES),
            )
        )
    if base.dhcp_client:
        rules += _dhcp_client_rules()
    return tuple(rules)


def _dhcp_client_rules() -> list[Rule]:
    """DHCP (RFC 2131) and DHCPv6 (RFC 8415). An answer of the latter always comes from the same link."""
    return [
        _dhcp("base dhcp client out", Direction.OUT, _ANY_IPV4, 68, 67),
        _dhcp("base dhcp client in", Direction.IN, _ANY_IPV4, 67, 68),
        _dhcp("base dhcpv6 client out", Direction.OUT, _ANY_IPV6, 546, 547),
        _dhcp("base dhcpv6 client in", Direction.IN, _LINK_LOCAL_IPV6, 547, 546),
    ]


def _dhcp(name: str, direction: Direction, source: Range, source_port: int, port: int) -> Rule:
    return Rule(
        name=name,
        action=Action.ALLOW,
        directions=frozenset((direction,)),
        source=AddressSet([source]),
        protocols=frozenset((UDP,)),
        source_ports=((source_port, source_port),),
        ports=((port, port),),
    )


def rules_in_order(policy: Policy) -> list[tuple[int | None, Rule]]:
    """Every rule with its index in `policy.rules`; before them, and with None, what is always there: loopback, what is
    on block lists, the other base rules."""
    base = base_rules(policy.base)
    loopback = int(policy.base.loopback)
    always = (*base[:loopback], *policy.list_rules, *base[loopback:])
    return [(None, rule) for rule in always] + list(enumerate(policy.rules))


def interface_of(flow: Flow) -> str | None:
    """The interface of a connection. Where none is known, what runs between two loopback addresses counts
    as on `lo`, since no other interface may carry it (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3). So does what runs between
    one and an address that is not known."""
    if flow.interface is None:
        known = [end for end in (flow.source, flow.destination) if end]
        if known and all(map(_is_loopback, known)):
            return LOOPBACK_INTERFACE
    return flow.interface


def families_of(flow: Flow) -> tuple[Range, ...]:
    """Where an address of this connection may be that is not known: in the family of the other one, or of the
    protocol."""
    size = len(flow.source) or len(flow.destination)
    if size:
        return (ALL_RANGES[size > 4],)
    return (ALL_RANGES[flow.protocol == ICMPV6],) if flow.protocol in (ICMP, ICMPV6) else ALL_RANGES


def _is_loopback(packed: bytes) -> bool:
    return packed[0] == 127 if len(packed) == 4 else packed == _LOOPBACK_IPV6
