"""The fast way through packets: `Item`s for the engine, nearly all without a `Packet` being made.

The plain packet (TCP or UDP behind an IPv4 header without options or an IPv6 header without extensions,
not a fragment, with lengths that fit) is read with one or two `unpack_from`; everything else goes to
`decode`. The rule is one-sided and so easy to keep: the fast way may leave a packet to `decode`, but
what it takes `decode` must find in order.
"""

from __future__ import annotations

import struct
from struct import Struct

from pfw.model.event import Item, Source
from pfw.model.packet import SYN, TCP, UDP
from pfw.wire.link import ETHERNET, LINUX_SLL, RAW_LINKTYPES
from pfw.wire.packet import decode, in_order
from pfw.wire.transport import tcp_option_anomalies

Buffer = bytes | memoryview

Frame = tuple[float, int, int, int]
"""Time (s since 1970), where the frame begins and ends in the buffer, its size on the wire (bytes)."""

# With the EtherType (Ethernet, SLL) or without: version, total length, fragment field, protocol, addresses
# with ports, and where TCP has its data offset and its flags.
_TYPED = Struct(">3sxHxxHxB2x12s8xBB")
_BARE = Struct(">sxHxxHxB2x12s8xBB")
_IPV6 = Struct(">HBx36sH6xBB")
"""From the payload length on: that, next header, addresses with ports, UDP length, TCP offset and flags."""
_LENGTH = Struct(">H")

_LINUX_SYN = Struct("2s2x4s8x3sx")
_LINUX_SYN_OPTIONS = (b"\x02\x04", b"\x04\x02\x08\x0a", b"\x01\x03\x03")
"""What nearly every SYN of Linux has: segment size, selective acknowledgement, timestamps, window scale."""

_Heads = tuple[bytes, frozenset[bytes]]
"""How a plain IPv4 packet begins in a layout, and how an IPv6 packet may."""
_VERSIONS_6 = tuple(bytes((first,)) for first in range(0x60, 0x70))
_TYPED_HEADS: _Heads = (b"\x08\x00E", frozenset(b"\x86\xdd" + version for version in _VERSIONS_6))
_BARE_HEADS: _Heads = (b"E", frozenset(_VERSIONS_6))

_NEVER = 1 << 30
_TCP_BYTES = tuple((offset >> 4) * 4 if offset >= 0x50 else _NEVER for offset in range(256))
"""The fewest bytes of a TCP segment by the byte that holds its data offset."""
_IPV4_TCP_BYTES = tuple(size + 20 for size in _TCP_BYTES)


def scan(source: Source, buffer: Buffer, frames: list[Frame]) -> list[Item]:
    """The items of frames, in their order. The item's packet is None exactly when `in_order`."""
    linktype = source.linktype
    if linktype == ETHERNET:
        return _scan(linktype, 14, _TYPED, _TYPED_HEADS, buffer, frames)
    if linktype == LINUX_SLL:
        return _scan(linktype, 16, _TYPED, _TYPED_HEADS, buffer, frames)
    if linktype in RAW_LINKTYPES:
        return _scan(linktype, 0, _BARE, _BARE_HEADS, buffer, frames)
    return [_decoded(linktype, buffer, *frame) for frame in frames]


def _syn_in_order(buffer: bytes | memoryview, at: int, offset: int, end: int) -> bool:
    """Whether the options of a SYN, which begin here, are all there and nothing is wrong with them."""
    last = at + (offset >> 4) * 4 - 20
    if last > end:
        return False
    if last - at == _LINUX_SYN.size and _LINUX_SYN.unpack_from(buffer, at) == _LINUX_SYN_OPTIONS:
        return True
    return not tcp_option_anomalies(buffer[at:last])


def _decoded(linktype: int, buffer: Buffer, time: float, at: int, end: int, size: int) -> Item:
    packet = decode(linktype, buffer[at:end], size)
    return packet.key, time, size, packet.tcp_flags, at, end, None if in_order(packet) else packet


def _scan(linktype: int, link: int, layout: Struct, heads: _Heads, buffer: Buffer, frames: list[Frame]) -> list[Item]:
    """The loop that every packet passes, one function because a call costs half as much as all of it.

    `link` is the bytes of the link header. Where a layout reaches beyond the buffer `decode` takes the packet.
    """
    items: list[Item] = []
    add = items.append
    unpack, unpack_ipv6, unpack_length = layout.unpack_from, _IPV6.unpack_from, _LENGTH.unpack_from
    ipv4_head, ipv6_heads = heads
    ipv4_tcp_bytes, tcp_bytes = _IPV4_TCP_BYTES, _TCP_BYTES
    start, udp = link + 1 - len(ipv4_head), link + 24
    tcp4, udp4, tcp6, udp6 = link + 40, link + 28, link + 60, link + 48
    for time, at, end, size in frames:
        try:
            head, length, fragment, protocol, key, offset, flags = unpack(buffer, at + start)
            if head == ipv4_head and not fragment & 0x3FFF and length <= size - link:
                if protocol == TCP:
                    fits = ipv4_tcp_bytes[offset] <= length and at + tcp4 <= end
                    if fits and (not flags & SYN or _syn_in_order(buffer, at + tcp4, offset, end)):
                        add((key, time, size, flags, at, end, None))
                        continue
                elif protocol == UDP and at + udp4 <= end and 28 <= length == unpack_length(buffer, at + udp)[0] + 20:
                    add((b"\x11" + key, time, size, 0, at, end, None))
                    continue
            elif head in ipv6_heads:
                length, protocol, key, udp_length, offset, flags = unpack_ipv6(buffer, at + link + 4)
                if length > size - link - 40:
                    pass
                elif protocol == TCP:
                    fits = tcp_bytes[offset] <= length and at + tcp6 <= end
                    if fits and (not flags & SYN or _syn_in_order(buffer, at + tcp6, offset, end)):
                        add((key, time, size, flags, at, end, None))
                        continue
                elif protocol == UDP and 8 <= length == udp_length and at + udp6 <= end:
                    add((b"\x11" + key, time, size, 0, at, end, None))
                    continue
        except struct.error:
            pass
        add(_decoded(linktype, buffer, time, at, end, size))
    return items
