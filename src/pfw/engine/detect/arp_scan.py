"""ARP scan: one host asks for many addresses of its network that nobody has; IPv6's neighbour solicitations alike.

Whoever is heard to send ARP of its own has its address, also where answers cannot be heard (a switch does not carry
them to all). So a server that wakes its clients is none, nor one that asks for a missing host again and again. A
gateway asks for whom others send to: it takes more. ARP proves nothing: nobody is banned for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.detector import Table
from pfw.model.address import format_address
from pfw.model.observation import Alert, ArpSeen, DhcpSeen, Kind, NeighbourSeen, RouterSeen

HOSTS_MAX = 1_024
HOSTS_S = 3600.0
RATES = ((10, 5.0), (20, 60.0), (50, 3600.0))
"""So many absent addresses within so many seconds. Slips takes 5 in 30 s, which a gateway reaches by itself."""
ASKED_MAX = 256
"""Absent addresses of one asker that are told apart; after that the oldest goes."""
PRESENT_MAX = 8_192
PRESENT_S = 4 * 3600.0
ANSWER_S = 1.0
"""So long an answer may take (Linux asks again after a second)."""
GATEWAY_FACTOR = 5
GATEWAY_ASKERS = 3
"""An address that so many others ask for may be a gateway's, as may the first and the last of a /24. One that DHCP or a
router advertisement names is a gateway, and asks for whom it likes: some look for all devices of the house."""
_GATEWAY_ENDINGS = (1, 254)
_GATEWAYS_MAX = 256
_REQUEST = 1
_NOBODY = (bytes(4), bytes(16))


class _Asker:
    __slots__ = ("absent", "address", "next_alert", "total")

    def __init__(self) -> None:
        self.absent: dict[bytes, float] = {}
        self.address: bytes | None = None
        self.total = 0
        self.next_alert = 0


class ArpScan:
    wants: tuple[type, ...] = (ArpSeen, NeighbourSeen, DhcpSeen, RouterSeen)

    def __init__(self, hosts_max: int = HOSTS_MAX) -> None:
        self._askers: Table[bytes, _Asker] = Table(hosts_max, HOSTS_S, _Asker)
        self._present: Table[bytes, bool] = Table(PRESENT_MAX, PRESENT_S, lambda: True)
        self._asked_by: Table[bytes, set[bytes]] = Table(PRESENT_MAX, HOSTS_S, set)
        self._gateways: set[bytes] = set()
        # Askers that may be judged once their questions had time to be answered: since when.
        self._waiting: dict[bytes, float] = {}

    @property
    def refused(self) -> int:
        return self._askers.refused

    def observe(self, seen: ArpSeen | NeighbourSeen | DhcpSeen | RouterSeen) -> Iterable[Alert]:
        match seen:
            case DhcpSeen():
                self._learn(seen.routers)
            case RouterSeen():
                self._learn((seen.source, *(() if seen.source_mac is None else (seen.source_mac,))))
            case ArpSeen():
                arp = seen.arp
                self._is_there(arp.sender, seen.time)
                to_all = seen.destination_mac is None or seen.destination_mac[0] & 1
                if arp.operation == _REQUEST and arp.target != arp.sender and to_all:
                    self._asked(seen.source_mac or arp.sender_mac, arp.sender, arp.target, seen.time)
            case NeighbourSeen():
                self._is_there(seen.target if seen.is_answer else seen.source, seen.time)
                if not seen.is_answer and seen.source_mac is not None and seen.destination[0] == 0xFF:
                    self._asked(seen.source_mac, seen.source, seen.target, seen.time)
        return list(self._judge(seen.time))

    def end(self, now: float) -> Iterable[Alert]:
        return list(self._judge(now, everything=True))

    def _learn(self, routers: Iterable[bytes]) -> None:
        for each in routers:
            if len(self._gateways) < _GATEWAYS_MAX:
                self._gateways.add(each)

    def _is_there(self, address: bytes, now: float) -> None:
        if address not in _NOBODY:
            self._present.get(address, now)

    def _asked(self, mac: bytes, address: bytes, target: bytes, now: float) -> None:
        askers = self._asked_by.get(target, now)
        if askers is not None and len(askers) < GATEWAY_ASKERS:
            askers.add(mac)
        if self._present.peek(target):
            return
        asker = self._askers.get(mac, now)
        if asker is None or target in asker.absent:
            return
        if address not in _NOBODY:
            asker.address = address
        asker.total += 1
        asker.absent[target] = now
        if len(asker.absent) > ASKED_MAX:
            del asker.absent[next(iter(asker.absent))]
        if len(asker.absent) >= RATES[0][0]:
            self._waiting.setdefault(mac, now)

    def _judge(self, now: float, *, everything: bool = False) -> Iterator[Alert]:
        while self._waiting:
            mac, since = next(iter(self._waiting.items()))
            if 0 <= now - since < ANSWER_S and not everything:
                return
            del self._waiting[mac]
            asker = self._askers.peek(mac)
            if asker is not None:
                yield from self._judge_one(mac, asker)

    def _judge_one(self, mac: bytes, asker: _Asker) -> Iterator[Alert]:
        for target in [each for each in asker.absent if self._present.peek(each)]:
            del asker.absent[target]
            asker.total -= 1
        if mac in self._gateways or asker.address in self._gateways:
            return
        factor = GATEWAY_FACTOR if self._may_be_gateway(mac, asker.address) else 1
        times = sorted(asker.absent.values())
        if asker.total < asker.next_alert or not any(_reached(times, many * factor, within) for many, within in RATES):
            return
        asker.next_alert = 2 * asker.total
        sender = "" if asker.address is None else f" as {format_address(asker.address)}"
        text = f"asked{sender} for {asker.total} addresses that nobody has in {lasted(times[0], times[-1])}, "
        text += f"{format_address(min(asker.absent))} to {format_address(max(asker.absent))}"
        if factor > 1:
            text += "; it may be the gateway, and somebody beyond it who sweeps this network"
        yield Alert(kind=Kind.ARP_SCAN, source=mac, target=None, first=times[0], last=times[-1],
                    score=50 if factor > 1 else min(95, 50 + 2 * asker.total), evidence=text)  # fmt: skip

    def _may_be_gateway(self, mac: bytes, address: bytes | None) -> bool:
        if address is None:
            return False
        if len(address) == 4 and address[3] in _GATEWAY_ENDINGS:
            return True
        return len((self._asked_by.peek(address) or set()) - {mac}) >= GATEWAY_ASKERS


def _reached(times: list[float], many: int, within_s: float) -> bool:
    return any(last - first <= within_s for first, last in zip(times, times[many - 1 :], strict=False))
