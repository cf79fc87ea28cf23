"""What single packets are a sign of, whatever connections there are: ARP, faults, fragments, rare protocols, errors.

`Watch` has it for captures, `daemon/special_packets.py` for the wire, where connections come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from pfw.engine.detect.fragments import GAP, FragmentWatch
from pfw.model.observation import ArpSeen, Observation, Odd, ProtocolTried, Reply, link_of
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP, Packet

TRIED_MAX = 16_384
TRIED_S = 600.0

_UNREACHABLE = {ICMP: 3, ICMPV6: 1}
_EXPIRED = {ICMP: 11, ICMPV6: 3}
_PORT_CODES = {(ICMP, 3), (ICMPV6, 4)}
_TOO_BIG = (ICMP, 4)
_KNOWN = frozenset({TCP, UDP, ICMP, ICMPV6})


class Quoted(Struct, frozen=True, gc=False):
    """An ICMP error that says how a packet was met: `key` is that packet's flow key, as it was sent, `source` who says
    so. Whoever sees the packet can make such an error up."""

    time: float
    key: bytes
    source: bytes
    reply: Reply


def quoted(packet: Packet, time: float) -> Quoted | None:
    """What an ICMP error says of the packet that it quotes; None for one that says nothing of how it was met."""
    protocol, kind, code = packet.protocol or 0, packet.icmp_type, packet.icmp_code
    if packet.quoted_key is None or packet.source is None or kind is None:
        return None
    if kind == _UNREACHABLE.get(protocol) and (protocol, code) != _TOO_BIG:
        reply = Reply.REFUSED if (protocol, code) in _PORT_CODES else Reply.FORBIDDEN
    elif kind == _EXPIRED.get(protocol):
        reply = Reply.EXPIRED
    else:
        return None
    return Quoted(time, packet.quoted_key, packet.source, reply)


class Specials:
    """Follows fragments, and remembers which protocols were tried."""

    def __init__(self) -> None:
        self._fragments = FragmentWatch()
        self._tried: dict[tuple[bytes, bytes, int], float] = {}

    def packet(self, packet: Packet, time: float, interface: str | None = None) -> Iterator[Observation]:
        """What a packet is a sign of by itself; `quoted` tells what it says of another one."""
        if packet.arp is not None:
            link = link_of(interface, packet.vlans)
            yield ArpSeen(time, packet.source_mac, packet.destination_mac, packet.arp, link)
        if packet.anomalies:
            is_fragment = packet.fragment is not None
            yield Odd(time, packet.source, packet.destination, packet.protocol, packet.anomalies, is_fragment)
        if packet.protocol is None or packet.source is None or packet.destination is None:
            return
        if packet.fragment is not None:
            names = self._fragments.follow(packet, time)
            if names:
                yield Odd(time, packet.source, packet.destination, packet.protocol, names, is_fragment=True)
        if packet.protocol not in _KNOWN:
            yield from self._tried_protocol(packet.source, packet.destination, packet.protocol, time)

    def gaps(self, now: float, *, is_end: bool = False) -> list[Observation]:
        """From time to time, and at the end: which datagrams have holes that stayed."""
        found = self._fragments.gaps(None if is_end else now)
        return [Odd(now, *ends, (GAP,), is_fragment=True) for ends in found]

    def _tried_protocol(self, source: bytes, destination: bytes, protocol: int, time: float) -> Iterator[Observation]:
        tried = (source, destination, protocol)
        before = self._tried.pop(tried, None)
        if before is None and len(self._tried) >= TRIED_MAX:
            del self._tried[next(iter(self._tried))]
        if before is None or time - before > TRIED_S:
            yield ProtocolTried(time, source, destination, protocol)
        self._tried[tried] = time
