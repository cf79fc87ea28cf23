"""A connection as `watch.py` follows it: what came from either end, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pfw.model.observation import Began, Busy, Ended, Met, Reply, Stray
from pfw.model.packet import ICMP, ICMPV6, TCP

_ONE_SIDED_PACKETS = 3
"""Who sends so many after a SYN whose answer nobody saw had one: the capture has one direction only."""
BUSY_PACKETS = 64
"""A power of two: after so many packets of one end it is asked whether they were so many in a second."""
EMPTY_BYTES = 90
"""The largest segment without data, with timestamps, IPv6 and a VLAN tag. One with data that nobody resets is the last
of a connection, and no probe."""
NOT_CONNECTIONS = {
    ICMP: frozenset({3, 4, 5, 9, 10, 11, 12}),
    ICMPV6: frozenset({1, 2, 3, 4, *range(130, 138), 143, 151, 152, 153}),
}
"""Errors, and what routers and neighbours tell each other: they begin nothing and nobody answers them."""
_BUSY_S = 1.0
_BROADCAST = b"\xff\xff\xff\xff"


class Connection:
    """`key` and `back` are the flow keys of its packets and of the answers. `settled` tells that only SYN, FIN and
    RST can change anything more, `is_older` that its beginning was not seen.

    `answered` is when a SYN-ACK came, `proof` what its acknowledgement must say. `closing` has a bit for each end that
    has sent FIN. `mark` is since when, and from which counts on, `Busy` is to be told next.
    """

    __slots__ = ("answered", "attempts", "back", "began", "closing", "is_older", "key", "last", "mark", "met", "over",
                 "proof", "received", "received_packets", "sent", "sent_packets", "settled", "stray")  # fmt: skip

    def __init__(self, key: bytes, back: bytes, began: Began) -> None:
        self.key = key
        self.back = back
        self.began = began
        self.stray: Stray | None = None
        self.is_older = False
        self.attempts = 1
        self.answered = 0.0
        self.last = began.time
        self.met = self.settled = self.over = False
        self.closing = 0
        self.proof: int | None = None
        self.sent = began.size_bytes
        self.sent_packets = 1
        self.received = self.received_packets = 0
        self.mark = (began.time, 0, 0, 0, 0, 0)

    @property
    def to_many(self) -> bool:
        """Multicast or broadcast: whoever answers does so with an address of its own."""
        destination = self.began.destination
        return destination[0] == 0xFF if len(destination) == 16 else 224 <= destination[0] < 240 or (
            destination == _BROADCAST
        )  # fmt: skip

    def busy(self, now: float, *, is_end: bool = False) -> Iterator[Busy]:
        """What it carried since the mark, once a second has passed, if it was much."""
        since, *before = self.mark
        if now - since < _BUSY_S and not is_end:
            return
        counts = (self.sent, self.sent_packets, self.received, self.received_packets, self.attempts)
        grown = [count - past for count, past in zip(counts, before, strict=True)]
        self.mark = (now, *counts)
        if max(grown[1], grown[3]) >= BUSY_PACKETS * max(now - since, _BUSY_S):
            sent, sent_packets, received, received_packets, attempts = grown
            yield Busy(now, self.began, since, sent, sent_packets, received, received_packets, attempts,
                       self.received_packets > 0)  # fmt: skip

    @property
    def seems_answered(self) -> bool:
        return self.began.protocol == TCP and self.sent_packets - self.attempts >= _ONE_SIDED_PACKETS

    @property
    def is_half_open(self) -> bool:
        """Nothing came of the end that began but its SYN. (In what is cut short nobody is ever settled.)"""
        return self.sent_packets == self.attempts and not self.settled and self.met and not (
            self.over or self.is_older or self.began.protocol != TCP
        )  # fmt: skip


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
