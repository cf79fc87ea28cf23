"""Netlink messages: bytes <-> values, for every netlink family.

Source: include/uapi/linux/netlink.h, rtnetlink.h. A message is a header of 16 bytes (length, type, flags,
sequence number, port), a body, and attributes of type and length, all in the machine's own byte order
(x86-64 and arm64: little endian is what Python's `=` gives there). What is inside a body is for the
module of its family.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout

from pfw.wire.error import WireError

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300

_HEADER = Layout("=IHHII")
_ATTRIBUTE = Layout("=HH")
_ERRNO = Layout("=i")
_TYPE_MASK = 0x3FFF
"""The upper two bits of an attribute's type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER)."""


def request(kind: int, body: bytes, flags: int = NLM_F_REQUEST | NLM_F_DUMP, sequence: int = 1) -> bytes:
    """A message to the kernel."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Type and body of each message in what one read from the socket gave.

    Raises WireError for a length that does not fit, and OSError for an error that the kernel answers.
    """
    view = memoryview(data)
    at = 0
    while at + _HEADER.size <= len(view):
        length, kind, _, _, _ = _HEADER.unpack_from(view, at)
        if length < _HEADER.size or at + length > len(view):
            raise WireError(f"netlink message of {length} bytes at {at}, {len(view) - at} are left")
        body = view[at + _HEADER.size : at + length]
        if kind == NLMSG_ERROR:
            if len(body) < _ERRNO.size:
                raise WireError(f"netlink error of {len(body)} bytes at {at}")
            number = -_ERRNO.unpack_from(body)[0]
            if number:
                raise OSError(number, "netlink request refused")
        yield kind, body
        at += (length + 3) & ~3


def attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each attribute. Raises WireError for a length that does not fit."""
    at = 0
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            raise WireError(f"netlink attribute of {length} bytes at {at}, {len(body) - at} are left")
        yield kind & _TYPE_MASK, body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
