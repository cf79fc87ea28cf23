"""Port scan: one host tries many ports of another, fast, slowly, or in the company of many others (decoys).

Two tests of the same tries: how many different ports came how fast, and the threshold random walk, which needs fewer,
but says something only of TCP, and of a host that is known to speak. A port counts once, however often it is tried.
Ports that answer count when they are left without a word, those that once let the source in do not. Tries of other IP
protocols count by protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from pfw.engine.detect.contacts import SERVICE_BELOW, Pace, Suspects, Walk, counted, is_for_many, lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.ip_protocols import IpProtocols
from pfw.engine.detect.numbers import Numbers
from pfw.engine.detect.proof import (
    BEFORE_S,
    LEFT_MAX,
    Company,
    Handshakes,
    Latest,
    are_proof,
    is_alone,
    is_by_reset,
)
from pfw.model.address import format_address
from pfw.model.observation import Alert, Began, Confirmed, Ended, HalfOpen, Kind, Met, ProtocolTried, Reply
from pfw.model.packet import PORT_PROTOCOLS, TCP, UDP, protocol_name

PAIRS_MAX = 4_096
PAIRS_S = 4 * 3600.0
FAST_PORTS, FAST_S = 10, 60.0
SLOW_PORTS, SLOW_S = 15, 3600.0
"""CrowdSec's scenario counts 15 ports, Snort's "medium" 10 rejects in 90 s, Slips 10 ports in an hour."""
WALK_PORTS = 5
"""Four failures are what the walk takes; but who configures a mailbox tries as many."""
UDP_PORTS = 15
"""UDP that nobody answers is nothing strange (syslog, games): it takes more ports."""
UDP_PORT_BELOW = 32_768
"""Ports above are chosen by kernels, media streams and traceroute (33434 and up): silence there is no sign."""

FEW_PORTS, SETTLED_S, AGAIN_S = 15, 90.0, 5.0
"""A ban for fewer ports waits until it would be known that they are those of a health check, or of somebody who waits
for services: most are tried again and again, and a scanner's own repetitions come within AGAIN_S."""

TOGETHER_S = 5.0
TOGETHER_SOURCES = 3
"""So many sources that begin to scan one host within this time are decoys (`nmap -D`), or one scan of many."""
HELD_S = 2.0
"""So long a first alert waits for others like it. One whose source has proved itself does not wait: decoys send along
with each probe, and would be known."""
SPREAD_PORTS, SPREAD_SOURCES, SPREAD_S = 20, 5, 600.0
"""Ports of one host that several sources tried, each more than one and too few to be noticed."""
SPREAD_PER_S = 50
"""More ports a second are a flood to ports at random."""
TARGETS_MAX = 1_024
SOURCES_MAX = 64
SPEAKING_MAX = 8_192
"""Hosts that are known to answer at times; of more the one that was last seen longest ago is let go."""

_NO_FAILURE = (Reply.ANSWERED, Reply.EXPIRED)
_Try = Met | Confirmed | HalfOpen
_Pair = tuple[bytes, bytes, int]
"""Source, destination, protocol."""


class _Scan:
    """What one source tried of another host with one protocol."""

    __slots__ = ("first", "half_open", "has_banned", "last", "left", "next_alert", "pace", "ports", "proofs",
                 "refused", "regular", "repeated", "reset", "silent", "told", "triggered", "walk")  # fmt: skip

    def __init__(self) -> None:
        self.ports = Numbers()
        self.pace = Pace(SLOW_PORTS)
        self.walk = Walk()
        self.first = self.last = 0.0
        self.refused = self.silent = self.reset = self.half_open = self.left = 0
        self.proofs = 0
        self.has_banned = False
        self.repeated: dict[int, float] = {}
        self.regular: set[int] = set()
        self.triggered: float | None = None
        self.next_alert = self.told = 0

    def add(self, seen: _Try | Ended, *, speaks: bool) -> bool:
        """Whether the port is a new one. `speaks` tells that the other end is known to say something at times."""
        began = seen.began
        if not self.ports.add(began.port or 0):
            self._again(began.port or 0, began.time)
            return False
        self.pace.add(began.time)
        self.first = min(self.first or began.time, began.time)
        self.last = max(self.last, began.time)
        if isinstance(seen, Ended):
            self.left += 1
        elif isinstance(seen, Confirmed):
            self.reset += 1
            self.proofs += is_by_reset(seen)
        elif isinstance(seen, HalfOpen):
            self.half_open += 1
        elif seen.reply is Reply.SILENT:
            self.silent += 1
            if speaks:
                self.walk.failed()
        else:
            self.refused += 1
            self.walk.failed()
        return True

    def _again(self, port: int, time: float) -> None:
        if self.ports.count < FEW_PORTS and time - self.repeated.setdefault(port, time) >= AGAIN_S:
            self.regular.add(port)

    def may_be_check(self, now: float) -> bool:
        """Whether these look like health checks that fail, or may do so yet."""
        # What a policy lets nobody reach, no health check asks for: it is silent, or a rule speaks for it.
        if self.ports.count >= FEW_PORTS or (self.ports.count >= FAST_PORTS and 2 * self.silent >= self.ports.count):
            return False
        is_new = self.triggered is None or abs(now - self.triggered) < SETTLED_S
        return is_new or 2 * len(self.regular) >= self.ports.count - self.left

    def is_scan(self, protocol: int) -> bool:
        if protocol == UDP:
            return self.pace.reached(UDP_PORTS, SLOW_S)
        if self.pace.reached(FAST_PORTS, FAST_S) or self.pace.reached(SLOW_PORTS, SLOW_S):
            return True
        return self.ports.count >= WALK_PORTS and self.walk.is_scanner


class _Target:
    """Who tries ports of one host: those too few each, and those that were found out."""

    __slots__ = ("few", "first", "found", "next_spread", "next_together", "ports")

    def __init__(self) -> None:
        self.few: set[bytes] = set()
        self.ports = Numbers()
        self.first = 0.0
        self.found: dict[bytes, float] = {}
        self.next_spread = SPREAD_PORTS
        self.next_together = 0


class PortScan:
    wants: tuple[type, ...] = (Began, Met, Confirmed, HalfOpen, Ended, ProtocolTried)

    def __init__(self, pairs_max: int = PAIRS_MAX) -> None:
        self._scans: Suspects[_Pair, _Scan, _Try] = Suspects(
            pairs_max, PAIRS_S, _Scan, may_go=lambda scan: scan.triggered is None
        )
        self._company = Company()
        self._targets: Table[bytes, _Target] = Table(TARGETS_MAX, SPREAD_S, _Target)
        self._protocols = IpProtocols()
        self._held: deque[_Pair] = deque()
        self._handshakes = Handshakes(PAIRS_S)
        # When a source last left a port that it had not opened before.
        self._left: Latest[_Pair] = Latest(LEFT_MAX)
        # Hosts that have answered, seen last, last.
        self._speaking: dict[bytes, None] = {}

    @property
    def refused(self) -> int:
        return self._scans.refused + self._targets.refused + self._protocols.refused

    def observe(self, seen: Began | _Try | Ended | ProtocolTried) -> Iterable[Alert]:
        if isinstance(seen, Began):
            if seen.protocol == TCP:
                self._company.began(seen.destination, seen.source, seen.port, seen.time)
            return ()
        if isinstance(seen, ProtocolTried):
            return () if self._is_for_many(seen.destination) else list(self._protocols.observe(seen))
        due = list(self._release(seen.time)) if self._held else ()
        return (*due, *self._connection(seen)) if due else self._connection(seen)

    def end(self, now: float) -> Iterable[Alert]:
        """What was held back, and how far those have come that were told of."""
        alerts = list(self._release(now, everything=True))
        for pair, scan in self._scans.values():
            if 0 < scan.told < scan.ports.count or self._is_news(pair, scan, now):
                alerts += self._tell(pair, scan, now)
        return alerts + self._protocols.end()

    def _connection(self, seen: _Try | Ended) -> Iterable[Alert]:
        began = seen.began
        if began.port is None or began.protocol not in PORT_PROTOCOLS:
            return ()
        if isinstance(seen, Met) and _says_that_it_is_there(seen):
            self._speaks(began.destination)
        if self._is_for_many(began.destination):
            return ()
        pair = (began.source, began.destination, began.protocol)
        match seen:
            case Ended():
                return self._leaves(pair, seen) if self._handshakes.ended(seen) else ()
            case Confirmed(by_reset=False):
                self._handshakes.confirmed(seen)
                self._welcome(pair, seen)
                return ()
        if (isinstance(seen, Met) and seen.reply in _NO_FAILURE) or _says_nothing(seen):
            return ()
        if self._handshakes.is_outage(seen):
            return ()
        return list(self._tried(pair, seen))

    def _tried(self, pair: _Pair, seen: _Try) -> Iterator[Alert]:
        taken = self._scans.take(pair, seen.began.port, seen)
        if taken is None:
            return
        scan, successes, tries = taken
        self._company.joined(pair[1], pair[0], seen.time)
        for _ in range(min(successes, WALK_PORTS)):
            scan.walk.succeeded()
        speaks = pair[1] in self._speaking
        new = [scan.add(each, speaks=speaks) for each in tries]
        if not any(new):
            return
        has_grown = scan.told > 0 and scan.ports.count >= scan.next_alert
        may_prove = isinstance(seen, Confirmed) or FAST_PORTS <= scan.ports.count <= FEW_PORTS
        if scan.triggered is None and scan.is_scan(pair[2]):
            self._found(pair, scan, seen.time)
            if self._bans(pair, scan, seen.time):
                yield from self._tell(pair, scan, seen.time)
        elif has_grown or (may_prove and self._is_news(pair, scan, seen.time)):
            yield from self._tell(pair, scan, seen.time)
        elif scan.triggered is None and speaks:
            yield from self._spread(pair, tries, seen.time)

    def _found(self, pair: _Pair, scan: _Scan, now: float) -> None:
        scan.triggered = now
        self._held.append(pair)
        target = self._targets.get(pair[1], now)
        if target is not None:
            if len(target.found) >= SOURCES_MAX:
                del target.found[next(iter(target.found))]
            target.found[pair[0]] = now

    def _release(self, now: float, *, everything: bool = False) -> Iterator[Alert]:
        while self._held:
            scan = self._scans.known(self._held[0])
            since = 0.0 if scan is None or scan.triggered is None else now - scan.triggered
            if scan is not None and 0 <= since < HELD_S and not everything:
                return
            pair = self._held.popleft()
            if scan is not None and not scan.told:
                yield from self._tell(pair, scan, now)

    def _welcome(self, pair: _Pair, seen: Confirmed) -> None:
        scan = self._scans.known(pair)
        if scan is None:
            self._scans.succeeded(pair)
        elif (seen.began.port or 0) not in scan.ports:
            scan.walk.succeeded()

    def _leaves(self, pair: _Pair, seen: Ended) -> Iterable[Alert]:
        """Opened and left: that the source got the answer proves that it is what it says, and such a port counts. One
        that it tried in vain before is what it waited for."""
        scan = self._scans.known(pair)
        if scan is not None and (seen.began.port or 0) in scan.ports:
            return ()
        self._left.note(pair, seen.began.time)
        if scan is None or not self._is_left(pair, scan):
            return ()
        scan.add(seen, speaks=True)
        return self._tell(pair, scan, seen.time) if self._is_news(pair, scan, seen.time) else ()

    def _is_for_many(self, address: bytes) -> bool:
        """Multicast, or perhaps broadcast: in a network larger than a /24 a host may have an address that ends so."""
        return is_for_many(address) and address not in self._speaking

    def _speaks(self, address: bytes) -> None:
        self._speaking.pop(address, None)
        self._speaking[address] = None
        if len(self._speaking) > SPEAKING_MAX:
            del self._speaking[next(iter(self._speaking))]

    def _tell(self, pair: _Pair, scan: _Scan, now: float) -> Sequence[Alert]:
        source, destination, protocol = pair
        count = scan.told = scan.ports.count
        scan.next_alert = 2 * count
        is_left = self._is_left(pair, scan)
        tried = f"{count} {protocol_name(protocol)} ports of {format_address(destination)} in "
        tried += lasted(scan.first, scan.last)
        text = f"tried {tried}, {_results(scan)}"
        others = 1 if is_left else self._together(destination, scan)
        if others >= TOGETHER_SOURCES:
            target = self._targets.peek(destination)
            # One of them is told of, until there is twice as much to say.
            if target is not None and others * count < target.next_together:
                return ()
            if target is not None:
                target.next_together = 2 * others * count
            text = f"{others} sources at once tried the same host, one alone {tried}: most may be forged (decoys)"
        bans = self._bans(pair, scan, now)
        scan.has_banned = scan.has_banned or bans
        return (
            Alert(
                kind=Kind.PORT_SCAN,
                source=None if others >= TOGETHER_SOURCES else source,
                target=destination,
                first=scan.first,
                last=scan.last,
                score=min(95, (30 if protocol == UDP else 40) + 4 * count),
                evidence=text,
                ban=(source,) if bans else (),
                by_reset=bans and not is_left,
            ),
        )

    def _is_news(self, pair: _Pair, scan: _Scan, now: float) -> bool:
        """Whether the source could be banned, and has been told of without that, or not at all."""
        return scan.triggered is not None and not scan.has_banned and self._bans(pair, scan, now)

    def _bans(self, pair: _Pair, scan: _Scan, now: float) -> bool:
        return not scan.may_be_check(now) and self._is_proved(pair, scan)

    def _is_left(self, pair: _Pair, scan: _Scan) -> bool:
        """Whether the source has opened and left a port for the first time when it began to scan, or since."""
        left = self._left.get(pair)
        return left is not None and scan.first - BEFORE_S <= left <= scan.last + SLOW_S

    def _is_proved(self, pair: _Pair, scan: _Scan) -> bool:
        """Whether the source acknowledged an answer, or resets are proof enough (`proof.py`)."""
        source, destination, protocol = pair
        if self._is_left(pair, scan):
            return True
        if not are_proof(scan.proofs, scan.ports.count) or self._together(destination, scan) >= TOGETHER_SOURCES:
            return False
        others = self._company.others(destination, source)
        if others is None or not self._company.is_alone_at(destination, source, scan.last):
            return False
        scans = (self._scans.known((other, destination, protocol)) for other in others)
        return is_alone(scan, scan.ports.count, scans, lambda one, other: one.ports.shared(other.ports))

    def _together(self, destination: bytes, scan: _Scan) -> int:
        """How many sources were found out at the same time."""
        target = self._targets.peek(destination)
        if target is None or scan.triggered is None:
            return 1
        return sum(abs(scan.triggered - each) <= TOGETHER_S for each in target.found.values())

    def _spread(self, pair: _Pair, tries: Iterable[_Try], now: float) -> Iterator[Alert]:
        target = self._targets.get(pair[1], now)
        if target is None or target.found:
            return
        if not target.first or abs(now - target.first) > SPREAD_S:
            target.few, target.ports, target.next_spread = set(), Numbers(), SPREAD_PORTS
            target.first = now
        if len(target.few) < SOURCES_MAX:
            target.few.add(pair[0])
        for each in tries:
            target.ports.add(each.began.port or 0)
        count = target.ports.count
        is_fast = count > SPREAD_PER_S * abs(now - target.first)
        if count >= target.next_spread and len(target.few) >= SPREAD_SOURCES and not is_fast:
            target.next_spread = 2 * count
            text = f"{len(target.few)} sources tried {count} ports of {format_address(pair[1])} in "
            text += f"{lasted(target.first, now)}, each a few, none was let in"
            yield Alert(kind=Kind.PORT_SCAN, source=None, target=pair[1], first=target.first, last=now, score=60,
                        evidence=text)  # fmt: skip


def _says_that_it_is_there(seen: Met) -> bool:
    """Nobody answers TCP for many. That a port cannot be reached may be said by somebody else."""
    return seen.reply is Reply.ANSWERED or (seen.reply is Reply.REFUSED and seen.began.protocol == TCP)


def _says_nothing(seen: _Try) -> bool:
    """UDP that may be an answer, or goes where silence is no sign."""
    began = seen.began
    port, source_port = began.port or 0, began.source_port or 0
    return began.protocol == UDP and (port >= UDP_PORT_BELOW or source_port < SERVICE_BELOW <= port)


def _results(scan: _Scan) -> str:
    return counted(
        (scan.refused, "refused"),
        (scan.silent, "without an answer"),
        (scan.reset, "half open and reset"),
        (scan.half_open, "half open and then nothing"),
        (scan.left, "opened and left without a word"),
    )
