"""Tunnels through DNS: many different names of one domain, or at one server, that carry data there and back.

Each new name is counted once, with its type and length, for its client and domain: repetitions change nothing. What
no zone can hold (dnscat2 without a domain asks for `dnscat.` and hexadecimal digits) is counted for the client and
server instead. So is what is no DNS at all on its port, there and back: iodine sends its packets bare where it reaches
its server directly. Entropy is not looked at: iodine's names are short and look ordinary, those of content networks do
not.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from pfw.engine.detect.detector import Table
from pfw.engine.detect.domain import is_address, is_under, name_octets, registered_domain
from pfw.model.observation import Alert, DnsSeen, Kind, Odd

WINDOW_S = 600.0
"""Names are counted together so long. An idle iodine asks 15 times a minute, an idle dnscat2 60 times."""
NAMES_MIN = 50
"""Different names of one domain before anything is said (RITA shows domains from 100 subdomains a day)."""
NAMES_MIN_OBSOLETE = 20
"""The same for types that nobody asks for in our days."""
NAMES_MIN_ONCE = 100
"""The same where there is no better sign than that no name is asked for twice, and that answers are big."""
OBSOLETE_KINDS = frozenset({10, 25}) | frozenset(range(65280, 65535))
"""NULL, KEY (RFC 1035, RFC 2535), and private use (RFC 6895), of which iodine uses 65399."""
CARRYING_KINDS = frozenset({5, 15, 16, 33})
"""CNAME, MX, TXT and SRV: asked for by mail and directories, though not by hundreds under one domain."""
LONG_NAME_BYTES = 40
"""Mean of what stands before the domain. Names of content networks have 10 to 35; nDPI minds a label above 48."""
NAME_BYTES_A_MINUTE = 3000
BIG_ANSWER_BYTES = 200
"""Mean of the records of an answer: more than an alias and a handful of addresses."""
NAMES_MAX = 512
"""Names that are remembered of one window. When so many are reached, the next window begins."""
ALL_NAMES_MAX = 500_000
TALKS_MAX = 16_384
FOREIGN_MIN, FOREIGN_MANY = 5, 20
"""Messages that are no DNS, each way, between two ends. A broken program or a probe gets no such answer."""
FOREIGN_NAME = "dns.malformed"
"""As `wire/anomaly.py` and `Odd` have it."""
OTHER_PORTS = frozenset({137, 5353, 5355})
"""NetBIOS, mDNS and LLMNR: answered by neighbours, not by a name server."""
EXEMPT = frozenset({
    # As in nDPI (src/lib/protocols/dns.c): services whose names look like a tunnel's.
    "surbl.org", "spamhaus.org", "spamhaus.net", "akamaiedge.net", "amazonaws.com", "rackcdn.com",
    # Lists that SpamAssassin and rspamd ask by default: the name holds what is asked about.
    "abusix.zone", "barracudacentral.org", "cymru.com", "dnswl.org", "isipp.com", "mailspike.net", "msbl.org",
    "njabl.org", "rspamd.com", "senderscore.com", "sorbs.net", "spamcop.net", "team-cymru.com", "uribl.com",
    # Virus scanners that ask for checksums by DNS: ESET, McAfee, Sophos, Trend Micro.
    "avqs.mcafee.com", "avts.mcafee.com", "e5.sk", "gti.mcafee.com", "sophosxl.com", "sophosxl.net", "trendmicro.com",
    # Content networks, clouds and measurements whose names are those of machines or customers, as Akamai's above.
    "akadns.net", "akamai.net", "akamaized.net", "ampproject.org", "awsglobalaccelerator.com", "azure.com",
    "azureedge.net", "azurewebsites.net", "cedexis-radar.net", "cloudapp.net", "cloudfront.net", "edgekey.net",
    "edgesuite.net", "fastly.net", "googlesyndication.com", "googleusercontent.com", "googlevideo.com", "gstatic.com",
    "sharepoint.com", "trafficmanager.net", "windows.net",
    # Mail of many customers: mail servers ask for their keys (DKIM), or whether they may send (SPF), by TXT, under long
    # names.
    "amazonses.com", "mcsv.net", "onmicrosoft.com", "outlook.com", "sendgrid.net", "vali.email",
    # Kubernetes: a pod asks for each name outside with this behind it first, three times (ndots).
    "cluster.local",
})  # fmt: skip
"""Names under these are not counted. A domain that anybody can have a zone under is none of them."""
REVERSE = frozenset({"in-addr.arpa", "ip6.arpa"})
"""Reverse lookups (RFC 1035, RFC 3596) have long names. Anybody can have a zone there: types that carry data count."""

_Key = tuple[bytes, bytes | str]


class _Talk:
    """What a client asked for under one domain, or of one server, in one window."""

    __slots__ = ("answer_bytes", "answers", "carrying", "first", "last", "listed", "missing", "name_bytes", "names",
                 "obsolete", "questions", "server", "told_names", "told_score")  # fmt: skip

    def __init__(self) -> None:
        self.names: set[int] = set()
        self.server = b""
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.first = self.last = now
        self.names.clear()
        self.name_bytes = self.obsolete = self.carrying = self.listed = 0
        self.questions = self.answers = self.answer_bytes = self.missing = 0
        self.told_names = self.told_score = 0


class _Foreign:
    """What is no DNS between two ends, by direction; `source` is whose was first."""

    __slots__ = ("back", "first", "forth", "source", "told")

    def __init__(self) -> None:
        self.source = b""
        self.first = 0.0
        self.forth = self.back = self.told = 0


class DnsTunnel:
    """Tunnels through name servers. The source of an alert is whoever asks, the target the server that it asks."""

    wants: tuple[type, ...] = (DnsSeen, Odd)

    def __init__(self, capacity: int = TALKS_MAX, names_max: int = ALL_NAMES_MAX) -> None:
        self._talks: Table[_Key, _Talk] = Table(capacity, WINDOW_S, _Talk, lambda talk: not talk.told_names)
        self._foreign: Table[tuple[bytes, bytes], _Foreign] = Table(TALKS_MAX, WINDOW_S, _Foreign)
        self._names_max = names_max
        self._names = 0
        self._refused = 0

    @property
    def refused(self) -> int:
        return self._refused + self._talks.refused + self._foreign.refused

    def observe(self, seen: DnsSeen | Odd) -> Iterable[Alert]:
        if isinstance(seen, Odd):
            return self._count_foreign(seen) if FOREIGN_NAME in seen.names else ()
        if seen.port in OTHER_PORTS or is_under(seen.name, EXEMPT) or _is_reverse(seen):
            return ()
        domain = registered_domain(seen.name)
        if domain is None and (_is_single(seen.name) or is_address(seen.name)):
            return ()
        key = seen.client, domain or seen.server
        talk = self._talks.get(key, seen.time)
        if talk is None:
            return ()
        if not talk.names or seen.time - talk.first > WINDOW_S or len(talk.names) >= NAMES_MAX:
            self._names -= len(talk.names)
            talk.restart(seen.time)
        return self._count(key, talk, seen, domain)

    def _count(self, key: _Key, talk: _Talk, seen: DnsSeen, domain: str | None) -> list[Alert]:
        talk.last = max(talk.last, seen.time)
        talk.server = seen.server
        if seen.is_answer:
            talk.answers += 1
            talk.answer_bytes += seen.answer_bytes
            talk.missing += seen.code == _NXDOMAIN
        else:
            talk.questions += 1
        name = hash(seen.name)
        if name in talk.names:
            return []
        if self._names >= self._names_max:
            self._refused += 1
            return []
        self._names += 1
        talk.names.add(name)
        talk.name_bytes += name_octets(seen.name) - (len(domain) + 1 if domain else 0)
        talk.obsolete += seen.kind in OBSOLETE_KINDS
        talk.carrying += seen.kind in CARRYING_KINDS
        talk.listed += _names_address(seen.name)
        return _judged(key, talk) if len(talk.names) in _STEPS else []

    def _count_foreign(self, seen: Odd) -> list[Alert]:
        if seen.source is None or seen.destination is None:
            return []
        ends = min(seen.source, seen.destination), max(seen.source, seen.destination)
        foreign = self._foreign.get(ends, seen.time)
        if foreign is None:
            return []
        if not foreign.forth:
            foreign.source, foreign.first = seen.source, seen.time
        if seen.source == foreign.source:
            foreign.forth += 1
        else:
            foreign.back += 1
        each_way = min(foreign.forth, foreign.back)
        if each_way < max(FOREIGN_MIN, foreign.told * 2):
            return []
        foreign.told = each_way
        return [_foreign_alert(seen, foreign, ends[1] if ends[0] == foreign.source else ends[0])]

    def end(self, now: float) -> list[Alert]:
        found = []
        self._names = 0
        for key, talk in self._talks.items():
            if len(talk.names) >= NAMES_MIN_OBSOLETE:
                found += _judged(key, talk)
            if now - talk.first > WINDOW_S:
                talk.restart(now)
            self._names += len(talk.names)
        return found


_NXDOMAIN = 3
_STEPS = frozenset({NAMES_MIN_OBSOLETE, NAMES_MIN, NAMES_MIN_ONCE, NAMES_MAX // 2, NAMES_MAX})
_GROWTH = 1.5
"""So much more is told again."""
_OCTETS, _NIBBLES = 4, 32


def _is_reverse(seen: DnsSeen) -> bool:
    return is_under(seen.name, REVERSE) and seen.kind not in CARRYING_KINDS and seen.kind not in OBSOLETE_KINDS


def _names_address(name: str) -> bool:
    """Whether it begins as block lists are asked for an address, backwards (RFC 5782): long, but no data."""
    octets = name.split(".", _OCTETS)
    if len(octets) > _OCTETS and all(each.isdecimal() and len(each) <= 3 for each in octets[:_OCTETS]):
        return True
    return len(name) > 2 * _NIBBLES and set(name[1 : 2 * _NIBBLES : 2]) == {"."} and "." not in name[: 2 * _NIBBLES : 2]


def _is_single(name: str) -> bool:
    return "." not in name.rstrip(".")


def _score(talk: _Talk, *, has_domain: bool) -> int:
    """0 for nothing to say. One sign of data in questions is worth a look, two are hard to explain otherwise."""
    count = len(talk.names)
    if not has_domain and talk.missing * 2 > talk.answers:
        return 0
    if talk.obsolete * 2 >= count:
        return 0 if count < NAMES_MIN_OBSOLETE else 90 if count < NAMES_MIN else 95
    if count < NAMES_MIN:
        return 0
    minutes = max((talk.last - talk.first) / 60, 1)
    carries = (talk.carrying + talk.obsolete) * 2 >= count
    is_long = talk.name_bytes / count >= LONG_NAME_BYTES
    is_fast = talk.name_bytes / minutes >= NAME_BYTES_A_MINUTE
    big = talk.answers * 2 >= count and talk.answer_bytes / talk.answers >= BIG_ANSWER_BYTES
    if not carries and not big and talk.listed * 2 >= count:
        return 0
    if talk.missing * 2 > talk.answers:
        # So does whoever tries each name with a search suffix first.
        is_fast = is_fast and (carries or is_long)
    if carries or is_long or is_fast:
        return min(45 + 15 * (carries + is_long + is_fast + (not has_domain) + big), 95)
    once = talk.questions <= count * 1.1 and talk.answers <= count * 1.1
    return 60 if big and once and count >= NAMES_MIN_ONCE else 0


def _judged(key: _Key, talk: _Talk) -> list[Alert]:
    client, where = key
    score = _score(talk, has_domain=isinstance(where, str))
    if not score or (score <= talk.told_score and len(talk.names) < talk.told_names * _GROWTH):
        return []
    talk.told_names, talk.told_score = len(talk.names), max(score, talk.told_score)
    return [
        Alert(
            kind=Kind.DNS_TUNNEL, source=client, target=talk.server, first=talk.first, last=talk.last, score=score,
            evidence=_evidence(talk, where),
        )
    ]  # fmt: skip


def _evidence(talk: _Talk, where: bytes | str) -> str:
    count = len(talk.names)
    span_s = talk.last - talk.first
    under = f"under {where}" if isinstance(where, str) else "that no zone can hold"
    kinds = ceil(100 * (talk.carrying + talk.obsolete) / count)
    text = (
        f"asked for {count} different names {under} in {span_s:.0f} s ({count * 60 / max(span_s, 60):.0f} a minute), "
        f"{kinds} % of type TXT, MX, CNAME, SRV or rarer, each with {talk.name_bytes / count:.0f} bytes that "
        "could be data"
    )
    return text + (f", and {talk.answer_bytes / talk.answers:.0f} bytes an answer" if talk.answers else "")


def _foreign_alert(seen: Odd, foreign: _Foreign, target: bytes) -> Alert:
    evidence = (
        f"exchanged {foreign.forth + foreign.back} messages that are no DNS on the port of DNS in "
        f"{seen.time - foreign.first:.0f} s, {foreign.forth} there and {foreign.back} back"
    )
    score = 75 if foreign.told >= FOREIGN_MANY else 60
    return Alert(
        kind=Kind.DNS_TUNNEL, source=foreign.source, target=target, first=foreign.first, last=seen.time, score=score,
        evidence=evidence,
    )  # fmt: skip
