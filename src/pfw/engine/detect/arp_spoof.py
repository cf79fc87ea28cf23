"""ARP spoofing: somebody answers in the place of another host, which is still there. IPv6's neighbour messages alike.

An address that moves to another MAC is ordinary: a new network card, a lease that somebody else got, a sleep proxy, a
router that takes over. It is a fraud, or a mistake, when the old MAC goes on claiming it: claims go to and fro. What
weighs more is a reply that nobody asked for, sent to one host again and again, and one MAC that takes the places of
several hosts. ARP proves nothing: nobody is banned for it. Routers' IPv6 addresses are `rogue_router.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.detector import Table
from pfw.engine.detect.neighbours import is_host, is_one_host, is_shared, mac_text
from pfw.model.address import format_address
from pfw.model.observation import Alert, ArpSeen, DhcpSeen, Kind, NeighbourSeen, RouterSeen

ADDRESSES_MAX = 8_192
ADDRESSES_S = 4 * 3600.0
CLAIMANTS_MAX = 1_024
CLAIMANTS_S = 3600.0
ALIVE_S = 60.0
"""arpspoof repeats its lie after 2 s, ettercap after 10 s, Linux asks anew for what it has not heard of for 15 to 45 s
(base_reachable_time_ms): within this two that claim the same are both heard."""
REPLY_S = 5.0
"""So long after a question no answer to it is unasked (Linux gives up after 3 s)."""
UNASKED_MANY, UNASKED_S = 4, 60.0
"""Replies that nobody asked for, to the same host about the same address. One may be an answer to what was not seen."""
RETURNS_MANY = 2
"""So often the old owner comes back between claims that were asked for or told to all. Once is a host that returns."""
MISMATCHES_MANY = 3
"""Replies in whose frame another sender stands than in the reply itself."""
TAKEN_MAX = 64
"""Addresses of one claimant that are told apart."""
ASKED_MAX = 4_096
ROUTERS_MAX = 256

_REPLY = 2
_Place = tuple[str, bytes]
"""The link, and an address on it: private networks with the same addresses lie side by side."""


class _Owner:
    """Who claims an address, and who did before; `returns` counts how often these two followed each other."""

    __slots__ = ("at", "mac", "other", "other_at", "returns", "since")

    def __init__(self) -> None:
        self.mac: bytes | None = None
        self.at = 0.0
        self.other: bytes | None = None
        self.other_at = 0.0
        self.since = 0.0
        self.returns = 0


class _Claimant:
    """What one MAC does. `taken` are addresses that were another's, with whom it took them from."""

    __slots__ = ("first", "mismatches", "next_alert", "score", "taken", "total", "unasked")

    def __init__(self) -> None:
        self.taken: dict[_Place, bytes] = {}
        self.unasked: dict[tuple[bytes, bytes], tuple[float, int]] = {}
        self.mismatches = self.total = 0
        self.first: float | None = None
        self.next_alert = self.score = 0


class ArpSpoof:
    wants: tuple[type, ...] = (ArpSeen, NeighbourSeen, DhcpSeen, RouterSeen)

    def __init__(self, addresses_max: int = ADDRESSES_MAX, claimants_max: int = CLAIMANTS_MAX) -> None:
        self._owners: Table[_Place, _Owner] = Table(addresses_max, ADDRESSES_S, _Owner)
        self._claimants: Table[bytes, _Claimant] = Table(claimants_max, CLAIMANTS_S, _Claimant)
        # Who asked for what, and when; the oldest makes room.
        self._asked: dict[tuple[bytes, bytes], float] = {}
        self._routers: set[bytes] = set()

    @property
    def refused(self) -> int:
        return self._owners.refused + self._claimants.refused

    def observe(self, seen: ArpSeen | NeighbourSeen | DhcpSeen | RouterSeen) -> Iterable[Alert]:
        match seen:
            case ArpSeen():
                return list(self._arp(seen))
            case NeighbourSeen():
                return list(self._neighbour(seen))
            case DhcpSeen():
                self._learn(seen.routers)
            case RouterSeen():
                self._learn((seen.source,))
        return ()

    def end(self, _: float) -> Iterable[Alert]:
        return ()

    def _learn(self, routers: Iterable[bytes]) -> None:
        for each in routers:
            if len(self._routers) < ROUTERS_MAX:
                self._routers.add(each)

    def _arp(self, seen: ArpSeen) -> Iterator[Alert]:
        arp, now = seen.arp, seen.time
        if arp.operation != _REPLY and arp.target != arp.sender:
            self._ask(arp.sender_mac, arp.target, now)
        mac = arp.sender_mac
        if not is_host(arp.sender) or is_shared(mac):
            return
        frame = seen.source_mac if seen.source_mac is not None and is_one_host(seen.source_mac) else mac
        if is_shared(frame):
            return
        is_reply = arp.operation == _REPLY and arp.target != arp.sender
        if is_reply and frame != mac:
            yield from self._mismatch(frame, mac, arp.sender, now)
        if frame == mac:
            # Who speaks for somebody else says nothing of whether that one is there.
            yield from self._claim(mac, (seen.link, arp.sender), now)
        to_one = is_one_host(seen.destination_mac) and is_one_host(arp.target_mac)
        if is_reply and to_one and not self._was_asked(arp.target_mac, arp.sender, now):
            yield from self._unasked(frame, seen, now)

    def _neighbour(self, seen: NeighbourSeen) -> Iterator[Alert]:
        """Only what overrides is a claim: a proxy says so by not overriding (RFC 4861, 7.2.8)."""
        if not seen.is_answer:
            return
        mac = seen.mac or seen.source_mac
        if (
            not seen.override
            or mac is None
            or is_shared(mac)
            or seen.target in self._routers
            or not is_host(seen.target)
        ):
            return
        yield from self._claim(mac, (seen.link, seen.target), seen.time)

    def _ask(self, asker: bytes, target: bytes, now: float) -> None:
        self._asked.pop((asker, target), None)
        self._asked[asker, target] = now
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]

    def _was_asked(self, asker: bytes, target: bytes, now: float) -> bool:
        return abs(now - self._asked.get((asker, target), -inf)) <= REPLY_S

    def _mismatch(self, frame: bytes, mac: bytes, address: bytes, now: float) -> Iterator[Alert]:
        claimant = self._claimants.get(frame, now)
        if claimant is None:
            return
        claimant.mismatches += 1
        if claimant.mismatches >= MISMATCHES_MANY:
            text = (
                f"sent {claimant.mismatches} ARP replies in which another sender stands, the last one {mac_text(mac)}"
            )
            yield from self._alert(frame, claimant, address, now, 55, text)

    def _unasked(self, by: bytes, seen: ArpSeen, now: float) -> Iterator[Alert]:
        mac, address, to = seen.arp.sender_mac, seen.arp.sender, seen.arp.target_mac
        claimant = self._claimants.get(by, now)
        if claimant is None:
            return
        claimant.total += 1
        began, count = claimant.unasked.pop((address, to), (now, 0))
        if not 0 <= now - began <= UNASKED_S:
            began, count = now, 0
        claimant.unasked[address, to] = began, count + 1
        if len(claimant.unasked) > TAKEN_MAX:
            del claimant.unasked[next(iter(claimant.unasked))]
        if count + 1 >= UNASKED_MANY:
            many = len({each for each, (_, often) in claimant.unasked.items() if often >= UNASKED_MANY})
            text = f"told {mac_text(to)} {count + 1} times in {lasted(began, now)} that {self._named(address)} is at "
            text += f"{mac_text(mac)}, and nobody had asked"
            right = self._another((seen.link, address), mac)
            text += "" if right is None else f"; it is, or was, at {mac_text(right)}"
            score = 65 if right is None and many == 1 else 75 if right is None else 85
            yield from self._alert(by, claimant, address, now, score, text)

    def _another(self, place: _Place, mac: bytes) -> bytes | None:
        """Another MAC at which an address is, or was before."""
        owner = self._owners.peek(place)
        return None if owner is None else owner.mac if owner.mac != mac else owner.other

    def _claim(self, mac: bytes, place: _Place, now: float) -> Iterator[Alert]:
        owner = self._owners.get(place, now)
        if owner is None or owner.mac == mac:
            if owner is not None:
                owner.at = now
            return
        if owner.mac is None:
            owner.mac, owner.at = mac, now
            return
        back = owner.other == mac and abs(now - owner.at) <= ALIVE_S
        if back:
            owner.returns += 1
        else:
            owner.returns, owner.since = 0, now
        before, owner.other, owner.other_at = owner.mac, owner.mac, owner.at
        owner.mac, owner.at = mac, now
        if not back:
            self._take(mac, before, place, now)
            return
        yield from self._two_of_one(owner, place, now)

    def _take(self, mac: bytes, before: bytes, place: _Place, now: float) -> None:
        """What it took is given back when somebody else takes it."""
        loser = self._claimants.peek(before)
        if loser is not None:
            loser.taken.pop(place, None)
        claimant = self._claimants.get(mac, now)
        if claimant is not None and len(claimant.taken) < TAKEN_MAX:
            claimant.taken[place] = before

    def _two_of_one(self, owner: _Owner, place: _Place, now: float) -> Iterator[Alert]:
        """Claims went from one to the other and back: which of the two is it?"""
        address = place[1]
        first, second = owner.mac or b"", owner.other or b""
        culprit = self._culprit(first, second, place)
        claimant = self._claimants.get(culprit, now)
        if claimant is None:
            return
        is_forged = _pushed(claimant, address)
        returned = (owner.returns + 1) // 2
        if not is_forged and returned < RETURNS_MANY:
            return
        disputed = [each for each in claimant.taken if self._disputed(each, culprit, now)]
        victim = second if culprit == first else first
        text = (
            f"{self._named(address)} is claimed by {mac_text(culprit)} and by {mac_text(victim)}, which had it before, "
        )
        text += f"{owner.returns + 1} times to and fro in {lasted(owner.since, now)}"
        if len(disputed) > 1:
            text += f"; so are {len(disputed) - 1} other addresses"
        score = 55 + 20 * is_forged + 15 * (len(disputed) > 1) + 10 * (address in self._routers)
        yield from self._alert(culprit, claimant, address, now, min(score, 95), text)

    def _culprit(self, first: bytes, second: bytes, place: _Place) -> bytes:
        """Who sends what nobody asked for, and of two alike whoever came later."""
        known = [(mac, each) for mac in (first, second) if (each := self._claimants.peek(mac)) is not None]
        return max(known, key=lambda pair: (_pushed(pair[1], place[1]), place in pair[1].taken), default=(first, None))[
            0
        ]

    def _disputed(self, place: _Place, by: bytes, now: float) -> bool:
        owner = self._owners.peek(place)
        if owner is None or by not in (owner.mac, owner.other):
            return False
        return owner.returns > 0 and now - owner.at <= ALIVE_S and now - owner.other_at <= ALIVE_S

    def _named(self, address: bytes) -> str:
        return f"{'the router ' if address in self._routers else ''}{format_address(address)}"

    def _alert(
        self, mac: bytes, claimant: _Claimant, address: bytes, now: float, score: int, text: str
    ) -> Iterator[Alert]:
        claimant.total += 1
        if claimant.first is None:
            claimant.first = now
        if claimant.total < claimant.next_alert and score <= claimant.score:
            return
        claimant.next_alert, claimant.score = 2 * claimant.total, max(score, claimant.score)
        yield Alert(kind=Kind.ARP_SPOOF, source=mac, target=address, first=claimant.first, last=now, score=score,
                    evidence=text)  # fmt: skip


def _pushed(claimant: _Claimant, address: bytes) -> bool:
    """Whether it told somebody of an address who had not asked."""
    return any(about == address for about, _ in claimant.unasked)
