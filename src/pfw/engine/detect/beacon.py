"""Beacons: a program that calls at one place at regular times, with connections of regular sizes.

Judged as RITA does, by the symmetry of the intervals and sizes and by how far they lie from their median. Where the
program is known each is judged by itself, whatever address it calls from. A page that reloads itself, a mail program, a
monitor look the same: so the score is below 80, and the evidence says so; but where all is very regular and the program
lies where programs do not belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from pfw.engine.detect.detector import Table
from pfw.engine.detect.program_names import is_out_of_place, shown
from pfw.model.address import format_endpoint
from pfw.model.observation import Alert, Began, Confirmed, Ended, Kind, Met, Reply
from pfw.model.packet import TCP, UDP, protocol_name

CONNECTIONS_MIN = 10
"""RITA takes 4 in a day; for a shorter time that is too few."""
REMEMBERED = 64
"""The latest connections that are judged."""
SPAN_MIN_S = 180.0
"""Of the connections that are remembered. Where they fill less time, every 3 s or sooner, a program works."""
BURST_S = 1.0
"""Connections within so short a time are one call: RITA leaves out intervals below its second."""
NEAR_TIMES_MIN, NEAR_SIZES_MIN = 0.78, 0.85
"""How near values lie to their median, from 0 to 1. Intervals by chance come to 0.3 (exponential) or 0.5 (evenly
spread), those of command-and-control programs, which seldom vary by more than half, to 0.83 and more."""
REGULAR_MIN = 0.7
"""RITA's measure, which looks at symmetry, too. That of few values varies much by chance: 0.85 would miss half of those
whose interval varies by half."""
CONNECTIONS_MIN_VARIED = 20
NEAR_TIMES_FEW = 0.9
"""With fewer connections intervals must lie so near: by chance 2 in 1000 do, and they are looked at each minute."""
VERY_NEAR = 0.99
_RANGE_MIN = 10.0
"""Quartiles that lie closer, in seconds or bytes, count as symmetric (RITA, analysis/beacons.go)."""
PEERS_MAX = 16_384
KEEP_S = 7200.0
"""A program that calls more rarely is forgotten in between."""
PORTS_EXEMPT = frozenset({53, 67, 68, 123, 137, 138, 161, 162, 514, 546, 547, 853, 1900, 3478, 5349, 5351, 5353, 5355})
"""DNS, DHCP, NTP, NetBIOS, SNMP, syslog, SSDP, STUN, NAT-PMP, mDNS, LLMNR: these call regularly by their nature."""
_GROWTH = 2
_SCORE_MIN, _SCORE_USUAL, _SCORE_MAX = 50, 79, 85

_Number = TypeVar("_Number", int, float)
_Key = tuple[bytes | str, bytes, int, int]
"""The program, or the source where that is not known; destination, protocol and port."""


class _Peer:
    """The latest connections: when they began and what they sent. `source` is that of the last one."""

    __slots__ = ("changed", "count", "last_source_port", "sent", "source", "started", "told_count", "told_score")

    def __init__(self) -> None:
        self.started: list[float] = []
        self.sent: list[int] = []
        self.count = 0
        self.changed = False
        self.last_source_port: int | None = None
        self.source = b""
        self.told_count = self.told_score = 0


class Beacon:
    """Regular connections of one source to one destination and port. Only those that came about count: forged ones
    would fill the table, and any program whose server is gone tries again and again."""

    wants: tuple[type, ...] = (Met, Confirmed, Ended)

    def __init__(self, capacity: int = PEERS_MAX) -> None:
        self._peers: Table[_Key, _Peer] = Table(capacity, KEEP_S, _Peer, may_go=lambda peer: peer.count <= 1)

    @property
    def refused(self) -> int:
        return self._peers.refused

    def observe(self, seen: Met | Confirmed | Ended) -> Iterable[Alert]:
        began = seen.began
        if began.protocol not in (TCP, UDP) or began.port is None or began.port in PORTS_EXEMPT:
            return ()
        if _is_many(began.destination) or began.source_port in PORTS_EXEMPT:
            return ()
        key = began.program or began.source, began.destination, began.protocol, began.port
        if isinstance(seen, Ended):
            # The program may have become known, or been forgotten, in between.
            known = self._peers.peek(key) or self._peers.peek((began.source, *key[1:]))
            if known is not None:
                _append(known.sent, seen.sent_bytes)
                known.changed = True
        elif _came_about(seen):
            peer = self._peers.get(key, seen.time)
            if peer is not None:
                _call(peer, began)
        return ()

    def end(self, _now: float, /) -> list[Alert]:
        found = []
        for key, peer in self._peers.items():
            if peer.changed and peer.count >= CONNECTIONS_MIN:
                peer.changed = False
                found += _judged(key, peer)
        return found


def _is_many(destination: bytes) -> bool:
    """Multicast and the broadcast address."""
    return destination[:1] >= (b"\xe0" if len(destination) == 4 else b"\xff")


def _came_about(seen: Met | Confirmed) -> bool:
    """A TCP connection does with its third packet, where a forged source has none; any other with the reply."""
    if isinstance(seen, Confirmed):
        return not seen.by_reset
    return seen.began.protocol != TCP and seen.reply is Reply.ANSWERED


def _append(values: list[_Number], value: _Number) -> None:
    values.append(value)
    if len(values) > REMEMBERED:
        del values[0]


def _call(peer: _Peer, began: Began) -> None:
    if began.protocol == UDP and began.source_port == peer.last_source_port:
        return  # A pause in one conversation: a tunnel or a game that keeps its ports open.
    peer.last_source_port = began.source_port
    peer.source = began.source
    if peer.started and began.time - peer.started[-1] < BURST_S:
        return
    _append(peer.started, began.time)
    peer.count += 1


def _judged(key: _Key, peer: _Peer) -> list[Alert]:
    started = sorted(peer.started)
    intervals = sorted(after - before for before, after in pairwise(started))
    if len(intervals) < CONNECTIONS_MIN - 1 or started[-1] - started[0] < SPAN_MIN_S:
        return []
    if len(peer.sent) * 2 < len(started):
        return []
    sizes = sorted(map(float, peer.sent))
    score = _score(intervals, sizes, is_out_of_place=is_out_of_place(_program(key)))
    if not score or (score <= peer.told_score and peer.count < peer.told_count * _GROWTH):
        return []
    peer.told_count, peer.told_score = peer.count, max(peer.told_score, score)
    return [
        Alert(
            kind=Kind.BEACON, source=peer.source, target=key[1], first=started[0], last=started[-1], score=score,
            evidence=_evidence(key, peer.count, intervals, sizes), program=_program(key),
        )
    ]  # fmt: skip


def _score(intervals: Sequence[float], sizes: Sequence[float], *, is_out_of_place: bool) -> int:
    times_near, sizes_near = nearness(intervals), nearness(sizes)
    if times_near < NEAR_TIMES_MIN or sizes_near < NEAR_SIZES_MIN or regularity(intervals) < REGULAR_MIN:
        return 0
    if times_near < NEAR_TIMES_FEW and len(intervals) < CONNECTIONS_MIN_VARIED - 1:
        return 0
    if min(times_near, sizes_near) >= VERY_NEAR:
        return _SCORE_MAX if is_out_of_place else _SCORE_USUAL
    lowest = NEAR_TIMES_MIN + NEAR_SIZES_MIN
    above = (times_near + sizes_near - lowest) / (2 - lowest)
    return min(_SCORE_MIN + round(above * (_SCORE_USUAL - _SCORE_MIN)), _SCORE_USUAL)


def _evidence(key: _Key, count: int, intervals: Sequence[float], sizes: Sequence[float]) -> str:
    program = _program(key)
    who = "" if program is None else f"{shown(program)} "
    rest = "one that polls does so, too" if program else "without the program it cannot be told from one that polls"
    where = f"{protocol_name(key[2])} {format_endpoint(key[1], key[3])}"
    interval_s, size = _median(intervals), _median(sizes)
    return (
        f"{who}called {count} times at {where}, every {interval_s:.1f} s (give or take {_deviation(intervals):.1f} s), "
        f"sending {size:.0f} bytes (give or take {_deviation(sizes):.0f}); {rest}"
    )


def _program(key: _Key) -> str | None:
    return key[0] if isinstance(key[0], str) else None


def nearness(values: Sequence[float]) -> float:
    """From 0 to 1: how small the median absolute deviation of sorted values is beside their median."""
    median = _median(values)
    return max((median - _deviation(values)) / median, 0.0) if median > 0 else 0.0


def regularity(values: Sequence[float]) -> float:
    """From 0 to 1: the mean of `nearness` and of how symmetric the quartiles of sorted values lie (Bowley's
    skewness)."""
    median = _median(values)
    half = len(values) // 2
    low, high = _median(values[:half]), _median(values[-half:])
    skewness = 0.0
    if high - low >= _RANGE_MIN and median not in (low, high):
        skewness = (high + low - 2 * median) / (high - low)
    return (1 - abs(skewness) + nearness(values)) / 2


def _median(values: Sequence[float]) -> float:
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def _deviation(values: Sequence[float]) -> float:
    median = _median(values)
    return _median(sorted(abs(value - median) for value in values))
