"""Rogue routers: advertisements of IPv6 by somebody who is not the network's router, or in the router's name.

Two routers that advertise the same prefixes are ordinary, and so is one that offers no way out (lifetime 0): a border
router of a Thread mesh does so. A second one with prefixes or name servers of its own is not, nor is the known one's
address with another MAC, while the old one goes on. Nothing here can be proved: nobody is banned for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf

from msgspec.structs import replace

from pfw.engine.detect.contacts import Pace, lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.neighbours import is_shared, mac_text
from pfw.model.address import format_address
from pfw.model.observation import Alert, Kind, NeighbourSeen, RouterSeen

ROUTERS_MAX = 256
ROUTERS_S = 9000.0
"""AdvDefaultLifetime is at most so long (RFC 4861, 6.2.1)."""
LEARN_S = 300.0
"""Most routers advertise every 10 minutes or sooner, and whenever they are asked: whoever is first heard of so long
after the first one was hardly there before."""
FLOOD_MANY, FLOOD_S = 10, 10.0
"""Different routers, or different prefixes; flood_router26 of thc-ipv6 sends thousands a second. So long one that is
new is only noted: of a flood there is one alert."""
ALIVE_S = 600.0
"""Within so long the old one is heard again (MaxRtrAdvInterval is 600 s where nobody says otherwise)."""
ENDINGS_MANY, ENDINGS_S = 3, 60.0
"""Times that a router took leave and was back. A restart does it once."""
PREFIXES_MAX = 64
SEEN_MAX = 1_024

LINKS_MAX = 256

_Name = tuple[str, bytes]
"""The link on which a router is heard, and its address: many are fe80::1 on each of their links."""
_HOP_LIMIT = 255
_LINK_LOCAL, _LINK_LOCAL_MASK = 0xFE80, 0xFFC0
_HIGH = 1


class _Router:
    __slots__ = (
        "endings",
        "first",
        "last",
        "lifetime_s",
        "mac",
        "names",
        "other",
        "other_at",
        "other_ended",
        "prefixes",
        "was_router",
    )

    def __init__(self) -> None:
        self.mac: bytes | None = None
        self.first: float | None = None
        self.last = 0.0
        self.lifetime_s = 0
        self.was_router = False
        self.prefixes: set[bytes] = set()
        self.names: set[bytes] = set()
        self.endings: deque[float] = deque(maxlen=ENDINGS_MANY)
        # Another MAC that claimed the address.
        self.other: bytes | None = None
        self.other_at = 0.0
        self.other_ended = False


class _Link:
    """How fast routers (True) and prefixes (False) come that are new."""

    __slots__ = ("flood_at", "pace")

    def __init__(self) -> None:
        self.pace = {True: Pace(FLOOD_MANY), False: Pace(FLOOD_MANY)}
        self.flood_at = -inf


class RogueRouter:
    wants: tuple[type, ...] = (RouterSeen, NeighbourSeen)

    def __init__(self, routers_max: int = ROUTERS_MAX) -> None:
        self._routers: Table[_Name, _Router] = Table(routers_max, ROUTERS_S, _Router)
        self._links: Table[str, _Link] = Table(LINKS_MAX, ROUTERS_S, _Link, lambda link: link.flood_at == -inf)
        # Routers and prefixes that were there.
        self._seen: dict[tuple[_Name, bool], None] = {}
        self._counts: dict[tuple[str, bytes | None], int] = {}
        # Newcomers that wait for whether they are part of a flood.
        self._held: dict[_Name, Alert] = {}

    @property
    def refused(self) -> int:
        return self._routers.refused + self._links.refused

    def observe(self, seen: RouterSeen | NeighbourSeen) -> Iterable[Alert]:
        found = self._advertised(seen) if isinstance(seen, RouterSeen) else self._neighbour(seen)
        return [*found, *self._release(seen.time)]

    def end(self, now: float) -> Iterable[Alert]:
        return list(self._release(now, everything=True))

    def _advertised(self, seen: RouterSeen) -> Iterator[Alert]:
        if seen.hop_limit != _HOP_LIMIT or int.from_bytes(seen.source[:2]) & _LINK_LOCAL_MASK != _LINK_LOCAL:
            text = f"sent a router advertisement with hop limit {seen.hop_limit} from {format_address(seen.source)}: "
            yield from self._say("afar", seen.source, None, seen.time, 60, text + "no router on this link does so")
            return
        if self._is_flood(seen):
            yield from self._flooded(seen)
            return
        known = self._routers.get((seen.link, seen.source), seen.time)
        if known is None:
            return
        if known.first is None:
            known.first, known.mac = seen.time, seen.source_mac
        if seen.source_mac is not None and not self._is_its(known, seen.source_mac, seen.time):
            if not seen.lifetime_s or known.was_router:
                ends = not seen.lifetime_s and known.lifetime_s > 0
                yield from self._in_its_name(seen.source, known, seen.source_mac, seen.time, ends=ends)
                return
            # Whoever was heard first only said that it is none.
            liar, known.mac = known.mac, seen.source_mac
            yield from self._in_its_name(seen.source, known, liar, seen.time, ends=True)
        yield from self._goes_on(seen.source, known, seen.time)
        if not seen.lifetime_s and known.lifetime_s:
            yield from self._took_leave(seen, known)
        known.lifetime_s = seen.lifetime_s
        known.was_router = known.was_router or seen.lifetime_s > 0
        self._judge(seen, known)
        if len(known.prefixes) < PREFIXES_MAX and len(known.names) < PREFIXES_MAX:
            known.prefixes.update(prefix for prefix, _ in seen.prefixes)
            known.names.update(seen.name_servers)

    def _neighbour(self, seen: NeighbourSeen) -> Iterator[Alert]:
        """Only what overrides is a claim: a proxy says so by not overriding (RFC 4861, 7.2.8)."""
        address = seen.target if seen.is_answer else seen.source
        mac = seen.mac if seen.is_answer else seen.source_mac
        known = self._routers.peek((seen.link, address))
        if known is None or mac is None or (seen.is_answer and not seen.override):
            return
        if self._is_its(known, mac, seen.time):
            yield from self._goes_on(address, known, seen.time)
        else:
            yield from self._in_its_name(address, known, mac, seen.time, ends=False)

    def _is_its(self, known: _Router, mac: bytes, now: float) -> bool:
        """Whether a MAC is the router's; who has been silent for long is replaced. Where several share an address by
        agreement, none of them can be told from a stranger."""
        if known.mac is not None and is_shared(known.mac):
            return True
        if known.mac is None or is_shared(mac):
            known.mac = mac
        elif known.mac != mac and known.other == mac and now - known.last > ALIVE_S:
            known.mac, known.other = mac, None
        return known.mac == mac

    def _in_its_name(
        self, address: bytes, known: _Router, mac: bytes | None, now: float, *, ends: bool
    ) -> Iterator[Alert]:
        known.other, known.other_at = mac, now
        known.other_ended = ends
        if ends:
            text = f"said in the name of the router {format_address(address)} that it is none any more; "
            text += f"the router is at {_mac(known.mac)}"
            yield from self._say("ends", mac, address, now, 85, text)

    def _goes_on(self, address: bytes, known: _Router, now: float) -> Iterator[Alert]:
        """The router is heard of. Has somebody else used its address meanwhile?"""
        other, known.last = known.other, now
        if other is None or known.other_ended or not 0 <= now - known.other_at <= ALIVE_S:
            return
        known.other = None
        text = f"claims the address of the router {format_address(address)}, which goes on at {_mac(known.mac)}"
        yield from self._say("claims", other, address, now, 80, text)

    def _took_leave(self, seen: RouterSeen, known: _Router) -> Iterator[Alert]:
        known.endings.append(seen.time)
        if len(known.endings) == ENDINGS_MANY and abs(seen.time - known.endings[0]) <= ENDINGS_S:
            text = f"the router took leave {ENDINGS_MANY} times in {lasted(known.endings[0], seen.time)} and went on: "
            yield from self._say("leaves", None, seen.source, seen.time, 70, text + "somebody speaks in its name")

    def _judge(self, seen: RouterSeen, known: _Router) -> None:
        """Is another router than the one that was there first a fellow of those that are there?"""
        others = {
            source: each
            for (link, source), each in self._routers.items()
            if link == seen.link
            and source != seen.source
            and each.first is not None
            and abs(seen.time - each.last) <= ALIVE_S
        }
        first = min(others, key=lambda source: others[source].first or 0.0, default=seen.source)
        later_s = 0.0 if first == seen.source else (known.first or 0.0) - (others[first].first or 0.0)
        if later_s <= 0:
            return
        prefixes = {prefix for prefix, _ in seen.prefixes}.difference(*(each.prefixes for each in others.values()))
        names = set(seen.name_servers).difference(*(each.names for each in others.values()))
        # A fellow that comes back says what the others say; who says nothing is none.
        late = later_s >= LEARN_S and (bool(names) or not seen.prefixes)
        is_high = seen.preference >= _HIGH
        if not (seen.lifetime_s and (prefixes or is_high or late)) and not (names and not seen.lifetime_s):
            return
        text = f"{mac_text(seen.source_mac)} " if seen.source_mac is not None else ""
        text += f"advertises itself as a router beside {format_address(first)}"
        text += _list(" for other prefixes: ", prefixes) + _list(" with other name servers: ", names)
        text += ", and wants to be preferred" if is_high else ""
        score = 50 + 10 * bool(prefixes) + 10 * bool(names) + 10 * is_high
        for alert in self._say("second", seen.source, None, seen.time, score, text):
            before = self._held.get((seen.link, seen.source))
            self._held[seen.link, seen.source] = alert if before is None else replace(alert, first=before.first)

    def _is_flood(self, seen: RouterSeen) -> bool:
        """Whether too many routers or prefixes come that are new. Who was there before goes on being looked at."""
        link = self._links.get(seen.link, seen.time)
        if link is None:
            return False
        new = [(seen.link, each) for each, _ in seen.prefixes if ((seen.link, each), False) not in self._seen][:1]
        fast = False
        for thing in (((seen.link, seen.source), True), *((name, False) for name in new)):
            if thing not in self._seen:
                link.pace[thing[1]].add(seen.time)
                self._seen[thing] = None
                if len(self._seen) > SEEN_MAX:
                    del self._seen[next(iter(self._seen))]
                fast = fast or link.pace[thing[1]].reached(FLOOD_MANY, FLOOD_S)
        if fast:
            link.flood_at = seen.time
        return abs(seen.time - link.flood_at) <= FLOOD_S and (
            self._routers.peek((seen.link, seen.source)) is None or bool(new)
        )

    def _flooded(self, seen: RouterSeen) -> Iterator[Alert]:
        self._held.clear()
        text = f"at least {FLOOD_MANY} routers or prefixes that were not there before within {FLOOD_S:.0f} s, "
        text += f"the last one {format_address(seen.source)}" + _list(" with ", {each for each, _ in seen.prefixes})
        yield from self._say("flood", None, None, seen.time, 90, text)

    def _release(self, now: float, *, everything: bool = False) -> Iterator[Alert]:
        for name, alert in list(self._held.items()):
            if everything or not 0 <= now - alert.last < FLOOD_S:
                yield self._held.pop(name)

    def _say(
        self, what: str, source: bytes | None, target: bytes | None, now: float, score: int, text: str
    ) -> Iterator[Alert]:
        """Once a doubling."""
        count = self._counts[what, source] = self._counts.pop((what, source), 0) + 1
        if len(self._counts) > SEEN_MAX:
            del self._counts[next(iter(self._counts))]
        if count & (count - 1) == 0:
            yield Alert(
                kind=Kind.ROGUE_ROUTER, source=source, target=target, first=now, last=now, score=score, evidence=text
            )


def _mac(mac: bytes | None) -> str:
    return "another MAC" if mac is None else mac_text(mac)


def _list(before: str, addresses: set[bytes]) -> str:
    shown = sorted(addresses)[:3]
    more = len(addresses) - len(shown)
    return before + ", ".join(map(format_address, shown)) + (f" and {more} more" if more else "") if shown else ""
