"""Addresses of interfaces, as rtnetlink tells them (include/uapi/linux/if_addr.h)."""

from __future__ import annotations

from struct import Struct as Layout

from pfw.wire.error import WireError
from pfw.wire.netlink import attributes, request

RTM_NEWADDR, RTM_GETADDR = 20, 22
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_BODY = Layout("=BBBBI")
"""Family, prefix length, flags, scope, interface index."""


def address_request() -> bytes:
    """Ask for all addresses of both families."""
    return request(RTM_GETADDR, _BODY.pack(0, 0, 0, 0, 0))


def addresses(body: memoryview) -> list[bytes]:
    """The packed addresses in one RTM_NEWADDR: the interface's own, and its broadcast address if any.

    Raises WireError when the body is too short.
    """
    if len(body) < _BODY.size:
        raise WireError(f"address message of {len(body)} bytes")
    found = dict(attributes(body[_BODY.size :]))
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL, where there is one, is ours.
    own = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
    values = [own, found.get(_IFA_BROADCAST)]
    return [bytes(value) for value in values if value is not None and len(value) in (4, 16)]
