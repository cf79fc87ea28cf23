"""Rules: one condition a field, in the form that matchers and compilers read.

Loading (`policy/load.py`) has resolved aliases, names and exclusions. A field that is None does not
restrict the rule; a rule matches when every field that it has matches.
"""

from __future__ import annotations

from msgspec import Struct

from pfw.model.address import AddressSet
from pfw.model.flow import Direction
from pfw.model.verdict import Action

PortRange = tuple[int, int]
"""First and last port, both included."""

MINUTES_A_DAY = 1440
MINUTES_A_WEEK = 7 * MINUTES_A_DAY


class Schedule(Struct, frozen=True):
    """When a rule holds, by the local clock.

    `windows` are half-open ranges of minutes since Monday 00:00 within 0..10080, sorted, apart; a
    window that runs past midnight belongs to the day on which it begins.
    """

    windows: tuple[tuple[int, int], ...]
    text: str

    def holds(self, minute_of_week: int) -> bool:
        return any(first <= minute_of_week < end for first, end in self.windows)


class Limit(Struct, frozen=True):
    """A token bucket a source address: `burst` at once, then `count` in `period_s`. Above it no match."""

    count: int
    period_s: int
    burst: int

    @property
    def rate_hz(self) -> float:
        return self.count / self.period_s


class Expiry(Struct, frozen=True):
    """When a rule ends. Written without a zone it is by the local clock: compare with UTC + offset."""

    time: float
    local: bool
    text: str


class App(Struct, frozen=True):
    """A program by the path of its executable, or all below a folder (`/opt/ide/*`), or a path with what the file
    holds: `sha256`, 64 hex digits in small letters, never with a `*`."""

    path: str
    sha256: str | None = None


class Rule(Struct, frozen=True, kw_only=True):
    """One rule. `interfaces` and the paths of `apps` may end in `*`; `users` are spelled as in `Flow.users`.

    `scripts` are what an interpreter runs, by path; only with `apps`.

    `icmp_types` holds pairs (protocol, type). `remote` is the source for `in`, the destination for `out`.
    """

    name: str
    action: Action
    directions: frozenset[Direction]
    source: AddressSet | None = None
    destination: AddressSet | None = None
    remote: AddressSet | None = None
    protocols: frozenset[int] | None = None
    source_ports: tuple[PortRange, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    icmp_types: frozenset[tuple[int, int]] | None = None
    interfaces: tuple[str, ...] | None = None
    apps: tuple[App, ...] | None = None
    scripts: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    schedule: Schedule | None = None
    limit: Limit | None = None
    expires: Expiry | None = None
    log: bool = False
    enabled: bool = True
    note: str = ""
