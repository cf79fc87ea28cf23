"""The engine: the only state machine. Events in, commands out.

Rule 1: every change of a connection's state happens in this package.
Rule 2: nothing here knows where packets come from, what time it is, or who reads the commands; capture
files, live traffic and tests drive the very same code.

A packet of a known connection costs the body of the loop in `_packets`, one look-up in a table. All
others go through `_unusual`, whose steps read in the order in which the kernel takes them: decode,
fragments, ICMP errors, connection tracking, policy.
"""

from __future__ import annotations

from collections.abc import Callable

from pfw.engine.flows import Connection, FlowTable, Half
from pfw.engine.fragments import Fragments
from pfw.engine.judge import Judge
from pfw.engine.suspicion import TEXTS, flags_event, flow_events
from pfw.engine.tcp import (
    CLOSING,
    IGNORE,
    INVALID,
    State,
    can_start,
    first_state,
    flags_are_valid,
    ongoing_state,
    state_name,
)
from pfw.engine.totals import INVALID as INVALID_VERDICT
from pfw.engine.totals import Counters, Row, Totals
from pfw.engine.viewpoint import Viewpoint
from pfw.model.command import Command, Ended, Frame, Judged, Notice, Seen, Suspicious
from pfw.model.event import Event, Finish, Item, LocalAddresses, OpenSocket, Packets, PolicyChanged, Tick
from pfw.model.flow import Flow, reverse_key, split_key
from pfw.model.packet import SYN, TCP, Packet
from pfw.model.policy import Policy
from pfw.model.verdict import Verdict

OPEN_SOCKETS_MAX = 65_536


class Engine:
    """All state about traffic. Feed it events and the time; do what it returns, in order.

    `utc_offset` gives the local clock's distance from UTC at a time, both in seconds: schedules are by
    the local clock. With `every_packet` there is a `Seen` for each packet of a connection. Without
    `details` a `Judged` carries no frame and there is no `Ended`, for those who only count.
    """

    def __init__(
        self,
        policy: Policy,
        utc_offset: Callable[[float], int] = lambda _: 0,
        *,
        every_packet: bool = False,
        details: bool = True,
        table: FlowTable | None = None,
    ) -> None:
        self._utc_offset = utc_offset
        self._every_packet = every_packet
        self._details = details
        self._table = FlowTable() if table is None else table
        self._fragments = Fragments()
        self._counters = Counters()
        self._open_sockets: set[bytes] = set()
        self._next_number = 1
        self._told_full = False
        self._commands: list[Command] = []
        self._view = Viewpoint()
        self._adopt(policy)

    def step(self, event: Event, now: float) -> list[Command]:
        """Take one event; `now` is for events that carry no time of their own."""
        commands: list[Command] = []
        self._commands = commands
        match event:
            case Packets():
                self._packets(event)
            case PolicyChanged(policy=policy):
                self._adopt(policy)
                self._judge_again(now)
            case LocalAddresses():
                self._view = Viewpoint(event)
            case OpenSocket(key=key):
                if len(self._open_sockets) < OPEN_SOCKETS_MAX:
                    self._open_sockets.add(key)
            case Tick():
                self._expire(now)
            case Finish():
                for connection in self._table.connections:
                    self._table.remove(connection)
                    self._end(connection, now, "shutdown")
        return commands

    def totals(self) -> Totals:
        """Everything counted so far."""
        waiting = self._fragments.waiting
        held: dict[Row, tuple[int, int]] = {self._counters.invalid: waiting}
        for connection in self._table.connections:
            packets, size = connection.uncounted
            had = held.get(connection.row, (0, 0))
            held[connection.row] = (had[0] + packets, had[1] + size)
        return self._counters.totals(held, self._table.evicted)

    @property
    def connections(self) -> int:
        """How many connections are remembered now."""
        return len(self._table)

    def _adopt(self, policy: Policy) -> None:
        self._judge = Judge(policy, self._utc_offset)
        for rule in policy.rules:
            self._counters.row(Verdict(action=rule.action, rule=rule.name))
        for direction, action in policy.defaults.items():
            self._counters.row(Verdict(action=action, reason=f"default {direction}"))

    def _packets(self, event: Packets) -> None:
        table = self._table
        get = table.halves.get
        every = self._every_packet
        for item in event.items:
            key, time, size, flags, _, _, packet = item
            if time >= table.next_due:
                self._expire(time)
            if packet is not None or key is None:
                self._unusual(event, item)
                continue
            half = get(key)
            if half is None:
                half = self._begin(event, item, key)
                if half is None:
                    continue
            move = half.moves[flags]
            if move is not None:
                if move < 0:
                    self._stray(event, item, half, move)
                    continue
                if half.connection.enter(move):
                    table.schedule(half.connection, time)
            half.packets += 1
            half.bytes += size
            half.last = time
            half.flags |= flags
            if every:
                self._see(half, item)
        self._counters.packets += len(event.items)

    def _unusual(self, event: Packets, item: Item) -> None:
        """A packet that starts a connection, is not quite in order, or belongs to none."""
        key, time, size, flags, _, _, packet = item
        early = (0, 0)
        if packet is not None:
            for anomaly in packet.anomalies:
                self._suspect(event, item, anomaly, "")
            if packet.not_ip is not None:
                self._counters.count_not_ip(packet.not_ip, size)
                return
            if packet.fragment is not None and not packet.undecodable:
                key, early = self._fragments.follow(packet, time, size)
                if key is None:
                    return
            if packet.quoted_key is not None and self._follow_error(item, packet, early):
                return
        if key is None:
            self._counters.count_undecodable(size)
            return
        # A later fragment has no flags and no ports of its own: it starts nothing and changes nothing.
        later = packet is not None and packet.fragment is not None and packet.fragment.offset_bytes > 0
        half = self._table.halves.get(key)
        if half is None:
            half = None if later else self._begin(event, item, key)
        if half is None:
            self._counters.count_invalid(early[0] + later, early[1] + size * later)
            return
        half.packets += early[0]
        half.bytes += early[1]
        move = None if later else half.moves[flags]
        if move is not None and move < 0:
            self._stray(event, item, half, move)
            return
        if move is not None and half.connection.enter(move):
            self._table.schedule(half.connection, time)
        self._follow(item, half)

    def _follow_error(self, item: Item, packet: Packet, early: tuple[int, int]) -> bool:
        """Count an ICMP error, with packets and bytes of fragments of it that came early, to the connection
        that it is about, if there is one, it goes to who sent the quoted packet, and the policy lets it."""
        quoted_key = packet.quoted_key or b""
        about = self._table.halves.get(quoted_key)
        if about is None or not self._judge.policy.base.icmp_errors:
            return False
        if packet.destination != split_key(quoted_key)[1]:
            return False
        connection = about.connection
        half = connection.reply if about is connection.original else connection.original
        half.packets += 1 + early[0]
        half.bytes += item[2] + early[1]
        if self._every_packet:
            self._see(half, item)
        return True

    def _follow(self, item: Item, half: Half) -> None:
        """What the loop of `_packets` does with a packet that changes nothing about its connection."""
        _, time, size, flags, _, _, _ = item
        half.packets += 1
        half.bytes += size
        half.last = time
        half.flags |= flags
        if self._every_packet:
            self._see(half, item)

    def _stray(self, event: Packets, item: Item, half: Half, move: int) -> None:
        """A packet of a connection that does not move it on: IGNORE, INVALID or REOPEN (`tcp.py`)."""
        connection = half.connection
        if move == IGNORE:
            # It passes, but as in the kernel it keeps nothing alive.
            half.packets += 1
            half.bytes += item[2]
            if self._every_packet:
                self._see(half, item)
        elif move == INVALID:
            self._count_invalid(event, item, connection.flow)
        else:
            key = connection.key if half is connection.original else connection.reply_key
            self._table.remove(connection)
            self._end(connection, item[1], "closed")
            begun = self._begin(event, item, key)
            if begun is not None:
                self._follow(item, begun)

    def _begin(self, event: Packets, item: Item, key: bytes) -> Half | None:
        """The half that this packet belongs to in a connection that it starts; None when it can start none."""
        flags = item[3]
        interface = event.source.interface
        if self._open_sockets and not flags & SYN:
            for known in (key, reverse_key(key)):
                if known in self._open_sockets:
                    views = self._view.flows(known, interface, sent=None)
                    connection = self._start(event, item, known, views, ongoing_state(known))
                    if connection is None:
                        return None
                    # From now on the table knows it.
                    self._open_sockets.discard(known)
                    return connection.original if known == key else connection.reply
        views = self._view.flows(key, interface, sent=None if event.sent is None else item[4] in event.sent)
        flow = views[0]
        if not can_start(flow.protocol, flags, flow.icmp_type):
            self._count_invalid(event, item, flow)
            return None
        for name in flow_events(flow, self._view.addresses):
            self._suspect(event, item, name, TEXTS[name], flow)
        state = first_state(flow.protocol, flags)
        if state == State.ESTABLISHED:
            self._counters.midstream += 1
        connection = self._start(event, item, key, views, state)
        return None if connection is None else connection.original

    def _start(self, event: Packets, item: Item, key: bytes, views: tuple[Flow, ...], state: int) -> Connection | None:
        """Judge a new connection and remember it; None when there is no room."""
        _, time, size, flags, at, end, _ = item
        flow, verdict = self._judge.verdict(views, time)
        connection = Connection(self._next_number, key, flow, time, state)
        self._next_number += 1
        connection.verdict = verdict
        connection.row = self._counters.judge(verdict)
        frame = Frame(event.source.linktype, bytes(event.buffer[at:end]), size) if self._details else None
        self._commands.append(Judged(time, connection.number, flow, verdict, frame, flags))
        if self._table.full and not self._make_room(time):
            connection.row.packets += 1
            connection.row.bytes += size
            if self._every_packet:
                self._see(connection.original, item)
            connection.release()
            return None
        self._table.add(connection)
        return connection

    def _judge_again(self, now: float) -> None:
        """The policy changed: say which connections it now sees otherwise, and count them there from now on."""
        for connection in self._table.connections:
            verdict = self._judge.again(connection.flow, now)
            connection.settle()
            changed = verdict.action is not connection.verdict.action
            connection.verdict = verdict
            connection.row = self._counters.row(verdict)
            if changed:
                self._commands.append(
                    Judged(time=now, connection=connection.number, flow=connection.flow, verdict=verdict, again=True)
                )

    def _make_room(self, time: float) -> bool:
        if not self._told_full:
            self._told_full = True
            text = f"the table of connections is full ({len(self._table)}): the oldest unanswered ones are forgotten"
            self._commands.append(Notice(time, text))
        victim = self._table.evict(time)
        if victim is None:
            self._counters.untracked += 1
            return False
        self._end(victim, time, "forced")
        return True

    def _expire(self, now: float) -> None:
        for connection in self._table.expired(now):
            self._end(connection, now, "closed" if connection.state in CLOSING else "timeout")

    def _end(self, connection: Connection, now: float, reason: str) -> None:
        connection.settle()
        connection.release()
        if not self._details:
            return
        original, reply = connection.original, connection.reply
        self._commands.append(
            Ended(
                time=now,
                connection=connection.number,
                flow=connection.flow,
                verdict=connection.verdict,
                start=connection.start,
                end=connection.last,
                packets_sent=original.packets,
                packets_received=reply.packets,
                bytes_sent=original.bytes,
                bytes_received=reply.bytes,
                reason=reason,
                state=state_name(connection.state),
                flags_sent=original.flags,
                flags_received=reply.flags,
            )
        )

    def _count_invalid(self, event: Packets, item: Item, flow: Flow) -> None:
        _, time, size, flags, _, _, _ = item
        self._counters.count_invalid(1, size)
        if flow.protocol == TCP and not flags_are_valid(flags):
            name = flags_event(flags)
            self._suspect(event, item, name, TEXTS[name], flow)
        if self._every_packet:
            self._commands.append(Seen(time=time, connection=0, flow=flow, verdict=INVALID_VERDICT, size=size))

    def _see(self, half: Half, item: Item) -> None:
        connection = half.connection
        self._commands.append(
            Seen(
                time=item[1],
                connection=connection.number,
                flow=connection.flow,
                verdict=connection.verdict,
                size=item[2],
                reply=half is connection.reply,
            )
        )

    def _suspect(self, event: Packets, item: Item, name: str, text: str, flow: Flow | None = None) -> None:
        _, time, size, _, at, end, _ = item
        source = event.source
        frame = Frame(source.linktype, bytes(event.buffer[at:end]), size)
        self._commands.append(
            Suspicious(time=time, event=name, text=text, frame=frame, flow=flow, interface=source.interface)
        )
