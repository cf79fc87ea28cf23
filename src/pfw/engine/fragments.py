"""Fragments: which connection a later fragment belongs to.

The kernel puts datagrams together before it tracks or filters them; here nothing is put together, the
later fragments only follow the first one, which has the ports. Both families, by (source, destination,
protocol, identification), RFC 791 and RFC 8200. Times in seconds.
"""

from __future__ import annotations

from pfw.model.packet import Packet

DATAGRAMS_MAX = 4096
FRAGMENT_TIMEOUT_S = 30.0
"""net.ipv4.ipfrag_time's default; IPv6's is 60."""

DatagramKey = tuple[bytes, bytes, int, int]


class _Datagram:
    __slots__ = ("bytes", "key", "packets", "time")

    def __init__(self, time: float) -> None:
        self.time = time
        self.key: bytes | None = None
        self.packets = 0
        self.bytes = 0


class Fragments:
    """Datagrams that are under way, at most DATAGRAMS_MAX."""

    def __init__(self) -> None:
        self._datagrams: dict[DatagramKey, _Datagram] = {}
        self.lost_packets = 0
        self.lost_bytes = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """Packets and bytes of later fragments whose first one has not come (yet), lost ones with them."""
        packets, size = self.lost_packets, self.lost_bytes
        for datagram in self._datagrams.values():
            packets += datagram.packets
            size += datagram.bytes
        return packets, size

    def follow(self, packet: Packet, time: float, size: int) -> tuple[bytes | None, tuple[int, int]]:
        """The flow key of this fragment's datagram, and packets and bytes of fragments that waited for it.

        Without a key the first fragment has not come: then this one, counted here, waits.
        """
        datagram = self._datagram(packet, time)
        if packet.key is not None:
            datagram.key = packet.key
        if datagram.key is None:
            datagram.packets += 1
            datagram.bytes += size
            return None, (0, 0)
        early = datagram.packets, datagram.bytes
        datagram.packets = datagram.bytes = 0
        return datagram.key, early

    def _datagram(self, packet: Packet, time: float) -> _Datagram:
        assert packet.fragment is not None
        assert packet.source is not None
        assert packet.destination is not None
        assert packet.protocol is not None
        key = (packet.source, packet.destination, packet.protocol, packet.fragment.ident)
        datagram = self._datagrams.pop(key, None)
        if datagram is None or time - datagram.time > FRAGMENT_TIMEOUT_S:
            if datagram is not None:
                self._lose(datagram)
            if len(self._datagrams) >= DATAGRAMS_MAX:
                self._lose(self._datagrams.pop(next(iter(self._datagrams))))
            datagram = _Datagram(time)
        datagram.time = time
        self._datagrams[key] = datagram
        return datagram

    def _lose(self, datagram: _Datagram) -> None:
        self.lost_packets += datagram.packets
        self.lost_bytes += datagram.bytes
