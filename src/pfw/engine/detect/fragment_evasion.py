"""Evasion by fragments: datagrams cut so that filters and hosts see different things, or that hosts choke on.

Loss and links with small packets make fragments that are small at the end, late or missing; nothing but intent makes
them overlap, cuts off the first header, or leaves a hole smaller than any link would. Sources can be forged: nobody is
banned for it, and of many that do the same to one host there is one alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import Pace, lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.fragments import GAP, OVERLAP, TINY, TOO_MANY
from pfw.model.address import format_address
from pfw.model.observation import Alert, Kind, Odd

SOURCES_MAX = 2_048
KEEP_S = 600.0
WEIGHTS = {
    OVERLAP: 60,  # teardrop, and what reassembles differently on different systems (RFC 5722)
    TINY: 55,  # the header that filters look at is not in the first one (RFC 1858)
    TOO_MANY: 60,
    GAP: 55,  # a hole into which no honest piece fits; what a link cut twice and lost looks alike, so it never adds up
    "decoder.ipv4.frag_pkt_too_large": 75,  # the ping of death
    "decoder.ipv6.frag_pkt_too_large": 75,
    "decoder.ipv6.exthdr_dupl_fh": 60,
}
"""What a single one scores."""
SLOPPY = frozenset({"decoder.ipv6.exthdr_useless_fh", "decoder.ipv6.fh_non_zero_reserved_field"})
"""Translators from IPv4 make useless headers (RFC 6946)."""
SEVERAL, SEVERAL_S, SEVERAL_SCORE = 3, 60.0, 80
FORGED_MANY, FORGED_S = 10, 60.0
"""So many sources that do it to one host."""
HELD_S = 2.0
"""So long a single one waits for whether many do the same."""
HELD_MAX = 1_024


class _Source:
    __slots__ = ("counts", "first", "next_alert", "pace", "score", "total")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first = 0.0
        self.pace = Pace(SEVERAL)
        self.score = self.total = self.next_alert = 0


class _Target:
    __slots__ = ("first", "last_sources", "next_alert", "pace", "total")

    def __init__(self) -> None:
        self.first: float | None = None
        self.last_sources: dict[bytes, None] = {}
        self.pace = Pace(FORGED_MANY)
        self.total = self.next_alert = 0

    def add(self, source: bytes, now: float) -> bool:
        """Whether many different sources do it."""
        if source not in self.last_sources:
            self.last_sources[source] = None
            self.pace.add(now)
            self.total += 1
            if len(self.last_sources) > FORGED_MANY:
                del self.last_sources[next(iter(self.last_sources))]
        if self.first is None:
            self.first = now
        return self.pace.reached(FORGED_MANY, FORGED_S)


class FragmentEvasion:
    wants: tuple[type, ...] = (Odd,)

    def __init__(self, sources_max: int = SOURCES_MAX) -> None:
        self._sources: Table[bytes, _Source] = Table(sources_max, KEEP_S, _Source)
        self._targets: Table[bytes, _Target] = Table(sources_max, KEEP_S, _Target)
        self._held: dict[bytes, Alert] = {}

    @property
    def refused(self) -> int:
        return self._sources.refused + self._targets.refused

    def observe(self, seen: Odd) -> Iterable[Alert]:
        found = list(self._release(seen.time)) if self._held else []
        if seen.source is not None and seen.destination is not None:
            names = [*filter(None, (_name(each, seen.is_fragment) for each in seen.names))]
            if names:
                found += self._odd(seen.source, seen.destination, names, seen.time)
        return found

    def end(self, now: float) -> Iterable[Alert]:
        return list(self._release(now, everything=True))

    def _odd(self, source: bytes, destination: bytes, names: list[str], now: float) -> Iterator[Alert]:
        target = self._targets.get(destination, now)
        if target is not None and target.add(source, now):
            yield from self._by_many(destination, target, now)
            return
        one = self._sources.get(source, now)
        if one is None:
            return
        one.first = one.first if one.total else now
        one.total += 1
        for name in names:
            one.counts[name] = one.counts.get(name, 0) + 1
        if names != [GAP]:
            one.pace.add(now)
        score = max(WEIGHTS[each] for each in names)
        score = SEVERAL_SCORE if one.pace.reached(SEVERAL, SEVERAL_S) else score
        if one.total >= one.next_alert or score > one.score:
            one.next_alert, one.score = 2 * one.total, max(score, one.score)
            yield from self._hold(source, destination, one, now)

    def _hold(self, source: bytes, destination: bytes, one: _Source, now: float) -> Iterator[Alert]:
        """Those that are sure are told at once, others wait a little."""
        said = ", ".join(f"{count} {_TEXTS.get(name, name)}" for name, count in sorted(one.counts.items()))
        text = f"sent fragments to {format_address(destination)} that no honest sender makes"
        text += f" in {lasted(one.first, now)}: {said}" if one.total > 1 else f": {said}"
        alert = Alert(kind=Kind.FRAGMENT_EVASION, source=source, target=destination, first=one.first, last=now,
                      score=one.score, evidence=text)  # fmt: skip
        if one.score >= SEVERAL_SCORE:
            self._held.pop(source, None)
            yield alert
            return
        self._held[source] = alert
        if len(self._held) > HELD_MAX:
            yield self._held.pop(next(iter(self._held)))

    def _by_many(self, destination: bytes, target: _Target, now: float) -> Iterator[Alert]:
        for source in [source for source, alert in self._held.items() if alert.target == destination]:
            del self._held[source]
        if target.total < target.next_alert:
            return
        target.next_alert = 2 * target.total
        first = now if target.first is None else target.first
        text = f"at least {target.total} sources sent it fragments that no honest sender makes in {lasted(first, now)}"
        yield Alert(kind=Kind.FRAGMENT_EVASION, source=None, target=destination, first=first, last=now, score=80,
                    evidence=text)  # fmt: skip

    def _release(self, now: float, *, everything: bool = False) -> Iterator[Alert]:
        for source, alert in list(self._held.items()):
            if not everything and 0 <= now - alert.last < HELD_S:
                return
            yield self._held.pop(source)


_TEXTS = {
    OVERLAP: "that overlap",
    TINY: "too small for a header",
    TOO_MANY: "datagrams in too many pieces",
    GAP: "with a hole that no loss makes",
    "decoder.ipv4.frag_pkt_too_large": "beyond the largest packet",
    "decoder.ipv6.frag_pkt_too_large": "beyond the largest packet",
    "decoder.ipv6.exthdr_dupl_fh": "with a second fragment header",
}


def _name(name: str, is_fragment: bool) -> str | None:
    """What a name means here; None for what is not about fragments."""
    if name in WEIGHTS:
        return name
    return TINY if is_fragment and name.endswith(".pkt_too_small") else None
