"""What a program needs of the network, as the rule that allows it: connections that were seen, made general.

A rule is for one program, direction and protocol. It names ports, of a known program at most `PORTS_MAX`; beyond that
it names none. It names the other ends where they are few and were not found by a name (addresses behind a name change),
or where all of them are in networks that are near; else none. What no program is known of is allowed by its ports, and
always names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from pfw.model.address import AddressSet, Range, as_int, format_address, format_range, parse_range
from pfw.model.flow import Direction
from pfw.model.history import Group
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, protocol_name
from pfw.policy.addresses import BUILT_IN_ALIASES
from pfw.policy.values import ICMP_TYPES, MAX_NAME, PROTOCOL_WORDS

PORTS_MAX = 8
ENDS_MAX = 3

_NEAR = {name: AddressSet([parse_range(text) for text in BUILT_IN_ALIASES[name]])
         for name in ("private", "link-local", "multicast")}  # fmt: skip
_NETWORK_BITS = {4: 8, 16: 64}
"""Of an address, how many bits tell the hosts of one network apart."""

_PURPOSES: tuple[tuple[str, frozenset[int]], ...] = (
    ("web", frozenset((80, 443, 8080, 8443))),
    ("dns", frozenset((53, 853))),
    ("mail", frozenset((25, 110, 143, 465, 587, 993, 995))),
)
"""What ports are for, where a program uses no others."""
_NAMES_MAX = 3
_RUN = 3
"""So many ports in a row are written as a range."""

Key = tuple[str | None, Direction, int, int | None, int | None]
"""Program, direction, protocol, before which rule of the policy it must stand (None: behind all), and the port where no
program is known."""


class Need(Struct):
    """What the groups of a key have in common so far. Sets stop growing where it makes no difference any more."""

    key: Key
    ports: set[int]
    icmp_types: set[int]
    far_ends: _Ends
    own_ends: _Ends
    count: int = 0
    any_type: bool = False

    def add(self, group: Group) -> None:
        subject = group.subject
        self.count += group.count
        if subject.port is not None:
            self.ports.add(subject.port)
        if subject.icmp_type is not None:
            self.icmp_types.add(subject.icmp_type)
        self.any_type |= subject.icmp_type is None
        self.far_ends.add(group.remote, is_named=group.name is not None)
        if subject.direction is Direction.FORWARD:
            self.own_ends.add(subject.local, is_named=False)


class _Ends(Struct):
    """Addresses of one end: the first few, the networks near here in which they are, and whether all are in some."""

    addresses: set[bytes]
    networks: set[Range]
    kinds: set[str | None]
    named: bool = False

    def add(self, address: bytes, *, is_named: bool) -> None:
        kind = next((name for name, addresses in _NEAR.items() if address in addresses), None)
        self.kinds.add(kind)
        self.named |= is_named and kind is None
        if len(self.addresses) <= ENDS_MAX:
            self.addresses.add(address)
        if kind is not None and len(self.networks) <= ENDS_MAX:
            bits = _NETWORK_BITS[len(address)] if kind == "private" else 0
            first = as_int(address) >> bits << bits
            self.networks.add((first, first + (1 << bits) - 1))

    def texts(self, own_names: Iterable[str]) -> list[str] | None:
        """What a rule says of them; None for anywhere. `own_names` are aliases of the file: they may mean others."""
        if len(self.addresses) <= ENDS_MAX and not self.named:
            return [format_address(address) for address in sorted(self.addresses, key=as_int)]
        if None in self.kinds:
            return None
        if len(self.networks) <= ENDS_MAX:
            return [format_range(*network) for network in sorted(self.networks)]
        taken = set(own_names)
        kinds = sorted(str(kind) for kind in self.kinds)
        return [text for kind in kinds for text in (BUILT_IN_ALIASES[kind] if kind in taken else (kind,))]


def new_need(key: Key) -> Need:
    return Need(key, set(), set(), _Ends(set(), set(), set()), _Ends(set(), set(), set()))


class Written(Struct, frozen=True):
    """A rule as an object of a policy file, before which other it goes, how many connections needed it, and the keys
    that it is for."""

    rule: dict[str, object]
    place: int | None
    count: int
    keys: tuple[Key, ...]


class _Draft(Struct, frozen=True):
    """A rule with what it is for, its ports and ends still apart."""

    needs: list[Need]
    ports: list[object]
    ends: dict[str, list[str]]

    @property
    def first(self) -> Need:
        return self.needs[0]


def written(
    needs: Iterable[Need], name_of_port: Callable[[int], str | None], own_names: Iterable[str]
) -> list[Written]:
    """The rules for what is needed, what is needed most first. What differs in nothing but the port or the protocol is
    one rule."""
    taken = tuple(own_names)
    drafts: dict[tuple[object, ...], list[Need]] = {}
    for same in _by_port(needs, taken):
        program, direction, protocol, place, _ = same[0].key
        # One program's TCP and UDP to the same ports are one thing, whoever was at the other end of each.
        ends = repr(_end_texts(same, taken)) if program is None else ""
        alone = protocol if protocol not in PORT_PROTOCOLS else None
        drafts.setdefault((program, direction, place, alone, ends, repr(_ports(same))), []).extend(same)
    found = [_written(_Draft(each, _ports(each), _end_texts(each, taken)), name_of_port) for each in drafts.values()]
    return sorted(found, key=lambda each: (-each.count, str(each.rule["name"]), repr(each.rule)))


def _by_port(needs: Iterable[Need], taken: tuple[str, ...]) -> list[list[Need]]:
    """What is one rule but for the protocol. Ports without a program go together where the ends are the same."""
    found: dict[tuple[object, ...], list[Need]] = {}
    for need in needs:
        program, direction, protocol, place, port = need.key
        ends = repr(_end_texts([need], taken)) if port is not None else ""
        found.setdefault((program, direction, protocol, place, ends), []).append(need)
    return list(found.values())


def _end_texts(needs: list[Need], taken: tuple[str, ...]) -> dict[str, list[str]]:
    """What a rule says of the ends, by the field's name."""
    direction = needs[0].key[1]
    far = _joined([need.far_ends for need in needs]).texts(taken)
    texts = {"from" if direction is Direction.IN else "to": far}
    if direction is Direction.FORWARD:
        texts = {"from": _joined([need.own_ends for need in needs]).texts(taken), "to": far}
    return {field: each for field, each in texts.items() if each}


def _joined(ends: list[_Ends]) -> _Ends:
    return _Ends(
        set().union(*(each.addresses for each in ends)),
        set().union(*(each.networks for each in ends)),
        set().union(*(each.kinds for each in ends)),
        any(each.named for each in ends),
    )


def _written(draft: _Draft, name_of_port: Callable[[int], str | None]) -> Written:
    program, direction, _, place, _ = draft.first.key
    count = sum(each.count for each in draft.needs)
    rule: dict[str, object] = {"name": _name(draft, name_of_port), "action": "allow", "direction": direction.value}
    rule |= {field: _one_or_many(texts) for field, texts in draft.ends.items()}
    rule["protocol"] = _one_or_many([_protocol(each) for each in sorted({need.key[2] for need in draft.needs})])
    if draft.ports:
        rule["port"] = _one_or_many(draft.ports)
    types = _types(draft)
    if types:
        rule["icmp_type"] = _one_or_many(types)
    if program is not None:
        rule["app"] = program
    rule["note"] = f"seen {count:,} times" if count > 1 else "seen once"
    return Written(rule, place, count, tuple(each.key for each in draft.needs))


def _one_or_many(values: list[object] | list[str]) -> object:
    return values[0] if len(values) == 1 else list(values)


def _ports(needs: list[Need]) -> list[object]:
    """The ports of a rule, none where it names none: those in a row as a range."""
    ports = {port for need in needs for port in need.ports}
    if len(ports) > PORTS_MAX and any(need.key[0] is not None for need in needs):
        return []
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    found: list[object] = []
    for first, last in runs:
        found += [f"{first}-{last}"] if last - first + 1 >= _RUN else range(first, last + 1)
    return found


def _protocol(number: int) -> object:
    """ICMP is that of both families in a policy."""
    word = protocol_name(number).lower()
    return word if number == ICMP or PROTOCOL_WORDS.get(word) == frozenset((number,)) else number


def _icmp_type(protocol: int, number: int) -> object:
    return next((name for name, pairs in ICMP_TYPES.items() if (protocol, number) in pairs), number)


def _types(draft: _Draft) -> list[object]:
    """The ICMP types of a rule, none where some of its connections had one that is not known."""
    if any(need.any_type for need in draft.needs):
        return []
    numbers = sorted({number for need in draft.needs for number in need.icmp_types})
    return [_icmp_type(draft.first.key[2], number) for number in numbers]


def _name(draft: _Draft, name_of_port: Callable[[int], str | None]) -> str:
    """`firefox: web`, `sshd: ssh in`, `any program: ntp`, whatever a program is called: shown, and no reserved word."""
    program, direction = draft.first.key[:2]
    where = {Direction.IN: " in", Direction.FORWARD: " forwarded"}.get(direction, "")
    what = _purpose(draft, name_of_port) + where
    if program is None:
        return f"any program: {what}" if direction is Direction.OUT else what
    who = "".join(letter if letter.isprintable() else "?" for letter in program.rpartition("/")[2]).strip()
    if who.lower().startswith("base "):
        who = f"({who})"
    name = f"{who}: {what}"
    return name if len(name) <= MAX_NAME else f"{who[: MAX_NAME - len(what) - 3].rstrip()}…: {what}"


def _purpose(draft: _Draft, name_of_port: Callable[[int], str | None]) -> str:
    protocol = draft.first.key[2]
    if protocol in (ICMP, ICMPV6):
        types = _types(draft)
        return str(types[0]) if len(types) == 1 else "icmp"
    if protocol not in PORT_PROTOCOLS:
        return str(_protocol(protocol))
    ports = {port for need in draft.needs for port in need.ports}
    purpose = next((word for word, usual in _PURPOSES if ports <= usual), None)
    if purpose is not None:
        return purpose
    if len(ports) > _NAMES_MAX:
        return "many ports"
    word = str(_protocol(protocol))
    return ", ".join(name_of_port(port) or f"{word} {port}" for port in sorted(ports))
