"""Packets that wait in the kernel for a verdict (nfqueue): what is asked of the kernel, what it sends, what it is told.

Source: include/uapi/linux/netfilter/nfnetlink_queue.h. A reader binds to a queue. The kernel sends it the beginning of
each packet and keeps the packet until the verdict on its number has come.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_ACK, NLM_F_REQUEST, attribute, request
from pfw.wire.nfnetlink import QUEUE, message_type, question, write_number

PACKET = message_type(QUEUE, 0)
_JUDGE = message_type(QUEUE, 1)
_CONFIG = 2

_CFG_CMD, _CFG_MODE, _CFG_LENGTH_MAX, _CFG_MASK, _CFG_FLAGS = 1, 2, 3, 4, 5
_CMD_BIND = 1
_COPY_PACKET = 2
_COMMAND = Layout(">BxH")
_MODE = Layout(">IB")

FLAG_GSO, FLAG_UID_GID = 1 << 2, 1 << 3
"""The kernel need not cut into packets first what a socket sends as one; it tells whose the socket is."""
_FLAGS = FLAG_GSO | FLAG_UID_GID
"""No others. With NFQA_CFG_F_FAIL_OPEN what finds the queue full would pass without a verdict."""

_HEADER, _VERDICT, _MARK, _IN_INDEX, _OUT_INDEX, _PAYLOAD, _FULL_LENGTH, _UID, _GID = 1, 2, 3, 5, 6, 10, 13, 16, 17
_NUMBERS = frozenset({_MARK, _IN_INDEX, _OUT_INDEX, _FULL_LENGTH, _UID, _GID})
_GENERAL = Layout(">xxH")
"""What all netfilter messages begin with, the queue being the last of it."""
_PACKET_HEADER = Layout(">IHB")
_NUMBER = Layout(">I")
_ATTRIBUTE = Layout("=HH")
"""An attribute's length and type, 4 bytes; a number behind it makes 8."""
_TYPE_MASK = 0x3FFF

DROP, ACCEPT, REPEAT = 0, 1, 4
"""Verdicts (include/uapi/linux/netfilter.h); with REPEAT the chains of the hook begin anew for the packet."""
_JUDGED = Layout(">xxH4sII")
_JUDGED_HEAD = attribute(_VERDICT, bytes(8))[:4]
_PLAIN_HEAD = request(_JUDGE, bytes(_JUDGED.size), NLM_F_REQUEST, 0)[: -_JUDGED.size]
"""What is the same in all verdicts without a mark."""


class Queued(Struct, frozen=True, gc=False):
    """A packet that waits for a verdict, cut to as much as was asked for. None where the kernel did not tell.

    `hook` is where the rule stands (0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting), `hw_protocol` the
    packet's protocol as the link names it, `uid` and `gid` the owner of the socket that sent it. `full_bytes` is the
    packet's size where `payload` is only its beginning.
    """

    queue: int
    id: int
    hook: int
    hw_protocol: int
    payload: bytes = b""
    mark: int = 0
    in_index: int | None = None
    out_index: int | None = None
    uid: int | None = None
    gid: int | None = None
    full_bytes: int | None = None


def bind_request(queue: int, copy_bytes: int, length_max: int, flags: int = _FLAGS, sequence: int = 1) -> bytes:
    """Ask for the packets of a queue, `copy_bytes` of each. While `length_max` of them wait the kernel drops the rest.

    Raises ValueError for a flag that lets packets pass without a verdict, and for any other that is not known here.
    """
    if flags & ~_FLAGS:
        raise ValueError(f"queue flags {flags:#x}, only {_FLAGS:#x} are known")
    members = (
        attribute(_CFG_CMD, _COMMAND.pack(_CMD_BIND, 0)),
        attribute(_CFG_MODE, _MODE.pack(copy_bytes, _COPY_PACKET)),
        write_number(_CFG_LENGTH_MAX, length_max),
        write_number(_CFG_MASK, _FLAGS),
        write_number(_CFG_FLAGS, flags),
    )
    return question(QUEUE, _CONFIG, 0, b"".join(members), NLM_F_REQUEST | NLM_F_ACK, sequence, queue)


def queued(body: memoryview) -> Queued:
    """Read one packet. Raises WireError for what does not fit.

    A packet waits for this, so the attributes are read where they lie.
    """
    numbers: dict[int, int] = {}
    header: tuple[int, int, int] | None = None
    payload = b""
    at, size = _GENERAL.size, len(body)
    if size < at:
        raise WireError(f"netfilter message of {size} bytes")
    while at + 4 <= size:
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        end = at + length
        if length < 4 or end > size:
            raise WireError(f"netlink attribute of {length} bytes at {at}, {size - at} are left")
        kind &= _TYPE_MASK
        if kind in _NUMBERS:
            if length != 8:
                raise WireError(f"{length - 4} bytes where a queued packet has a number")
            numbers[kind] = _NUMBER.unpack_from(body, at + 4)[0]
        elif kind == _PAYLOAD:
            payload = bytes(body[at + 4 : end])
        elif kind == _HEADER:
            if length < 4 + _PACKET_HEADER.size:
                raise WireError(f"{length - 4} bytes where a queued packet has {_PACKET_HEADER.size}")
            header = _PACKET_HEADER.unpack_from(body, at + 4)
        at = (end + 3) & ~3
    if header is None:
        raise WireError("queued packet without its number")
    return _packet(_GENERAL.unpack_from(body)[0], header, payload, numbers.get)


def _packet(queue: int, header: tuple[int, int, int], payload: bytes, told: Callable[[int], int | None]) -> Queued:
    number, hw_protocol, hook = header
    return Queued(
        queue,
        number,
        hook,
        hw_protocol,
        payload,
        told(_MARK) or 0,
        told(_IN_INDEX),
        told(_OUT_INDEX),
        told(_UID),
        told(_GID),
        told(_FULL_LENGTH),
    )


def verdict_request(queue: int, packet_id: int, verdict: int, mark: int | None = None) -> bytes:
    """DROP, ACCEPT or REPEAT a packet, with a mark if one is given. The kernel answers only what it refuses."""
    body = _JUDGED.pack(queue, _JUDGED_HEAD, verdict, packet_id)
    if mark is None:
        return _PLAIN_HEAD + body
    return request(_JUDGE, body + write_number(_MARK, mark), NLM_F_REQUEST, 0)
