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
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
NLA_F_NESTED = 0x8000
ATTRIBUTE_BYTES_MAX = 0xFFFF
"""The length of an attribute, its header with it, is a number of 16 bits."""

_HEADER = Layout("=IHHII")
_ATTRIBUTE = Layout("=HH")
_ERRNO = Layout("=i")
_TYPE_MASK = 0x3FFF
"""The upper two bits of an attribute's type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER)."""


def request(kind: int, body: bytes, flags: int = NLM_F_REQUEST | NLM_F_DUMP, sequence: int = 1) -> bytes:
    """A message to the kernel."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def parts(data: bytes) -> Iterator[tuple[int, int, int, memoryview]]:
    """Type, flags, sequence number and body of each message in what one read from the socket gave.

    Raises WireError for a length that does not fit.
    """
    view = memoryview(data)
    at = 0
    while at + _HEADER.size <= len(view):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(view, at)
        if length < _HEADER.size or at + length > len(view):
            raise WireError(f"netlink message of {length} bytes at {at}, {len(view) - at} are left")
        yield kind, flags, sequence, view[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def error_number(body: memoryview) -> int:
    """The errno in the body of an NLMSG_ERROR or NLMSG_DONE; 0 says that all is well, as an acknowledgement does.

    Raises WireError when the body is too short.
    """
    if len(body) < _ERRNO.size:
        raise WireError(f"netlink error of {len(body)} bytes")
    return -int(_ERRNO.unpack_from(body)[0])


def messages(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Type and body of each message in what one read from the socket gave.

    Raises WireError for a length that does not fit, and OSError for an error that the kernel answers.
    """
    for kind, _, _, body in parts(data):
        if kind == NLMSG_ERROR:
            number = error_number(body)
            if number:
                raise OSError(number, "netlink request refused")
        yield kind, body


def attributes(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each attribute. Raises WireError for a length that does not fit."""
    at = 0
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            raise WireError(f"netlink attribute of {length} bytes at {at}, {len(body) - at} are left")
        yield kind & _TYPE_MASK, body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, filled up to where the next one may begin. Raises ValueError for a value that is too long."""
    length = _ATTRIBUTE.size + len(value)
    if length > ATTRIBUTE_BYTES_MAX:
        raise ValueError(f"netlink attribute of {length} bytes, {ATTRIBUTE_BYTES_MAX} are the most")
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length & 3)


def nested(kind: int, *members: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(members))
