"""What the kernel tells of connections, made entries of the history and observations for the detectors.

A connection's row is written when it begins and again when it ends, so that whoever looks between sees it. What it
carried is asked of the kernel when a TCP connection closes, because the kernel tells it by itself only when it forgets
the connection, two minutes later; where too many close at once, that has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter

from msgspec.structs import replace

from pfw.daemon.chronicle import Chronicle
from pfw.drivers import clock, conntrack
from pfw.drivers.conntrack import EVENTS_MAX, EventReader, LookUp
from pfw.engine.detect.live import LiveWatch
from pfw.model.flow import Direction, Flow
from pfw.model.history import Entry, Finish, Traffic
from pfw.model.observation import Began, Observation
from pfw.model.packet import TCP
from pfw.record.history_writer import HistoryWriter
from pfw.wire.conntrack import IPS_SEEN_REPLY, TCP_ESTABLISHED
from pfw.wire.conntrack_event import DESTROY, NEW, TCP_CLOSE, TCP_TIME_WAIT, Event

FOLLOWED_MAX = 300_000
"""More than the kernel tracks unless told to (nf_conntrack_max is 262,144 on big machines)."""
ASKED_MAX = 1000
"""Connections that have closed whose counters are asked for, a second; none while MANY begin."""
_LOOK_S = 5.0
_LOOK_SHARE = 0.01
"""Of the time, for looking at what all connections have carried so far."""
_AGAIN_SHARE, _AGAIN_MAX_S = 0.05, 60.0
"""Of the time, for looking at them because events were lost; meanwhile more may be."""
_PIECE = 1000
"""So many connections are looked at before it is seen what has happened meanwhile: some 15 ms. The kernel has room for
the events of a second or two, and to look at 100,000 takes as long."""
_WRITTEN_S = 60.0
"""How often what a connection has carried so far is written."""
_SYN_SENT = (1, 9)

See = Callable[[Sequence[Observation]], None]
_Ends = tuple[int, bytes, bytes, int | None, int | None, int | None]


class Tracking:
    """Follows connections. `see` gets observations."""

    def __init__(self, reader: EventReader, chronicle: Chronicle, history: HistoryWriter, see: See) -> None:
        self.live = LiveWatch()
        self.events = self.not_followed = 0
        self._reader = reader
        self._look_up = LookUp()
        self._chronicle = chronicle
        self._history = history
        self._see = see
        # The id of each connection's row; below zero for one that came in, whose first end is the other one.
        self._ids: dict[bytes, int] = {}
        # Those of them whose end is written.
        self._over: set[bytes] = set()
        self._entries: list[Entry] = []
        self._ends: list[Finish] = []
        self._closed: list[Event] = []
        # The kernel's ids of those that were found in its table, before what it tells of their beginning was read.
        self._taken_up: dict[bytes, int] = {}
        # What those carried that began before anybody listened: of their end the kernel does not tell.
        self._untold: dict[bytes, Traffic] = {}
        # While the kernel's table is read anew: those that have not been found in it, and what ended meanwhile.
        self._missing: set[bytes] = set()
        self._past: set[bytes] | None = None
        self._second = self._next_look = self._next_again = 0.0
        self._written = clock.now()
        self._asked = 0

    def __len__(self) -> int:
        return len(self._ids)

    def begin(self, before: Iterable[Entry]) -> None:
        """Take up what is open now. `before` are the rows whose end nobody has seen yet, the newest first."""
        rows: dict[_Ends, Entry] = {}
        for each in before:
            rows.setdefault(_ends_of_row(each), each)
        now = clock.now()
        for tracked in _connections():
            key = tracked.key
            if key in self._untold:
                continue  # told twice, as the kernel does where its table is made larger meanwhile
            self._untold[key] = _traffic(tracked)
            self._taken_up[key] = tracked.id
            flow = self._flow(tracked)
            row = rows.pop(_ends_of(flow), None) if flow is not None else None
            is_over = tracked.tcp_state in (TCP_TIME_WAIT, TCP_CLOSE)
            if row is not None:
                number = -row.id if row.subject.direction is Direction.IN else row.id
                self._ids[key] = number
                if is_over:
                    self._over.add(key)
                    self._ends.append(Finish(row.id, now, _seen_from_here(number, _traffic(tracked))))
            elif not is_over:
                self._new(key, tracked, now)
        self._flush()

    def look_again(self) -> None:
        """Events were lost: take up what began unseen, and let go of what ended so."""
        self._missing, self._past = set(self._ids), set()
        told: list[Observation] = []
        try:
            for tracked, now in self._table(told):
                key = tracked.key
                self._missing.discard(key)
                # It is as it was when the kernel wrote it down; what has been heard since is newer.
                if key in self._ids or key in self._past:
                    continue
                seen = self._new(key, tracked, now)
                self._taken_up[key] = tracked.id
                # Of one that has come further nobody knows how it began.
                if tracked.protocol != TCP or tracked.tcp_state in _SYN_SENT:
                    told += seen
        except OSError:
            self._missing.clear()
        gone, self._missing, self._past = self._missing, set(), None
        for key in gone:
            self._finish(key, clock.now(), Traffic())
            self.live.forget(key)
        self._flush()
        self._tell(told)

    def take(self) -> int:
        """What has happened since the last call, as far as it is not too much for one; how many events that were."""
        events = self._reader.read(EVENTS_MAX)
        now = clock.now()
        self.events += len(events)
        told: list[Observation] = []
        for event in events:
            told += self._event(event, now)
        if len(events) < EVENTS_MAX:
            self._taken_up.clear()
        if self._closed:
            told += self._ask(now)
        self._flush()
        self._tell(told)
        return len(events)

    def tick(self, now: float) -> None:
        """What follows from nothing having come; about once a second."""
        self._tell(list(self.live.tick(now)))
        if self._reader.overrun and not 0 < self._next_again - now < _AGAIN_MAX_S:
            self._reader.overrun = False
            began = perf_counter()
            self.look_again()
            self._next_again = now + min(_AGAIN_MAX_S, (perf_counter() - began) / _AGAIN_SHARE)
        if now >= self._next_look or self._next_look > now + 3600:
            began = perf_counter()
            self._tell(self._look(now))
            self._next_look = now + max(_LOOK_S, (perf_counter() - began) / _LOOK_SHARE)
            self._flush()

    def _event(self, event: Event, now: float) -> Sequence[Observation]:
        key = event.key
        if event.what == NEW:
            self._missing.discard(key)
            if self._taken_up and self._taken_up.pop(key, None) == event.id:
                return ()
            return self._new(key, event, now)
        if event.what == DESTROY:
            return self._gone(event, now)
        if event.protocol != TCP:
            return self.live.answered(key, now) if event.status & IPS_SEEN_REPLY else ()
        if event.tcp_state == TCP_ESTABLISHED:
            return self.live.established(key, now)
        if event.tcp_state in (TCP_TIME_WAIT, TCP_CLOSE):
            self._closed.append(event)
        return ()

    def _flow(self, event: Event) -> Flow | None:
        """A connection as rules judge it; None for one of this machine with itself."""
        answering = event.reply_source or event.destination
        direction = self._chronicle.direction(event.source, answering)
        if direction is Direction.OUT and self._chronicle.is_local(answering):
            return None
        destination, port = event.destination, event.port
        # Arriving and leaving packets are judged behind the rewrite of a destination, forwarded ones before it.
        if direction is not Direction.FORWARD:
            destination, port = answering, port if event.reply_port is None else event.reply_port
        return Flow(
            direction=direction,
            protocol=event.protocol,
            source=event.source,
            destination=destination,
            source_port=event.source_port,
            port=port,
            icmp_type=event.icmp_type,
        )

    def _new(self, key: bytes, event: Event, now: float) -> Sequence[Observation]:
        flow = self._flow(event)
        if flow is None:
            return ()
        sent = None
        if flow.direction is Direction.OUT and (flow.destination, flow.port) != (event.destination, event.port):
            sent = replace(flow, destination=event.destination, port=event.port)
        entry = self._chronicle.began(flow, now, sent)
        self._entries.append(entry)
        if key in self._ids:
            self._finish(key, now, Traffic())  # its end was not heard of
        if len(self._ids) < FOLLOWED_MAX:
            self._ids[key] = -entry.id if flow.direction is Direction.IN else entry.id
        else:
            self.not_followed += 1
        began = Began(
            now, flow.protocol, flow.source, flow.destination, flow.source_port, flow.port, flow.icmp_type,
            program=entry.subject.program,
        )  # fmt: skip
        picked_up = event.protocol == TCP and event.tcp_state is not None and event.tcp_state not in _SYN_SENT
        return self.live.began(key, began, is_picked_up=picked_up)

    def _gone(self, event: Event, now: float) -> Sequence[Observation]:
        self._untold.pop(event.key, None)
        if self._past is not None:
            self._past.add(event.key)
        return self._ended(event.key, now, _traffic(event))

    def _ended(self, key: bytes, now: float, traffic: Traffic) -> Sequence[Observation]:
        self._finish(key, now, traffic)
        return self.live.gone(key, now, traffic)

    def _finish(self, key: bytes, now: float, traffic: Traffic) -> None:
        """Write the end of a connection, unless it is written already."""
        number = self._ids.pop(key, None)
        if key in self._over:
            self._over.discard(key)
        elif number is not None:
            self._ends.append(Finish(abs(number), now, _seen_from_here(number, traffic)))

    def _ask(self, now: float) -> list[Observation]:
        """Of connections that have closed: what they carried, as far as there is time to ask."""
        closed, self._closed = self._closed, []
        if now // 1 != self._second:
            self._second, self._asked = now // 1, 0
        asked = [] if self.live.is_busy else closed[: max(0, ASKED_MAX - self._asked)]
        self._asked += len(asked)
        found: dict[int, Event] = {}
        if asked:
            with suppress(OSError):
                found = self._look_up.now(asked)
        told: list[Observation] = []
        for event in closed:
            # Another may have the same ends by now, and the same id.
            known = found.get(event.id)
            traffic = None if known is None or known.key != event.key else _traffic(known)
            told += self.live.closed(event.key, now, traffic, by_reset=event.tcp_state == TCP_CLOSE)
            number = self._ids.get(event.key)
            if traffic is not None and number is not None and event.key not in self._over:
                self._ends.append(Finish(abs(number), now, _seen_from_here(number, traffic)))
                self._over.add(event.key)
        return told

    def _look(self, now: float) -> list[Observation]:
        """What all connections have carried so far."""
        told: list[Observation] = []
        is_written = not 0 <= now - self._written < _WRITTEN_S
        self._written = now if is_written else self._written
        gone = dict(self._untold)
        try:
            for tracked, now in self._table(told):
                key = tracked.key
                number = self._ids.get(key)
                traffic = _traffic(tracked)
                if gone.pop(key, None) is not None and key in self._untold:
                    self._untold[key] = traffic
                if number is None or key in self._over:
                    continue
                told += self.live.carried(key, now, traffic)
                if is_written:
                    self._ends.append(Finish(abs(number), None, _seen_from_here(number, traffic)))
        except OSError:
            return told
        for key, traffic in gone.items():
            if self._untold.pop(key, None) is not None:
                told += self._ended(key, now, traffic)
        return told

    def _table(self, told: list[Observation]) -> Iterator[tuple[Event, float]]:
        """All that the kernel tracks, and what time it is; in between events are taken, and what was told so far is
        seen before what follows from them. Raises OSError."""
        now = clock.now()
        for number, tracked in enumerate(conntrack.tracked(), 1):
            yield tracked, now
            if number % _PIECE == 0:
                self._tell(told)
                told.clear()
                self.take()
                now = clock.now()

    def _tell(self, told: Sequence[Observation]) -> None:
        if told:
            self._see(told)

    def _flush(self) -> None:
        if self._entries:
            self._history.write(self._entries)
            self._entries = []
        if self._chronicle.first:
            self._history.first_seen(self._chronicle.first)
            self._chronicle.first = []
        if self._ends:
            self._history.finish(self._ends)
            self._ends = []


def _connections() -> Iterator[Event]:
    """All that the kernel tracks; none where it does not tell."""
    with suppress(OSError):
        yield from conntrack.tracked()


def _traffic(counted: Event) -> Traffic:
    """What a connection carried, `sent` being that of who began it."""
    return Traffic(
        counted.bytes or 0, counted.packets or 0, counted.reply_bytes or 0, counted.reply_packets or 0
    )  # fmt: skip


def _seen_from_here(number: int, traffic: Traffic) -> Traffic:
    """The same as the history has it: of what came in the other end began."""
    if number >= 0:
        return traffic
    return Traffic(
        traffic.received_bytes, traffic.received_packets, traffic.sent_bytes, traffic.sent_packets
    )  # fmt: skip


def _ends_of(flow: Flow) -> _Ends:
    """What tells a connection from others that are open."""
    return flow.protocol, flow.source, flow.destination, flow.source_port, flow.port, flow.icmp_type


def _ends_of_row(entry: Entry) -> _Ends:
    subject = entry.subject
    source, destination = subject.local, entry.remote
    if subject.direction is Direction.IN:
        source, destination = destination, source
    return subject.protocol, source, destination, entry.from_port, subject.port, subject.icmp_type
