"""One host tries many IP protocols of another (`nmap -sO`): what a port scan is for TCP and UDP, and told of as one."""

from __future__ import annotations

from collections.abc import Iterator

from pfw.engine.detect.contacts import Pace, lasted
from pfw.engine.detect.detector import Table
from pfw.model.address import format_address
from pfw.model.observation import Alert, Kind, ProtocolTried
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS

PROTOCOLS, PROTOCOLS_S = 5, 60.0
"""psad's PROTOCOL_SCAN_THRESHOLD. IPsec, tunnels and SCTP between two hosts are fewer."""
SLOW_PROTOCOLS, SLOW_S = 10, 3600.0
PAIRS_MAX = 4_096
PAIRS_S = 4 * 3600.0


class _Protocols:
    """Which other IP protocols one host tried of another."""

    __slots__ = ("first", "last", "next_alert", "pace", "told", "tried")

    def __init__(self) -> None:
        self.tried: set[int] = set()
        self.pace = Pace(SLOW_PROTOCOLS)
        self.first = self.last = 0.0
        self.next_alert = self.told = 0

    def add(self, seen: ProtocolTried) -> None:
        self.tried.add(seen.protocol)
        self.pace.add(seen.time)
        self.first = min(self.first or seen.time, seen.time)
        self.last = max(self.last, seen.time)


class IpProtocols:
    """Told of every protocol that was tried of a host, but of none that has ports."""

    def __init__(self) -> None:
        self._pairs: Table[tuple[bytes, bytes], _Protocols] = Table(
            PAIRS_MAX, PAIRS_S, _Protocols, may_go=lambda found: not found.told
        )

    @property
    def refused(self) -> int:
        return self._pairs.refused + self._pairs.let_go

    def observe(self, seen: ProtocolTried) -> Iterator[Alert]:
        if seen.protocol in PORT_PROTOCOLS or seen.protocol in (ICMP, ICMPV6):
            return
        found = self._pairs.get((seen.source, seen.destination), seen.time)
        if found is None or seen.protocol in found.tried:
            return
        found.add(seen)
        many = found.pace.reached(PROTOCOLS, PROTOCOLS_S) or found.pace.reached(SLOW_PROTOCOLS, SLOW_S)
        if len(found.tried) >= found.next_alert and (many or found.told):
            yield _alert((seen.source, seen.destination), found)

    def end(self) -> list[Alert]:
        """How far those have come that were told of."""
        return [_alert(ends, found) for ends, found in self._pairs.items() if 0 < found.told < len(found.tried)]


def _alert(ends: tuple[bytes, bytes], found: _Protocols) -> Alert:
    count = found.told = len(found.tried)
    found.next_alert = 2 * count
    text = f"tried {count} IP protocols of {format_address(ends[1])} in {lasted(found.first, found.last)}"
    return Alert(kind=Kind.PORT_SCAN, source=ends[0], target=ends[1], first=found.first, last=found.last,
                 score=min(95, 45 + 5 * count), evidence=text)  # fmt: skip
