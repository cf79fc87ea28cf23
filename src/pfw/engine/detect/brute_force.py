"""Brute force: one source tries one password after the other at a service that asks for one.

Two signs, each counted in leaky buckets as CrowdSec does it: what a service itself says of failed logins, and, where no
more is known than connections, many short ones in quick succession that carried as much as a failed login does, all
about the same. A service that says that somebody got in, a session in which more was done, or for FTP a file sent, was
a login that succeeded: the buckets are emptied. Many names without a password each count as failed logins, too. Where
anybody may have written what a service says, nobody is banned for it, and no other sign is taken back for it.

Probes that only look whether a port is open do not count. Those that read the greeting carry less than a login and
count apart, since it takes many more of them. All that count had a conversation with the service, which nobody has
with a forged address: so the source may be banned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec import Struct

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.detector import Table
from pfw.model.address import format_address
from pfw.model.observation import Alert, Confirmed, Ended, Kind, LoginFailed, LoginSucceeded
from pfw.model.packet import TCP

BURST, BURST_LEAK_S = 5, 10.0
SLOW, SLOW_LEAK_S = 10, 60.0
"""CrowdSec's `ssh-bf` and `ssh-slow-bf`: capacity, and in how many seconds one leaks away. The next one overflows."""
THIN, THIN_LEAK_S = 20, 5.0
"""The same for sessions that carried something, but less than a login as we know it. A monitor that says hello every 5
seconds never gets there."""
THIN_BYTES = 4
SOURCES_MAX = 4_096
SOURCES_S = 1_800.0
SHORT_S = 180.0
"""A session that lasts longer is no failed login: OpenSSH waits for 120 s (LoginGraceTime)."""
SIZES_KEPT = 12
SPREAD = 0.3
"""By how much of their median the sizes may differ, without the quarter at either end."""
NAMES_MAX = 16
"""Targets and users of one source that are remembered."""
SURE = 20
"""So many tries, and it is almost certain."""
_HEADERS_BYTES = 60
"""Of a packet: Ethernet 14, IPv4 20, TCP 20 to 32. Estimates of what was carried are that rough."""
_SYN_ONLY_BYTES = 8
"""Segment size and window scale, or permission of SACK: what the options of a SYN have and those of others do not."""
_FTP_DATA = 20
_FTP_PASSIVE = 1_024


Name = TypeVar("Name", bytes, str)


class Login(Struct, frozen=True, gc=False):
    """What a failed login at a service carries, in bytes without headers, from whoever tries and to it. `burst` is how
    many at once are no sign yet, `is_slow` whether a slow succession is one: programs ask some services regularly."""

    name: str
    sent_min: int
    sent_max: int
    received_min: int
    received_max: int
    packets_min: int = 3
    burst: int = BURST
    is_slow: bool = False


LOGINS = {
    # Key exchange and six passwords by OpenSSH and libssh; a session with the shortest command carries more.
    22: Login("ssh", 600, 6_000, 900, 3_550, packets_min=6, is_slow=True),
    # USER and PASS are 10 bytes and more, but short packets are padded by Ethernet.
    21: Login("ftp", 2, 400, 30, 1_200),
    23: Login("telnet", 10, 800, 20, 2_500, packets_min=4, is_slow=True),
    # A mail carries more than its sender's login. Clients that fetch open many at once: see `burst`.
    25: Login("smtp", 20, 350, 60, 1_000, packets_min=4, burst=15),
    465: Login("smtps", 400, 1_300, 1_000, 8_000, packets_min=4, burst=15),
    587: Login("submission", 20, 1_300, 60, 8_000, packets_min=4, burst=15),
    110: Login("pop3", 15, 200, 40, 350, packets_min=4, burst=15),
    995: Login("pop3s", 400, 1_200, 1_000, 7_000, packets_min=4, burst=20),
    143: Login("imap", 15, 250, 60, 900, packets_min=4, burst=15),
    993: Login("imaps", 400, 1_200, 1_000, 7_000, packets_min=4, burst=20),
    445: Login("smb", 300, 2_500, 300, 2_500, packets_min=4, burst=10),
    3389: Login("rdp", 200, 6_000, 400, 8_000, packets_min=4, is_slow=True),
    5900: Login("vnc", 10, 200, 15, 300, packets_min=4),
    # A query after the login makes it more; pools and health checks open many.
    3306: Login("mysql", 60, 260, 100, 320, burst=20),
    5432: Login("postgres", 100, 500, 90, 700, burst=20),
}
"""By port. Web servers are none of them: what a login is there the connection does not show."""


class Bucket:
    """A leaky bucket: each try fills it by one, and one leaks away in `leak_s`."""

    __slots__ = ("_capacity", "_leak_s", "_level", "_time")

    def __init__(self, capacity: int, leak_s: float) -> None:
        self._capacity = capacity
        self._leak_s = leak_s
        self._level = 0.0
        self._time = 0.0

    def add(self, now: float) -> bool:
        """Whether it overflows."""
        leaked = max(0.0, now - self._time) / self._leak_s
        self._level = min(max(0.0, self._level - leaked) + 1, self._capacity + 1)
        self._time = max(self._time, now)
        return self._level > self._capacity


class _Tries:
    """What one source did at one service."""

    __slots__ = ("burst", "count", "first", "is_thin", "last", "next_told", "received", "sent", "slow", "targets",
                 "told", "users")  # fmt: skip

    def __init__(self) -> None:
        self.burst: Bucket | None = None
        self.slow: Bucket | None = None
        self.sent: deque[int] = deque(maxlen=SIZES_KEPT)
        self.received: deque[int] = deque(maxlen=SIZES_KEPT)
        self.targets: set[bytes] = set()
        self.users: set[str] = set()
        self.first = 0.0
        self.count = 0
        self.is_thin = False
        self.next_told = self.told = 0
        self.last = 0.0

    def tell(self) -> bool:
        """Whether there is more than was told of last, if anything was; from now on it is told of."""
        if not self.told or self.count == self.told:
            return False
        self.told, self.next_told = self.count, self.count * 2
        return True

    def add(self, now: float, *, burst: int, is_slow: bool, leak_s: float = BURST_LEAK_S) -> bool:
        """Whether it is too much, and has to be told: at first, and whenever the tries have doubled."""
        if self.burst is None:
            self.burst = Bucket(burst, leak_s)
            self.slow = Bucket(max(SLOW, burst), SLOW_LEAK_S) if is_slow else None
            self.first = now
        self.count += 1
        self.first, self.last = min(self.first, now), max(self.last, now)
        overflows = self.burst.add(now)
        if self.slow is not None:
            overflows = self.slow.add(now) or overflows
        is_new = overflows and self.count >= self.next_told
        if not is_new or not _are_similar(self.sent) or not _are_similar(self.received):
            return False
        self.told = 1
        return self.tell()


class BruteForce:
    wants: tuple[type, ...] = (Ended, LoginFailed, LoginSucceeded, Confirmed)

    def __init__(self, sources_max: int = SOURCES_MAX) -> None:
        self._sessions: Table[tuple[bytes, int], _Tries] = Table(sources_max, SOURCES_S, _Tries)
        self._thin: Table[tuple[bytes, int], _Tries] = Table(sources_max, SOURCES_S, _Tries)
        self._logins: Table[tuple[bytes, str], _Tries] = Table(sources_max, SOURCES_S, _Tries)
        self._hearsay: Table[tuple[bytes, str], _Tries] = Table(sources_max, SOURCES_S, _Tries)

    @property
    def refused(self) -> int:
        return self._sessions.refused + self._thin.refused + self._logins.refused + self._hearsay.refused

    def observe(self, seen: Ended | LoginFailed | LoginSucceeded | Confirmed) -> Iterable[Alert]:
        match seen:
            case Ended():
                return self._ended(seen)
            case LoginFailed():
                return self._failed(seen)
            case LoginSucceeded():
                self._succeeded(seen)
            case Confirmed():
                self._transferred(seen)
        return ()

    def end(self, now: float) -> Iterable[Alert]:
        del now
        for (source, port), tries in (*self._sessions.items(), *self._thin.items()):
            if tries.tell():
                yield _of_sessions(source, port, tries)
        for table in (self._logins, self._hearsay):
            for (source, service), tries in table.items():
                if tries.tell():
                    yield _of_logins(source, service, tries, is_sure=table is self._logins)

    def _ended(self, seen: Ended) -> Iterator[Alert]:
        began = seen.began
        login = LOGINS.get(began.port or 0)
        if login is None or began.protocol != TCP or seen.is_open or began.source == began.destination:
            return
        key = began.source, began.port or 0
        sent = seen.sent_bytes - seen.sent_packets * _HEADERS_BYTES
        received = seen.received_bytes - seen.received_packets * _HEADERS_BYTES
        if sent > login.sent_max or received > login.received_max or seen.time - began.time > SHORT_S:
            self._sessions.drop(key)
            self._thin.drop(key)
            return
        few = min(seen.sent_packets, seen.received_packets) < login.packets_min
        is_thin = few or sent < login.sent_min or received < login.received_min
        if is_thin and not _says_something(seen):
            return
        tries = (self._thin if is_thin else self._sessions).get(key, seen.time)
        if tries is None:
            return
        tries.is_thin = is_thin
        tries.sent.append(seen.sent_bytes)
        tries.received.append(seen.received_bytes)
        _remember(tries.targets, began.destination)
        burst, leak_s = (THIN, THIN_LEAK_S) if is_thin else (login.burst, BURST_LEAK_S)
        if tries.add(seen.time, burst=burst, leak_s=leak_s, is_slow=login.is_slow and not is_thin):
            yield _of_sessions(*key, tries)

    def _failed(self, seen: LoginFailed) -> Iterator[Alert]:
        table = self._logins if seen.is_sure else self._hearsay
        tries = table.get((seen.source, seen.service), seen.time)
        if tries is None:
            return
        if seen.user is not None:
            _remember(tries.users, seen.user)
        if tries.add(seen.time, burst=BURST, is_slow=True):
            yield _of_logins(seen.source, seen.service, tries, is_sure=seen.is_sure)

    def _succeeded(self, seen: LoginSucceeded) -> None:
        self._hearsay.drop((seen.source, seen.service))
        if not seen.is_sure:
            return
        self._logins.drop((seen.source, seen.service))
        for port, login in LOGINS.items():
            if login.name == seen.service:
                self._sessions.drop((seen.source, port))
                self._thin.drop((seen.source, port))

    def _transferred(self, seen: Confirmed) -> None:
        """FTP sends files and listings through connections of their own: whoever has one is logged in."""
        began = seen.began
        if seen.by_reset or not len(self._sessions):
            return
        if began.source_port == _FTP_DATA:
            self._sessions.drop((began.destination, 21))
        elif (began.port or 0) >= _FTP_PASSIVE:
            tries = self._sessions.peek((began.source, 21))
            if tries is not None and began.destination in tries.targets:
                self._sessions.drop((began.source, 21))


def _says_something(seen: Ended) -> bool:
    """Whether both ends carried anything. No header is longer than that of the SYN without what only a SYN has."""
    header_bytes = max(_HEADERS_BYTES, seen.began.size_bytes - _SYN_ONLY_BYTES)
    sent = seen.sent_bytes - seen.sent_packets * header_bytes - _SYN_ONLY_BYTES
    received = seen.received_bytes - seen.received_packets * header_bytes - _SYN_ONLY_BYTES
    return min(sent, received) >= THIN_BYTES


def _are_similar(some: Iterable[int]) -> bool:
    sizes = sorted(some)
    middle = sizes[len(sizes) // 4 : len(sizes) - len(sizes) // 4]
    return not middle or middle[-1] - middle[0] <= SPREAD * middle[len(middle) // 2]


def _remember(some: set[Name], one: Name) -> None:
    if len(some) < NAMES_MAX:
        some.add(one)


def _of_sessions(source: bytes, port: int, tries: _Tries) -> Alert:
    mean = (sum(tries.sent) + sum(tries.received)) // len(tries.sent)
    only = next(iter(tries.targets)) if len(tries.targets) == 1 else None
    where = f"{len(tries.targets)} hosts" if only is None else format_address(only)
    return Alert(
        kind=Kind.BRUTE_FORCE,
        source=source,
        target=only,
        first=tries.first,
        last=tries.last,
        score=55 if tries.is_thin else 80 if tries.count >= SURE else 65,
        evidence=f"{tries.count} short sessions of {LOGINS[port].name} at {where} in {lasted(tries.first, tries.last)},"
        f" each of about {mean} bytes: {'less' if tries.is_thin else 'no more'} than a failed login carries",
        ban=() if tries.is_thin else (source,),  # a probe that only reads a greeting looks the same
    )


def _of_logins(source: bytes, service: str, tries: _Tries, *, is_sure: bool) -> Alert:
    users = f", as {len(tries.users)} users" if len(tries.users) > 1 else ""
    return Alert(
        kind=Kind.BRUTE_FORCE,
        source=source,
        target=None,
        first=tries.first,
        last=tries.last,
        score=95 if tries.count >= SURE else 80,
        evidence=f"{tries.count} failed logins at {service} in {lasted(tries.first, tries.last)}{users}"
        f"{'' if is_sure else '; a log says so that others can write to, too'}",
        ban=(source,) if is_sure else (),
    )
