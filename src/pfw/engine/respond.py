"""What is done about an alert: whom to ban or to limit, for how long, and what to tell. Only decided here.

Only addresses that proved themselves (`Alert.ban`) are banned, and never one that is protected. A ban of the same
source lasts twice as long as the one before, up to a week, with some chance in it so that nobody can reckon when it
ends. What is remembered for that is bounded: when it is full, who offended longest ago is forgotten.

IPv6 hosts change their address at will within a /64 (RFC 8981), and a customer has often a /56 (RIPE 690). So two
addresses of one /64 that would be banned within a day ban it whole, and two such /64s of one /56 ban that: whoever
shares neither has nothing to fear from a neighbour who is banned once.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from msgspec import Struct

from pfw.model.address import AddressSet, Range, as_int, format_range
from pfw.model.observation import Alert, Kind
from pfw.model.policy import Doing, Reaction, Respond

LONGEST_S = 604_800.0
RESET_S = 600.0
"""The longest ban of who proved himself by resets alone, however often: somebody else could send them in his name."""
JITTER = 0.1
"""The greatest part of a ban's time that chance adds."""
SOURCES_MAX = 16_384
FORGIVE_S = 86_400.0
"""For each so long without an offence, from the end of the ban on, one ban less counts."""
WIDEN_S = 86_400.0
ADDRESSES, NETWORKS = 2, 2
"""So many addresses of a /64, and so many /64s of a /56, within a day."""
PREFIXES_MAX = 4_096
BANS_A_MINUTE, LIMITS_A_MINUTE = 60, 120
"""Bans that alerts lead to, and limits. Above, somebody has found a way to make us ban, and would fill the kernel's
sets and our time."""
UNPROVED_LIMIT_S = 60.0
"""Whose address may be forged is limited for so long at most: it may be somebody else's."""
_MINUTE_S = 60.0
_NETWORK_BITS, _SITE_BITS = 64, 72
"""Of host: of a /64 and a /56."""
_MAC_BYTES = 6
_DOUBLINGS_MAX = 40
PROTECTED = "left alone: protected"

_Spared = tuple[AddressSet, ...]
"""Who must not be banned: each holds some."""


class Ban(Struct, frozen=True):
    """Drop all of a range for so many seconds. `count` tells how many bans of this source there were, with this one."""

    range: Range
    seconds: float
    kind: Kind
    why: str
    evidence: str
    count: int = 1


class Limit(Struct, frozen=True):
    """Let few new connections of an address through, for so many seconds."""

    range: Range
    seconds: float
    why: str


class Tell(Struct, frozen=True):
    """Tell of an alert. `held_back` says why somebody who should be banned or limited is not; empty where nothing
    speaks against it."""

    alert: Alert
    held_back: str = ""


class TooMany(Struct, frozen=True):
    """More bans were due than there may be in a minute; told once a minute. `untold` are those since the last time."""

    untold: int


Answer = Ban | Limit | Tell | TooMany


class Offence(Struct, frozen=True, array_like=True):
    """What is remembered of a source: how often it was banned, until when the last time, and by what range."""

    source: Range
    count: int
    until: float


class Responder:
    """`chance` gives numbers from 0 to 1. `remembered` is what `offences` gave, the oldest first."""

    def __init__(self, respond: Respond, chance: Callable[[], float], remembered: Iterable[Offence] = ()) -> None:
        self._respond = respond
        self._chance = chance
        self._offences: OrderedDict[Range, Offence] = OrderedDict(
            (each.source, each) for each in list(remembered)[-SOURCES_MAX:]
        )
        self._addresses, self._networks = _Within(_NETWORK_BITS, ADDRESSES), _Within(_SITE_BITS, NETWORKS)
        self._recent: deque[float] = deque()
        self._told_too_many: float | None = None
        self._untold = 0
        self.too_many = 0
        """Bans that were due and not given, because there were too many."""

    def use(self, respond: Respond) -> None:
        """From now on another policy's."""
        self._respond = respond

    def offences(self) -> list[Offence]:
        """What is remembered of sources, the oldest first."""
        return list(self._offences.values())

    def pardon(self, source: Range) -> None:
        """Somebody lifted a ban by hand: what lies within counts as never banned."""
        for each in [each for each in self._offences if source[0] <= each[0] and each[1] <= source[1]]:
            del self._offences[each]

    def decide(self, alert: Alert, now: float, protected: AddressSet | None = None) -> list[Answer]:
        """What is to be done, in this order. `protected` are addresses that must not be banned now, beside those that
        the policy names. Deciding to ban counts as a ban."""
        reaction = self._reaction(alert)
        if reaction is None or reaction.do is Doing.ALERT:
            return [Tell(alert)]
        if reaction.do is Doing.NOTHING:
            return []
        spared = self._respond.never, protected or AddressSet()
        return self._ban(alert, reaction, now, spared) if reaction.do is Doing.BAN else _limit(alert, reaction, spared)

    def _reaction(self, alert: Alert) -> Reaction | None:
        for each in self._respond.reactions:
            if alert.score >= each.score and (each.kinds is None or alert.kind in each.kinds):
                return each
        return None

    def _ban(self, alert: Alert, reaction: Reaction, now: float, spared: _Spared) -> list[Answer]:
        answers: list[Answer] = []
        held_back = "" if alert.ban else "left alone: its address may be forged"
        for address in alert.ban:
            if any(address in each for each in spared):
                held_back = PROTECTED
                continue
            host = as_int(address), as_int(address)
            if self._is_banned(host, now):
                continue
            if not self._may_ban(now):
                held_back = f"left alone: more than {BANS_A_MINUTE} bans a minute"
                answers += self._too_many(now)
                continue
            pair = host if alert.by_reset else self._widened(host, now, spared)
            answers.append(self._banned(alert, pair, reaction.for_s, now))
        return [*answers, Tell(alert, held_back)]

    def _is_banned(self, host: Range, now: float) -> bool:
        """Whether the last ban of it, or of what holds it, goes on."""
        held = [host] if host[1] < 1 << 128 else [host, _prefix(host, _NETWORK_BITS), _prefix(host, _SITE_BITS)]
        found = (self._offences.get(each) for each in held)
        # What would last for longer than any ban was said before the clock was set back.
        return any(each is not None and now < each.until <= now + LONGEST_S for each in found)

    def _may_ban(self, now: float) -> bool:
        return of_last_minute(self._recent, now) < BANS_A_MINUTE

    def _too_many(self, now: float) -> list[Answer]:
        self.too_many += 1
        self._untold += 1
        if self._told_too_many is not None and abs(now - self._told_too_many) < _MINUTE_S:
            return []
        told, self._untold, self._told_too_many = self._untold, 0, now
        return [TooMany(told)]

    def _widened(self, host: Range, now: float, spared: _Spared) -> Range:
        """The range to ban for a host: itself, or of IPv6 what it has become too much of, as far as nobody is in it who
        is protected."""
        if host[1] < 1 << 128 or not self._addresses.add(host, now):
            return host
        network = _prefix(host, _NETWORK_BITS)
        if _touches(network, spared):
            return host
        site = _prefix(host, _SITE_BITS)
        return site if self._networks.add(network, now) and not _touches(site, spared) else network

    def _banned(self, alert: Alert, pair: Range, for_s: float, now: float) -> Ban:
        before = self._before(pair, now)
        # No greater power than is needed: the result is cut off anyway.
        longer = 1 if alert.by_reset else 2 ** min(before, _DOUBLINGS_MAX)
        seconds = min(RESET_S if alert.by_reset else LONGEST_S, for_s * longer)
        seconds = min(LONGEST_S, seconds * (1 + JITTER * self._chance()))
        self._remember(Offence(pair, before + (not alert.by_reset), now + seconds))
        self._recent.append(now)
        why = f"{alert.kind}, score {alert.score}{', proved by resets alone' if alert.by_reset else ''}"
        if pair[0] != pair[1]:
            why += f"; several addresses of {format_range(*pair)}"
        return Ban(pair, seconds, alert.kind, why, alert.evidence, before + 1)

    def _before(self, pair: Range, now: float) -> int:
        """How many bans count: of the source itself or, of a prefix that is banned for the first time, of what lies
        in it."""
        found = self._offences.get(pair)
        if found is not None or pair[0] == pair[1]:
            return 0 if found is None else counting(found, now)
        inside = (each for each in self._offences.values() if pair[0] <= each.source[0] and each.source[1] <= pair[1])
        return max((counting(each, now) for each in inside), default=0)

    def _remember(self, offence: Offence) -> None:
        self._offences[offence.source] = offence
        self._offences.move_to_end(offence.source)
        if len(self._offences) > SOURCES_MAX:
            self._offences.popitem(last=False)


class _Within:
    """How many different ranges of one prefix were seen within a day; the prefix seen longest ago is forgotten."""

    def __init__(self, bits: int, enough: int) -> None:
        self._bits = bits
        self._enough = enough
        self._seen: OrderedDict[Range, dict[Range, float]] = OrderedDict()

    def add(self, pair: Range, now: float) -> bool:
        """Whether there are enough, with this one."""
        prefix = _prefix(pair, self._bits)
        seen = {each: at for each, at in self._seen.get(prefix, {}).items() if abs(now - at) < WIDEN_S}
        seen.pop(pair, None)
        seen[pair] = now
        # More than are needed say nothing more.
        for each in list(seen)[: -self._enough]:
            del seen[each]
        self._seen[prefix] = seen
        self._seen.move_to_end(prefix)
        if len(self._seen) > PREFIXES_MAX:
            self._seen.popitem(last=False)
        return len(seen) >= self._enough


def _limit(alert: Alert, reaction: Reaction, spared: _Spared) -> list[Answer]:
    """Those that proved themselves; else the source, for a short time. MAC addresses have no place in the set."""
    unproved = (alert.source,) if alert.source is not None and len(alert.source) != _MAC_BYTES else ()
    seconds = min(LONGEST_S, reaction.for_s) if alert.ban else min(UNPROVED_LIMIT_S, reaction.for_s)
    answers: list[Answer] = []
    held_back = "" if alert.ban or unproved else "left alone: no single source"
    for address in alert.ban or unproved:
        if any(address in each for each in spared):
            held_back = PROTECTED
        else:
            answers.append(Limit((as_int(address),) * 2, seconds, f"{alert.kind}, score {alert.score}"))
    return [*answers, Tell(alert, held_back)]


def of_last_minute(times: deque[float], now: float) -> int:
    """How many are of the last minute; the others are taken out, those of before the clock was set back, too."""
    while times and not now - _MINUTE_S < times[0] <= now:
        times.popleft()
    return len(times)


def counting(offence: Offence, now: float) -> int:
    """How many bans of a source still count: they make the next one longer."""
    return max(0, offence.count - int(max(0.0, now - offence.until) // FORGIVE_S))


def _prefix(pair: Range, bits: int) -> Range:
    mask = (1 << bits) - 1
    return pair[0] & ~mask, pair[0] | mask


def _touches(pair: Range, spared: _Spared) -> bool:
    own = AddressSet([pair])
    return any(own.without(each) != own for each in spared)
