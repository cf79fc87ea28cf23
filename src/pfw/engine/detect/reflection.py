"""Reflection: answers that nobody asked for, from servers whom somebody asked in the destination's name.

The sources are innocent and real: they are never told of, and never banned. It takes many of them, or many packets,
since a capture may have missed the questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import is_for_many, lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.flood import Flood, Window, floods
from pfw.model.address import format_address
from pfw.model.observation import Alert, Began, Busy, Kind, Met, Reply, Stray
from pfw.model.packet import ACK, RST, SYN, UDP

REFLECTORS = {
    17: "QOTD", 19: "chargen", 53: "DNS", 69: "TFTP", 111: "portmapper", 123: "NTP", 137: "NetBIOS", 161: "SNMP",
    389: "CLDAP", 427: "SLP", 520: "RIP", 1434: "SQL Server", 1900: "SSDP", 3283: "ARD", 3702: "WS-Discovery",
    5353: "mDNS", 5683: "CoAP", 10001: "Ubiquiti", 11211: "memcached", 27960: "Quake", 37810: "DHDiscover",
}  # fmt: skip
"""Services that amplify (CISA, alert TA14-017A, and what has come since), by the port that they answer from."""

ANSWER_BYTES_MIN = 70
"""On the wire. Less is no answer of these: UDP in the smallest Ethernet frame has 60, the header of DNS alone 12."""

DESTINATIONS_MAX = 1_024
DESTINATIONS_S = 120.0
PACKETS_PER_S = 100
SOURCES_MIN = 10
SOURCES_ENOUGH = 30
"""So many servers of one kind at once, however little each of them sends."""
PACKETS_OF_FEW_PER_S = 500
"""A single reflector can send as much: memcached answers one question with a megabyte."""
ANSWERED_SHARE = 0.2
"""Clients of NTP and old name servers ask from the service's port. They are answered."""
SEARCHES_S = 600.0
SEARCH_SOURCES_MIN = 100
"""Who asked all at once (SSDP, mDNS) gets answers of many."""
SYN_ACKS_PER_S = 100
SYN_ACK_SOURCES_MIN = 20
REPEATED_MIN = 12
"""SYN-ACKs of one and the same connection. Systems repeat one that is not answered 5 times (Linux, tcp_synack_retries)
or less: the SYN has come again and again."""
PAIRS_MAX = 4_096
PAIRS_S = 120.0

_Ends = tuple[bytes, bytes, int, int]


class _Repeated:
    __slots__ = ("count", "first", "next_told")

    def __init__(self) -> None:
        self.count = 0
        self.first = 0.0
        self.next_told = REPEATED_MIN


class Reflection:
    wants: tuple[type, ...] = (Began, Met, Busy, Stray)

    def __init__(self, destinations_max: int = DESTINATIONS_MAX) -> None:
        self._floods: Table[tuple[bytes, int], Flood] = floods(destinations_max, DESTINATIONS_S)
        self._syn_acks: Table[bytes, Flood] = floods(destinations_max, DESTINATIONS_S)
        self._repeated: Table[_Ends, _Repeated] = Table(PAIRS_MAX, PAIRS_S, _Repeated, lambda each: each.count == 1)
        self._searches: Table[tuple[bytes, int], bool] = Table(destinations_max, SEARCHES_S, bool, lambda _: True)

    @property
    def refused(self) -> int:
        return self._floods.refused + self._syn_acks.refused + self._repeated.refused + self._searches.refused

    def observe(self, seen: Began | Met | Busy | Stray) -> Iterable[Alert]:
        match seen:
            case Stray():
                return self._stray(seen)
            case Began():
                return self._answers(seen, seen.time, 1, seen.size_bytes * seen.stands_for)
            case Busy():
                if not seen.is_answered:
                    return self._answers(seen.began, seen.time, seen.sent_packets, seen.sent_bytes)
            case Met():
                self._met(seen)
        return ()

    def end(self, now: float) -> Iterable[Alert]:
        for (destination, port), flood in self._floods.items():
            if flood.is_grown_at_end(now, self._judged, destination, port):
                yield _alert(destination, flood)
        for destination, flood in self._syn_acks.items():
            if flood.is_grown_at_end(now, self._judged_syn_acks):
                yield _alert(destination, flood)

    def _answers(self, began: Began, time: float, packets: int, size_bytes: int) -> Iterator[Alert]:
        if began.protocol != UDP or began.source == began.destination:
            return
        if is_for_many(began.destination):
            if began.port in REFLECTORS:
                self._searches.get((began.source, began.port), time)
            return
        port = began.source_port or 0
        if not is_answer(began) or (packets > 1 and not is_answer(began, size_bytes // packets)):
            return
        flood = self._floods.get((began.destination, port), time)
        if flood is None:
            return
        if flood.is_due_at(time, self._judged, began.destination, port):
            yield _alert(began.destination, flood)
        window = flood.at(time)
        if packets == 1:
            window.total.begun += began.stands_for
            window.skipped += began.stands_for - 1
        else:
            window.streamed += packets
        window.size_bytes += size_bytes
        window.add_source(began.source, packets)

    def _met(self, seen: Met) -> None:
        began = seen.began
        if began.protocol != UDP or seen.reply is not Reply.ANSWERED or began.source_port not in REFLECTORS:
            return
        flood = self._floods.peek((began.destination, began.source_port))
        window = None if flood is None else flood.of(began.time)
        if window is not None:
            window.total.answered += began.stands_for

    def _judged(self, destination: bytes, port: int, flood: Flood, window: Window) -> None:
        if window.total.answered >= ANSWERED_SHARE * window.packets:
            return
        many = len(window.sources)
        if self._searches.peek((destination, port)) is not None:
            is_much = many >= SEARCH_SOURCES_MIN
        elif many >= SOURCES_MIN:
            is_much = many >= SOURCES_ENOUGH or window.packets >= PACKETS_PER_S
        else:
            is_much = window.packets >= PACKETS_OF_FEW_PER_S
        if not is_much:
            return
        mean = window.size_bytes // window.packets
        what = f"answers of {REFLECTORS[port]} that nobody had asked for, {mean} bytes each,"
        flood.grow(window, window.packets, what)

    def _stray(self, seen: Stray) -> Iterator[Alert]:
        if seen.source == seen.destination or seen.flags & RST:
            return
        flood = self._syn_acks.peek(seen.destination)
        if seen.flags & (SYN | ACK) != SYN | ACK:
            # Data after a SYN-ACK: one direction of connections that somebody did begin.
            if flood is not None and flood.windows:
                flood.windows[-1].total.answered += 1
            return
        yield from self._again(seen)
        flood = self._syn_acks.get(seen.destination, seen.time)
        if flood is None:
            return
        if flood.is_due_at(seen.time, self._judged_syn_acks):
            yield _alert(seen.destination, flood)
        window = flood.at(seen.time)
        window.total.begun += 1
        window.add_source(seen.source)

    def _judged_syn_acks(self, flood: Flood, window: Window) -> None:
        begun = window.total.begun
        if begun < SYN_ACKS_PER_S or len(window.sources) < SYN_ACK_SOURCES_MIN:
            return
        if window.total.answered >= ANSWERED_SHARE * begun:
            return
        flood.grow(window, begun, "SYN-ACKs that nobody had asked for")

    def _again(self, seen: Stray) -> Iterator[Alert]:
        """The slow kind: one server answers a SYN that comes again and again, in the name of somebody else."""
        ends = seen.source, seen.destination, seen.source_port, seen.port
        repeated = self._repeated.get(ends, seen.time)
        if repeated is None:
            return
        repeated.first = repeated.first or seen.time
        repeated.count += 1
        if repeated.count < repeated.next_told:
            return
        repeated.next_told *= 2
        yield Alert(
            kind=Kind.REFLECTION,
            source=None,
            target=seen.destination,
            first=repeated.first,
            last=max(repeated.first, seen.time),
            score=55,
            evidence=f"{repeated.count} SYN-ACKs from port {seen.source_port} of {format_address(seen.source)} in"
            f" {lasted(repeated.first, seen.time)} that nobody had asked for",
        )


def is_answer(began: Began, size_bytes: int = ANSWER_BYTES_MIN) -> bool:
    """Whether it comes from a service's port as an answer of it would. The size counts where one sends many."""
    return began.source_port in REFLECTORS and size_bytes >= ANSWER_BYTES_MIN


def _alert(destination: bytes, flood: Flood) -> Alert:
    lasting = lasted(flood.first, flood.last)
    return Alert(
        kind=Kind.REFLECTION,
        source=None,
        target=destination,
        first=flood.first,
        last=flood.last,
        score=90 if flood.sources >= SYN_ACK_SOURCES_MIN else 75,
        evidence=f"{flood.packets} {flood.what} {flood.whence()} to {format_address(destination)} in {lasting}",
    )
