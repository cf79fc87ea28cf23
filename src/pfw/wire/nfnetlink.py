"""What the messages of all netfilter subsystems have in common: bytes <-> values.

Source: include/uapi/linux/netfilter/nfnetlink.h. A message's type is the subsystem's number and the subsystem's own
type; its body begins with the family, a version and a number (`resource`) in network order, whose meaning is the
subsystem's: a log group, or a generation of the ruleset. Numbers in attributes are in network order.
"""

from __future__ import annotations

from struct import Struct as Layout

from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_REQUEST, attribute, request

NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 0, 1, 2, 10
CONNTRACK, QUEUE, LOG, NFTABLES = 1, 3, 4, 10
"""Subsystems."""

_BATCH_BEGIN, _BATCH_END = 16, 17
_HEADER = Layout(">BBH")
_NUMBER = Layout(">I")
_LONG = Layout(">Q")


def message_type(subsystem: int, kind: int) -> int:
    """The type of a message, as it stands in netlink's header."""
    return subsystem << 8 | kind


def question(
    subsystem: int,
    kind: int,
    family: int,
    attributes: bytes = b"",
    flags: int = NLM_F_REQUEST,
    sequence: int = 1,
    resource: int = 0,
) -> bytes:
    """A message to a subsystem."""
    body = _HEADER.pack(family, 0, resource) + attributes
    return request(message_type(subsystem, kind), body, flags, sequence)


def batch(subsystem: int, messages: list[bytes], sequence: int) -> bytes:
    """Messages that the kernel carries out together or not at all. `sequence` is that of the beginning."""
    begin = request(_BATCH_BEGIN, _HEADER.pack(0, 0, subsystem), NLM_F_REQUEST, sequence)
    end = request(_BATCH_END, _HEADER.pack(0, 0, subsystem), NLM_F_REQUEST, sequence)
    return b"".join([begin, *messages, end])


def split(body: memoryview) -> tuple[int, int, memoryview]:
    """Family, resource and attributes of a message. Raises WireError when the body is too short."""
    if len(body) < _HEADER.size:
        raise WireError(f"netfilter message of {len(body)} bytes")
    family, _, resource = _HEADER.unpack_from(body)
    return family, resource, body[_HEADER.size :]


def read_number(value: memoryview) -> int:
    """A number of 1, 2, 4 or 8 bytes. Raises WireError for another size."""
    if len(value) not in (1, 2, 4, 8):
        raise WireError(f"netfilter number of {len(value)} bytes")
    return int.from_bytes(value, "big")


def write_number(kind: int, value: int) -> bytes:
    """An attribute with a number of 32 bits."""
    return attribute(kind, _NUMBER.pack(value))


def write_long(kind: int, value: int) -> bytes:
    """An attribute with a number of 64 bits."""
    return attribute(kind, _LONG.pack(value))


def read_text(value: memoryview) -> str:
    """A name or prefix, which ends before its first zero byte. Bytes that are no text are shown as such."""
    return bytes(value).partition(b"\0")[0].decode(errors="backslashreplace")


def write_text(kind: int, value: str) -> bytes:
    """An attribute with a name. Raises ValueError for a name with a zero byte in it."""
    if "\0" in value:
        raise ValueError("a name with a zero byte in it")
    return attribute(kind, value.encode() + b"\0")
