"""Packets that rules log (nflog): what is asked of the kernel, and what it sends.

Source: include/uapi/linux/netfilter/nfnetlink_log.h. A reader binds to a group, of which the kernel then sends copies
of packets; several packets may come in one read.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_ACK, NLM_F_REQUEST, attribute, attributes
from pfw.wire.nfnetlink import LOG, message_type, question, read_number, read_text, split, write_number

PACKET = message_type(LOG, 0)
_CONFIG = 1

_CFG_CMD, _CFG_MODE, _CFG_BUFFER, _CFG_TIMEOUT, _CFG_THRESHOLD, _CFG_FLAGS = 1, 2, 3, 4, 5, 6
_CMD_BIND = 1
_COPY_PACKET = 2
_FLAG_SEQUENCE = b"\0\x01"
_MODE = Layout(">IBx")

_HEADER, _MARK, _TIMESTAMP, _IN_INDEX, _OUT_INDEX = 1, 2, 3, 4, 5
_PAYLOAD, _PREFIX, _UID, _SEQUENCE, _GID = 9, 10, 11, 12, 14
_PACKET_HEADER = Layout(">HB")
_TIME = Layout(">QQ")


class Logged(Struct, frozen=True, gc=False):
    """A packet that a rule logged, cut to as much as was asked for. None where the kernel did not tell.

    `hook` is where the rule stands (0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting), `ethertype` the
    packet's protocol as the link names it, `uid` and `gid` the owner of the socket that sent it.
    """

    group: int
    family: int
    time: float | None = None
    hook: int | None = None
    prefix: str = ""
    in_index: int | None = None
    out_index: int | None = None
    payload: bytes = b""
    uid: int | None = None
    gid: int | None = None
    mark: int = 0
    ethertype: int | None = None
    sequence: int | None = None


def bind_request(
    group: int, copy_bytes: int, buffer_bytes: int, threshold: int, timeout_cs: int, sequence: int = 1
) -> bytes:
    """Ask for the packets of a group, `copy_bytes` of each, numbered.

    The kernel sends when it has `buffer_bytes` or `threshold` packets, or after so many hundredths of a second.
    """
    members = (
        attribute(_CFG_CMD, bytes((_CMD_BIND,))),
        attribute(_CFG_MODE, _MODE.pack(copy_bytes, _COPY_PACKET)),
        write_number(_CFG_BUFFER, buffer_bytes),
        write_number(_CFG_TIMEOUT, timeout_cs),
        write_number(_CFG_THRESHOLD, threshold),
        attribute(_CFG_FLAGS, _FLAG_SEQUENCE),
    )
    return question(LOG, _CONFIG, 0, b"".join(members), NLM_F_REQUEST | NLM_F_ACK, sequence, group)


def logged(body: memoryview) -> Logged:
    """Read one packet. Raises WireError for what does not fit."""
    family, group, rest = split(body)
    found = dict(attributes(rest))
    ethertype = hook = None
    if _HEADER in found:
        ethertype, hook = _unpacked(_PACKET_HEADER, found[_HEADER])
    mark = _number(found, _MARK)
    return Logged(
        group=group,
        family=family,
        time=_time(found.get(_TIMESTAMP)),
        hook=hook,
        prefix=read_text(found.get(_PREFIX, memoryview(b""))),
        in_index=_number(found, _IN_INDEX),
        out_index=_number(found, _OUT_INDEX),
        payload=bytes(found.get(_PAYLOAD, b"")),
        uid=_number(found, _UID),
        gid=_number(found, _GID),
        mark=mark or 0,
        ethertype=ethertype,
        sequence=_number(found, _SEQUENCE),
    )


def _number(found: dict[int, memoryview], kind: int) -> int | None:
    value = found.get(kind)
    return None if value is None else read_number(value)


def _time(value: memoryview | None) -> float | None:
    if value is None:
        return None
    seconds, microseconds = _unpacked(_TIME, value)
    return seconds + microseconds * 1e-6


def _unpacked(layout: Layout, value: memoryview) -> tuple[int, int]:
    if len(value) < layout.size:
        raise WireError(f"{len(value)} bytes where a logged packet has {layout.size}")
    first, second = layout.unpack_from(value)
    return first, second
