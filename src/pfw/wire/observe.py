"""What messages say that are observed for their contents: DNS, DHCP, neighbour discovery, echo.

`what_is` tells by a packet's flow key alone whether it is such a one, so that all others cost nothing. DNS over
multicast (port 5353) is left out: there nobody is client or server.
"""

from __future__ import annotations

from struct import Struct as Layout

from pfw.model.flow import split_key
from pfw.model.observation import DhcpSeen, DnsSeen, EchoSeen, NeighbourSeen, Odd, RouterSeen, link_of
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP
from pfw.wire.dhcp import read_dhcp
from pfw.wire.dns_message import read_message
from pfw.wire.draft import Draft
from pfw.wire.echo import digest, is_pattern
from pfw.wire.error import WireError
from pfw.wire.ipv4 import read_ipv4
from pfw.wire.ipv6 import read_ipv6
from pfw.wire.link import LINKS
from pfw.wire.neighbour import ADVERTISEMENT, ROUTER_ADVERTISEMENT, SOLICITATION, read_neighbour

Seen = DnsSeen | DhcpSeen | RouterSeen | NeighbourSeen | EchoSeen

DNS, DHCP, NEIGHBOUR, ECHO = "dns", "dhcp", "neighbour", "echo"
DNS_PORT = 53
_ECHO_TYPES = {ICMP: (8, 0), ICMPV6: (128, 129)}
"""Request and reply."""
_BY_PORT = {(0, DNS_PORT): DNS, (0, 67): DHCP, (0, 68): DHCP}
_BY_TYPE = {
    **{(protocol, kind): ECHO for protocol, kinds in _ECHO_TYPES.items() for kind in kinds},
    **dict.fromkeys(((ICMPV6, kind) for kind in (ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT)), NEIGHBOUR),
}
_PORTS = Layout(">HH")
_ECHO = Layout(">4xHH")
_NUMBERS = Layout(">4xII")
_UDP_BYTES = 8


def what_is(key: bytes) -> str | None:
    """The format of a packet with this flow key; None for one whose contents are nobody's business here."""
    if not len(key) & 1:
        return None
    if key[0] == UDP:
        return _BY_PORT.get((key[-4], key[-3])) or _BY_PORT.get((key[-2], key[-1]))
    return _BY_TYPE.get((key[0], key[-2]))


def observe(linktype: int, frame: bytes, size: int, time: float, interface: str | None = None) -> Seen | None:
    """What a frame says, for which `what_is` knows a format; None where it says nothing of interest, or the capture has
    too little of it. Raises WireError for a message that does not fit its format."""
    draft = _at_transport(linktype, frame, size)
    if draft is None:
        return None
    payload = frame[draft.at : draft.end]
    is_cut = draft.partial or draft.end > len(frame)
    try:
        return _observed(draft, payload, time, link_of(interface, draft.vlans))
    except WireError:
        if is_cut:
            return None
        raise


def look_into(
    linktype: int, frame: bytes, size: int, time: float, key: bytes, interface: str | None = None
) -> Seen | Odd | None:
    """`observe` for a packet with this flow key: what it says, or that it is none of its kind. Never raises."""
    what = what_is(key)
    if what is None:
        return None
    try:
        return observe(linktype, frame, size, time, interface)
    except WireError:
        protocol, source, destination, _ = split_key(key)
        return Odd(time, source, destination, protocol, (f"{what}.malformed",))


def tcp_numbers(linktype: int, frame: bytes, size: int) -> tuple[int, int] | None:
    """The sequence and the acknowledgement number of a TCP packet; None where they are not to be had."""
    draft = _at_transport(linktype, frame, size)
    if draft is None or draft.protocol != TCP or min(draft.end, len(frame)) - draft.at < _NUMBERS.size:
        return None
    sequence, acknowledged = _NUMBERS.unpack_from(frame, draft.at)
    return sequence, acknowledged


def _at_transport(linktype: int, frame: bytes, size: int) -> Draft | None:
    read_link = LINKS.get(linktype)
    if read_link is None:
        return None
    draft = Draft(frame, size)
    version = read_link(draft)
    return draft if version and (read_ipv4(draft) if version == 4 else read_ipv6(draft)) else None


def _observed(draft: Draft, payload: bytes, time: float, link: str) -> Seen | None:
    if draft.protocol == UDP:
        if len(payload) < _UDP_BYTES:
            raise WireError(f"{len(payload)} bytes where a UDP header has {_UDP_BYTES}")
        ports = _PORTS.unpack_from(payload)
        message = payload[_UDP_BYTES:]
        return _dns(draft, ports, payload, time) if DNS_PORT in ports else _dhcp(draft, message, time, link)
    if draft.protocol not in _ECHO_TYPES or not payload:
        return None
    if payload[0] in _ECHO_TYPES[draft.protocol]:
        return _echo(draft, payload, time)
    return read_neighbour(draft, payload, time, link) if draft.protocol == ICMPV6 else None


def _dns(draft: Draft, ports: tuple[int, ...], payload: bytes, time: float) -> DnsSeen:
    source_port, port = ports
    message = read_message(payload[_UDP_BYTES:])
    from_server = source_port == DNS_PORT if source_port != port else message.is_answer
    client, server = (draft.destination, draft.source) if from_server else (draft.source, draft.destination)
    return DnsSeen(
        time=time,
        client=client,
        server=server,
        is_answer=message.is_answer,
        name=message.name,
        kind=message.kind,
        code=message.code,
        answers=message.answers,
        size_bytes=len(payload) - _UDP_BYTES,
        answer_bytes=message.answer_bytes,
    )


def _dhcp(draft: Draft, message: bytes, time: float, link: str) -> DhcpSeen | None:
    lease = read_dhcp(message)
    if lease is None:
        return None
    return DhcpSeen(
        time=time,
        source=draft.source,
        source_mac=draft.source_mac,
        kind=lease.kind,
        client_mac=lease.client_mac,
        offered=lease.offered,
        server=lease.server,
        routers=lease.routers,
        name_servers=lease.name_servers,
        link=link,
    )


def _echo(draft: Draft, message: bytes, time: float) -> EchoSeen:
    if len(message) < _ECHO.size:
        raise WireError(f"{len(message)} bytes where an echo message has at least {_ECHO.size}")
    identifier, sequence = _ECHO.unpack_from(message)
    contents = message[_ECHO.size :]
    return EchoSeen(
        time=time,
        source=draft.source,
        destination=draft.destination,
        is_request=message[0] == _ECHO_TYPES[draft.protocol or 0][0],
        identifier=identifier,
        sequence=sequence,
        payload_bytes=max(0, draft.end - draft.at - _ECHO.size),
        digest=digest(contents),
        is_pattern=is_pattern(contents),
    )
