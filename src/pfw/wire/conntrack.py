"""Connections as the kernel tracks them (ctnetlink): listing, ending and making entries.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h. An entry has two
tuples: the original one, of the packets of the side that began, and the one by which replies are known, which is not
its mirror image where addresses are translated.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.model.packet import ICMP, ICMPV6, TCP
from pfw.wire.error import WireError
from pfw.wire.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attributes,
    nested,
)
from pfw.wire.nfnetlink import (
    CONNTRACK,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFPROTO_UNSPEC,
    message_type,
    question,
    read_number,
    split,
    write_number,
)

IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED = 1 << 1, 1 << 2, 1 << 3
IPS_SRC_NAT, IPS_DST_NAT = 1 << 4, 1 << 5
TCP_ESTABLISHED = 3
"""enum tcp_conntrack, which is not the numbering of sockets' states."""

_NEW, _GET, _DELETE = 0, 1, 2
ENTRY = message_type(CONNTRACK, _NEW)

_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK = 1, 2, 3, 4, 7, 8
_COUNTERS, _REPLY_COUNTERS, _ID, _ZONE = 9, 10, 12, 18
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE = 1, 2, 3
_ADDRESSES = {4: (1, 2), 16: (3, 4)}
"""By the size of an address: the attributes of source and destination."""
_PROTO_NUMBER, _SOURCE_PORT, _PORT = 1, 2, 3
_ICMP_PARTS = {ICMP: (4, 5, 6), ICMPV6: (7, 8, 9)}
"""The attributes of identifier, type and code."""
_PACKETS, _BYTES = 1, 2
_PROTOINFO_TCP = 1
_TCP_STATE, _TCP_FLAGS, _TCP_REPLY_FLAGS = 1, 4, 5
_STATE_FIRST = Layout("=HHH").pack(_PROTOINFO_TCP | NLA_F_NESTED, 5, _TCP_STATE)
"""How the kernel begins what it tells of TCP, behind the first length."""
_LIBERAL = bytes((0x08, 0x08))
"""IP_CT_TCP_FLAG_BE_LIBERAL as value and mask: windows and sequence numbers, which nobody has followed so far, are not
checked."""

_TCP_TIMEOUT_S = 432_000
_TIMEOUT_S = 120
"""What the kernel gives to a connection that is assured, TCP and UDP (nf_conntrack_tcp_timeout_established,
nf_conntrack_udp_timeout_stream). With its next packet an entry has what the system is set to."""

_PLAIN = {
    48: Layout(">4s4s4s4s4s4s4sB3x4sH2x4sH2x"),
    72: Layout(">4s4s16s4s16s4s4sB3x4sH2x4sH2x"),
}
_PLAIN_HEADERS = {
    size: tuple(Layout("=HH").pack(*pair) for pair in headers)
    for size, headers in (
        (48, ((20, 0x8001), (8, 1), (8, 2), (28, 0x8002), (5, 1), (6, 2), (6, 3))),
        (72, ((44, 0x8001), (20, 3), (20, 4), (28, 0x8002), (5, 1), (6, 2), (6, 3))),
    )
}
"""A tuple with ports as the kernel writes it, for IPv4 and IPv6: how to read it at once, and the headers in it."""


class Tuple(Struct, frozen=True, gc=False):
    """One direction of a connection: addresses packed, None for what the protocol does not have."""

    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    icmp_id: int | None = None
    zone: int = 0


class Entry(Struct, frozen=True, gc=False):
    """A connection that the kernel tracks: its original tuple, how its replies are known, and how it stands.

    `status` is made of the IPS_* bits. The counters are there where the system counts (nf_conntrack_acct).
    """

    protocol: int
    source: bytes
    destination: bytes
    source_port: int | None
    port: int | None
    icmp_type: int | None
    icmp_code: int | None
    icmp_id: int | None
    reply_source: bytes
    reply_destination: bytes
    reply_source_port: int | None
    reply_port: int | None
    status: int = 0
    mark: int = 0
    zone: int = 0
    id: int = 0
    tcp_state: int | None = None
    timeout_s: int | None = None
    packets: int | None = None
    bytes: int | None = None
    reply_packets: int | None = None
    reply_bytes: int | None = None


def dump_request() -> bytes:
    """Ask for the entries of both families."""
    return question(CONNTRACK, _GET, NFPROTO_UNSPEC, flags=NLM_F_REQUEST | NLM_F_DUMP)


def entry(body: memoryview) -> Entry:
    """Read one entry. Raises WireError for what does not fit."""
    found = dict(attributes(split(body)[2]))
    original, reply = found.get(_ORIGINAL), found.get(_REPLY)
    if original is None or reply is None:
        raise WireError("conntrack entry without its tuples")
    forth, back = read_tuple(original), read_tuple(reply)
    info = found.get(_PROTOINFO)
    packets, size = _counters(found.get(_COUNTERS))
    reply_packets, reply_size = _counters(found.get(_REPLY_COUNTERS))
    return Entry(
        forth.protocol,
        forth.source,
        forth.destination,
        forth.source_port,
        forth.port,
        forth.icmp_type,
        forth.icmp_code,
        forth.icmp_id,
        back.source,
        back.destination,
        back.source_port,
        back.port,
        _number(found.get(_STATUS)),
        _number(found.get(_MARK)),
        _number(found.get(_ZONE)) or forth.zone,
        _number(found.get(_ID)),
        None if info is None else _tcp_state(info),
        read_number(found[_TIMEOUT]) if _TIMEOUT in found else None,
        packets,
        size,
        reply_packets,
        reply_size,
    )


def read_tuple(value: memoryview) -> Tuple:
    """Read one direction. Raises WireError for what does not fit."""
    layout = _PLAIN.get(len(value))
    if layout is not None:
        first, second, source, third, destination, fourth, fifth, protocol, sixth, source_port, seventh, port = (
            layout.unpack(value)
        )
        if (first, second, third, fourth, fifth, sixth, seventh) == _PLAIN_HEADERS[len(value)]:
            return Tuple(protocol, source, destination, source_port, port)
    return _read_any_tuple(value)


def _read_any_tuple(value: memoryview) -> Tuple:
    found = dict(attributes(value))
    if _TUPLE_IP not in found or _TUPLE_PROTO not in found:
        raise WireError("conntrack tuple without addresses or protocol")
    addresses = dict(attributes(found[_TUPLE_IP]))
    for size, (source, destination) in _ADDRESSES.items():
        if source in addresses and destination in addresses:
            pair = bytes(addresses[source]), bytes(addresses[destination])
            if {len(each) for each in pair} != {size}:
                raise WireError("conntrack tuple with addresses of a wrong size")
            break
    else:
        raise WireError("conntrack tuple without addresses")
    parts = {kind: read_number(part) for kind, part in attributes(found[_TUPLE_PROTO]) if kind <= 9}
    protocol = parts.get(_PROTO_NUMBER, 0)
    identifier, kind, code = _ICMP_PARTS.get(protocol, (-1, -1, -1))
    return Tuple(
        protocol,
        *pair,
        parts.get(_SOURCE_PORT),
        parts.get(_PORT),
        parts.get(kind),
        parts.get(code),
        parts.get(identifier),
        read_number(found[_TUPLE_ZONE]) if _TUPLE_ZONE in found else 0,
    )


def write_tuple(kind: int, values: Tuple) -> bytes:
    """The attribute for one direction. Raises ValueError for addresses that are none."""
    if len(values.source) not in _ADDRESSES or len(values.source) != len(values.destination):
        raise ValueError("addresses of 4 or of 16 bytes are expected, both of one family")
    source, destination = _ADDRESSES[len(values.source)]
    parts = [attribute(_PROTO_NUMBER, bytes((values.protocol,)))]
    sized = [(_SOURCE_PORT, values.source_port, 2), (_PORT, values.port, 2)]
    if values.protocol in _ICMP_PARTS:
        identifier, icmp_type, code = _ICMP_PARTS[values.protocol]
        sized = [(identifier, values.icmp_id, 2), (icmp_type, values.icmp_type, 1), (code, values.icmp_code, 1)]
    parts += [attribute(each, value.to_bytes(size, "big")) for each, value, size in sized if value is not None]
    ends = attribute(source, values.source), attribute(destination, values.destination)
    return nested(kind, nested(_TUPLE_IP, *ends), nested(_TUPLE_PROTO, *parts))


def get_request(forth: Tuple, sequence: int) -> bytes:
    """Ask for the entry of a connection by its original tuple. The answer is the entry; an error where it has gone."""
    members = write_tuple(_ORIGINAL, forth)
    return question(CONNTRACK, _GET, _family(forth.source), members, NLM_F_REQUEST, sequence)


def delete_request(known: Entry, sequence: int) -> bytes:
    """Ask to forget exactly this connection: a later one between the same ends has another id."""
    forth = Tuple(
        known.protocol,
        known.source,
        known.destination,
        known.source_port,
        known.port,
        known.icmp_type,
        known.icmp_code,
        known.icmp_id,
    )
    members = write_tuple(_ORIGINAL, forth) + write_number(_ID, known.id)
    if known.zone:
        members += attribute(_ZONE, known.zone.to_bytes(2, "big"))
    return question(CONNTRACK, _DELETE, _family(known.source), members, NLM_F_REQUEST | NLM_F_ACK, sequence)


def create_request(forth: Tuple, sequence: int) -> bytes:
    """Ask to track a connection that is open already, as if its beginning had been seen. EEXIST if it is tracked."""
    back = Tuple(forth.protocol, forth.destination, forth.source, forth.port, forth.source_port)
    members = [
        write_tuple(_ORIGINAL, forth),
        write_tuple(_REPLY, back),
        write_number(_STATUS, IPS_CONFIRMED | IPS_SEEN_REPLY | IPS_ASSURED),
        write_number(_TIMEOUT, _TCP_TIMEOUT_S if forth.protocol == TCP else _TIMEOUT_S),
    ]
    if forth.protocol == TCP:
        state = attribute(_TCP_STATE, bytes((TCP_ESTABLISHED,)))
        liberal = attribute(_TCP_FLAGS, _LIBERAL) + attribute(_TCP_REPLY_FLAGS, _LIBERAL)
        members.append(nested(_PROTOINFO, nested(_PROTOINFO_TCP, state, liberal)))
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return question(CONNTRACK, _NEW, _family(forth.source), b"".join(members), flags, sequence)


def _family(address: bytes) -> int:
    return NFPROTO_IPV4 if len(address) == 4 else NFPROTO_IPV6


def _number(value: memoryview | None) -> int:
    return 0 if value is None else read_number(value)


def _tcp_state(info: memoryview) -> int | None:
    if info[2:8] == _STATE_FIRST and len(info) > 8:
        return info[8]
    for kind, value in attributes(info):
        if kind == _PROTOINFO_TCP:
            for part, state in attributes(value):
                if part == _TCP_STATE and len(state) == 1:
                    return state[0]
    return None


def _counters(value: memoryview | None) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    found = dict(attributes(value))
    packets, size = found.get(_PACKETS), found.get(_BYTES)
    return None if packets is None else read_number(packets), None if size is None else read_number(size)
