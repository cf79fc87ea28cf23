"""From the kernel's own tracking of connections to observations: the live twin of `watch.py`, which sees packets.

It is told what connection tracking tells (`wire/conntrack_event.py`): a connection is new, has changed, is gone. What
that does not tell is reckoned here: that nobody answered, and sizes on the wire. What rules stopped never becomes a
connection; `stopped` is told of it. The table is bounded as that of `watch.py` is.

Where much goes on, connections are a sample: see `Pace`.

What the kernel's events mean was tried (`tests/netns/test_conntrack_events.py`): a port that refuses a TCP connection
ends it at once, with one packet each way; a half-open scan ends in state CLOSE without having been established.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from pfw.engine.detect.connection import BUSY_PACKETS, FEW_PACKETS, a_second
from pfw.engine.detect.crowd import Crowds
from pfw.engine.detect.watch import CONNECTIONS_MAX, SILENCE_S
from pfw.model.history import Traffic
from pfw.model.observation import Began, Busy, Confirmed, Ended, Met, Observation, Reply, Stray
from pfw.model.packet import ACK, FIN, RST, SYN, TCP

LINK_BYTES = 14
"""What the kernel counts are IP packets; detectors know sizes as they are on Ethernet."""
_SYN_BYTES = {4: 60 + LINK_BYTES, 16: 80 + LINK_BYTES}
"""A SYN with the options that Linux sends: its size is not told."""
_OTHER_BYTES = 1 << 16
_NOTHING: Sequence[Observation] = ()
PACE, PACE_MANY = 20, 5
"""Connections a second of one source to one port of one destination that are looked at, when all is quiet, and when
MANY begin a second."""
PORT_PACE, PORT_PACE_MANY = 500, 200
"""The same of all sources together, and of one source to that port of all destinations."""
MANY = 3_000
PACES_MAX = 8_192


_Flow = tuple[bytes | None, bytes | None, int | None]
"""Source, destination and port; None for all."""


class Pace:
    """Which connections need not be looked at: those of which one source, or all to one place, make many a second
    that are answered. A scan, whose ports differ, is looked at whole, and of a flood that nobody answers what
    `crowd.py` leaves."""

    __slots__ = ("begun", "met", "met_before", "second")

    def __init__(self) -> None:
        self.second = 0.0
        self.begun = self.met = self.met_before = 0

    def is_enough(self, second: float, most: int) -> bool:
        """Another one begins: whether enough were looked at."""
        if second != self.second:
            self.met_before = self.met if second == self.second + 1 else 0
            self.second = second
            self.begun = self.met = 0
        if self.begun >= most and 2 * (self.met + self.met_before) >= most:
            return True
        self.begun += 1
        return False


class _Known:
    """A connection: how far it has come, and what it had carried when that was last looked at."""

    __slots__ = ("attempts", "began", "confirmed", "met", "paces", "seen", "silent", "was_reset")

    def __init__(self, began: Began, paces: tuple[Pace, ...]) -> None:
        self.began = began
        self.paces = paces
        self.attempts = 1
        self.met = self.confirmed = self.silent = self.was_reset = False
        self.seen = (began.time, 0, 0, 0, 0)


class LiveWatch:
    """Follows connections by their flow keys. Give it events in the order of time."""

    def __init__(self, capacity: int = CONNECTIONS_MAX) -> None:
        self.refused = 0
        self._enough = 0
        self._crowds = Crowds()
        self._capacity = capacity
        self._paces: OrderedDict[_Flow, Pace] = OrderedDict()
        self._second = 0.0
        self._begun = self._begun_before = 0
        self._known: dict[bytes, _Known] = {}
        # Those that wait for a reply, in the order in which they began.
        self._waiting: OrderedDict[bytes, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def sampled_out(self) -> int:
        """Connections that detectors were not told of, because there were enough of their kind."""
        return self._enough + self._crowds.sampled

    @property
    def is_busy(self) -> bool:
        """Whether MANY connections begin a second."""
        return max(self._begun, self._begun_before) >= MANY

    def began(self, key: bytes, began: Began, *, is_picked_up: bool = False) -> Sequence[Observation]:
        """A connection is new. One that `is_picked_up` began with a TCP packet that is no SYN: perhaps a probe, perhaps
        it is older than the tracking."""
        if is_picked_up:
            return (
                Stray(began.time, began.source, began.destination, began.source_port or 0, began.port or 0, ACK),
            )  # fmt: skip
        second = began.time // 1
        if second != self._second:
            self._begun_before, self._begun, self._second = self._begun, 0, second
        self._begun += 1
        source, destination, port = began.source, began.destination, began.port
        paces = self._pace((None, destination, port)), self._pace((source, None, port)), self._pace(
            (source, destination, port)
        )  # fmt: skip
        of_all, own = (PORT_PACE_MANY, PACE_MANY) if self.is_busy else (PORT_PACE, PACE)
        if any(pace.is_enough(second, most) for pace, most in zip(paces, (of_all, of_all, own), strict=True)):
            self._enough += 1
            return _NOTHING
        stands_for = self._crowds.came(key)
        if not stands_for:
            return _NOTHING
        size = _SYN_BYTES[len(began.source)] if began.protocol == TCP else _OTHER_BYTES
        sized = Began(
            began.time, began.protocol, began.source, began.destination, began.source_port, began.port,
            began.icmp_type, size, stands_for, began.program,
        )  # fmt: skip
        if len(self._known) >= self._capacity and not self._make_room():
            self.refused += 1
            return (sized,)
        known = self._known[key] = self._waiting[key] = _Known(sized, paces)
        known.seen = (began.time, 0, 0, 0, 0)
        return (sized,)

    def answered(self, key: bytes, time: float) -> Sequence[Observation]:
        """The other end has sent something."""
        known = self._known.get(key)
        if known is None or known.met or known.silent:
            return _NOTHING
        return (self._meet(key, known, time, Reply.ANSWERED),)

    def established(self, key: bytes, time: float) -> Sequence[Observation]:
        """The handshake of a TCP connection is complete, its numbers were right: the address is not forged."""
        known = self._known.get(key)
        if known is None or known.confirmed:
            return _NOTHING
        known.confirmed = True
        confirmed = Confirmed(time, known.began)
        return (confirmed,) if known.met or known.silent else (self._meet(key, known, time, Reply.ANSWERED), confirmed)

    def closed(
        self, key: bytes, time: float, traffic: Traffic | None, *, by_reset: bool = False
    ) -> Sequence[Observation]:
        """A TCP connection is over; `traffic` (by whoever began it) is what it carried, None where nobody knows yet."""
        known = self._known.get(key)
        if known is None:
            return _NOTHING
        told: list[Observation] = []
        known.was_reset = by_reset
        if by_reset and not known.confirmed:
            # It was answered, and then reset: by who began it, as half-open scans do.
            if not known.met and not known.silent:
                told.append(self._meet(key, known, time, Reply.ANSWERED))
            known.confirmed = True
            told.append(Confirmed(time, known.began, by_reset=True))
        if traffic is not None:
            told.append(self._ended(known, time, traffic))
            self.forget(key)
        return told

    def refused_by(self, key: bytes, time: float, reply: Reply) -> Sequence[Observation]:
        """An error told that the connection cannot be."""
        known = self._known.get(key)
        if known is None or known.met or known.silent:
            return _NOTHING
        met = self._meet(key, known, time, reply)
        self.forget(key)
        return (met,)

    def gone(self, key: bytes, time: float, traffic: Traffic) -> Sequence[Observation]:
        """The kernel has forgotten a connection: it was refused, is over, or was silent for long."""
        known = self._known.get(key)
        if known is None:
            return _NOTHING
        self.forget(key)
        if known.met or known.confirmed:
            return (self._ended(known, time, traffic),)
        if known.silent:
            return _NOTHING
        if known.began.protocol != TCP:
            reply = Reply.ANSWERED if traffic.received_packets else Reply.SILENT
            met = Met(time, known.began, reply, max(1, traffic.sent_packets))
            return (met, self._ended(known, time, traffic)) if traffic.received_packets else (met,)
        if traffic.received_packets:
            return (Met(time, known.began, Reply.REFUSED, known.attempts),)
        return (Met(time, known.began, Reply.SILENT, max(1, traffic.sent_packets)),)

    def stopped(self, began: Began, flags: int, reply: Reply) -> Sequence[Observation]:
        """A packet of no connection was stopped by a rule. One of TCP that is no SYN would have begun none; those with
        odd flags are seen elsewhere, whether they are stopped or not (`daemon/special_packets.py`)."""
        if began.protocol == TCP and flags & (SYN | ACK | RST | FIN) != SYN:
            if flags & (SYN | ACK | RST) != ACK:
                return _NOTHING
            ports = began.source_port or 0, began.port or 0
            return (Stray(began.time, began.source, began.destination, *ports, flags, began.size_bytes),)
        return began, Met(began.time, began, reply)

    def carried(self, key: bytes, now: float, traffic: Traffic) -> Sequence[Observation]:
        """What a connection has carried so far; called once in a while."""
        known = self._known.get(key)
        if known is None:
            return _NOTHING
        since, *before = known.seen
        counts = (traffic.sent_bytes, traffic.sent_packets, traffic.received_bytes, traffic.received_packets)
        grown = [max(0, count - past) for count, past in zip(counts, before, strict=True)]
        known.seen = (now, *counts)
        lasted_s, is_answered = max(now - since, 1.0), traffic.received_packets > 0
        if max(grown[1], grown[3]) < (BUSY_PACKETS if is_answered else FEW_PACKETS) * lasted_s:
            return _NOTHING
        sent, sent_packets, received, received_packets = a_second(grown, lasted_s)
        # Before an answer TCP sends nothing but SYNs.
        attempts = sent_packets if known.began.protocol == TCP and not is_answered else 0
        return (
            Busy(now, known.began, since, sent + LINK_BYTES * sent_packets, sent_packets,
                 received + LINK_BYTES * received_packets, received_packets, attempts, is_answered),
        )  # fmt: skip

    def tick(self, now: float) -> Iterator[Observation]:
        """What it means that nothing came. Call it about once a second."""
        self._crowds.turn(now)
        if now // 1 > self._second + 1:
            self._begun = self._begun_before = 0
        while self._waiting:
            key, known = next(iter(self._waiting.items()))
            # A clock that was set back makes nobody wait for longer.
            if 0 <= now - known.began.time < SILENCE_S:
                return
            del self._waiting[key]
            if not known.met and not _is_to_many(known.began.destination):
                known.silent = True
                yield Met(now, known.began, Reply.SILENT, known.attempts)

    def _meet(self, key: bytes, known: _Known, time: float, reply: Reply) -> Met:
        known.met = True
        if reply is Reply.ANSWERED:
            for pace in known.paces:
                pace.met += 1
            self._crowds.completed(key, known.began.stands_for)
        self._waiting.pop(key, None)
        return Met(time, known.began, reply, known.attempts)

    def _pace(self, name: _Flow) -> Pace:
        found = self._paces.get(name)
        if found is None:
            found = self._paces[name] = Pace()
            if len(self._paces) > PACES_MAX:
                self._paces.popitem(last=False)
        else:
            self._paces.move_to_end(name)
        return found

    def _ended(self, known: _Known, time: float, traffic: Traffic) -> Ended:
        return Ended(
            time, known.began,
            traffic.sent_bytes + LINK_BYTES * traffic.sent_packets, traffic.sent_packets,
            traffic.received_bytes + LINK_BYTES * traffic.received_packets, traffic.received_packets, known.was_reset,
        )  # fmt: skip

    def forget(self, key: bytes) -> None:
        """A connection has gone without a word."""
        self._known.pop(key, None)
        self._waiting.pop(key, None)

    def _make_room(self) -> bool:
        if not self._waiting:
            return False
        key, _ = self._waiting.popitem(last=False)
        del self._known[key]
        return True


def _is_to_many(destination: bytes) -> bool:
    """Multicast or broadcast: whoever answers does so with an address of its own."""
    if len(destination) == 16:
        return destination[0] == 0xFF
    return 224 <= destination[0] < 240 or destination[3] == 0xFF
