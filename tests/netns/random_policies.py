"""Random policies of everything that a kernel can match, and random packets near what they ask for.

A few addresses, ports and names are where everything happens, so that borders meet, nest and are hit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec import Struct
from tests.netns.prober import INTERFACES, LOCAL, OWNERS, PUBLISHED, PUBLISHED_PORTS, leaves_by
from tests.netns.probes import CLIENT, HERE, KINDS, SERVER, Probe

from pfw.enforce.owners import Group, Owners
from pfw.enforce.schedules import Clock
from pfw.model.address import AddressSet, format_address, from_int, parse_address, parse_range
from pfw.model.flow import Direction, Moment
from pfw.model.packet import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP
from pfw.model.policy import Policy, PolicyError
from pfw.model.rule import PortRange, Rule
from pfw.model.verdict import Action
from pfw.policy.load import load
from pfw.policy.match import minute_of_week

Document = dict[str, Any]

NEAR = {
    CLIENT: ("10.1.0.2", "10.1.0.3", "10.1.0.200", "10.1.7.7", "fd01::2", "fd01::3", "fd01::f0", "fd01:0:0:7::7"),
    SERVER: ("10.2.0.2", "10.2.0.3", "198.51.100.7", "198.51.100.8", "203.0.113.255", "8.8.8.8", "192.168.3.4",
             "172.16.0.1", "1.0.0.0", "223.255.255.254", "fd02::2", "fd02::3", "2001:db8::1", "2001:db8::2",
             "2001:db8:ffff::1", "2606:4700::1111", "2a00::"),
}  # fmt: skip
"""Hosts, by the side on which they are."""
ALL = (*LOCAL, *PUBLISHED, *NEAR[CLIENT], *NEAR[SERVER])
PORTS = (0, 1, 22, 53, 67, 68, 80, 81, 443, 546, 547, 1000, 1999, 2000, 2001, 8000, 8050, 8443, 65535)
SOURCE_PORTS = (*PORTS, 1023, 1024, 5000, 5001, 40000, 50000, 60000)
TYPES = {ICMP: (8, 8, 8, 13, 15, 17, 0, 3, 255), ICMPV6: (128, 128, 128, 139, 133, 134, 135, 136, 131, 143, 129, 1)}
PROTOCOLS = ("tcp", "TCP", "udp", "icmp", "icmpv6", "sctp", "udplite", "dccp", "gre", 47, "50", 89, 112, 253, 6, 17)
PATTERNS = ("eth0", "wlan0", "eth*", "w*", "lo", "lo*", "wlan0*", "eth1", "wlan00", "e*", "eth0123456789a*")
NAMES = (
    'it\'s "quoted"',
    "naïve — ü 防火墙",
    "back\\slash",
    "x; drop { }",
    "%s $HOME `id` #",
    "-j ACCEPT",
    "@set",
    "]",
)
USERS = {"root": 0, "alice": 1001, "bob": 1002, "nobody": 1003}
GROUPS = {"wheel": Group(10, frozenset({1001, 1002})), "staff": Group(50, frozenset()),
          "users": Group(100, frozenset({1001})), "empty": Group(77, frozenset())}  # fmt: skip

_APART_MINUTES = 20
"""Nothing begins or ends so near to now: a packet's time is not known to the second."""
FILLING = tuple(f"198.18.{number // 250}.{number % 250}" for number in range(0, 1200, 2))
"""Addresses of nobody, so many that a list with them is a set of its own in the kernel."""
_QUARTER_S = 900


class Zone(Struct, frozen=True):
    """A local clock that is changed once."""

    before_s: int
    change: int
    after_s: int

    def utc_offset(self, at: float) -> int:
        return self.before_s if at < self.change else self.after_s


class Case(Struct, frozen=True):
    """A policy with all that it depends on, and packets."""

    document: Document
    lists: dict[str, list[str]]
    zone: Zone
    probes: list[Probe]

    def policy(self) -> Policy:
        return load(json.dumps(self.document))

    def addresses(self) -> dict[str, AddressSet]:
        return {name: AddressSet([parse_range(text) for text in texts]) for name, texts in self.lists.items()}

    def clock(self, now: float) -> Clock:
        return Clock(now, self.zone.utc_offset)


def owners() -> Owners:
    numbers = {group.gid: group for group in GROUPS.values()}
    return Owners(
        lambda name: int(name) if name.isdecimal() else USERS.get(name),
        lambda name: numbers.get(int(name), Group(int(name), frozenset())) if name.isdecimal() else GROUPS.get(name),
        lambda _: None,
    )


def names_of(uid: int, gid: int) -> frozenset[str]:
    """Every name that a rule may use for a socket's owner."""
    found = {str(uid), *(name for name, number in USERS.items() if number == uid)}
    for name, group in GROUPS.items():
        if group.gid == gid or uid in group.members:
            found |= {f"group:{name}", f"group:{group.gid}"}
    return frozenset({*found, f"group:{gid}"})


def random_case(seed: str, number: int, now: float, count: int) -> Case:
    """A policy and `count` packets. `number` is told apart in limits: a kernel may keep buckets of the one before."""
    random = Random(f"{seed}/{number}")
    here = int(now // _QUARTER_S) * _QUARTER_S
    change = here + random.choice((-300, -8, -3, 3, 8, 90, 4000)) * _QUARTER_S
    offsets = [random.choice((0, 3600, 7200, -18000, 20700, 37800, 45900, -34200)) for _ in range(2)]
    zone = Zone(offsets[0], change, random.choice(offsets))
    writer = _Writer(random, now, zone, number)
    document, lists = writer.document()
    policy = load(json.dumps(document))
    return Case(document, lists, zone, _Sender(random, policy).probes(count))


class _Writer:
    """Writes policy files."""

    def __init__(self, random: Random, now: float, zone: Zone, number: int) -> None:
        self._random = random
        self._now = now
        self._zone = zone
        self._number = number
        self._exact = False
        """Whether rules say much, so that among many the last ones are reached."""
        self._aliases: dict[str, Any] = {}

    def _maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    def document(self) -> tuple[Document, dict[str, list[str]]]:
        random = self._random
        while not self._aliases or not _is_valid({"version": 2, "aliases": self._aliases}):
            self._aliases = {}  # what is written below names none of them
            self._aliases = {
                "hosts": [self._address() for _ in range(random.randrange(1, 5))],
                "web": random.choice(([80, "443"], ["http", 443, "8000-8100"], "ssh")),
                "more": ["hosts", self._address(), f"!{random.choice(ALL)}"],
            }
        if self._maybe(0.06):
            return self._simple(), {}
        count = random.choice((0, 1, 2, 3, 4, 6, 8, 12, 18, 30, 60, 90))
        self._exact = count >= 12
        document: Document = {"version": 2, "aliases": self._aliases}
        if self._maybe(0.85):
            wanted = [each for each in ("in", "out", "forward") if self._maybe(0.9)]
            document["default"] = {each: random.choice(("allow", "block", "block", "reject")) for each in wanted}
        if self._maybe(0.4):
            switches = ("loopback", "neighbour_discovery", "dhcp_client", "icmp_errors")
            document["base"] = {each: random.choice((True, False)) for each in switches if self._maybe(0.6)}
        document["rules"] = [self._valid_rule(place) for place in range(count)]
        lists = self._lists(document) if self._maybe(0.2) else {}
        return document, lists

    def _simple(self) -> Document:
        document: Document = {}
        for action in ("block", "allow"):
            document[action] = {
                "ip": [self._plain_address() for _ in range(self._random.randrange(3))],
                "port": [self._random.choice(PORTS) for _ in range(self._random.randrange(3))],
                "protocol": [self._random.choice(PROTOCOLS) for _ in range(self._random.randrange(2))],
            }
        return document

    def _lists(self, document: Document) -> dict[str, list[str]]:
        names = [f"list-{place}" for place in range(self._random.randrange(1, 4))]
        document["blocklists"] = [
            {"name": name, "source": "/there", "direction": self._random.choice(("in", "out", "both"))}
            | ({"enabled": False} if self._maybe(0.1) else {})
            for name in names
        ]
        # The last of them may be one that is not there yet.
        return {
            name: [self._plain_address(short=False) for _ in range(self._random.choice((1, 2, 4)))]
            + (list(FILLING) if self._maybe(0.2) else [])
            for name in names[: self._random.choice((None, None, -1))]
        }

    def _valid_rule(self, place: int) -> Document:
        while True:
            rule = self._rule(place)
            if _is_valid({"version": 2, "aliases": self._aliases, "rules": [rule]}):
                return rule

    def _rule(self, place: int) -> Document:
        random = self._random
        name = f"{random.choice(NAMES)} {place}" if self._maybe(0.15) else f"rule {place}"
        rule: Document = {"name": name, "action": random.choice(("allow", "block", "reject"))}
        if self._maybe(0.8):
            rule["direction"] = random.choice(("in", "in", "out", "out", "forward", "forward", "both"))
        direction = rule.get("direction", "both")
        chance = 0.6 if self._exact else 0.3
        if direction != "forward" and self._maybe(chance / 2):
            rule["remote"] = self._addresses()
        else:
            for end in ("from", "to"):
                if self._maybe(chance):
                    rule[end] = self._addresses()
        if self._maybe(0.15):
            rule["icmp_type"] = self._one_or_more(self._icmp_type)
            if self._maybe(0.3):
                rule["protocol"] = random.choice(("icmp", "icmpv6", 1))
        else:
            self._add_transport(rule, chance)
        if self._maybe(chance / 2):
            rule["interface"] = self._one_or_more(lambda: random.choice(PATTERNS))
        if direction in ("out", "forward") and self._maybe(0.3):
            rule["user"] = self._one_or_more(self._user)
        self._add_rest(rule)
        return rule

    def _add_transport(self, rule: Document, chance: float) -> None:
        if self._maybe(chance):
            rule["protocol"] = self._one_or_more(lambda: self._random.choice(PROTOCOLS))
        if self._maybe(chance):
            rule["port"] = self._one_or_more(self._port)
        if self._maybe(chance / 3):
            rule["from_port"] = self._one_or_more(self._port)

    def _add_rest(self, rule: Document) -> None:
        random = self._random
        if self._maybe(0.12):
            rule["schedule"] = self._schedule()
        if self._maybe(0.12):
            # What is taken does not come back while we look.
            fast = self._maybe(0.2)
            rule["limit"] = f"{1000 + self._number}/second" if fast else f"{1 + self._number % 50}/hour"
            rule["burst"] = 1000 if fast else random.randrange(1, 5)
        if self._maybe(0.1):
            rule["expires"] = self._expiry()
        if self._maybe(0.2):
            rule["log"] = True
        if self._maybe(0.06):
            rule["enabled"] = False

    def _one_or_more(self, make: Callable[[], Any]) -> Any:
        if self._maybe(0.5):
            return make()
        return [make() for _ in range(self._random.choice((1, 2, 2, 3, 20 if self._exact else 4)))]

    def _addresses(self) -> Any:
        if self._exact and self._maybe(0.5):
            return self._random.choice(ALL)
        if self._maybe(0.1):
            return [f"!{self._plain_address()}" for _ in range(self._random.randrange(1, 3))]
        return self._one_or_more(self._address)

    def _address(self) -> str:
        if self._maybe(0.15) and self._aliases:
            return self._random.choice([*(name for name in self._aliases if name != "web"), "private", "link-local"])
        return f"{'!' if self._maybe(0.1) else ''}{self._plain_address()}"

    def _plain_address(self, *, short: bool = True) -> str:
        random = self._random
        text = random.choice(ALL)
        bits = 128 if ":" in text else 32
        kind = random.random()
        if kind < 0.5:
            return text
        if kind < 0.8:
            lengths = (0, 1, 8, 12, 16, 23, 24) if short else (24,)
            return f"{text}/{random.choice((*lengths, bits - 1, bits - 2, bits))}"
        value, _ = parse_range(text)
        first, last = value - random.randrange(3), value + random.choice((0, 1, 2, 300))
        try:
            return f"{format_address(from_int(first))}-{format_address(from_int(last))}"
        except OverflowError:
            return text

    def _port(self) -> Any:
        random = self._random
        if self._maybe(0.15):
            return random.choice(("web", "ssh", "http", "domain"))
        port = random.choice(SOURCE_PORTS)
        if self._maybe(0.6):
            return random.choice((port, str(port)))
        return f"{port}-{min(65535, port + random.choice((0, 1, 2, 1000, 65535)))}"

    def _icmp_type(self) -> Any:
        words = ("echo-request", "echo-request", "timestamp-request", "neighbour-solicitation", "redirect")
        number = self._random.choice((*TYPES[ICMP][:-1], *TYPES[ICMPV6], 255 if self._maybe(0.05) else 8))
        return self._random.choice((*words, number, number, number))

    def _user(self) -> Any:
        groups = [f"group:{each}" for each in (*GROUPS, "10", "100", "77")]
        return self._random.choice((*USERS, 1001, "1003", 4294967294, *groups))

    def _schedule(self) -> Document:
        random = self._random
        days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
        while True:
            schedule: Document = {"days": random.sample(days, random.randrange(1, 8))} if self._maybe(0.7) else {}
            if not schedule or self._maybe(0.8):
                schedule["from"] = f"{random.randrange(24):02}:{random.choice((0, 0, 30, 59)):02}"
                schedule["until"] = random.choice((f"{random.randrange(24):02}:{random.choice((0, 15)):02}", "24:00"))
            rule = {"name": "x", "action": "allow", "schedule": schedule}
            if _is_valid(document := {"version": 2, "rules": [rule]}) and self._is_steady(document):
                return schedule

    def _is_steady(self, document: Document) -> bool:
        schedule = load(json.dumps(document)).rules[0].schedule
        assert schedule is not None
        around = range(-_APART_MINUTES, _APART_MINUTES + 1)
        offset = self._zone.utc_offset(self._now)
        return len({schedule.holds(minute_of_week(Moment(self._now + each * 60, offset))) for each in around}) == 1

    def _expiry(self) -> str:
        random = self._random
        if self._maybe(0.5):
            at = self._now + random.choice((-4e8, -90_000, -3600, 3600, 5400, 90_000, 1e7, 2e9))
            return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Local times that the clock shows twice, before it is changed and behind, are left out.
        shown = [self._now + offset for offset in (self._zone.before_s, self._zone.after_s)]
        at = random.choice((min(shown) - random.choice((3600, 4e8)), max(shown) + random.choice((3600, 2e9))))
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _is_valid(document: Document) -> bool:
    try:
        load(json.dumps(document))
    except PolicyError:
        return False
    return True


class _Sender:
    """Chooses packets: most of them near what some rule asks for, each of a connection of its own."""

    def __init__(self, random: Random, policy: Policy) -> None:
        self._random = random
        self._rules = [rule for rule in policy.rules if rule.enabled]

    def probes(self, count: int) -> list[Probe]:
        used: set[tuple[object, ...]] = set()
        found: list[Probe] = []
        while len(found) < count:
            rule = self._random.choice(self._rules) if self._rules and self._random.random() < 0.75 else ANY
            probe = self._probe(rule)
            if probe is None:
                continue
            forth, back = probe.tuples()
            if forth not in used and back not in used:
                used |= {forth, back}
                found.append(probe)
        return found

    def _probe(self, rule: Rule) -> Probe | None:
        """A packet that the rule wants, or nearly; None where there is none of the kind that chance wanted."""
        random = self._random
        direction = random.choice(sorted(rule.directions))
        six = random.random() < 0.45
        sender = HERE if direction is Direction.OUT else random.choice((CLIENT, SERVER))
        ends = self._ends(rule, sender, direction, six)
        owners = [each for each in OWNERS if rule.users is None or names_of(*each) & set(rule.users)] or list(OWNERS)
        uid, gid = random.choice(owners) if sender == HERE else (0, 0)
        protocol = self._protocol(rule, six)
        if ends is None or protocol is None:
            return None
        flags = random.choice((ACK, SYN | ACK, FIN | ACK, RST, 0, SYN | FIN)) if random.random() < 0.06 else SYN
        types = [number for of, number in rule.icmp_types or () if of == protocol] or TYPES.get(protocol, (0,))
        icmp_type = random.choice(types)
        flags = flags | random.choice((0, 0, 0xC0)) if protocol == TCP else SYN
        port = self._port(rule.ports, PORTS)
        if ends[1] in PUBLISHED and random.random() < 0.5:
            port = random.randint(*PUBLISHED_PORTS)
        return Probe(sender, protocol, *ends, self._port(rule.source_ports, SOURCE_PORTS), port, icmp_type, flags, uid,
                     gid)  # fmt: skip

    def _protocol(self, rule: Rule, six: bool) -> int | None:
        wanted = set(KINDS) - {ICMP if six else ICMPV6}
        if rule.protocols is not None and self._random.random() < 0.9:
            wanted &= rule.protocols
            return self._random.choice(sorted(wanted)) if wanted else None
        return self._random.choice((TCP, TCP, TCP, UDP, UDP, *sorted(wanted)))

    def _port(self, ranges: tuple[PortRange, ...] | None, others: tuple[int, ...]) -> int:
        if ranges is None or self._random.random() < 0.1:
            return self._random.choice(others)
        first, last = self._random.choice(ranges)
        near = self._random.choice((first - 1, first, first, first, last, last, last + 1))
        return min(65535, max(0, near))

    def _ends(self, rule: Rule, sender: str, direction: Direction, six: bool) -> tuple[str, str] | None:
        if sender == HERE:
            sources, destinations = [*LOCAL, *NEAR[CLIENT]], [*NEAR[CLIENT], *NEAR[SERVER], *LOCAL]
        elif direction is Direction.IN:
            sources, destinations = [*NEAR[sender]], [*LOCAL]
        else:
            sources, destinations = [*NEAR[sender]], [*NEAR[SERVER if sender == CLIENT else CLIENT], *PUBLISHED]
            destinations = [each for each in destinations if _leaves_by(each) != INTERFACES[sender]]
        wants_source = rule.remote if direction is Direction.IN and rule.remote is not None else rule.source
        wants_destination = rule.remote if direction is Direction.OUT and rule.remote is not None else rule.destination
        source, destination = self._one(sources, wants_source, six), self._one(destinations, wants_destination, six)
        return None if source is None or destination in (None, source) else (source, destination)

    def _one(self, pool: list[str], wanted: AddressSet | None, six: bool) -> str | None:
        found = [each for each in pool if (":" in each) == six]
        if wanted is not None and self._random.random() < 0.95:
            found = [each for each in found if parse_address(each) in wanted]
        return self._random.choice(found) if found else None


def _leaves_by(destination: str) -> str:
    return leaves_by(PUBLISHED.get(destination, destination))


ANY = Rule(name="any", action=Action.ALLOW, directions=frozenset(Direction))
