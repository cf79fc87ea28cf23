"""Stealth scan: TCP packets that begin nothing and belong to nothing, sent to learn from what comes back.

Flags that no honest sender sets (NULL, FIN, Xmas, SYN with FIN …) need few; a bare ACK or FIN with ACK is what is left
of a connection, too, so there it takes many different ports of one host, or neighbours. SYN with ACK and resets are
what hosts answer whose address somebody else has forged: they never count. Nothing here proves an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pfw.engine.detect.contacts import Pace, Suspects, counted, is_for_many, lasted, near
from pfw.model.address import format_address
from pfw.model.observation import Alert, Kind, Stray
from pfw.model.packet import ACK, FIN, PSH, RST, SYN, URG

SOURCES_MAX = 2_048
KEEP_S = 3600.0
ODD_TRIES, ODD_S = 3, 3600.0
"""No sender sets them, a broken router may now and then; nmap's -T1 sends one in 15 s. Different flags to one port are
different tries: `nmap -O` sends NULL, Xmas and worse to one open and one closed port."""
BARE_TRIES, BARE_S = 10, 60.0
BARE_SLOW_TRIES, BARE_SLOW_S = 15, 3600.0
"""As many ports as make a port scan (`port_scan.py`)."""
TRIES_MAX = 1_024
"""Tries of one source that are told apart; nmap's list of ports has 1,000."""

_ALL = FIN | SYN | RST | PSH | ACK | URG
_NAMES = {0: "NULL", FIN: "FIN", FIN | PSH | URG: "Xmas", ACK: "ACK", FIN | ACK: "FIN+ACK (Maimon)"}
_LETTERS = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG"))
_Try = tuple[bytes, int, int]
"""Destination, port and flags; what does not tell tries apart is zero."""
_Name = tuple[bytes, bytes]
"""A source, and what it is held against: nothing for odd flags, a host or a network for bare ones."""


class _Tries:
    __slots__ = ("first", "flags", "last", "next_alert", "pace", "places", "targets", "told", "tried")

    def __init__(self) -> None:
        self.tried: set[_Try] = set()
        self.places: set[tuple[bytes, int]] = set()
        self.targets: set[bytes] = set()
        self.flags: dict[str, int] = {}
        self.pace = Pace(BARE_SLOW_TRIES)
        self.first = self.last = 0.0
        self.next_alert = self.told = 0

    def add(self, seen: Stray, thing: _Try) -> bool:
        """Whether this is something new."""
        if thing in self.tried or len(self.tried) >= TRIES_MAX:
            return False
        self.tried.add(thing)
        self.places.add((seen.destination, seen.port))
        self.targets.add(seen.destination)
        self.pace.add(seen.time)
        self.first = min(self.first or seen.time, seen.time)
        self.last = max(self.last, seen.time)
        name = flags_name(seen.flags)
        self.flags[name] = self.flags.get(name, 0) + 1
        return True


class StealthScan:
    wants: tuple[type, ...] = (Stray,)

    def __init__(self, sources_max: int = SOURCES_MAX) -> None:
        self._odd: Suspects[_Name, _Tries, Stray] = Suspects(sources_max, KEEP_S, _Tries, fresh_s=ODD_S)
        self._bare: Suspects[_Name, _Tries, Stray] = Suspects(sources_max, KEEP_S, _Tries)

    @property
    def refused(self) -> int:
        return self._odd.refused + self._bare.refused

    def observe(self, seen: Stray) -> Iterable[Alert]:
        if is_for_many(seen.destination):
            return ()
        if is_odd(seen.flags):
            return list(self._tried(self._odd, (seen.source, b""), _by_flags, seen))
        if not _is_bare(seen):
            return ()
        return (
            *self._tried(self._bare, (seen.source, seen.destination), _by_port, seen),
            *self._tried(self._bare, (seen.source, near(seen.destination)), _by_host, seen),
        )

    def end(self, _now: float, /) -> Iterable[Alert]:
        """How far those have come that were told of."""
        return [
            _alert(name, tries)
            for suspects in (self._odd, self._bare)
            for name, tries in suspects.values()
            if 0 < tries.told < len(tries.tried)
        ]

    def _tried(
        self, suspects: Suspects[_Name, _Tries, Stray], name: _Name, what: Callable[[Stray], _Try], seen: Stray
    ) -> Iterator[Alert]:
        taken = suspects.take(name, what(seen), seen)
        if taken is None:
            return
        tries, _, new = taken
        added = [tries.add(each, what(each)) for each in new]
        if not any(added):
            return
        if len(tries.tried) >= tries.next_alert and (tries.told or _is_scan(name, tries)):
            yield _alert(name, tries)


def _by_flags(seen: Stray) -> _Try:
    return seen.destination, seen.port, seen.flags & _ALL


def _by_port(seen: Stray) -> _Try:
    return seen.destination, seen.port, 0


def _by_host(seen: Stray) -> _Try:
    return seen.destination, 0, 0


def is_odd(flags: int) -> bool:
    """Flags that no honest sender sets. FIN with RST is left out: middle boxes send it."""
    if flags & RST:
        return bool(flags & SYN)
    if flags & SYN:
        return bool(flags & FIN)
    return not flags & ACK


def flags_name(flags: int) -> str:
    flags &= _ALL
    known = _NAMES.get(flags)
    return known or "+".join(name for bit, name in _LETTERS if flags & bit)


def _is_bare(seen: Stray) -> bool:
    """An acknowledgement on the way to a service. The other way, from the lower port, a server talks to clients that
    are gone, and what it says comes to as many ports as they had."""
    return not seen.flags & (SYN | RST) and bool(seen.flags & ACK) and seen.port < seen.source_port


def _is_scan(name: _Name, tries: _Tries) -> bool:
    if not name[1]:
        return tries.pace.reached(ODD_TRIES, ODD_S)
    return tries.pace.reached(BARE_TRIES, BARE_S) or tries.pace.reached(BARE_SLOW_TRIES, BARE_SLOW_S)


def _alert(name: _Name, tries: _Tries) -> Alert:
    count = tries.told = len(tries.tried)
    tries.next_alert = 2 * count
    target = next(iter(tries.targets)) if len(tries.targets) == 1 else None
    where = format_address(target) if target is not None else f"{len(tries.targets)} hosts"
    flags = counted(*((number, flag) for flag, number in sorted(tries.flags.items(), key=lambda each: -each[1])))
    return Alert(
        kind=Kind.STEALTH_SCAN,
        source=name[0],
        target=target,
        first=tries.first,
        last=tries.last,
        score=min(95, (60 if not name[1] else 45) + 3 * count),
        evidence=f"sent packets of no connection to {len(tries.places)} ports of {where} in "
        f"{lasted(tries.first, tries.last)}: {flags}",
    )
