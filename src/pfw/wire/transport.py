"""Transport headers: ports, flags, lengths, and the 4 bytes behind the addresses in a flow's key.

TCP options are checked on packets with SYN alone: there they are negotiated, and no other packet is
worth the walk. `scan.py` does the same: change it with this.
"""

from __future__ import annotations

from struct import Struct

from pfw.model.flow import make_key
from pfw.model.packet import DCCP, ICMP, ICMPV6, SCTP, SYN, TCP, UDP, UDPLITE
from pfw.wire.draft import Draft
from pfw.wire.icmp import NO_TAIL, read_icmp

_TCP = Struct(">HH8xBB")
_UDP = Struct(">HHH")
_PORTS = Struct(">HH")

_END_OF_OPTIONS, _NO_OPERATION = 0, 1
_TCP_OPTION_SIZES = {2: 4, 3: 3, 4: 2, 8: 10, 14: 3, 19: 18}
"""Segment size, window scale, SACK permitted, timestamps, alternate checksum, MD5 signature."""

_PORT_HEADERS = {
    SCTP: (12, "decoder.sctp.pkt_too_small"),
    DCCP: (12, "decoder.dccp.pkt_too_small"),
    UDPLITE: (8, "decoder.udp.pkt_too_small"),
}
"""Bytes without which no packet of the protocol is whole, where only the ports are of interest."""


def read_transport(draft: Draft) -> None:
    """Read the header of `draft.protocol` at `draft.at` and set the key, unless the header forbids one."""
    protocol = draft.protocol or 0
    if protocol == TCP:
        _read_tcp(draft)
    elif protocol == UDP:
        _read_udp(draft)
    elif protocol in (ICMP, ICMPV6):
        read_icmp(draft, protocol)
    elif protocol in _PORT_HEADERS:
        if not draft.lacks(*_PORT_HEADERS[protocol]):
            draft.source_port, draft.port = _PORTS.unpack_from(draft.data, draft.at)
            _set_key(draft, protocol)
    else:
        draft.key = make_key(protocol, draft.source, draft.destination, NO_TAIL)


def _set_key(draft: Draft, protocol: int) -> None:
    draft.key = make_key(protocol, draft.source, draft.destination, draft.data[draft.at : draft.at + 4])


def _read_tcp(draft: Draft) -> None:
    """RFC 9293. What Linux refuses: nf_conntrack_proto_tcp.c, `tcp_error`."""
    if draft.lacks(20, "decoder.tcp.pkt_too_small"):
        return
    at = draft.at
    draft.source_port, draft.port, offset, draft.tcp_flags = _TCP.unpack_from(draft.data, at)
    header = (offset >> 4) * 4
    if header < 20:
        draft.refuse("decoder.tcp.hlen_too_small")
        return
    _set_key(draft, TCP)
    if at + header > draft.end:
        draft.note("decoder.tcp.invalid_optlen")
        draft.undecodable |= not draft.partial
    elif header > 20 and draft.tcp_flags & SYN and at + header <= len(draft.data):
        for anomaly in tcp_option_anomalies(draft.data[at + 20 : at + header]):
            draft.note(anomaly)


def tcp_option_anomalies(options: bytes | memoryview) -> list[str]:
    """What is wrong with the option bytes of a TCP header, at most 40 of them."""
    anomalies: list[str] = []
    at, end, seen = 0, len(options), 0
    while at < end:
        kind = options[at]
        if kind == _NO_OPERATION:
            at += 1
            continue
        if kind == _END_OF_OPTIONS:
            break
        size = options[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            anomalies.append("decoder.tcp.opt_invalid_len")
            break
        if _TCP_OPTION_SIZES.get(kind, size) != size:
            anomalies.append("decoder.tcp.opt_invalid_len")
        if seen >> kind & 1:
            anomalies.append("decoder.tcp.opt_duplicate")
        seen |= 1 << kind
        at += size
    return anomalies


def _read_udp(draft: Draft) -> None:
    """RFC 768. What Linux refuses: nf_conntrack_proto_udp.c, `udp_error`."""
    if draft.lacks(8, "decoder.udp.pkt_too_small"):
        return
    draft.source_port, draft.port, length = _UDP.unpack_from(draft.data, draft.at)
    there = draft.end - draft.at
    if length < 8:
        draft.refuse("decoder.udp.len_invalid")
        return
    if length > there and not draft.partial:
        draft.refuse("decoder.udp.pkt_too_small")
        return
    if length < there:
        draft.note("decoder.udp.hlen_invalid")
    _set_key(draft, UDP)
