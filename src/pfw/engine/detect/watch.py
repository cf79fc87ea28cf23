"""From packets to observations: which connections begin, how they are met, how they end, what belongs to none.

A connection is known by its flow key (`model/flow.py`). For a packet of a known one that changes nothing there is a
look-up and some additions. The table is bounded: what is over or was never answered makes room, oldest first, and where
there is none a new connection is not followed, and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct as Layout

from pfw.engine.detect.connection import BUSY_PACKETS, Connection, ended
from pfw.engine.detect.fragments import GAP, FragmentWatch
from pfw.model.event import Item
from pfw.model.flow import reverse_key, split_key
from pfw.model.observation import ArpSeen, Began, Confirmed, Met, Observation, Odd, ProtocolTried, Reply, Stray
from pfw.model.packet import ACK, FIN, ICMP, ICMPV6, PORT_PROTOCOLS, RST, SYN, TCP, UDP, Packet

Numbers = Callable[[Item], tuple[int, int] | None]
"""The sequence and acknowledgement numbers of a TCP packet; None where the capture does not have them."""

CONNECTIONS_MAX = 65_536
SILENCE_S = 3.0
"""So long nobody answers a first packet, and it counts as met with silence."""
IDLE_S = {TCP: 3600.0, UDP: 60.0}
"""Of those that were answered; a UDP service that has more to say says it within the kernel's own time, 30 to 120 s."""
_IDLE_OTHER_S = 30.0
UNANSWERED_S = 70.0
"""Linux repeats a SYN after 1, 2, 4 … 64 s: so long the next one belongs to the same connection."""
OVER_S = 60.0
"""What still comes of a connection that is over begins none (TIME-WAIT of Linux)."""
STRAY_PACKETS_MAX = 3
"""More from one end, and it is a connection of which the capture has one direction. A probe is sent once or twice."""
EMPTY_BYTES = 90
"""The largest segment without data, with timestamps, IPv6 and a VLAN tag. One with data that nobody resets is the last
of a connection, and no probe."""
TRIED_MAX = 16_384
TRIED_S = 600.0

_SWEEP_S = 1.0
_WALK_S = 30.0
_BACKWARDS_S = 10.0
_BUSY_MASK = BUSY_PACKETS - 1
_CHANGING = SYN | FIN | RST
_UNREACHABLE = {ICMP: 3, ICMPV6: 1}
_EXPIRED = {ICMP: 11, ICMPV6: 3}
_PORT_CODES = {(ICMP, 3), (ICMPV6, 4)}
_TOO_BIG = (ICMP, 4)
_NOT_CONNECTIONS = {
    ICMP: frozenset({3, 4, 5, 9, 10, 11, 12}),
    ICMPV6: frozenset({1, 2, 3, 4, *range(130, 138), 143, 151, 152, 153}),
}
"""Errors, and what routers and neighbours tell each other: they begin nothing and nobody answers them."""
_PORTS = Layout(">HH")
_KNOWN = frozenset({TCP, UDP, ICMP, ICMPV6})
_NUMBERS = 1 << 32
_NOTHING: Sequence[Observation] = ()


class Watch:
    """Follows the connections of a capture, or of a network. Times may run backwards a little.

    With `numbers` a connection is only confirmed by an acknowledgement of what was really sent: who forges an address
    does not see that. Without, any acknowledgement does.
    """

    def __init__(self, capacity: int = CONNECTIONS_MAX, numbers: Numbers | None = None) -> None:
        self.refused = 0
        self._capacity = capacity
        self._numbers = numbers
        self._forth: dict[bytes, Connection] = {}
        self._back: dict[bytes, Connection] = {}
        # Those that wait for a reply, in the order in which they began.
        # (In a plain dict looking for the first takes ever longer when the first ones are taken out.)
        self._waiting: OrderedDict[bytes, Connection] = OrderedDict()
        # Those that make room, the first one first: unanswered or over.
        self._spare: OrderedDict[bytes, Connection] = OrderedDict()
        self._swept = 0.0
        self._next_sweep = 0.0
        self._next_walk = 0.0
        self._tried: dict[tuple[bytes, bytes, int], float] = {}
        self._fragments = FragmentWatch()

    def __len__(self) -> int:
        return len(self._forth)

    def packets(self, items: Iterable[Item]) -> Iterator[tuple[Item, Sequence[Observation]]]:
        """`packet` for many. Left out are packets of known TCP connections in which nothing changes, nearly all."""
        forth, back, packet = self._forth.get, self._back.get, self.packet
        for item in items:
            key, time, size, flags, _, _, decoded = item
            if (
                key is None
                or not flags
                or flags & _CHANGING
                or decoded is not None
                or not self._swept <= time < self._next_sweep
            ):
                yield item, packet(item)
            elif (known := forth(key)) is not None and known.settled and known.sent_packets & _BUSY_MASK != _BUSY_MASK:
                known.last = time
                known.sent += size
                known.sent_packets += 1
            elif (
                known is None
                and (known := back(key)) is not None
                and known.settled
                and known.received_packets & _BUSY_MASK != _BUSY_MASK
            ):
                known.last = time
                known.received += size
                known.received_packets += 1
            else:
                yield item, packet(item)

    def packet(self, item: Item) -> Sequence[Observation]:
        """What a packet is a sign of, in order."""
        key, time, size, flags, _, _, decoded = item
        told = _NOTHING if self._swept <= time < self._next_sweep else self._sweep(time)
        if key is not None:
            known = self._forth.get(key)
            if known is not None:
                known.last = time
                known.sent += size
                known.sent_packets += 1
                if flags & _CHANGING or not known.settled:
                    told = [*told, *self._went_on(known, item)]
                if not known.sent_packets & _BUSY_MASK:
                    told = [*told, *known.busy(time)]
            elif (known := self._back.get(key)) is not None:
                known.last = time
                known.received += size
                known.received_packets += 1
                if flags & _CHANGING or not known.settled:
                    told = [*told, *self._answer(known, item)]
                if not known.received_packets & _BUSY_MASK:
                    told = [*told, *known.busy(time)]
            else:
                first = self._first(key, time, size, flags)
                told = [*told, *first] if told else first
        return told if decoded is None else [*told, *self._special(decoded, time)]

    def end(self, now: float) -> list[Observation]:
        """What is left when nothing more comes."""
        told = [each for known in self._waiting.values() for each in _silence(known, now)]
        told += [each for known in self._forth.values() for each in known.busy(now, is_end=True)]
        told += [ended(known, is_open=True) for known in self._forth.values() if known.met and not known.over]
        told += [Odd(now, *ends, (GAP,), is_fragment=True) for ends in self._fragments.gaps()]
        for table in (self._forth, self._back, self._waiting, self._spare):
            table.clear()
        return told

    def _first(self, key: bytes, time: float, size: int, flags: int) -> Sequence[Observation]:
        """A packet of no connection that is known."""
        protocol, source, destination, tail = split_key(key)
        source_port, port = _PORTS.unpack(tail) if protocol in PORT_PROTOCOLS else (None, None)
        icmp_type = tail[2] if protocol in _NOT_CONNECTIONS else None
        if icmp_type is not None and icmp_type in _NOT_CONNECTIONS[protocol]:
            return _NOTHING
        told: Sequence[Observation]
        began = Began(time, protocol, source, destination, source_port, port, icmp_type, size)
        known = Connection(key, reverse_key(key), began)
        if protocol == TCP and flags & (SYN | ACK | RST | FIN) != SYN:
            stray = Stray(time, source, destination, source_port or 0, port or 0, flags, size)
            if not flags & ACK or flags & (SYN | RST):
                return (stray,)
            # Perhaps of a connection that is older than the capture: what follows tells.
            known.stray = stray
            known.is_older = True
            told = _NOTHING
        else:
            told = (began,)
        if len(self._forth) >= self._capacity and not self._make_room():
            self.refused += 1
            return told
        self._forth[key] = self._waiting[key] = known
        self._back[known.back] = known
        return told

    def _went_on(self, known: Connection, item: Item) -> Iterator[Observation]:
        """Another packet of the end that began, which may change something."""
        flags = item[3]
        if flags & (SYN | ACK | RST | FIN) == SYN:
            if known.over or known.settled or known.is_older:
                yield from self._again(known, item, item[0] or b"")
            else:
                known.attempts += 1
        elif known.over:
            return
        elif known.is_older:
            if known.met:
                yield from self._closing(known, flags, 1)
            elif known.sent_packets > STRAY_PACKETS_MAX:
                self._adopt(known)
        elif not known.met:
            known.attempts += known.began.protocol != TCP
        elif known.began.protocol == TCP:
            if not known.settled and flags & (ACK | RST) and self._proves(known, item):
                known.settled = True
                yield Confirmed(item[1], known.began, by_reset=bool(flags & RST))
            yield from self._closing(known, flags, 1)

    def _answer(self, known: Connection, item: Item) -> Iterator[Observation]:
        """A packet of the other end, which may change something."""
        flags, time = item[3], item[1]
        if flags & (SYN | ACK | RST | FIN) == SYN:
            yield from self._again(known, item, item[0] or b"")
        elif known.over:
            return
        elif known.is_older and not known.met:
            if flags & RST:
                yield from _stray(known)
                self._finish(known)
            else:
                self._adopt(known)
        elif not known.met:
            if flags & SYN and self._numbers is not None and (numbers := self._numbers(item)) is not None:
                known.proof = (numbers[0] + 1) % _NUMBERS
            yield from self._meet(known, time, Reply.REFUSED if flags & RST else Reply.ANSWERED)
            if flags & RST:
                self._finish(known)
        else:
            yield from self._closing(known, flags, 2)

    def _proves(self, known: Connection, item: Item) -> bool:
        """Whether who sent this has seen the answer. A reset does not say so (see `Confirmed`)."""
        if self._numbers is None or item[3] & RST:
            return True
        numbers = self._numbers(item)
        if numbers is None or known.proof is None:
            return False
        return (numbers[1] - known.proof) % _NUMBERS <= known.received

    def _again(self, known: Connection, item: Item, key: bytes) -> Iterator[Observation]:
        """The same ends begin anew; the end of what was before has not been seen, or it was long ago."""
        if key == known.key:
            known.sent, known.sent_packets = known.sent - item[2], known.sent_packets - 1
        else:
            known.received, known.received_packets = known.received - item[2], known.received_packets - 1
        if known.met and not known.over:
            yield ended(known)
        self._forget(known)
        yield from self._first(key, item[1], item[2], item[3])

    def _adopt(self, known: Connection) -> None:
        known.met = known.settled = True
        known.stray = None
        self._waiting.pop(known.key, None)
        self._spare.pop(known.key, None)

    def _meet(self, known: Connection, time: float, reply: Reply) -> Iterator[Observation]:
        known.met = True
        known.settled = known.began.protocol != TCP
        self._waiting.pop(known.key, None)
        self._spare.pop(known.key, None)
        yield Met(time, known.began, reply, known.attempts)

    def _closing(self, known: Connection, flags: int, end: int) -> Iterator[Observation]:
        """After a reset, or a FIN of both ends (`end` is a bit for each), it is over."""
        if flags & FIN:
            known.closing |= end
        if flags & RST or known.closing == 3:
            self._finish(known)
            yield ended(known, by_reset=bool(flags & RST))

    def _finish(self, known: Connection) -> None:
        known.over = True
        known.settled = False
        self._waiting.pop(known.key, None)
        self._spare[known.key] = known

    def _forget(self, known: Connection) -> None:
        self._forth.pop(known.key, None)
        self._back.pop(known.back, None)
        self._waiting.pop(known.key, None)
        self._spare.pop(known.key, None)

    def _make_room(self) -> bool:
        oldest = next(iter(self._spare.values()), None) or next(iter(self._waiting.values()), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _sweep(self, now: float) -> list[Observation]:
        """Once a second: who waited long enough; and from time to time what has been quiet for long."""
        self._swept, self._next_sweep = now - _BACKWARDS_S, now + _SWEEP_S
        told: list[Observation] = []
        while self._waiting:
            known = next(iter(self._waiting.values()))
            if now - known.began.time < SILENCE_S:
                break
            # It may be answered still; then it is told of again.
            self._spare[known.key] = self._waiting.pop(known.key)
            told.extend(_silence(known, now))
        if not 0 < self._next_walk - now <= _WALK_S:
            self._next_walk = now + _WALK_S
            for known in [each for each in self._forth.values() if now - each.last > _patience(each)]:
                if known.met and not known.over:
                    told.append(ended(known))
                self._forget(known)
            told += [Odd(now, *ends, (GAP,), is_fragment=True) for ends in self._fragments.gaps(now)]
        return told

    def _special(self, packet: Packet, time: float) -> Iterator[Observation]:
        if packet.arp is not None:
            yield ArpSeen(time, packet.source_mac, packet.destination_mac, packet.arp)
        if packet.anomalies:
            is_fragment = packet.fragment is not None
            yield Odd(time, packet.source, packet.destination, packet.protocol, packet.anomalies, is_fragment)
        if packet.protocol is None or packet.source is None or packet.destination is None:
            return
        if packet.fragment is not None:
            names = self._fragments.follow(packet, time)
            if names:
                yield Odd(time, packet.source, packet.destination, packet.protocol, names, is_fragment=True)
        if packet.quoted_key is not None:
            yield from self._quoted(packet, packet.quoted_key, time)
        if packet.protocol not in _KNOWN:
            yield from self._tried_protocol(packet.source, packet.destination, packet.protocol, time)

    def _quoted(self, packet: Packet, quoted: bytes, time: float) -> Iterator[Observation]:
        """An ICMP error about a connection that waits for a reply."""
        known = self._forth.get(quoted)
        protocol, kind = packet.protocol or 0, packet.icmp_type
        if known is None or known.met or known.over:
            return
        if kind == _UNREACHABLE.get(protocol) and (protocol, packet.icmp_code) != _TOO_BIG:
            if known.is_older:
                yield from _stray(known)
            else:
                is_port = (protocol, packet.icmp_code) in _PORT_CODES
                yield from self._meet(known, time, Reply.REFUSED if is_port else Reply.FORBIDDEN)
            self._finish(known)
        elif kind == _EXPIRED.get(protocol) and not known.is_older:
            yield from self._meet(known, time, Reply.EXPIRED)
            self._finish(known)

    def _tried_protocol(self, source: bytes, destination: bytes, protocol: int, time: float) -> Iterator[Observation]:
        tried = (source, destination, protocol)
        before = self._tried.pop(tried, None)
        if before is None and len(self._tried) >= TRIED_MAX:
            del self._tried[next(iter(self._tried))]
        if before is None or time - before > TRIED_S:
            yield ProtocolTried(time, source, destination, protocol)
        self._tried[tried] = time


def _silence(known: Connection, now: float) -> Iterator[Observation]:
    """What it means that nothing came back. To many at once (multicast, broadcast) that means nothing."""
    if known.stray is not None:
        if known.stray.size_bytes <= EMPTY_BYTES:
            yield from _stray(known)
    elif not known.is_older and not known.to_many and not known.seems_answered:
        yield Met(now, known.began, Reply.SILENT, known.attempts)


def _stray(known: Connection) -> Iterator[Stray]:
    if known.stray is not None:
        yield known.stray
        known.stray = None


def _patience(known: Connection) -> float:
    if known.over:
        return OVER_S
    return IDLE_S.get(known.began.protocol, _IDLE_OTHER_S) if known.met else UNANSWERED_S
