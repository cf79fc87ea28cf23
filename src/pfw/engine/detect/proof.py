"""What proves that a scanner is who it says it is, so that its address may be banned. Nothing else does.

An acknowledged handshake proves it: who forges an address never learns the number that must be acknowledged. But the
host in whose name somebody else scans may have business here, and health checks open a port and leave it at once. So it
only counts of a port that had not let the source in before, and when the scan had begun, or was about to.

A reset of our SYN-ACK is the next best, and all that a half-open scan (`nmap -sS`) gives; a host in whose name somebody
else scans sends it, too. So it does not count where others try the same at the same time (`nmap -D`), where the source
port is that of a service (`nmap -sI` scans in the name of a host that answers at one), and where nearly all that was
tried answered (SYN-ACKs drawn upon a victim). What met only silence or our own resets proves nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from pfw.engine.detect.detector import Key, Table
from pfw.model.observation import Began, Confirmed, Ended, HalfOpen, Met
from pfw.model.packet import TCP

RESET_SHARE = 0.5
"""Of what was tried so much at most may have answered and been reset. Who scans does not know what is open."""
SERVICE_BELOW = 1024
SAME_SHARE = 0.5
"""Who tried so much of what another one tried tries largely the same."""
TOGETHER_S = 5.0
"""At the same time: nmap sends what its decoys are to have sent along with each probe of its own."""
PLACES_MAX = 1_024
PLACES_S = 600.0
MEMBERS_MAX = 64
"""Sources at one place that are told apart. Where there are more, resets prove nothing."""
RECENT_PLACES_MAX, RECENT_MAX = 512, 128
"""The latest first packets at a place: what decoys did before it is known how they were met. nmap has 128 decoys."""

QUIET_PACKETS = 5
"""SYN (perhaps twice), ACK, FIN, ACK or RST: a connection that was opened and left without a word."""
BEFORE_S = 5.0
"""So long before the first try a port may have been opened and left. nmap looks so whether a host is there."""
OPEN_MAX = 8_192
KNOWN_MAX = 16_384
LEFT_MAX = 4_096


class Tried(Protocol):
    """What one source tried, from when to when."""

    first: float
    last: float


Some = TypeVar("Some", bound=Tried)


_BARE_BYTES = {4: (60, 74), 16: (74, 94)}
"""The longest reset and SYN-ACK on Ethernet, by the size of an address: resets have no options, other packets have."""


class Latest(Generic[Key]):
    """When something was last. Of more than `capacity` what was longest ago is forgotten."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._times: OrderedDict[Key, float] = OrderedDict()

    def note(self, key: Key, time: float) -> float | None:
        """When it was before."""
        before = self._times.pop(key, None)
        self._times[key] = time
        if len(self._times) > self._capacity:
            self._times.popitem(last=False)
        return before

    def get(self, key: Key) -> float | None:
        return self._times.get(key)

    def __contains__(self, key: Key) -> bool:
        return key in self._times

    def __len__(self) -> int:
        return len(self._times)


class Handshakes:
    """Which TCP connections were opened by a whole handshake, to tell those that were then left without a word. Whoever
    tries a port with `connect` does so, and nobody who forges an address can. But who has opened the same port of the
    same host before, within `keep_s`, uses it, or looks after it. Of too many the oldest is let go."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._open: dict[tuple[bytes, bytes, int | None, int | None], bool] = {}
        self._known: Latest[tuple[bytes, bytes, int | None]] = Latest(KNOWN_MAX)

    def confirmed(self, seen: Confirmed) -> None:
        if seen.by_reset:
            return
        before = self._known.note(_place(seen.began), seen.time)
        self._open[_ends(seen.began)] = before is None or abs(seen.time - before) > self._keep_s
        if len(self._open) > OPEN_MAX:
            del self._open[next(iter(self._open))]

    def ended(self, seen: Ended) -> bool:
        """Whether it was left without a word, and the port of the host had not let the source in before."""
        began = seen.began
        is_first = self._open.pop(_ends(began), None)
        if is_first is None:
            return False
        self._known.note(_place(began), seen.time)
        # No packet without payload is longer than the first one, whose options are the most.
        quiet = seen.sent_packets <= QUIET_PACKETS and seen.sent_bytes <= seen.sent_packets * began.size_bytes
        return is_first and quiet and not seen.is_open and not may_be_guessed(seen)

    def is_outage(self, seen: Met | Confirmed | HalfOpen) -> bool:
        """Whether a port that has let its source in does not answer any more: that is no try."""
        return isinstance(seen, Met) and seen.began.protocol == TCP and _place(seen.began) in self._known


class _Place:
    __slots__ = ("is_full", "members")

    def __init__(self) -> None:
        self.members: dict[bytes, float] = {}
        self.is_full = False


_Recent = deque[tuple[float, bytes, Hashable]]


class Company:
    """Who tries something at the same place: a host whose ports are tried, a port that is tried with many hosts. Who
    came longest ago makes room, but not for those that come at the same time."""

    def __init__(self) -> None:
        self._places: Table[Hashable, _Place] = Table(PLACES_MAX, PLACES_S, _Place, may_go=lambda _: True)
        self._recent: Table[Hashable, _Recent] = Table(
            RECENT_PLACES_MAX, PLACES_S, lambda: deque(maxlen=RECENT_MAX), may_go=lambda _: True
        )

    def began(self, place: Hashable, source: bytes, thing: Hashable, now: float) -> None:
        """A first packet, whatever comes of it."""
        recent = self._recent.get(place, now)
        if recent is not None:
            recent.append((now, source, thing))

    def is_alone_at(self, place: Hashable, source: bytes, now: float) -> bool:
        """Whether nobody else has just begun largely the same there, as far as that is remembered."""
        recent = [each for each in self._recent.peek(place) or () if abs(now - each[0]) <= TOGETHER_S]
        own = {thing for _, who, thing in recent if who == source}
        others: dict[bytes, set[Hashable]] = {}
        for _, who, thing in recent:
            if who != source and thing in own:
                others.setdefault(who, set()).add(thing)
        return not any(len(each) >= SAME_SHARE * len(own) for each in others.values())

    def joined(self, place: Hashable, source: bytes, now: float) -> None:
        found = self._places.get(place, now)
        if found is None:
            return
        members = found.members
        if source not in members and len(members) >= MEMBERS_MAX:
            oldest = next(iter(members))
            found.is_full = now - members[oldest] <= PLACES_S
            del members[oldest]
        members.pop(source, None)
        members[source] = now

    def others(self, place: Hashable, source: bytes) -> list[bytes] | None:
        """The others there; None where there are too many to tell."""
        found = self._places.peek(place)
        if found is None or found.is_full:
            return None
        return [each for each in found.members if each != source]


def is_by_reset(seen: Confirmed) -> bool:
    """Whether it is a reset that may prove its source."""
    return seen.by_reset and (seen.began.source_port or 0) >= SERVICE_BELOW


def are_proof(resets: int, tried: int, least: int = 1) -> bool:
    """Whether so many resets are enough, and not too many, of all that was tried."""
    return least <= resets <= RESET_SHARE * tried


def is_alone(own: Some, count: int, others: Iterable[Some | None], shared: Callable[[Some, Some], int]) -> bool:
    """Whether nobody tries largely the same at the same time. `count` is how much the own is, `shared` tells how much
    two have in common."""
    for other in others:
        if other is None or other.first > own.last + TOGETHER_S or other.last < own.first - TOGETHER_S:
            continue
        if shared(own, other) >= SAME_SHARE * count:
            return False
    return True


def may_be_guessed(seen: Ended) -> bool:
    """Whether nobody may have known the number that was acknowledged. Connection tracking takes any within 66,000 of it
    (MAXACKWINCONST), so that one of 66,000 forged packets is enough for it; the machine itself answers them by resets,
    and says nothing else."""
    bare, first = _BARE_BYTES[len(seen.began.source)]
    # An answer is repeated while it is not taken, for as long as whoever guesses goes on.
    nothing_said = seen.received_bytes <= (seen.received_packets - 1) * first + bare
    return seen.by_reset and seen.received_packets > 1 and nothing_said


def _place(began: Began) -> tuple[bytes, bytes, int | None]:
    return began.source, began.destination, began.port


def _ends(began: Began) -> tuple[bytes, bytes, int | None, int | None]:
    return began.source, began.destination, began.source_port, began.port
