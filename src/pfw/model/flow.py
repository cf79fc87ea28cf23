"""Flows: the 5-tuple as a key for tables, and as the facts that a rule is held against.

A key is made of the very bytes of the headers, so that the decoder cuts it out in one slice:

    TCP       source, destination, source port, destination port          (12 or 36 bytes)
    others    protocol (1 byte), source, destination, 4 bytes             (13 or 37 bytes)

The last 4 bytes are the ports; for ICMP and ICMPv6 identifier (2), type, code; for a protocol with
neither, zeros. The length alone tells the family, and TCP from the rest. Whoever changes this changes
`wire/transport.py`, `wire/icmp.py` and `wire/scan.py` with it.
"""

from __future__ import annotations

from enum import StrEnum
from struct import Struct as Layout

from msgspec import Struct

from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP

# What answers what, the requests as keys.
ICMP_ANSWERS = {8: 0, 13: 14, 15: 16, 17: 18}
ICMPV6_ANSWERS = {128: 129, 139: 140}
_ANSWERED = {
    ICMP: ICMP_ANSWERS | {answer: asked for asked, answer in ICMP_ANSWERS.items()},
    ICMPV6: ICMPV6_ANSWERS | {answer: asked for asked, answer in ICMPV6_ANSWERS.items()},
}

_PORTS = Layout(">HH")


class Direction(StrEnum):
    """As seen from this machine."""

    IN = "in"
    OUT = "out"
    FORWARD = "forward"


class Moment(Struct, frozen=True, gc=False):
    """A time and the local clock's distance from UTC then, both in seconds."""

    time: float
    utc_offset_s: int = 0


class Flow(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A connection by its first packet: everything a rule can ask for. None means not known here, and so does an
    empty `source` or `destination`, which only questions have.

    `users` holds every name a rule may use for the owner: user name, uid as text, `group:NAME`,
    `group:GID`. An `app` or `script` that is empty is known: no program that has a path (a deleted file, the kernel
    itself), no script. `app_sha256` is 64 hex digits in small letters.
    """

    direction: Direction
    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None
    interface: str | None = None
    app: str | None = None
    app_sha256: str | None = None
    script: str | None = None
    users: frozenset[str] | None = None
    unit: str | None = None


def make_key(protocol: int, source: bytes, destination: bytes, tail: bytes) -> bytes:
    """The key of a packet. `tail` is the 4 bytes behind the addresses, see above."""
    if protocol == TCP:
        return source + destination + tail
    return bytes((protocol,)) + source + destination + tail


def split_key(key: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Protocol, source, destination and tail of a key."""
    protocol = TCP
    if len(key) & 1:
        protocol = key[0]
        key = key[1:]
    size = (len(key) - 4) // 2
    return protocol, key[:size], key[size:-4], key[-4:]


def reverse_key(key: bytes) -> bytes:
    """The key of the packets that answer."""
    front = len(key) & 1
    answered = _ANSWERED.get(key[0]) if front else None
    middle = front + (len(key) - 4) // 2
    if answered is None:
        return key[:front] + key[middle:-4] + key[front:middle] + key[-2:] + key[-4:-2]
    answer = bytes((answered.get(key[-2], key[-2]), key[-1]))
    return key[:front] + key[middle:-4] + key[front:middle] + key[-4:-2] + answer


def make_flow(
    protocol: int, source: bytes, destination: bytes, tail: bytes, direction: Direction, interface: str | None = None
) -> Flow:
    """The flow that a packet with a key of these parts starts."""
    source_port = port = icmp_type = None
    if protocol in PORT_PROTOCOLS:
        source_port, port = _PORTS.unpack(tail)
    elif protocol in _ANSWERED:
        icmp_type = tail[2]
    return Flow(
        direction=direction,
        protocol=protocol,
        source=source,
        destination=destination,
        source_port=source_port,
        port=port,
        icmp_type=icmp_type,
        interface=interface,
    )
