"""Tunnels through ICMP: echoes whose payload is data.

A host returns the payload of an echo request as it came (RFC 792, RFC 4443, 4.2). So replies that differ from their
requests, again and again, are made by a program. Payloads of ping programs are known by their form and count for
nothing, also where a host returns no more than the first bytes of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfw.engine.detect.detector import Table
from pfw.model.address import format_address
from pfw.model.observation import Alert, EchoSeen, Kind

WINDOW_S = 600.0
ECHOES_MIN = 20
"""Requests and replies with payloads of their own, none of a ping program."""
REPLIES_MIN = 10
"""Replies that no host gives of itself."""
PAYLOAD_BYTES_MIN = 64
"""Mean. `ping` sends 56, a packet of a tunnelled connection has at least 40 and a header."""
ECHOES_MIN_ONE_WAY = 100
SIZES_MIN_ONE_WAY = 5
"""The same where every reply is right, or none was seen: data that goes only one way comes in many sizes."""
DIFFERENT_SHARE = 0.5
REQUESTS_MAX = 64
"""Latest requests that wait for their reply."""
DIGESTS_MAX = 512
"""Payloads that are told apart in one window; then the next one begins."""
SIZES_MAX = 64
PAIRS_MAX = 4096
_GROWTH = 2

_Key = tuple[bytes, bytes]


class _Pair:
    """The echoes of who asks and who answers, in one window. Those of ping programs are left out of all but `pings`."""

    __slots__ = ("differing", "digests", "echoes", "first", "last", "payload_bytes", "pings", "replies", "requests",
                 "sizes", "told_echoes")  # fmt: skip

    def __init__(self) -> None:
        self.digests: set[int] = set()
        self.sizes: set[int] = set()
        self.requests: dict[tuple[int, int], int] = {}
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.first = self.last = now
        self.digests.clear()
        self.sizes.clear()
        self.echoes = self.pings = self.payload_bytes = self.replies = self.differing = 0
        self.told_echoes = 0


class IcmpTunnel:
    """Tunnels through echoes. The source of an alert is who sends the requests."""

    wants: tuple[type, ...] = (EchoSeen,)

    def __init__(self, capacity: int = PAIRS_MAX) -> None:
        self._pairs: Table[_Key, _Pair] = Table(capacity, WINDOW_S, _Pair)

    @property
    def refused(self) -> int:
        return self._pairs.refused

    def observe(self, seen: EchoSeen) -> Iterable[Alert]:
        key = (seen.source, seen.destination) if seen.is_request else (seen.destination, seen.source)
        pair = self._pairs.get(key, seen.time)
        if pair is None:
            return ()
        if not pair.first or seen.time - pair.first > WINDOW_S or len(pair.digests) >= DIGESTS_MAX:
            pair.restart(seen.time)
        pair.last = max(pair.last, seen.time)
        if seen.is_request:
            _remember(pair, seen)
        if seen.is_pattern:
            pair.pings += 1
            return ()
        pair.differing += not seen.is_request and not _is_honest(pair, seen)
        pair.echoes += 1
        pair.replies += not seen.is_request
        pair.payload_bytes += seen.payload_bytes
        pair.digests.add(seen.digest)
        if len(pair.sizes) < SIZES_MAX:
            pair.sizes.add(seen.payload_bytes)
        return _judged(key, pair) if pair.echoes >= max(ECHOES_MIN, pair.told_echoes * _GROWTH) else ()

    def end(self, _now: float, /) -> list[Alert]:
        return []


def _remember(pair: _Pair, seen: EchoSeen) -> None:
    pair.requests.pop((seen.identifier, seen.sequence), None)
    pair.requests[seen.identifier, seen.sequence] = seen.digest
    if len(pair.requests) > REQUESTS_MAX:
        del pair.requests[next(iter(pair.requests))]


def _is_honest(pair: _Pair, seen: EchoSeen) -> bool:
    """Whether a host may have sent this reply of itself. A capture can have replies without any request."""
    return not pair.requests or pair.requests.get((seen.identifier, seen.sequence)) == seen.digest


def _score(pair: _Pair) -> int:
    if pair.pings > pair.echoes or len(pair.digests) < DIFFERENT_SHARE * pair.echoes / 2:
        return 0
    is_big = pair.payload_bytes >= PAYLOAD_BYTES_MIN * pair.echoes
    if pair.differing >= REPLIES_MIN and pair.differing * 2 >= pair.replies:
        return (90 if len(pair.sizes) >= SIZES_MIN_ONE_WAY else 85) if is_big else 70
    is_varied = len(pair.sizes) >= SIZES_MIN_ONE_WAY
    return 55 if is_big and is_varied and pair.echoes >= ECHOES_MIN_ONE_WAY else 0


def _judged(key: _Key, pair: _Pair) -> list[Alert]:
    score = _score(pair)
    if not score:
        return []
    pair.told_echoes = pair.echoes
    mean = pair.payload_bytes / pair.echoes
    replies = f"{pair.differing} replies were not what had been sent" if pair.replies else "no reply was seen"
    evidence = (
        f"exchanged {pair.echoes} echoes with {format_address(key[1])} in {pair.last - pair.first:.1f} s that no ping "
        f"program sends, with {len(pair.digests)} different payloads of {mean:.0f} bytes; {replies}"
    )
    return [
        Alert(
            kind=Kind.ICMP_TUNNEL, source=key[0], target=key[1], first=pair.first, last=pair.last, score=score,
            evidence=evidence,
        )
    ]  # fmt: skip
