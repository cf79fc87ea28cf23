"""From packets to observations: which connections begin, how they are met, how they end, what belongs to none.

A connection is known by its flow key (`model/flow.py`). For a packet of a known one that changes nothing there is a
look-up and some additions. The table is bounded: what is over, half open or was never answered makes room, oldest
first, and where there is none a new connection is not followed, and counted. Of a flood a part is looked at
(`crowd.py`): `sampled` counts the first packets that were not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from struct import Struct as Layout

from pfw.engine.detect.connection import BUSY_PACKETS, FEW_PACKETS, NOT_CONNECTIONS, Connection, ended, silence, stray
from pfw.engine.detect.copies import COPY_S, Copies
from pfw.engine.detect.crowd import Crowds
from pfw.engine.detect.specials import Quoted, Specials, quoted
from pfw.model.event import Item
from pfw.model.flow import reverse_key, split_key
from pfw.model.observation import Began, Confirmed, HalfOpen, Met, Observation, Reply, Stray
from pfw.model.packet import ACK, FIN, PORT_PROTOCOLS, RST, SYN, TCP, UDP, Packet

Numbers = Callable[[Item], tuple[int, int] | None]
"""The sequence and acknowledgement numbers of a TCP packet; None where the capture does not have them."""

CONNECTIONS_MAX = 65_536
SILENCE_S = 3.0
"""So long nobody answers a first packet, and it counts as met with silence; or nobody says anything to a SYN-ACK."""
STRAY_PACKETS_MAX = 3
"""More from one end, and it is a connection of which the capture has one direction. A probe is sent once or twice."""

_SWEEP_S = 1.0
_WALK_S = 30.0
_BEHIND_MIN, _BEHIND_SHARE = 30, 64
_BACKWARDS_S = 10.0
_BUSY_MASK = BUSY_PACKETS - 1
_FEW_MASK = FEW_PACKETS - 1
_CHANGING = SYN | FIN | RST
_OPENING = SYN | ACK | RST | FIN
_ECHO_REPLIES = (0, 129)
_PORTS = Layout(">HH")
_NUMBERS = 1 << 32
_NOTHING: Sequence[Observation] = ()
NOT_LOOKED_AT: Sequence[Observation] = []
"""Told of a packet that was only counted: another nothing, and always this very one."""


class Watch:
    """Follows the connections of a capture, or of a network. Times may run backwards a little.

    With `numbers` a connection is only confirmed by an acknowledgement of what was really sent: who forges an address
    does not see that. Without, any acknowledgement does. `interface` is where what is told comes from, if known.
    """

    def __init__(self, capacity: int = CONNECTIONS_MAX, numbers: Numbers | None = None) -> None:
        self.refused = 0
        self.interface: str | None = None
        self._capacity = capacity
        self._numbers = numbers
        self._forth: dict[bytes, Connection] = {}
        self._back: dict[bytes, Connection] = {}
        # Those that wait for a reply, in the order in which they began. (A plain dict would look ever longer for the
        # first when the first ones are taken out.)
        self._waiting: OrderedDict[bytes, Connection] = OrderedDict()
        # Those that were answered by a SYN-ACK, in the order of the answers.
        self._half: OrderedDict[bytes, Connection] = OrderedDict()
        # Those that make room, the first one first: unanswered, half open or over.
        self._spare: OrderedDict[bytes, Connection] = OrderedDict()
        self._crowds = Crowds()
        self._swept = 0.0
        self._next_sweep = 0.0
        self._next_walk = 0.0
        self._behind = 0
        self._specials = Specials()
        self._copies = Copies(numbers)

    def __len__(self) -> int:
        return len(self._forth)

    @property
    def sampled(self) -> int:
        return self._crowds.sampled

    def packets(self, items: Iterable[Item]) -> Iterator[tuple[Item, Sequence[Observation]]]:
        """`packet` for many. Left out are packets of known TCP connections in which nothing changes, nearly all, and in
        a flood what is only counted."""
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
                if not (self._crowds.has_some and self._is_skipped(item)):
                    yield item, packet(item)
            elif (known := forth(key)) is not None and known.quick and known.sent_packets & _BUSY_MASK != _BUSY_MASK:
                known.last = time
                known.sent += size
                known.sent_packets += 1
            elif (
                known is None
                and (known := back(key)) is not None
                and known.quick
                and known.received_packets & _BUSY_MASK != _BUSY_MASK
            ):
                known.last = time
                known.received += size
                known.received_packets += 1
            else:
                yield item, packet(item)

    def _is_skipped(self, item: Item) -> bool:
        """Whether a SYN, SYN-ACK or reset belongs to a flood and is not looked at: the short way through `_first`."""
        key, time, _, flags, _, _, decoded = item
        if key is None or decoded is not None or not flags & (SYN | RST) or not self._swept <= time < self._next_sweep:
            return False
        is_known = key in self._forth or key in self._back
        return not is_known and self._crowds.skips(key, begins=flags & _OPENING == SYN)

    def packet(self, item: Item) -> Sequence[Observation]:
        """What a packet is a sign of, in order."""
        key, time, size, flags, _, _, decoded = item
        told = _NOTHING if self._swept <= time < self._next_sweep else self._sweep(time)
        if key is not None and not (self._copies and self._copies.is_one(item)):
            known = self._forth.get(key)
            if known is not None:
                known.last = time
                known.sent += size
                known.sent_packets += 1
                if flags & _CHANGING or not known.settled:
                    told = [*told, *self._went_on(known, item)]
                if not known.sent_packets & (_BUSY_MASK if known.settled else _FEW_MASK):
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
        told: list[Observation] = [each for known in self._waiting.values() for each in silence(known, now)]
        told += [HalfOpen(now, known.began) for known in self._half.values() if known.is_half_open]
        told += [each for known in self._forth.values() for each in known.busy(now, is_end=True)]
        told += [ended(known, is_open=True) for known in self._forth.values() if known.met and not known.over]
        told += self._specials.gaps(now, is_end=True)
        for table in (self._forth, self._back, self._waiting, self._half, self._spare):
            table.clear()
        return told

    def _first(self, key: bytes, time: float, size: int, flags: int) -> Sequence[Observation]:
        """A packet of no connection that is known."""
        is_tcp = not len(key) & 1
        begins = not is_tcp or flags & _OPENING == SYN
        if self._tells_nothing(key, flags, begins):
            return _NOTHING
        stands_for = 1 if not begins and flags & (SYN | RST) else self._crowds.came(key, begins=begins)
        if not stands_for:
            return NOT_LOOKED_AT
        protocol, source, destination, tail = split_key(key)
        source_port, port = _PORTS.unpack(tail) if protocol in PORT_PROTOCOLS else (None, None)
        if not begins:
            seen = Stray(time, source, destination, source_port or 0, port or 0, flags, size, abs(stands_for))
            return self._unknown(key, seen)
        icmp_type = tail[2] if protocol in NOT_CONNECTIONS else None
        began = Began(
            time, protocol, source, destination, source_port, port, icmp_type, size, abs(stands_for),
            stands_for_host=stands_for < 0,
        )  # fmt: skip
        self._follow(Connection(key, reverse_key(key), began))
        return (began,)

    def _tells_nothing(self, key: bytes, flags: int, begins: bool) -> bool:
        """Errors and the like, and what may answer packets of a crowd that were not looked at."""
        if not begins:
            return bool(flags & (SYN | RST)) and (self._crowds.is_answer(key) or self._crowds.is_to_one(key))
        if not len(key) & 1:
            return False
        protocol = key[0]
        if protocol in NOT_CONNECTIONS:
            if key[-2] in _ECHO_REPLIES:
                return self._crowds.is_to_one(reverse_key(key))
            return key[-2] in NOT_CONNECTIONS[protocol]
        return protocol == UDP and self._crowds.is_answer(key)

    def _unknown(self, key: bytes, seen: Stray) -> Sequence[Observation]:
        """A TCP packet that begins nothing. Perhaps of a connection older than the capture: what follows tells."""
        if not seen.flags & ACK or seen.flags & (SYN | RST):
            return (seen,)
        began = Began(seen.time, TCP, seen.source, seen.destination, seen.source_port, seen.port, None, seen.size_bytes)
        known = Connection(key, reverse_key(key), began)
        known.stray = seen
        known.is_older = True
        self._follow(known)
        return _NOTHING

    def _follow(self, known: Connection) -> None:
        if len(self._forth) >= self._capacity and not self._make_room():
            self.refused += 1
            return
        self._forth[known.key] = self._waiting[known.key] = known
        self._back[known.back] = known

    def _went_on(self, known: Connection, item: Item) -> Iterator[Observation]:
        """Another packet of the end that began, which may change something."""
        flags = item[3]
        if flags & _OPENING == SYN:
            if known.over or known.settled or known.is_older:
                yield from self._again(known, item, item[0] or b"")
            elif self._numbers and known.sent_packets == 2 and 0 <= item[1] - known.began.time < COPY_S:
                known.is_doubled = True
                known.sent, known.sent_packets = known.sent - item[2], 1
                self._copies.watch(item, known.back)
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
            if not known.settled:
                self._half.pop(known.key, None)
                self._spare.pop(known.key, None)
                if flags & (ACK | RST) and self._proves(known, item):
                    known.settle(True)
                    yield self._confirmed(known, item)
            yield from self._closing(known, flags, 1)

    def _answer(self, known: Connection, item: Item) -> Iterator[Observation]:
        """A packet of the other end, which may change something."""
        flags, time = item[3], item[1]
        if flags & _OPENING == SYN:
            yield from self._again(known, item, item[0] or b"")
        elif known.over:
            return
        elif known.is_older and not known.met:
            if flags & RST:
                yield from stray(known)
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

    def _confirmed(self, known: Connection, item: Item) -> Confirmed:
        by_reset = bool(item[3] & RST)
        if not by_reset:
            self._crowds.completed(known.key, known.began.stands_for)
        return Confirmed(item[1], known.began, by_reset)

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
        self._crowds.completed(known.key, 1 if known.stray is None else known.stray.stands_for, begins=False)
        known.met = True
        known.settle(True)
        known.stray = None
        self._waiting.pop(known.key, None)
        self._spare.pop(known.key, None)

    def _meet(self, known: Connection, time: float, reply: Reply) -> Iterator[Observation]:
        known.met = True
        known.settle(known.began.protocol != TCP)
        self._waiting.pop(known.key, None)
        self._spare.pop(known.key, None)
        if reply is Reply.ANSWERED:
            if not known.settled:
                known.answered = time
                self._half[known.key] = known
            elif known.began.icmp_type is None:
                # The kernel answers every ping, so that says nothing of whether it was meant.
                self._crowds.completed(known.key, known.began.stands_for)
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
        known.settle(False)
        self._waiting.pop(known.key, None)
        self._half.pop(known.key, None)
        self._spare[known.key] = known

    def _forget(self, known: Connection) -> None:
        self._forth.pop(known.key, None)
        self._back.pop(known.back, None)
        self._waiting.pop(known.key, None)
        self._half.pop(known.key, None)
        self._spare.pop(known.key, None)

    def _make_room(self) -> bool:
        oldest = next(chain(self._spare.values(), self._waiting.values(), self._half.values()), None)
        if oldest is not None:
            self._forget(oldest)
        return oldest is not None

    def _sweep(self, now: float) -> list[Observation]:
        """Once a second: who waited long enough; and from time to time what has been quiet for long."""
        self._swept, self._next_sweep = now - _BACKWARDS_S, now + _SWEEP_S
        self._crowds.turn(now)
        told: list[Observation] = []
        while self._waiting:
            known = next(iter(self._waiting.values()))
            if now - known.began.time < SILENCE_S:
                break
            # It may be answered still; then it is told of again.
            self._spare[known.key] = self._waiting.pop(known.key)
            told.extend(silence(known, now))
        told += self._half_open(now)
        if self._is_walk_due(now):
            self._next_walk = now + _WALK_S
            for known in [each for each in self._forth.values() if now - each.last > each.patience_s]:
                if known.met and not known.over:
                    told.append(ended(known))
                self._forget(known)
            told += self._specials.gaps(now)
        return told

    def _is_walk_due(self, now: float) -> bool:
        """After a step back of the clock a little later: where there are two clocks, times go to and fro."""
        ahead_s = self._next_walk - now
        self._behind = self._behind + 1 if ahead_s > _WALK_S else 0
        return ahead_s <= 0 or self._behind > max(_BEHIND_MIN, len(self._forth) // _BEHIND_SHARE)

    def _half_open(self, now: float) -> Iterator[HalfOpen]:
        """Who was answered long enough ago and has not said anything since."""
        while self._half:
            known = next(iter(self._half.values()))
            if now - known.answered < SILENCE_S:
                break
            del self._half[known.key]
            if known.is_half_open:
                self._spare[known.key] = known
                yield HalfOpen(now, known.began)

    def _special(self, packet: Packet, time: float) -> Iterator[Observation]:
        yield from self._specials.packet(packet, time, self.interface)
        error = quoted(packet, time)
        if error is not None:
            yield from self._quoted(error)

    def _quoted(self, error: Quoted) -> Iterator[Observation]:
        """An ICMP error about a connection that waits for a reply."""
        known = self._forth.get(error.key)
        if known is None or known.met or known.over:
            return
        if not known.is_older:
            yield from self._meet(known, error.time, error.reply)
        elif error.reply is Reply.EXPIRED:
            return
        else:
            yield from stray(known)
        self._finish(known)
