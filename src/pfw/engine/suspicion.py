"""Single packets that no honest sender makes: impossible flags, sources that cannot be, a talk to oneself.

Pure functions of one packet's facts; patterns over many packets are the business of `detect/`. The names
given here are what logs and EVE records carry, `TEXTS` says each in words: they change together, and with
`record/eve.py`, which gives each a signature number.
"""

from __future__ import annotations

from pfw.model.address import AddressSet, parse_range
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ACK, FIN, ICMPV6, PSH, RST, SYN, TCP, UDP, URG
from pfw.policy.base import LOOPBACK_INTERFACE, interface_of

TEXTS: dict[str, str] = {
    "tcp.flags.null": "TCP without any flag (null scan)",
    "tcp.flags.fin": "TCP FIN without ACK (FIN scan)",
    "tcp.flags.xmas": "TCP FIN, PSH and URG without ACK (Xmas scan)",
    "tcp.flags.syn_fin": "TCP SYN and FIN together",
    "tcp.flags.syn_rst": "TCP SYN and RST together",
    "tcp.flags.fin_rst": "TCP FIN and RST together",
    "tcp.flags.invalid": "TCP flags that do not go together",
    "martian.loopback": "a loopback address on the wire",
    "martian.multicast": "a multicast or broadcast address as source",
    "martian.unspecified": "a source of this-network (0.0.0.0/8 or ::)",
    "martian.reserved": "a source in reserved space",
    "martian.mapped": "an IPv4-mapped IPv6 address on the wire",
    "martian.own": "comes in with an address of this machine as source",
    "flow.land": "source and destination are the same (land attack)",
    "flow.port_zero": "a port that is 0",
}


def flags_event(flags: int) -> str:
    """The name for TCP flags that `tcp.flags_are_valid` refuses."""
    if flags & SYN and flags & FIN:
        return "tcp.flags.syn_fin"
    if flags & SYN and flags & RST:
        return "tcp.flags.syn_rst"
    if flags & FIN and flags & RST:
        return "tcp.flags.fin_rst"
    if flags & (FIN | PSH | URG | ACK) == FIN | PSH | URG:
        return "tcp.flags.xmas"
    if flags & FIN and not flags & ACK:
        return "tcp.flags.fin"
    return "tcp.flags.null" if not flags & 0x3F else "tcp.flags.invalid"


def _ranges(*texts: str) -> AddressSet:
    return AddressSet([parse_range(text) for text in texts])


LOOPBACK = _ranges("127.0.0.0/8", "::1")
_MULTICAST = _ranges("224.0.0.0/4", "255.255.255.255", "ff00::/8")
_UNSPECIFIED = _ranges("0.0.0.0/8", "::")
# RFC 6890: 240/4 and what may stand in books alone. 100.64/10, 192.0.0/24 and 198.18/15 are in use.
_RESERVED = _ranges("240.0.0.0-255.255.255.254", "100::/64")
_MAPPED = _ranges("::ffff:0:0/96")
_ODD_FIRST_BYTES = frozenset({0, 1, 127, *range(224, 256)})
"""What all of these begin with, and few others."""
_DHCP_PORTS = (67, 68)


def flow_events(flow: Flow, local: AddressSet | None) -> tuple[str, ...]:
    """What is wrong with the addresses and ports of a connection's first packet.

    `local` are this machine's addresses, or None where that is not known.
    """
    events = []
    on_loopback = interface_of(flow) == LOOPBACK_INTERFACE
    if flow.source[0] in _ODD_FIRST_BYTES or flow.destination[0] in _ODD_FIRST_BYTES:
        event = _martian(flow, on_loopback)
        if event:
            events.append(event)
    if local is not None and flow.direction is Direction.IN and not on_loopback and flow.source in local:
        events = events or ["martian.own"]
    if flow.protocol in (TCP, UDP):
        if flow.port == 0 or (flow.protocol == TCP and flow.source_port == 0):
            events.append("flow.port_zero")
        if flow.source == flow.destination and flow.source_port == flow.port and not on_loopback:
            events.append("flow.land")
    return tuple(events)


def _martian(flow: Flow, on_loopback: bool) -> str | None:
    source = flow.source
    if not on_loopback and (source in LOOPBACK or flow.destination in LOOPBACK):
        return "martian.loopback"
    if source in _MULTICAST:
        return "martian.multicast"
    if source in _UNSPECIFIED and not _asks_for_an_address(flow):
        return "martian.unspecified"
    if source in _MAPPED or flow.destination in _MAPPED:
        return "martian.mapped"
    return "martian.reserved" if source in _RESERVED else None


def _asks_for_an_address(flow: Flow) -> bool:
    """DHCP, duplicate address detection and multicast reports start before there is an address."""
    if flow.protocol == UDP:
        return flow.port in _DHCP_PORTS and flow.source_port in _DHCP_PORTS
    return flow.protocol in (2, ICMPV6)
