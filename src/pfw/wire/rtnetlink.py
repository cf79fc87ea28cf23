"""Addresses of interfaces and routes, as rtnetlink tells them (include/uapi/linux/if_addr.h, rtnetlink.h)."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_REQUEST, attribute, attributes, request

RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWRULE, RTM_GETRULE = 32, 34

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_BODY = Layout("=BBBBI")
"""Family, prefix length, flags, scope, interface index."""

_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 1, 4, 5, 9, 18
_RTN_UNICAST = 1
_FRA_FWMARK, _FRA_FWMASK = 10, 16
_ROUTE = Layout("=BBBBBBBBI")
"""Family, destination's and source's prefix length, type of service, table, protocol, scope, type, flags."""
_HOP = Layout("=HBBi")
"""One of several next hops: length with its attributes, flags, weight, interface index."""
_INDEX = Layout("=I")
_FAMILIES = {4: 2, 16: 10}
"""Address family by the size of an address."""


class InterfaceAddress(Struct, frozen=True, gc=False):
    """An address that an interface has."""

    interface_index: int
    address: bytes
    prefix_length: int


def address_request() -> bytes:
    """Ask for all addresses of both families."""
    return request(RTM_GETADDR, _BODY.pack(0, 0, 0, 0, 0))


def addresses(body: memoryview) -> list[bytes]:
    """The packed addresses in one RTM_NEWADDR: the interface's own, and its broadcast address if any.

    Raises WireError when the body is too short.
    """
    _, found = _address_parts(body)
    values = [_own(found), found.get(_IFA_BROADCAST)]
    return [bytes(value) for value in values if value is not None and len(value) in _FAMILIES]


def interface_address(body: memoryview) -> InterfaceAddress | None:
    """The interface's own address in one RTM_NEWADDR. Raises WireError when the body is too short."""
    (_, prefix_length, _, _, index), found = _address_parts(body)
    own = _own(found)
    if own is None or len(own) not in _FAMILIES:
        return None
    return InterfaceAddress(index, bytes(own), prefix_length)


def _address_parts(body: memoryview) -> tuple[tuple[int, ...], dict[int, memoryview]]:
    if len(body) < _BODY.size:
        raise WireError(f"address message of {len(body)} bytes")
    return _BODY.unpack_from(body), dict(attributes(body[_BODY.size :]))


def _own(found: dict[int, memoryview]) -> memoryview | None:
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL, where there is one, is ours.
    return found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))


def routes_request() -> bytes:
    """Ask for the routes of all tables and both families."""
    return request(RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))


def route_request(destination: bytes) -> bytes:
    """Ask which way a packet to this packed address takes. Raises ValueError for what is no address."""
    family = _FAMILIES.get(len(destination))
    if family is None:
        raise ValueError(f"an address of {len(destination)} bytes")
    body = _ROUTE.pack(family, len(destination) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_DST, destination)
    return request(RTM_GETROUTE, body, NLM_F_REQUEST)


def route_index(body: memoryview) -> int | None:
    """The interface by which the route in one RTM_NEWROUTE leaves. Raises WireError for what does not fit."""
    value = _route_parts(body)[1].get(_RTA_OIF)
    if value is None:
        return None
    if len(value) != _INDEX.size:
        raise WireError(f"interface index of {len(value)} bytes")
    return int(_INDEX.unpack(value)[0])


def default_gateways(body: memoryview) -> list[bytes]:
    """The next hops, packed, of the route in one RTM_NEWROUTE if it is a default route.

    Raises WireError for what does not fit.
    """
    (family, length, _, _, _, _, _, kind, _), found = _route_parts(body)
    if length or kind != _RTN_UNICAST or family not in _FAMILIES.values():
        return []
    gateways = [_gateway(found)]
    several = found.get(_RTA_MULTIPATH, memoryview(b""))
    while len(several) >= _HOP.size:
        size, _, _, _ = _HOP.unpack_from(several)
        if not _HOP.size <= size <= len(several):
            raise WireError(f"next hop of {size} bytes, {len(several)} are left")
        gateways.append(_gateway(dict(attributes(several[_HOP.size : size]))))
        several = several[(size + 3) & ~3 :]
    return [each for each in gateways if each is not None]


def rules_request() -> bytes:
    """Ask for the routing rules of both families (include/uapi/linux/fib_rules.h: the body is like that of a route)."""
    return request(RTM_GETRULE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))


def rule_mark(body: memoryview) -> tuple[int, int] | None:
    """The mark for which the rule in one RTM_NEWRULE is, and the bits of it that count; None where it asks for none.

    Raises WireError for what does not fit.
    """
    found = _route_parts(body)[1]
    mark, mask = found.get(_FRA_FWMARK), found.get(_FRA_FWMASK)
    if mark is None:
        return None
    if len(mark) != _INDEX.size or (mask is not None and len(mask) != _INDEX.size):
        raise WireError("a mark of another size than 4 bytes")
    return int(_INDEX.unpack(mark)[0]), 0xFFFFFFFF if mask is None else int(_INDEX.unpack(mask)[0])


def _gateway(found: dict[int, memoryview]) -> bytes | None:
    value = found.get(_RTA_GATEWAY)
    if value is None and _RTA_VIA in found:
        # A next hop of the other family: its family comes before the address.
        value = found[_RTA_VIA][2:]
    return bytes(value) if value is not None and len(value) in _FAMILIES else None


def _route_parts(body: memoryview) -> tuple[tuple[int, ...], dict[int, memoryview]]:
    if len(body) < _ROUTE.size:
        raise WireError(f"route message of {len(body)} bytes")
    return _ROUTE.unpack_from(body), dict(attributes(body[_ROUTE.size :]))
