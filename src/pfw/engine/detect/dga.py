"""Generated domains: programs that ask for many domains that nobody has registered, to find the one that somebody has.

Counted are different registrable domains that do not exist, for each client and hour. So a name tried behind each
search suffix is few domains, a browser's probes for captive portals are none (a single label), nor are names of a
private network. A blocker of advertisements and a mail server meet such answers too, but for names that people made.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfw.engine.detect.detector import Table
from pfw.engine.detect.dns_tunnel import OTHER_PORTS
from pfw.engine.detect.domain import is_registrable, registered_domain
from pfw.model.observation import Alert, DnsSeen, Kind

WINDOW_S = 3600.0
MISSING_MIN = 20
"""Different domains that do not exist within an hour (maltrail: 20 NXDOMAIN answers an hour, Slips: 10)."""
RANDOM_SHARE = 0.6
"""So many of them look as if nobody had made them up. Of well-known advertisers' domains 14 % do."""
MISSING_MIN_WORDY = 100
"""The same for those that look as if made by people: some generators join words or syllables."""
MISSING_SHARE_WORDY = 0.6
"""Then there are also few domains that do exist. With a blocker, or on a mail server, there are many."""
STRANGE_SHARE = 0.5
LABEL_CHARACTERS_MIN = 7
"""A shorter label can be any abbreviation."""
DOMAINS_MAX = 512
"""Domains that are remembered of a client, existing or not; then the next window begins."""
CLIENTS_MAX = 4096

_COMMON = {
    "a": "bcdgilmnprstuy", "b": "aeiloru", "c": "aehikloprtu", "d": "adeijko", "e": "abcdelmnprstvx", "f": "ailort",
    "g": "aehior", "h": "aeiot", "i": "abcdefglmnoprstv", "j": "a", "k": "ei", "l": "aeilostu", "m": "aceiops",
    "n": "acdegiost", "o": "bcdfglmnoprstuvw", "p": "aehiloprtuy", "q": "u", "r": "acdeikmostuvy", "s": "acdehiopstu",
    "t": "acehiorstuwy", "u": "bdegilmnprst", "v": "aei", "w": "aeio", "x": "t", "y": "prt",
}  # fmt: skip
"""Which letters often follow a letter: the 200 commonest pairs in the names of the packages of PyPI and npm and in
English text, 86 % of all pairs there. Of pairs drawn by lot 30 % are among them."""
_PAIRS = frozenset(first + second for first, seconds in _COMMON.items() for second in seconds)
_NXDOMAIN = 3
_EXAMPLES_MAX = 3
_GROWTH = 2


class _Client:
    """The domains that one client asked for in one window."""

    __slots__ = ("examples", "existing", "first", "last", "missing", "random", "told_missing")

    def __init__(self) -> None:
        self.existing: set[int] = set()
        self.missing: set[int] = set()
        self.examples: list[str] = []
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.first = self.last = now
        self.existing.clear()
        self.missing.clear()
        self.examples.clear()
        self.random = self.told_missing = 0


class Dga:
    """Clients that ask for generated domains. The source of an alert is whoever asks; there is no target."""

    wants: tuple[type, ...] = (DnsSeen,)

    def __init__(self, capacity: int = CLIENTS_MAX) -> None:
        self._clients: Table[bytes, _Client] = Table(capacity, WINDOW_S, _Client)

    @property
    def refused(self) -> int:
        return self._clients.refused

    def observe(self, seen: DnsSeen) -> Iterable[Alert]:
        if not seen.is_answer or seen.port in OTHER_PORTS:
            return ()
        domain = registered_domain(seen.name)
        if domain is None or not is_registrable(domain):
            return ()
        client = self._clients.get(seen.client, seen.time)
        if client is None:
            return ()
        full = len(client.missing) + len(client.existing) >= DOMAINS_MAX
        if full or not client.first or seen.time - client.first > WINDOW_S:
            client.restart(seen.time)
        client.last = max(client.last, seen.time)
        if seen.code != _NXDOMAIN:
            if seen.code == 0:
                client.existing.add(hash(domain))
            return ()
        return _count(seen.client, client, domain)

    def end(self, _now: float, /) -> list[Alert]:
        return []


def _count(address: bytes, client: _Client, domain: str) -> list[Alert]:
    name = hash(domain)
    # A domain that exists can have names that do not.
    if name in client.missing or name in client.existing:
        return []
    client.missing.add(name)
    if looks_random(domain.partition(".")[0]):
        client.random += 1
        if len(client.examples) < _EXAMPLES_MAX:
            client.examples.append(domain)
    missing = len(client.missing)
    score = _score(client)
    if not score or missing < client.told_missing * _GROWTH:
        return []
    client.told_missing = missing
    examples = f", such as {', '.join(client.examples)}" if client.examples else ""
    evidence = (
        f"asked for {missing} different domains that do not exist in {client.last - client.first:.0f} s, "
        f"{client.random} of them named as if by lot{examples}, and for {len(client.existing)} that exist"
    )
    return [
        Alert(
            kind=Kind.DGA, source=address, target=None, first=client.first, last=client.last, score=score,
            evidence=evidence,
        )
    ]  # fmt: skip


def _score(client: _Client) -> int:
    missing = len(client.missing)
    if missing >= MISSING_MIN and client.random >= RANDOM_SHARE * missing:
        return min(70 + missing // 4, 95)
    wordy = missing >= MISSING_MIN_WORDY and missing >= MISSING_SHARE_WORDY * (missing + len(client.existing))
    return 50 if wordy else 0


def looks_random(label: str) -> bool:
    """Whether half of its pairs of characters are rare in names that people make."""
    if len(label) < LABEL_CHARACTERS_MIN or label.startswith("xn--"):
        return False
    pairs = [label[at : at + 2] for at in range(len(label) - 1)]
    judged = [pair for pair in pairs if "-" not in pair]
    return sum(pair not in _PAIRS for pair in judged) >= STRANGE_SHARE * len(pairs)
