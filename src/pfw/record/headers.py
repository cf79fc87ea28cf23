"""The header fields that a record shows of a packet: where its IP begins, and what IP and above say.

For records only, after the verdict: what is here decides nothing. It never raises; what is cut off or
broken is left out.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.model.command import Frame
from pfw.model.packet import ACK, AH, FIN, ICMP, ICMPV6, PORT_PROTOCOLS, PSH, RST, SYN, TCP, UDP, URG

# Link types of the LINKTYPE_ registry (tcpdump.org/linktypes.html).
NULL, ETHERNET, RAW_BSD, RAW_OPENBSD, RAW = 0, 1, 12, 14, 101
LOOP, LINUX_SLL, IPV4, IPV6, LINUX_SLL2 = 108, 113, 228, 229, 276
_IP_BEGINS = {NULL: 4, LOOP: 4, RAW_BSD: 0, RAW_OPENBSD: 0, RAW: 0, IPV4: 0, IPV6: 0}
_ETHERTYPE_AT = {ETHERNET: 12, LINUX_SLL: 14}
_VLAN_TYPES = frozenset({0x8100, 0x88A8, 0x9100})
_IP_TYPES = frozenset({0x0800, 0x86DD})
_MOST_VLANS = 4
_MOST_EXTENSIONS = 16
_FRAGMENT = 44
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, AH, 60, 135, 139, 140})

_WORD = Layout(">H")
_IPV4 = Layout(">BBHHHBBH4s4s")
_IPV6 = Layout(">IHBB16s16s")
_TCP = Layout(">HHIIBBHHH")
_UDP = Layout(">HHHH")
_ICMP = Layout(">BBHHH")


class Headers(Struct, frozen=True):
    """Addresses, ports and ICMP type of one packet, and the rest in `fields` by the names of EVE's `drop`."""

    source: bytes
    destination: bytes
    protocol: int
    fields: dict[str, int | bool]
    source_port: int | None = None
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None


def read_headers(frame: Frame) -> Headers | None:
    """None where there is no whole IP header."""
    at = _ip_begins(frame)
    data = frame.data
    if at is None or at >= len(data):
        return None
    version = data[at] >> 4
    if version == 4 and len(data) >= at + 20:
        return _read_ipv4(data, at)
    if version == 6 and len(data) >= at + 40:
        return _read_ipv6(data, at)
    return None


def _ip_begins(frame: Frame) -> int | None:
    data = frame.data
    if frame.linktype == LINUX_SLL2:
        return 20 if data[:2] in (b"\x08\x00", b"\x86\xdd") else None
    at = _ETHERTYPE_AT.get(frame.linktype)
    if at is None:
        return _IP_BEGINS.get(frame.linktype)
    for _ in range(_MOST_VLANS + 1):
        if len(data) < at + 2:
            return None
        (ethertype,) = _WORD.unpack_from(data, at)
        if ethertype in _IP_TYPES:
            return at + 2
        if ethertype not in _VLAN_TYPES:
            return None
        at += 4
    return None


def _read_ipv4(data: bytes, at: int) -> Headers:
    first, tos, length, ident, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(data, at)
    fields: dict[str, int | bool] = {"len": length, "tos": tos, "ttl": ttl, "ipid": ident}
    later = bool(fragment & 0x1FFF)
    return _read_transport(data, None if later else at + (first & 15) * 4, source, destination, protocol, fields)


def _read_ipv6(data: bytes, at: int) -> Headers:
    first, length, protocol, hop_limit, source, destination = _IPV6.unpack_from(data, at)
    fields: dict[str, int | bool] = {
        "len": length,
        "tc": first >> 20 & 0xFF,
        "hoplimit": hop_limit,
        "flowlbl": first & 0xFFFFF,
    }
    at += 40
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS or len(data) < at + 8:
            break
        if protocol == _FRAGMENT and _WORD.unpack_from(data, at + 2)[0] & 0xFFF8:
            return _read_transport(data, None, source, destination, data[at], fields)
        size = 8 if protocol == _FRAGMENT else (data[at + 1] + 2) * 4 if protocol == AH else (data[at + 1] + 1) * 8
        protocol = data[at]
        at += size
    return _read_transport(data, at, source, destination, protocol, fields)


def _read_transport(
    data: bytes, at: int | None, source: bytes, destination: bytes, protocol: int, fields: dict[str, int | bool]
) -> Headers:
    """`at` is None where this packet does not hold the transport header, being a later fragment."""
    left = 0 if at is None else len(data) - at
    at = at or 0
    source_port = port = icmp_type = icmp_code = None
    if protocol in PORT_PROTOCOLS and left >= 4:
        source_port, port = _WORD.unpack_from(data, at)[0], _WORD.unpack_from(data, at + 2)[0]
    if protocol == TCP and left >= 20:
        fields |= _tcp_fields(data, at)
    elif protocol == UDP and left >= 8:
        fields["udplen"] = _UDP.unpack_from(data, at)[2]
    elif protocol in (ICMP, ICMPV6) and left >= 8:
        icmp_type, icmp_code, _, ident, sequence = _ICMP.unpack_from(data, at)
        if icmp_type in (0, 8, 128, 129):
            fields |= {"icmp_id": ident, "icmp_seq": sequence}
    return Headers(source, destination, protocol, fields, source_port, port, icmp_type, icmp_code)


def _tcp_fields(data: bytes, at: int) -> dict[str, int | bool]:
    _, _, sequence, acknowledged, offset, flags, window, _, urgent = _TCP.unpack_from(data, at)
    return {
        "tcpseq": sequence,
        "tcpack": acknowledged,
        "tcpwin": window,
        "syn": bool(flags & SYN),
        "ack": bool(flags & ACK),
        "psh": bool(flags & PSH),
        "rst": bool(flags & RST),
        "urg": bool(flags & URG),
        "fin": bool(flags & FIN),
        "tcpres": offset & 15,
        "tcpurgp": urgent,
    }
