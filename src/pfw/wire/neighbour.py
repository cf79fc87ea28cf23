"""Neighbour discovery of IPv6 (RFC 4861): what routers (RFC 4191, RFC 8106) and neighbours advertise. Read only."""

from __future__ import annotations

from struct import Struct as Layout

from pfw.model.observation import NeighbourSeen, RouterSeen
from pfw.wire.draft import Draft
from pfw.wire.error import WireError

ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT = 134, 135, 136
OPTIONS_MAX = 64
"""A message that fits a link has fewer."""
_SOURCE_MAC, _TARGET_MAC, _PREFIX, _NAME_SERVERS = 1, 2, 3, 25
_ROUTER = Layout(">4xxBH8x")
_NEIGHBOUR = Layout(">4xB3x16s")
_SOLICITED, _OVERRIDE = 0x40, 0x20
_PREFERENCES = {1: 1, 3: -1}
"""Two bits with a sign: high and low; the fourth value counts as medium."""
_MAC_BYTES = 6

_Option = tuple[int, bytes]


def read_neighbour(draft: Draft, message: bytes, time: float, link: str) -> RouterSeen | NeighbourSeen | None:
    """What a message is a sign of, `draft` being the packet that it is from. Raises WireError for what does not fit."""
    kind = message[0] if message else 0
    if kind == ROUTER_ADVERTISEMENT:
        return _router(draft, message, time, link)
    return _neighbour(draft, message, time, link) if kind in (SOLICITATION, ADVERTISEMENT) else None


def _router(draft: Draft, message: bytes, time: float, link: str) -> RouterSeen:
    _check(message, _ROUTER, "router advertisement")
    flags, lifetime_s = _ROUTER.unpack_from(message)
    options = _options(message, _ROUTER.size)
    return RouterSeen(
        time=time,
        source=draft.source,
        source_mac=draft.source_mac,
        hop_limit=draft.ttl or 0,
        lifetime_s=lifetime_s,
        preference=_PREFERENCES.get(flags >> 3 & 3, 0),
        prefixes=tuple((body[14:30], body[0]) for kind, body in options if kind == _PREFIX and len(body) == 30),
        name_servers=tuple(
            body[at : at + 16] for kind, body in options if kind == _NAME_SERVERS for at in range(6, len(body) - 15, 16)
        ),
        link=link,
    )


def _neighbour(draft: Draft, message: bytes, time: float, link: str) -> NeighbourSeen:
    _check(message, _NEIGHBOUR, "neighbour message")
    flags, target = _NEIGHBOUR.unpack_from(message)
    is_answer = message[0] == ADVERTISEMENT
    wanted = _TARGET_MAC if is_answer else _SOURCE_MAC
    macs = [body for kind, body in _options(message, _NEIGHBOUR.size) if kind == wanted and len(body) == _MAC_BYTES]
    return NeighbourSeen(
        time=time,
        source=draft.source,
        destination=draft.destination,
        source_mac=draft.source_mac,
        target=target,
        is_answer=is_answer,
        mac=macs[0] if macs else None,
        override=is_answer and bool(flags & _OVERRIDE),
        solicited=is_answer and bool(flags & _SOLICITED),
        link=link,
    )


def _check(message: bytes, layout: Layout, what: str) -> None:
    if len(message) < layout.size:
        raise WireError(f"{len(message)} bytes where a {what} has at least {layout.size}")


def _options(message: bytes, at: int) -> list[_Option]:
    found: list[_Option] = []
    while at < len(message) and len(found) < OPTIONS_MAX:
        size = message[at + 1] * 8 if at + 1 < len(message) else 0
        if not size or at + size > len(message):
            raise WireError(f"a neighbour discovery option of {size} bytes where {len(message) - at} are left")
        found.append((message[at], message[at + 2 : at + size]))
        at += size
    return found
