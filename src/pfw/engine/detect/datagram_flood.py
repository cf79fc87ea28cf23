"""UDP and ICMP floods: more comes to one destination than anybody there has asked for.

What tells a flood from a stream: a stream is one flow and was agreed upon, by an answer of its own or by another
conversation of the same two hosts; a flood is many new flows without an answer, or one without an answer of a pace that
no program has. A scan asks many ports with little in it. Nobody is ever banned for it: datagrams are easily forged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import is_for_many, lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.flood import Flood, Window, floods
from pfw.engine.detect.reflection import is_answer
from pfw.model.address import format_address, format_endpoint
from pfw.model.observation import Alert, Began, Busy, Confirmed, EchoSeen, Kind, Met, Reply
from pfw.model.packet import ICMP, ICMPV6, UDP

DESTINATIONS_MAX = 1_024
DESTINATIONS_S = 120.0
FLOWS_PER_S = 300
"""New flows to one port in a second that nobody answers. Peers of BitTorrent that call at a closed port are some
dozens; CSF's limit for outgoing UDP is 100, with a burst of 500."""
FLOWS_OF_ONE_PER_S = 1_000
"""The same from a single source: programs that open a socket for each line of a log, or each measurement."""
HOST_FLOWS_PER_S = 1_000
"""New flows to any port of a host."""
BIG_BYTES = 400
"""Mean size. Scanners send empty datagrams or a short question, floods what fills the line."""
STREAM_PER_S = 5_000
"""Packets of flows that nobody ever answered, to a host that has no other conversation with the sender: 50 Mbit/s of
video are as many."""
UNWANTED_PER_S = 300
"""The same where the port is closed, and the sender has been told so."""
ANSWERED_SHARE = 0.2
PORTS_MAX = 65_536
SCAN_TRIES = 3
TUNNEL_PORTS = frozenset({443, 500, 1194, 4500, 4789, 6081, 8472, 51820})
"""QUIC, IPsec, OpenVPN, VXLAN, GENEVE and WireGuard: where one direction alone was captured, or each has ports of its
own, a download or a tunnel looks like this."""
FRIENDS_MAX = 8_192
FRIENDS_S = 600.0

ECHOES_PER_S = 250
"""Unanswered, or not of a ping program, which sends the next when the last has come back. `ping -f` sends 100 a second
to who is silent; ntopng's limit for ICMP is 250."""
REPEATED_MIN = 20
"""Requests with the very same payload, one after the other: `ping` writes the time into each, flooders do not."""
SENDERS_MIN = 100
"""So many that begin to ping one host within the same second do not do so on their own accord."""
SURE_SECONDS = 3
SURE_PACKETS = 5_000


def _alert(kind: Kind, destination: bytes, flood: Flood) -> Alert:
    sure = flood.seconds >= SURE_SECONDS or flood.packets >= SURE_PACKETS
    lasting = lasted(flood.first, flood.last)
    return Alert(
        kind=kind,
        source=flood.source,
        target=destination,
        first=flood.first,
        last=flood.last,
        score=85 if sure else 60,
        evidence=f"{flood.packets} {flood.what} {flood.whence()} in {lasting}, {flood.pace()}",
    )


class UdpFlood:
    wants: tuple[type, ...] = (Began, Met, Confirmed, Busy)

    def __init__(self, destinations_max: int = DESTINATIONS_MAX) -> None:
        self._floods: Table[bytes, Flood] = floods(destinations_max, DESTINATIONS_S)
        self._friends: Table[frozenset[bytes], bool] = Table(FRIENDS_MAX, FRIENDS_S, bool)
        self._unwanted: Table[tuple[bytes, bytes, int | None], bool] = Table(FRIENDS_MAX, FRIENDS_S, bool)

    @property
    def refused(self) -> int:
        return self._floods.refused

    def observe(self, seen: Began | Met | Confirmed | Busy) -> Iterable[Alert]:
        match seen:
            case Began():
                return self._began(seen)
            case Busy():
                return self._busy(seen)
            case Met():
                self._met(seen)
            case Confirmed():
                if not seen.by_reset:
                    self._befriend(seen.began, seen.time)
        return ()

    def end(self, now: float) -> Iterable[Alert]:
        for destination, flood in self._floods.items():
            if flood.is_grown_at_end(now, self._judged, destination):
                yield _alert(Kind.UDP_FLOOD, destination, flood)

    def _began(self, seen: Began) -> Iterator[Alert]:
        if seen.protocol != UDP or not _counts(seen) or is_answer(seen):
            return
        flood = self._floods.get(seen.destination, seen.time)
        if flood is None:
            return
        if flood.is_due_at(seen.time, self._judged, seen.destination):
            yield _alert(Kind.UDP_FLOOD, seen.destination, flood)
        window = flood.at(seen.time)
        window.begin(seen.port, seen.stands_for, skipped=seen.stands_for - 1, is_one_port=not seen.stands_for_host)
        window.size_bytes += seen.size_bytes * seen.stands_for
        window.add_source(seen.source, seen.stands_for)

    def _busy(self, seen: Busy) -> Iterator[Alert]:
        began = seen.began
        if began.protocol != UDP or seen.is_answered or not _counts(began):
            return
        if is_answer(began, seen.sent_bytes // max(1, seen.sent_packets)):
            return
        if began.port in TUNNEL_PORTS or began.source_port in TUNNEL_PORTS:
            return
        flood = self._floods.get(began.destination, seen.time)
        is_unwanted = self._unwanted.peek((began.source, began.destination, began.port)) is not None
        is_friend = self._friends.peek(frozenset((began.source, began.destination))) is not None
        if flood is None or (is_friend and not is_unwanted):
            return
        if flood.is_due_at(seen.time, self._judged, began.destination):
            yield _alert(Kind.UDP_FLOOD, began.destination, flood)
        window = flood.at(seen.time)
        window.unwanted += seen.sent_packets * is_unwanted
        window.streamed += seen.sent_packets
        window.add_source(began.source, seen.sent_packets)

    def _met(self, seen: Met) -> None:
        began = seen.began
        if began.protocol != UDP:
            return
        if seen.reply is Reply.REFUSED:
            self._unwanted.get((began.source, began.destination, began.port), seen.time)
        if seen.reply is not Reply.ANSWERED:
            return
        self._befriend(began, seen.time)
        flood = self._floods.peek(began.destination)
        window = None if flood is None else flood.of(began.time)
        if window is not None:
            window.total.answered += began.stands_for
            window.port(began.port).answered += 1 if began.stands_for_host else began.stands_for

    def _befriend(self, began: Began, now: float) -> None:
        self._friends.get(frozenset((began.source, began.destination)), now)

    def _judged(self, destination: bytes, flood: Flood, window: Window) -> None:
        port, counts = window.busiest()
        host = format_address(destination)
        limit = FLOWS_PER_S if window.one_source() is None else FLOWS_OF_ONE_PER_S
        if counts.begun >= limit and counts.answered < ANSWERED_SHARE * counts.begun:
            packets = counts.begun + window.streamed
            what = f"datagrams to {format_endpoint(destination, port)} that nobody answered, each of another flow,"
        elif self._is_of_host(flood, window):
            packets, what = window.packets, f"datagrams to many ports of {host} that nobody answered"
        elif window.unwanted >= UNWANTED_PER_S:
            packets, what = window.streamed, f"datagrams to a closed port of {host}"
        elif window.streamed >= STREAM_PER_S:
            packets, what = window.streamed, f"datagrams to {host} that nobody ever answered"
        else:
            return
        flood.grow(window, packets, what)

    def _is_of_host(self, flood: Flood, window: Window) -> bool:
        total = window.total
        if total.begun < HOST_FLOWS_PER_S or total.answered >= ANSWERED_SHARE * total.begun:
            return False
        if window.has_many_sources or window.size_bytes >= BIG_BYTES * total.begun:
            return True
        flood.tried += total.begun
        return flood.tried > SCAN_TRIES * PORTS_MAX


def _counts(began: Began) -> bool:
    """Not what goes to many at once, or to the sender itself. Answers are for `reflection.py`."""
    return not is_for_many(began.destination) and began.source != began.destination


class _Payload:
    """What one host last sent another in an echo request, and how often that was the same."""

    __slots__ = ("digest", "repeated")

    def __init__(self) -> None:
        self.digest: int | None = None
        self.repeated = 0

    def add(self, seen: EchoSeen) -> None:
        self.repeated = self.repeated + 1 if seen.digest == self.digest or not seen.is_pattern else 0
        self.digest = seen.digest


class IcmpFlood:
    """Floods of echo requests, or of whatever else of ICMP wants an answer."""

    wants: tuple[type, ...] = (Began, Busy, EchoSeen)

    def __init__(self, destinations_max: int = DESTINATIONS_MAX) -> None:
        self._floods: Table[bytes, Flood] = floods(destinations_max, DESTINATIONS_S)
        self._payloads: Table[tuple[bytes, bytes], _Payload] = Table(destinations_max, DESTINATIONS_S, _Payload)

    @property
    def refused(self) -> int:
        return self._floods.refused

    def observe(self, seen: Began | Busy | EchoSeen) -> Iterable[Alert]:
        if isinstance(seen, EchoSeen):
            payload = self._payloads.get((seen.source, seen.destination), seen.time) if seen.is_request else None
            if payload is not None:
                payload.add(seen)
            return ()
        began = seen if isinstance(seen, Began) else seen.began
        if began.protocol not in (ICMP, ICMPV6) or began.source == began.destination:
            return ()
        return self._counted(began, seen)

    def end(self, now: float) -> Iterable[Alert]:
        for destination, flood in self._floods.items():
            if flood.is_grown_at_end(now, self._judged, destination):
                yield _alert(Kind.ICMP_FLOOD, destination, flood)

    def _counted(self, began: Began, seen: Began | Busy) -> Iterator[Alert]:
        packets = seen.stands_for if isinstance(seen, Began) else self._too_many(seen)
        flood = self._floods.get(began.destination, seen.time) if packets else None
        if flood is None:
            return
        if flood.is_due_at(seen.time, self._judged, began.destination):
            yield _alert(Kind.ICMP_FLOOD, began.destination, flood)
        window = flood.at(seen.time)
        window.add_source(began.source, packets)
        if isinstance(seen, Began):
            window.total.begun += packets
            window.skipped += packets - 1
        else:
            window.streamed += packets

    def _too_many(self, seen: Busy) -> int:
        """The packets of a connection that nobody answered, or that no ping program sent."""
        if seen.received_packets < seen.sent_packets * (1 - ANSWERED_SHARE):
            return seen.sent_packets
        payload = self._payloads.peek((seen.began.source, seen.began.destination))
        return 0 if payload is None or payload.repeated < REPEATED_MIN else seen.sent_packets

    def _judged(self, destination: bytes, flood: Flood, window: Window) -> None:
        is_many = window.total.begun >= ECHOES_PER_S and len(window.sources) >= SENDERS_MIN
        if not is_many and window.streamed < ECHOES_PER_S:
            return
        flood.grow(window, window.packets, f"ICMP packets to {format_address(destination)}")
