"""DHCP for IPv4 (RFC 2131, options of RFC 2132): who offers what to whom. Read only."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError

ADDRESSES_MAX = 16
"""Of routers and of name servers; a message that lists more is read up to here."""
_HEADER = Layout(">xxB13x4s8x16s192x4s")
_COOKIE = b"\x63\x82\x53\x63"
_PAD, _END = 0, 255
_ROUTERS, _NAME_SERVERS, _KIND, _SERVER = 3, 6, 53, 54
_MAC_BYTES = 6


class Lease(Struct, frozen=True, gc=False):
    """`kind` is option 53: 1 discover, 2 offer, 3 request, 4 decline, 5 acknowledgement, 6 refusal, 7 release."""

    kind: int
    client_mac: bytes
    offered: bytes | None
    server: bytes | None
    routers: tuple[bytes, ...]
    name_servers: tuple[bytes, ...]


def read_dhcp(payload: bytes) -> Lease | None:
    """Read a datagram's payload; None for BOOTP, which has no option 53. Raises WireError for what does not fit."""
    if len(payload) < _HEADER.size:
        raise WireError(f"{len(payload)} bytes where a DHCP message has at least {_HEADER.size}")
    hardware_bytes, offered, client, cookie = _HEADER.unpack_from(payload)
    if cookie != _COOKIE:
        return None
    options = _options(payload, _HEADER.size)
    kind = options.get(_KIND)
    if kind is None:
        return None
    if len(kind) != 1:
        raise WireError(f"a DHCP message type of {len(kind)} bytes")
    return Lease(
        kind=kind[0],
        client_mac=client[: min(hardware_bytes or _MAC_BYTES, _MAC_BYTES)],
        offered=offered if any(offered) else None,
        server=next(iter(_addresses(options.get(_SERVER, b""))), None),
        routers=_addresses(options.get(_ROUTERS, b"")),
        name_servers=_addresses(options.get(_NAME_SERVERS, b"")),
    )


def _options(payload: bytes, at: int) -> dict[int, bytes]:
    """By number; of one that comes several times the parts make one (RFC 3396)."""
    found: dict[int, bytes] = {}
    end = len(payload)
    while at < end and payload[at] != _END:
        if payload[at] == _PAD:
            at += 1
            continue
        size = payload[at + 1] if at + 1 < end else end
        stop = at + 2 + size
        if stop > end:
            raise WireError(f"DHCP option {payload[at]} is cut off")
        if payload[at] in (_KIND, _SERVER, _ROUTERS, _NAME_SERVERS):
            found[payload[at]] = found.get(payload[at], b"") + payload[at + 2 : stop]
        at = stop
    return found


def _addresses(content: bytes) -> tuple[bytes, ...]:
    if len(content) % 4:
        raise WireError(f"{len(content)} bytes of addresses in a DHCP message")
    count = min(len(content) // 4, ADDRESSES_MAX)
    return tuple(content[at : at + 4] for at in range(0, count * 4, 4) if any(content[at : at + 4]))
