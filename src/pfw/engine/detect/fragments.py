"""Fragments that do not fit to the others of their datagram: what reassembles differently on different systems.

Overlaps, pieces too small to hold the header that filters look at (RFC 1858, RFC 3128), more pieces than any link makes
needful, and holes that stay and are too small for a piece that was lost. Larger ones are ordinary loss.
"""

from __future__ import annotations

from pfw.model.packet import Packet

DATAGRAMS_MAX = 4096
FRAGMENTS_MAX = 128
"""The largest datagram makes 119 on a link with 576 bytes a packet, the smallest that every host takes (RFC 791)."""
KEEP_S = 30.0
"""As long as Linux waits (net.ipv4.ipfrag_time)."""
COMPLETE_S = 1.0
"""What comes so soon after a datagram was whole is a copy; later its number may be another datagram's."""
TINY_BYTES = 48
"""A first fragment that is smaller: every link carries 68 bytes, 20 of them a header (RFC 791)."""

OVERLAP, TINY, GAP, TOO_MANY = "overlap", "tiny", "gap", "too_many"

Ends = tuple[bytes, bytes, int]
"""Source, destination, protocol."""
_Key = tuple[bytes, bytes, int, int]


class _Datagram:
    __slots__ = ("complete", "last", "ranges", "told", "total")

    def __init__(self, time: float) -> None:
        self.last = time
        self.ranges: list[tuple[int, int]] = []
        self.total: int | None = None
        self.complete = False
        self.told: set[str] = set()

    def has_gap(self) -> bool:
        """Whether a hole is left into which none of the pieces fits that links make needful."""
        if self.complete or TOO_MANY in self.told:
            return False
        reach = None
        for begin, end in sorted(self.ranges):
            if reach is not None and 0 < begin - reach < TINY_BYTES:
                return True
            reach = max(reach or 0, end)
        return False

    def add(self, start: int, end: int, more: bool) -> str | None:
        """Take a piece in; what is wrong with its place."""
        if (start, end) in self.ranges:
            return None
        if len(self.ranges) >= FRAGMENTS_MAX:
            return TOO_MANY
        overlaps = any(start < other and begin < end for begin, other in self.ranges)
        beyond = self.total is not None and (end > self.total or not more)
        self.ranges.append((start, end))
        if not more:
            self.total = end if self.total is None else max(self.total, end)
        self.complete = self.total is not None and self._reach() >= self.total
        return OVERLAP if overlaps or beyond else None

    def _reach(self) -> int:
        """Up to where nothing is missing."""
        reach = 0
        for begin, end in sorted(self.ranges):
            if begin > reach:
                break
            reach = max(reach, end)
        return reach


class FragmentWatch:
    """Datagrams that are under way, at most DATAGRAMS_MAX; the oldest makes room."""

    def __init__(self) -> None:
        self._datagrams: dict[_Key, _Datagram] = {}

    def __len__(self) -> int:
        return len(self._datagrams)

    def follow(self, packet: Packet, time: float) -> tuple[str, ...]:
        """What is wrong with this fragment, each name once for a datagram."""
        piece = packet.fragment
        if piece is None or packet.source is None or packet.destination is None or packet.protocol is None:
            return ()
        if not piece.offset_bytes and not piece.more:
            # All of it in one piece (RFC 6946); it is kept apart from others with its number.
            return ()
        datagram = self._datagram((packet.source, packet.destination, packet.protocol, piece.ident), time)
        found = [datagram.add(piece.offset_bytes, piece.offset_bytes + piece.size_bytes, piece.more)]
        # Later ones are small where a link with smaller packets, as PPPoE's, cut a piece again.
        if piece.more and piece.size_bytes < TINY_BYTES and not piece.offset_bytes:
            found.append(TINY)
        names = tuple(each for each in found if each is not None and each not in datagram.told)
        datagram.told.update(names)
        return names

    def gaps(self, now: float | None = None) -> list[Ends]:
        """Forget what is old, or all where nothing more comes; between which ends there are holes that stayed."""
        old = {key: each for key, each in self._datagrams.items() if now is None or now - each.last > KEEP_S}
        for key in old:
            del self._datagrams[key]
        return [(source, to, protocol) for (source, to, protocol, _), each in old.items() if each.has_gap()]

    def _datagram(self, key: _Key, time: float) -> _Datagram:
        found = self._datagrams.get(key)
        if found is None or time - found.last > (COMPLETE_S if found.complete else KEEP_S):
            self._datagrams.pop(key, None)
            if len(self._datagrams) >= DATAGRAMS_MAX:
                del self._datagrams[next(iter(self._datagrams))]
            found = self._datagrams[key] = _Datagram(time)
        found.last = time
        return found
