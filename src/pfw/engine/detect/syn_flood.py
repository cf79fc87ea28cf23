"""SYN flood: so many connections to one port or host are begun, and so few completed, that nobody means them.

Told by destination, and nobody is ever banned for it: who sends SYNs does not need to see the answer, so the source can
be anybody. A scan asks many ports once, a flood asks few ports often, or all of them from everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.flood import COUNTED_MAX, WINDOW_S, Flood, Window, floods
from pfw.model.address import format_address, format_endpoint
from pfw.model.observation import Alert, Began, Busy, Confirmed, Kind, Met, Reply, Stray
from pfw.model.packet import ACK, RST, SYN, TCP

DESTINATIONS_MAX = 1_024
DESTINATIONS_S = 120.0
PORT_PER_S = 100
"""SYNs to one port in a second. CSF's SYNFLOOD_RATE and the test of Suricata's rules for it are 100, too."""
HOST_PER_S = 500
"""SYNs to all ports of a host from many sources. The fastest scan (nmap -T5) has few."""
REFUSED_PER_S = 1_000
"""SYNs of one source to a port that says that it is closed: a program that tries again at once makes some hundreds."""
STRAYS_PER_S = 500
"""Other TCP packets of no connection, each from another source or source port."""
SLOW_S = 10.0
SLOW_SYNS = 300
SLOW_SOURCES_MIN = 100
"""The same more slowly, in SLOW_S: of so many that want something of a host some would get it. Who was a peer in
BitTorrent is called by some dozens after it has left, and refuses."""
SLOW_COMPLETED_SHARE = 0.05
COMPLETED_SHARE = 0.2
"""Of the connections begun; above, it is only busy."""
SURE_SECONDS = 3
SURE_PACKETS = 1_000
"""What lasts so long, or is so much, is no hiccup of a server."""
PORTS_MAX = 65_536
SCAN_TRIES = 3
"""Who begins more than so many connections to each port that there is does not scan."""

RANDOM_PER_S = 80
"""SYNs in a second, each from another source to another destination: both are invented."""
RANDOM_SHARE = 0.9


class _Spread:
    """SYNs of everybody to everybody within a window."""

    __slots__ = ("answered", "begun", "destinations", "last", "sources", "start")

    def __init__(self, start: float) -> None:
        self.start = self.last = start
        self.begun = self.answered = 0
        self.sources: set[bytes] = set()
        self.destinations: set[bytes] = set()

    def add(self, seen: Began) -> None:
        self.last = seen.time
        self.begun += 1
        if self.begun <= COUNTED_MAX:
            self.sources.add(seen.source)
            self.destinations.add(seen.destination)

    @property
    def is_invented(self) -> bool:
        enough = RANDOM_SHARE * min(self.begun, COUNTED_MAX)
        return (
            self.begun >= RANDOM_PER_S
            and self.answered < COMPLETED_SHARE * self.begun
            and len(self.sources) >= enough
            and len(self.destinations) >= enough
        )


class SynFlood:
    wants: tuple[type, ...] = (Began, Met, Confirmed, Busy, Stray)

    def __init__(self, destinations_max: int = DESTINATIONS_MAX) -> None:
        self._floods: Table[bytes, Flood] = floods(destinations_max, DESTINATIONS_S)
        self._strays: Table[bytes, Flood] = floods(destinations_max, DESTINATIONS_S)
        self._spread: _Spread | None = None
        self._next_invented = 1

    @property
    def refused(self) -> int:
        return self._floods.refused + self._strays.refused

    def observe(self, seen: Began | Met | Confirmed | Busy | Stray) -> Iterable[Alert]:
        match seen:
            case Stray():
                return self._stray(seen)
            case Began():
                return self._began(seen) if seen.protocol == TCP and seen.source != seen.destination else ()
            case Busy():
                if seen.began.protocol == TCP and seen.attempts and not seen.is_answered:
                    return self._counted(seen.began, seen.time, seen.attempts)
            case _:
                if seen.began.protocol == TCP:
                    self._answered(seen)
        return ()

    def end(self, now: float) -> Iterable[Alert]:
        for destination, flood in self._floods.items():
            if flood.is_grown_at_end(now, self._judged, destination):
                yield self._alert(destination, flood)
        for destination, flood in self._strays.items():
            if flood.is_grown_at_end(now, self._judged_strays, destination):
                yield self._alert(destination, flood)
        yield from self._judge_spread()

    def _began(self, seen: Began) -> Iterator[Alert]:
        yield from self._spread_over(seen)
        yield from self._counted(seen, seen.time, seen.stands_for, seen.stands_for - 1)

    def _counted(self, began: Began, time: float, attempts: int, skipped: int = 0) -> Iterator[Alert]:
        flood = self._floods.get(began.destination, time)
        if flood is None:
            return
        if flood.is_due_at(time, self._judged, began.destination):
            yield self._alert(began.destination, flood)
        window = flood.at(time)
        window.begin(began.port, attempts, skipped=skipped, is_one_port=not began.stands_for_host)
        window.add_source(began.source, attempts)

    def _answered(self, seen: Met | Confirmed) -> None:
        began = seen.began
        spread = self._spread
        if isinstance(seen, Met):
            if seen.reply is Reply.SILENT:
                return
            if spread is not None and began.time >= spread.start:
                spread.answered += 1
        flood = self._floods.peek(began.destination)
        window = None if flood is None else flood.of(began.time)
        if window is None:
            return
        for counts, many in (
            (window.total, began.stands_for),
            (window.port(began.port), 1 if began.stands_for_host else began.stands_for),
        ):
            if isinstance(seen, Met):
                counts.refused += many * (seen.reply is not Reply.ANSWERED)
            elif not seen.by_reset:
                counts.answered += many

    def _judged(self, destination: bytes, flood: Flood, window: Window) -> None:
        port, counts = window.busiest()
        limit = PORT_PER_S
        if counts.refused > counts.begun / 2 and window.one_source() is not None:
            limit = REFUSED_PER_S
        if counts.begun >= limit and counts.answered < COMPLETED_SHARE * counts.begun:
            where = format_endpoint(destination, port)
        elif self._is_of_host(flood, window):
            where, counts = f"many ports of {format_address(destination)}", window.total
        elif (slow := self._slow(flood, window)) is not None:
            where, counts, window = format_address(destination), slow.total, slow
        else:
            return
        completed = f"{counts.answered} of the last {counts.begun}" if counts.answered else "none"
        flood.grow(window, counts.begun, f"connections to {where} begun and {completed} completed")

    def _slow(self, flood: Flood, window: Window) -> Window | None:
        """The long window that this one is part of, when it is too much."""
        slow = flood.slow
        if slow is None or not 0 <= window.start - slow.start < SLOW_S:
            slow = flood.slow = Window(window.start)
        slow.take(window)
        total = slow.total
        few = total.begun < SLOW_SYNS or len(slow.sources) < SLOW_SOURCES_MIN or total.refused > total.begun / 2
        if few or total.answered >= SLOW_COMPLETED_SHARE * total.begun:
            return None
        flood.slow = None
        return slow

    def _is_of_host(self, flood: Flood, window: Window) -> bool:
        total = window.total
        if total.begun < HOST_PER_S or total.answered >= COMPLETED_SHARE * total.begun:
            return False
        if window.has_many_sources:
            return True
        flood.tried += total.begun
        return flood.tried > SCAN_TRIES * PORTS_MAX

    def _alert(self, destination: bytes, flood: Flood) -> Alert:
        sure = flood.seconds >= SURE_SECONDS or flood.packets >= SURE_PACKETS
        lasting = lasted(flood.first, flood.last)
        return Alert(
            kind=Kind.SYN_FLOOD,
            source=flood.source,
            target=destination,
            first=flood.first,
            last=flood.last,
            score=90 if sure else 65,
            evidence=f"{flood.packets} {flood.what} {flood.whence()} in {lasting}, {flood.pace()}",
        )

    def _stray(self, seen: Stray) -> Iterator[Alert]:
        """Floods of other TCP packets, as far as they are no answers (backscatter, reflection)."""
        if seen.flags & RST or seen.flags & (SYN | ACK) == SYN | ACK or seen.source == seen.destination:
            return
        flood = self._strays.get(seen.destination, seen.time)
        if flood is None:
            return
        if flood.is_due_at(seen.time, self._judged_strays, seen.destination):
            yield self._alert(seen.destination, flood)
        window = flood.at(seen.time)
        window.total.begun += seen.stands_for
        window.skipped += seen.stands_for - 1
        window.port(seen.source_port)
        window.add_source(seen.source)

    def _judged_strays(self, destination: bytes, flood: Flood, window: Window) -> None:
        many = window.total.begun
        if many < STRAYS_PER_S or window.estimated(max(len(window.sources), len(window.ports))) < COUNTED_MAX:
            return
        flood.grow(window, many, f"TCP packets of no connection to {format_address(destination)}")

    def _spread_over(self, seen: Began) -> Iterator[Alert]:
        spread = self._spread
        if spread is None or not 0 <= seen.time - spread.start < WINDOW_S:
            yield from self._judge_spread()
            spread = self._spread = _Spread(seen.time)
        spread.add(seen)

    def _judge_spread(self) -> Iterator[Alert]:
        spread, self._spread = self._spread, None
        if spread is None or not spread.is_invented or spread.begun < self._next_invented:
            return
        self._next_invented = spread.begun * 2
        within = lasted(spread.start, spread.last)
        yield Alert(
            kind=Kind.SYN_FLOOD,
            source=None,
            target=None,
            first=spread.start,
            last=spread.last,
            score=70,
            evidence=f"{spread.begun} connections begun within {within}, each from another source to another"
            f" destination, and {spread.answered} answered: the addresses are invented",
        )
