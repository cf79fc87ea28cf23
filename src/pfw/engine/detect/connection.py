"""A connection as `watch.py` follows it: what came from either end, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pfw.model.observation import Began, Busy, Ended, Met, Reply, Stray
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP

_ONE_SIDED_PACKETS = 3
"""Who sends so many after a SYN whose answer nobody saw had one: the capture has one direction only."""
BUSY_PACKETS = 64
"""A power of two: after so many packets of one end it is asked whether they were so many in a second."""
FEW_PACKETS = 8
"""The same where nobody answers: of such flows little is much, if they are many."""
EMPTY_BYTES = 90
"""The largest segment without data, with timestamps, IPv6 and a VLAN tag. One with data that nobody resets is the last
of a connection, and no probe."""
IDLE_S = {TCP: 3600.0, UDP: 60.0}
"""Of those that were answered; a UDP service that has more to say says it within the kernel's own time, 30 to 120 s."""
UNANSWERED_S = 70.0
"""Linux repeats a SYN after 1, 2, 4 … 64 s, and a SYN-ACK: so long the next one belongs to the same connection."""
OVER_S = 60.0
"""What still comes of a connection that is over begins none (TIME-WAIT of Linux)."""
NOT_CONNECTIONS = {
    ICMP: frozenset({3, 4, 5, 9, 10, 11, 12}),
    ICMPV6: frozenset({1, 2, 3, 4, *range(130, 138), 143, 151, 152, 153}),
}
"""Errors, and what routers and neighbours tell each other: they begin nothing and nobody answers them."""
_BUSY_S = 1.0
_IDLE_OTHER_S = 30.0
_BROADCAST = b"\xff\xff\xff\xff"


class Connection:
    """`key` and `back` are the flow keys of its packets and of the answers. `settled` tells that only SYN, FIN and
    RST can change anything more, `is_older` that its beginning was not seen.

    `answered` is when a SYN-ACK came, `proof` what its acknowledgement must say. `closing` has a bit for each end that
    has sent FIN. `quick` is `settled`, but not where packets come twice (`is_doubled`). `mark` is since when, and from
    which counts on, `Busy` is to be told next.
    """

    __slots__ = ("answered", "attempts", "back", "began", "closing", "is_doubled", "is_older", "key", "last", "mark",
                 "met", "over", "proof", "quick", "received", "received_packets", "sent", "sent_packets", "settled",
                 "stray")  # fmt: skip

    def __init__(self, key: bytes, back: bytes, began: Began) -> None:
        self.key = key
        self.back = back
        self.began = began
        self.stray: Stray | None = None
        self.is_older = False
        self.attempts = 1
        self.answered = 0.0
        self.last = began.time
        self.met = self.settled = self.quick = self.over = self.is_doubled = False
        self.closing = 0
        self.proof: int | None = None
        self.sent = began.size_bytes
        self.sent_packets = 1
        self.received = self.received_packets = 0
        # `Began` tells of the first packet.
        self.mark = (began.time, began.size_bytes, 1, 0, 0, 1)

    def settle(self, settled: bool) -> None:
        self.settled = settled
        self.quick = settled and not self.is_doubled

    @property
    def to_many(self) -> bool:
        """Multicast or broadcast: whoever answers does so with an address of its own."""
        destination = self.began.destination
        return destination[0] == 0xFF if len(destination) == 16 else 224 <= destination[0] < 240 or (
            destination == _BROADCAST
        )  # fmt: skip

    def busy(self, now: float, *, is_end: bool = False) -> Iterator[Busy]:
        """What it carried a second since the mark, once one has passed, if it was much."""
        since, *before = self.mark
        if now - since < _BUSY_S and not is_end:
            return
        counts = (self.sent, self.sent_packets, self.received, self.received_packets, self.attempts)
        grown = [count - past for count, past in zip(counts, before, strict=True)]
        self.mark = (now, *counts)
        lasted_s = max(now - since, _BUSY_S)
        if max(grown[1], grown[3]) >= (BUSY_PACKETS if self.settled else FEW_PACKETS) * lasted_s:
            # What is left in the end belongs to the second after that which was told of last.
            time = now if since == self.began.time else max(now, since + _BUSY_S)
            sent, sent_packets, received, received_packets, attempts = a_second(grown, lasted_s)
            yield Busy(time, self.began, since, sent, sent_packets, received, received_packets, attempts, self.is_met)

    @property
    def patience_s(self) -> float:
        """How long it may be quiet before it is forgotten."""
        if self.over:
            return OVER_S
        if not self.met or self.is_half_open:
            return UNANSWERED_S
        return IDLE_S.get(self.began.protocol, _IDLE_OTHER_S)

    @property
    def is_met(self) -> bool:
        """Whether somebody is there, for `Busy`: a SYN-ACK alone does not say so of who sent the SYNs."""
        return self.received_packets > 0 and not self.is_half_open

    @property
    def seems_answered(self) -> bool:
        return self.began.protocol == TCP and self.sent_packets - self.attempts >= _ONE_SIDED_PACKETS

    @property
    def is_half_open(self) -> bool:
        """Nothing came of the end that began but its SYN. (In what is cut short nobody is ever settled.)"""
        return self.sent_packets == self.attempts and not self.settled and self.met and not (
            self.over or self.is_older or self.began.protocol != TCP
        )  # fmt: skip


def a_second(counts: list[int], lasted_s: float) -> list[int]:
    """What came in some seconds as what came in one: those who ask how much is too much have windows of a second."""
    return [round(count / lasted_s) for count in counts]


def ended(known: Connection, *, by_reset: bool = False, is_open: bool = False) -> Ended:
    """It is over. Of one that is older than the capture, the end with the lower port counts as the service."""
    began = known.began
    sent, received = (known.sent, known.sent_packets), (known.received, known.received_packets)
    if known.is_older and (began.source_port or 0) < (began.port or 0):
        began = replace(
            began, source=began.destination, destination=began.source, source_port=began.port, port=began.source_port
        )
        sent, received = received, sent
    return Ended(known.last, began, *sent, *received, by_reset, is_open, known.is_older)


def silence(known: Connection, now: float) -> Iterator[Met | Stray]:
    """What it means that nothing came back. To many at once (multicast, broadcast) that means nothing."""
    if known.stray is not None:
        if known.stray.size_bytes <= EMPTY_BYTES:
            yield from stray(known)
    elif not known.is_older and not known.to_many and not known.seems_answered:
        yield Met(now, known.began, Reply.SILENT, known.attempts)


def stray(known: Connection) -> Iterator[Stray]:
    if known.stray is not None:
        yield known.stray
        known.stray = None
