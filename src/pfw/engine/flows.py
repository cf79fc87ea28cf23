"""The table of connections: bounded, aging like the kernel's, one look-up a packet.

Every connection stands in the table twice, under the key of each way through it; what stands there is a
`Half`, which is all that a packet of a known connection touches. `engine.py` alone changes halves in its
loop; everything else about the table lives here.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from pfw.engine.tcp import MOVES, SOONER, Moves, State, timeout_s
from pfw.engine.totals import Row
from pfw.model.flow import Flow, make_flow, reverse_key, split_key
from pfw.model.verdict import Verdict

CONNECTIONS_MAX = 20_000
"""About 1 kB each: what a live watch can afford. The kernel's own default is 65,536 to 262,144, by memory."""

REPLAYED_CONNECTIONS_MAX = 262_144
"""For captures from files, where nobody minds the memory but a connection forgotten is one misjudged."""

RECHECK_S = 600.0
"""A connection is looked at for its age at least this often, so that an old entry never waits days for it."""

LOOK_S = 1.0
"""Ages are looked at no more often than this, so a connection may be forgotten so much late."""

REVIEW_S = 1.0
"""How long a new state waits for its due time; far less than the shortest timeout."""

VOID_ENTRIES_MAX = 1024
"""Entries of the schedule that mean nothing any more, besides a quarter as many as there are connections."""

EVICTION_TRIES = 8
"""As many as the kernel looks at (nf_conntrack_core.c, early_drop) before it gives up."""


SPARED_S = 120.0
"""How long a connection that was spared is not looked at again: as long as an unanswered one may have to live."""


class Half:
    """One way through a connection: what went that way, and what its next packet can change."""

    __slots__ = ("bytes", "connection", "flags", "last", "moves", "packets")

    def __init__(self, connection: Connection, moves: Moves, time: float) -> None:
        self.connection = connection
        self.moves = moves
        self.last = time
        self.packets = 0
        self.bytes = 0
        self.flags = 0


class Connection:
    """A tracked connection. `counted` is what earlier rows have of it, from before a change of policy."""

    __slots__ = (
        "check_at", "counted", "direction", "interface", "key", "number", "original", "protocol",
        "reply", "reply_key", "row", "start", "state", "verdict",
    )  # fmt: skip

    def __init__(self, number: int, key: bytes, flow: Flow, time: float, state: int) -> None:
        self.number = number
        self.key = key
        self.reply_key = reverse_key(key)
        self.direction = flow.direction
        self.interface = flow.interface
        self.protocol = flow.protocol
        self.start = time
        self.state = state
        forth, back = MOVES[state]
        self.original = Half(self, forth, time)
        self.reply = Half(self, back, time)
        self.counted = (0, 0)
        self.check_at = float("inf")
        """When the table looks at its age next."""
        self.verdict: Verdict
        self.row: Row

    @property
    def flow(self) -> Flow:
        """Its flow, made anew each time: it is seldom asked for, and would take a fifth of the memory."""
        return make_flow(*split_key(self.key), self.direction, self.interface)

    @property
    def last(self) -> float:
        return max(self.original.last, self.reply.last)

    @property
    def due(self) -> float:
        """When it is forgotten unless another packet comes."""
        sent, received = self.original.last, self.reply.last
        return (sent if sent > received else received) + timeout_s(self.protocol, self.state)

    @property
    def uncounted(self) -> tuple[int, int]:
        """Packets and bytes that no row has yet."""
        packets, size = self.counted
        original, reply = self.original, self.reply
        return original.packets + reply.packets - packets, original.bytes + reply.bytes - size

    def enter(self, state: int) -> bool:
        """Go to another state; True when it is one that is forgotten sooner."""
        sooner = state in SOONER[self.state]
        self.state = state
        self.original.moves, self.reply.moves = MOVES[state]
        return sooner

    def release(self) -> None:
        """Let it be freed at once: the halves point back at it, which only the garbage collector would undo."""
        del self.original.connection, self.reply.connection

    def settle(self) -> None:
        """Put what no row has yet into the present one."""
        original, reply, row = self.original, self.reply, self.row
        packets = original.packets + reply.packets
        size = original.bytes + reply.bytes
        row.packets += packets - self.counted[0]
        row.bytes += size - self.counted[1]
        self.counted = (packets, size)


class FlowTable:
    """All connections that are remembered.

    `halves` is read by the engine's loop and written only here. `next_due` is the earliest time at which
    `expired` may have something to give.
    """

    def __init__(self, capacity: int = CONNECTIONS_MAX) -> None:
        self.halves: dict[bytes | None, Half] = {}
        self.next_due = float("inf")
        self.evicted = 0
        self._capacity = capacity
        self._size = 0
        # When to look at which connection, by its key: connections that are gone must not live on in here.
        self._due: list[tuple[float, bytes]] = []
        self._unscheduled: set[Connection] = set()
        self._review_at = float("inf")

    def __len__(self) -> int:
        return self._size

    @property
    def connections(self) -> list[Connection]:
        return [half.connection for half in self.halves.values() if half.connection.original is half]

    @property
    def full(self) -> bool:
        return self._size >= self._capacity

    def add(self, connection: Connection) -> None:
        """Remember it. The caller has made sure that the table is not full and the key not in it."""
        self.halves[connection.key] = connection.original
        self.halves.setdefault(connection.reply_key, connection.reply)
        self._size += 1
        self.schedule(connection, connection.start)

    def schedule(self, connection: Connection, now: float) -> None:
        """Have its age looked at when it is due: it is new, or in a state that has a shorter timeout.

        Most states last for a moment, so the due time is only reckoned a little later.
        """
        if not self._unscheduled:
            self._review_at = now + REVIEW_S
            self.next_due = min(self.next_due, self._review_at)
        self._unscheduled.add(connection)

    def remove(self, connection: Connection) -> None:
        del self.halves[connection.key]
        half = self.halves.get(connection.reply_key)
        if half is connection.reply:
            del self.halves[connection.reply_key]
        self._unscheduled.discard(connection)
        self._size -= 1

    def expired(self, now: float) -> list[Connection]:
        """The connections whose time is over, removed."""
        gone = []
        if now >= self._review_at:
            self._review(now)
        while self._due and self._due[0][0] <= now:
            connection = self._scheduled(heappop(self._due))
            if connection is None:
                continue
            due = connection.due
            if due <= now:
                self.remove(connection)
                gone.append(connection)
            else:
                self._check(connection, min(due, now + RECHECK_S))
        earliest = min(self._due[0][0] if self._due else float("inf"), self._review_at)
        self.next_due = max(earliest, now + LOOK_S)
        return gone

    def evict(self, now: float) -> Connection | None:
        """Make room: the unanswered connection that would soonest be forgotten, or one that has long been idle,
        removed; None when all are alive."""
        self._review(now)
        kept: list[Connection] = []
        victim = None
        while self._due and victim is None and len(kept) < EVICTION_TRIES:
            connection = self._scheduled(heappop(self._due))
            if connection is None:
                continue
            if connection.state in (State.ESTABLISHED, State.ANSWERED):
                kept.append(connection)
            else:
                victim = connection
        if victim is None and kept:
            idle = min(kept, key=lambda connection: connection.last)
            if now - idle.last > SPARED_S:
                # The kernel would keep it; here its next packet is only judged once more.
                victim = idle
                kept.remove(idle)
        for connection in kept:
            # Out of the way of the next eviction: in a full table some are forgotten this much late.
            self._check(connection, now + SPARED_S)
        self.next_due = min(self._due[0][0] if self._due else float("inf"), self._review_at)
        if victim is not None:
            self.remove(victim)
            self.evicted += 1
        return victim

    def _review(self, now: float) -> None:
        """Reckon when those are due that wait for it."""
        waiting, self._unscheduled = self._unscheduled, set()
        self._review_at = float("inf")
        for connection in waiting:
            due = min(connection.due, now + RECHECK_S)
            if due < connection.check_at:
                self._check(connection, due)

    def _check(self, connection: Connection, at: float) -> None:
        """Schedule its next check; an entry that it had before is void from now on."""
        connection.check_at = at
        heappush(self._due, (at, connection.key))
        if len(self._due) > self._size + self._size // 4 + VOID_ENTRIES_MAX:
            self._due = [entry for entry in self._due if self._scheduled(entry) is not None]
            heapify(self._due)

    def _scheduled(self, entry: tuple[float, bytes]) -> Connection | None:
        """The connection whose check this entry is, None when it is gone or has another one by now."""
        half = self.halves.get(entry[1])
        if half is None or half.connection.check_at != entry[0]:
            return None
        return half.connection
