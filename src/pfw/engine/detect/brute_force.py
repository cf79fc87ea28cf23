"""Brute force: one source tries one password after the other at a service that asks for one.

Two signs, each counted in leaky buckets as CrowdSec does it: what a service itself says of failed logins, and, where no
more is known than connections, many short ones in quick succession that carried as much as a failed login does, all
about the same. A service that says that somebody got in empties the buckets. A session in which more was done, or for
FTP a file sent, perhaps was a login that succeeded: it does not count, and takes something out. Many names without a
password each count as failed logins, too. Where anybody may have written what a service says, nobody is banned for it,
and no other sign is taken back for it.

Probes that only look whether a port is open do not count. Those that read the greeting carry less than a login and
count apart, since it takes many more of them. All that count were opened by a whole handshake, which nobody makes with
a forged address: so the source may be banned. It is for connections alone only where a login that succeeds carries
more, and where there were more of them than programs make that log in and leave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from msgspec import Struct

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.login_sessions import HEADERS_BYTES, Opened, said
from pfw.engine.detect.proof import may_be_guessed
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
"""So many failed logins, and it is almost certain; so many sessions at once that carried as much as one."""
SURE_LEAK_S, LOOKALIKE_LEAK_S = 60.0, 5.0
"""In how many seconds one of those sessions leaks away; where logins of programs that do little look the same, that is
soon."""
LONG_TAKES, LONG_S = 3, 60.0
"""How many tries a session that carried more takes out, and how often one does: it needs no account."""


Name = TypeVar("Name", bytes, str)


class Login(Struct, frozen=True, gc=False):
    """What a failed login at a service carries, in bytes without headers, from whoever tries and to it. `burst` is how
    many at once are no sign yet, `is_slow` whether a slow succession is one: programs ask some services regularly.
    Nobody is sure, nor banned, before there were SURE at once, one of which leaks away in `sure_leak_s`; None where
    logins that succeed carry no more than those that fail, so that connections alone are never enough."""

    name: str
    sent_min: int
    sent_max: int
    received_min: int
    received_max: int
    packets_min: int = 3
    burst: int = BURST
    is_slow: bool = False
    sure_leak_s: float | None = SURE_LEAK_S


LOGINS = {
    # Key exchange and six passwords by OpenSSH and libssh. Of a session with the shortest command 3,700 come back, of
    # dropbear 1,500, of an OpenSSH with few algorithms 3,000.
    22: Login("ssh", 600, 6_000, 900, 3_550, packets_min=6, is_slow=True, sure_leak_s=LOOKALIKE_LEAK_S),
    # USER and PASS are 10 bytes and more, but short packets are padded by Ethernet. A monitor says as little.
    21: Login("ftp", 2, 400, 30, 1_200, sure_leak_s=LOOKALIKE_LEAK_S),
    23: Login("telnet", 10, 800, 20, 2_500, packets_min=4, is_slow=True),
    # Who asks whether an address is there sends no mail; an empty box is left at once. Clients that fetch open many.
    25: Login("smtp", 20, 350, 60, 1_000, packets_min=4, burst=15, sure_leak_s=None),
    465: Login("smtps", 400, 1_300, 1_000, 8_000, packets_min=4, burst=15, sure_leak_s=None),
    587: Login("submission", 20, 1_300, 60, 8_000, packets_min=4, burst=15, sure_leak_s=None),
    110: Login("pop3", 15, 200, 40, 350, packets_min=4, burst=15, sure_leak_s=None),
    995: Login("pop3s", 400, 1_200, 1_000, 7_000, packets_min=4, burst=20, sure_leak_s=None),
    143: Login("imap", 15, 250, 60, 900, packets_min=4, burst=15, sure_leak_s=None),
    993: Login("imaps", 400, 1_200, 1_000, 7_000, packets_min=4, burst=20, sure_leak_s=None),
    445: Login("smb", 300, 2_500, 300, 2_500, packets_min=4, burst=10),
    3389: Login("rdp", 200, 6_000, 400, 8_000, packets_min=4, is_slow=True, sure_leak_s=None),
    5900: Login("vnc", 10, 200, 15, 300, packets_min=4),
    # A short query after the login carries no more; pools and health checks open many.
    3306: Login("mysql", 60, 260, 100, 320, burst=20, sure_leak_s=None),
    5432: Login("postgres", 100, 500, 90, 700, burst=20, sure_leak_s=None),
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

    def take(self, many: int) -> None:
        """So many were none."""
        self._level = max(0.0, self._level - many)


class _Tries:
    """What one source did at one service."""

    __slots__ = ("burst", "count", "first", "is_sure", "is_thin", "last", "next_told", "received", "sent", "slow",
                 "sure", "taken", "targets", "told", "users")  # fmt: skip

    def __init__(self) -> None:
        self.burst: Bucket | None = None
        self.slow: Bucket | None = None
        self.sure: Bucket | None = None
        self.is_sure = False
        self.taken: float | None = None
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

    def take(self, now: float) -> None:
        """Some were none, perhaps; once in LONG_S."""
        if self.taken is not None and 0 <= now - self.taken < LONG_S:
            return
        self.taken = now
        for bucket in (self.burst, self.slow, self.sure):
            if bucket is not None:
                bucket.take(LONG_TAKES)

    def add(
        self, now: float, *, burst: int, is_slow: bool, leak_s: float = BURST_LEAK_S, sure_leak_s: float | None = None
    ) -> bool:
        """Whether it is too much, and has to be told: at first, whenever the tries have doubled, and when it is sure
        by now."""
        if self.burst is None:
            self.burst = Bucket(burst, leak_s)
            self.slow = Bucket(max(SLOW, burst), SLOW_LEAK_S) if is_slow else None
            self.sure = None if sure_leak_s is None else Bucket(SURE, sure_leak_s)
            self.first = now
        self.count += 1
        self.first, self.last = min(self.first, now), max(self.last, now)
        overflows = self.burst.add(now)
        if self.slow is not None:
            overflows = self.slow.add(now) or overflows
        is_sure = self.sure is not None and self.sure.add(now)
        if not overflows or not _are_similar(self.sent) or not _are_similar(self.received):
            return False
        if self.count < self.next_told and (self.is_sure or not is_sure):
            return False
        self.is_sure = self.is_sure or is_sure
        self.told = 1
        return self.tell()


class BruteForce:
    wants: tuple[type, ...] = (Ended, LoginFailed, LoginSucceeded, Confirmed)

    def __init__(self, sources_max: int = SOURCES_MAX) -> None:
        self._opened = Opened(LOGINS)
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
                if not seen.by_reset:
                    self._opened.opened(seen.began)
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
        began, is_file_sent = seen.began, self._opened.ended(seen)
        login = LOGINS.get(began.port or 0)
        if is_file_sent is None or login is None or seen.is_open or may_be_guessed(seen):
            return
        if began.protocol != TCP or began.source == began.destination:
            return
        key = began.source, began.port or 0
        header_bytes = HEADERS_BYTES[len(began.source)]
        sent = seen.sent_bytes - seen.sent_packets * header_bytes
        received = seen.received_bytes - seen.received_packets * header_bytes
        is_long = sent > login.sent_max or received > login.received_max or seen.time - began.time > SHORT_S
        if is_long or is_file_sent:
            for known in (self._sessions.peek(key), self._thin.peek(key)):
                if known is not None:
                    known.take(seen.time)
            return
        few = min(seen.sent_packets, seen.received_packets) < login.packets_min
        is_thin = few or sent < login.sent_min or received < login.received_min
        if is_thin and min(said(seen)) < THIN_BYTES:
            return
        yield from self._tried(seen, login, is_thin=is_thin)

    def _tried(self, seen: Ended, login: Login, *, is_thin: bool) -> Iterator[Alert]:
        key = seen.began.source, seen.began.port or 0
        tries = (self._thin if is_thin else self._sessions).get(key, seen.time)
        if tries is None:
            return
        tries.is_thin = is_thin
        tries.sent.append(seen.sent_bytes)
        tries.received.append(seen.received_bytes)
        _remember(tries.targets, seen.began.destination)
        if is_thin:
            is_told = tries.add(seen.time, burst=THIN, leak_s=THIN_LEAK_S, is_slow=False)
        else:
            is_told = tries.add(seen.time, burst=login.burst, is_slow=login.is_slow, sure_leak_s=login.sure_leak_s)
        if is_told:
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
    carried = f"{'less' if tries.is_thin else 'no more'} than a failed login carries"
    if not tries.is_thin and not tries.is_sure:
        carried += ", and one that succeeds may carry as little"
    return Alert(
        kind=Kind.BRUTE_FORCE,
        source=source,
        target=only,
        first=tries.first,
        last=tries.last,
        score=55 if tries.is_thin else 80 if tries.is_sure else 65,
        evidence=f"{tries.count} short sessions of {LOGINS[port].name} at {where} in {lasted(tries.first, tries.last)},"
        f" each of about {mean} bytes: {carried}",
        ban=(source,) if tries.is_sure else (),
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
