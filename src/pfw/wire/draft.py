"""A packet while it is being decoded: where the reader stands, how far the packet goes, what is known.

Two ends are kept apart. `end` is where the packet ends on the wire, and shrinks as length fields are
read; `len(data)` is how much of it was captured. A header behind the first is a lie of the sender, a
header behind the second is the capture's limit and no fault of the packet: `lacks` tells which.
"""

from __future__ import annotations

from pfw.model.packet import Arp, Fragment, Packet

SNAPPED = "capture.snapped"


class Draft:
    """The fields of a `Packet`, still open. `at` is the next byte to read, an offset into `data`."""

    __slots__ = (
        "anomalies", "arp", "at", "data", "destination", "destination_mac", "end", "fragment", "icmp_code", "icmp_type",
        "key", "not_ip", "partial", "port", "protocol", "quoted_key", "source", "source_mac", "source_port",
        "tcp_flags", "ttl", "undecodable", "vlans",
    )  # fmt: skip

    def __init__(self, data: bytes, size: int, at: int = 0) -> None:
        self.data = data
        self.at = at
        self.end = max(size, len(data))
        self.partial = False
        """True in a first fragment: what is missing follows in the next ones."""
        self.key: bytes | None = None
        self.not_ip: str | None = None
        self.undecodable = False
        self.vlans: tuple[int, ...] = ()
        self.source_mac: bytes | None = None
        self.destination_mac: bytes | None = None
        self.protocol: int | None = None
        self.source = b""
        self.destination = b""
        self.source_port: int | None = None
        self.port: int | None = None
        self.ttl: int | None = None
        self.tcp_flags = 0
        self.icmp_type: int | None = None
        self.icmp_code: int | None = None
        self.fragment: Fragment | None = None
        self.quoted_key: bytes | None = None
        self.arp: Arp | None = None
        self.anomalies: tuple[str, ...] = ()

    def note(self, anomaly: str) -> None:
        """Something is wrong that does not keep the packet from being judged."""
        if anomaly not in self.anomalies:
            self.anomalies += (anomaly,)

    def refuse(self, anomaly: str) -> None:
        """Something is so wrong that connection tracking would not take the packet."""
        self.note(anomaly)
        self.undecodable = True

    def lacks(self, count: int, anomaly: str) -> bool:
        """Whether the next `count` bytes are not all there; then the reason has been noted."""
        stop = self.at + count
        if stop > self.end:
            self.note(anomaly)
            self.undecodable |= not self.partial
            return True
        if stop > len(self.data):
            self.refuse(SNAPPED)
            return True
        return False

    def finish(self) -> Packet:
        return Packet(
            None if self.undecodable else self.key,
            self.not_ip,
            self.undecodable,
            self.vlans,
            self.source_mac,
            self.destination_mac,
            self.protocol,
            self.source or None,
            self.destination or None,
            self.source_port,
            self.port,
            self.ttl,
            self.tcp_flags,
            self.icmp_type,
            self.icmp_code,
            self.fragment,
            self.quoted_key,
            self.arp,
            self.anomalies,
        )
