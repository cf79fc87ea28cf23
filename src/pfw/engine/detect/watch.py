"""From packets to observations: which connections begin, how they are met, how they end, what belongs to none.

A connection is known by its flow key (`model/flow.py`). For the packets of a known one there is a look-up and some
additions. The table is bounded: of connections that were not answered the oldest makes room, and where there is none a new one
is not followed, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout

from pfw.model.event import Item
from pfw.model.flow import reverse_key, split_key
from pfw.model.observation import (
    ArpSeen,
    Began,
    Busy,
    Confirmed,
    Ended,
    Met,
    Observation,
    Odd,
    ProtocolTried,
    Reply,
    Stray,
)
from pfw.model.packet import ACK, FIN, ICMP, ICMPV6, PORT_PROTOCOLS, RST, SYN, TCP, UDP, Packet

CONNECTIONS_MAX = 200_000
SILENCE_S = 3.0
"""So long nobody answers a first packet, and it counts as met with silence."""
IDLE_S = {TCP: 3600.0, UDP: 60.0}
_IDLE_OTHER_S = 30.0
_SWEEP_S = 1.0
BUSY_S = 1.0
"""So often at most a connection that carries many packets is told of,"""
BUSY_PACKETS_PER_S = 100
"""and many they are from here on."""
_COUNTED = 128 - 1
"""The clock is looked at for each 128th packet of a direction."""
_UNREACHABLE = {(ICMP, 3), (ICMPV6, 1)}
_PORT_CODES = {(ICMP, 3), (ICMPV6, 4)}
_PORTS = Layout(">HH")
_KNOWN = frozenset({TCP, UDP, ICMP, ICMPV6})


class _Connection:
    __slots__ = ("attempts", "began", "closing", "confirmed", "counted", "key", "last", "met", "received", "received_packets",
                 "sent", "sent_packets")  # fmt: skip

    def __init__(self, key: bytes, began: Began) -> None:
        self.key = key
        self.began = began
        self.attempts = 1
        self.last = began.time
        self.met = False
        self.confirmed = False
        self.closing = 0
        self.sent = self.sent_packets = self.received = self.received_packets = 0
        # When it was last looked at for `Busy`, and what had been carried by then.
        self.counted = (began.time, 0, 0, 0, 0, 0)


class Watch:
    """Follows the connections of a capture, or of a network. Times may run backwards a little."""

    def __init__(self, capacity: int = CONNECTIONS_MAX) -> None:
        self.refused = 0
        self._capacity = capacity
        self._forth: dict[bytes, _Connection] = {}
        self._back: dict[bytes, _Connection] = {}
        # Those that wait for a reply, in the order in which they began.
        self._waiting: dict[bytes, _Connection] = {}
        self._next_sweep = 0.0
        self._next_idle = 0.0
        self._tried: set[tuple[bytes, bytes, int]] = set()

    def packet(self, item: Item) -> list[Observation]:
        """What a packet is a sign of, in order."""
        key, time, size, flags, _, _, decoded = item
        told: list[Observation] = []
        if time >= self._next_sweep:
            told.extend(self._sweep(time))
        if key is not None:
            known = self._forth.get(key)
            if known is not None:
                known.last = time
                known.sent += size
                known.sent_packets += 1
                if not known.sent_packets & _COUNTED:
                    told.extend(_busy(known, time))
                if flags:
                    told.extend(self._tcp_forth(known, time, flags))
                elif not known.met:
                    known.attempts += 1
            elif (known := self._back.get(key)) is not None:
                known.last = time
                known.received += size
                known.received_packets += 1
                if not known.received_packets & _COUNTED:
                    told.extend(_busy(known, time))
                if flags or not known.met:
                    told.extend(self._answer(known, time, flags))
            else:
                told.extend(self._first(key, time, size, flags))
        if decoded is not None:
            told.extend(self._special(decoded, time))
        return told

    def end(self, now: float) -> list[Observation]:
        """What is left when nothing more comes."""
        told: list[Observation] = []
        for known in list(self._forth.values()):
            told.extend(_busy(known, known.last, period_s=0.0))
            if not known.met:
                told.append(Met(now, known.began, Reply.SILENT, known.attempts))
            else:
                told.append(_ended(known, is_open=not known.closing))
        self._forth.clear()
        self._back.clear()
        self._waiting.clear()
        return told

    def _first(self, key: bytes, time: float, size: int, flags: int) -> Iterator[Observation]:
        protocol, source, destination, tail = split_key(key)
        ports = _PORTS.unpack(tail) if protocol in PORT_PROTOCOLS else (None, None)
        if protocol == TCP and flags & (SYN | ACK | RST | FIN) != SYN:
            yield Stray(time, source, destination, ports[0] or 0, ports[1] or 0, flags, size)
            return
        icmp_type = tail[2] if protocol in (ICMP, ICMPV6) else None
        began = Began(time, protocol, source, destination, ports[0], ports[1], icmp_type, size)
        yield began
        if len(self._forth) >= self._capacity and not self._make_room():
            self.refused += 1
            return
        known = _Connection(key, began)
        known.sent, known.sent_packets = size, 1
        self._forth[key] = known
        self._back[reverse_key(key)] = known
        self._waiting[key] = known

    def _tcp_forth(self, known: _Connection, time: float, flags: int) -> Iterator[Observation]:
        if flags & (SYN | ACK | RST) == SYN:
            known.attempts += 1
            return
        if known.met and not known.confirmed and flags & (ACK | RST):
            known.confirmed = True
            yield Confirmed(time, known.began, by_reset=bool(flags & RST))
        if flags & RST:
            yield from self._over(known, by_reset=True)
        elif flags & FIN:
            known.closing |= 1
            if known.closing == 3:
                yield from self._over(known)

    def _answer(self, known: _Connection, time: float, flags: int) -> Iterator[Observation]:
        if not known.met:
            refused = flags & RST
            yield from self._meet(known, time, Reply.REFUSED if refused else Reply.ANSWERED)
            if refused:
                self._forget(known)
            return
        if flags & RST:
            yield from self._over(known, by_reset=True)
        elif flags & FIN:
            known.closing |= 2
            if known.closing == 3:
                yield from self._over(known)

    def _meet(self, known: _Connection, time: float, reply: Reply) -> Iterator[Observation]:
        known.met = True
        self._waiting.pop(known.key, None)
        yield Met(time, known.began, reply, known.attempts)

    def _over(self, known: _Connection, *, by_reset: bool = False) -> Iterator[Observation]:
        self._forget(known)
        yield from _busy(known, known.last, period_s=0.0)
        if known.met:
            yield _ended(known, by_reset=by_reset)

    def _forget(self, known: _Connection) -> None:
        self._forth.pop(known.key, None)
        self._back.pop(reverse_key(known.key), None)
        self._waiting.pop(known.key, None)

    def _make_room(self) -> bool:
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        self._forget(self._waiting[oldest])
        return True

    def _sweep(self, now: float) -> Iterator[Observation]:
        self._next_sweep = now + _SWEEP_S
        while self._waiting:
            known = next(iter(self._waiting.values()))
            if now - known.began.time < SILENCE_S:
                break
            # It may be answered still; then it is told of again.
            del self._waiting[known.key]
            yield Met(now, known.began, Reply.SILENT, known.attempts)
        if now >= self._next_idle:
            self._next_idle = now + 30.0
            for known in list(self._forth.values()):
                if now - known.last > IDLE_S.get(known.began.protocol, _IDLE_OTHER_S):
                    yield from self._over(known)

    def _special(self, packet: Packet, time: float) -> Iterator[Observation]:
        if packet.arp is not None:
            yield ArpSeen(time, packet.source_mac, packet.destination_mac, packet.arp)
        if packet.anomalies:
            yield Odd(time, packet.source, packet.destination, packet.protocol, packet.anomalies,
                      packet.fragment is not None)  # fmt: skip
        if packet.quoted_key is not None and packet.protocol is not None:
            yield from self._quoted(packet, packet.quoted_key, time)
        if packet.protocol is not None and packet.protocol not in _KNOWN:
            if packet.source is not None and packet.destination is not None:
                yield from self._tried_protocol(packet.source, packet.destination, packet.protocol, time)

    def _quoted(self, packet: Packet, quoted: bytes, time: float) -> Iterator[Observation]:
        """An ICMP error about a connection that waits for a reply."""
        known = self._forth.get(quoted)
        if known is None or known.met or (packet.protocol, packet.icmp_type) not in _UNREACHABLE:
            return
        is_port = (packet.protocol, packet.icmp_code) in _PORT_CODES
        yield from _busy(known, time, period_s=0.0)
        yield from self._meet(known, time, Reply.REFUSED if is_port else Reply.FORBIDDEN)
        self._forget(known)

    def _tried_protocol(self, source: bytes, destination: bytes, protocol: int, time: float) -> Iterator[Observation]:
        tried = (source, destination, protocol)
        if tried not in self._tried and len(self._tried) < self._capacity:
            self._tried.add(tried)
            yield ProtocolTried(time, source, destination, protocol)


def _busy(known: _Connection, time: float, period_s: float = BUSY_S) -> Iterator[Busy]:
    """What a connection carried since it was last looked at, if that was long enough ago."""
    since, sent, sent_packets, received, received_packets, attempts = known.counted
    if time - since < period_s:
        return
    known.counted = time, known.sent, known.sent_packets, known.received, known.received_packets, known.attempts
    packets = known.sent_packets - sent_packets, known.received_packets - received_packets
    if max(packets) >= BUSY_PACKETS_PER_S * max(time - since, BUSY_S):
        yield Busy(time, known.began, since, known.sent - sent, packets[0], known.received - received, packets[1],
                   known.attempts - attempts)  # fmt: skip


def _ended(known: _Connection, *, by_reset: bool = False, is_open: bool = False) -> Ended:
    return Ended(
        known.last, known.began, known.sent, known.sent_packets, known.received, known.received_packets, by_reset, is_open
    )  # fmt: skip
