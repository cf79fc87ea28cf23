"""What an OpenSnitch rule matches, as what rules of ours match.

An operator of OpenSnitch becomes a `Box`: a condition a field. Where the two cannot be the same, the box of an allow
rule lies inside and the box of a deny rule around what was meant (`wide`), and each difference is noted. An allow rule
with a condition that has no counterpart raises CannotError, because without the condition it would allow more; a deny
rule goes without the condition. What never matched anything raises NeverError.

The texts compared with are those of OpenSnitch: addresses as Go's net.IP prints them, ports and user ids in decimal,
protocols by name with a 6 for IPv6. It hands TCP, UDP, UDP-Lite, SCTP, ICMP and ICMPv6 to its rules and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.address import EVERYWHERE, AddressSet, Range
from pfw.model.packet import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from pfw.model.rule import PortRange
from pfw.policy import values
from pfw.policy.opensnitch_address import DECIMAL, beginning, near_network, network, single
from pfw.policy.opensnitch_pattern import ANYTHING, Found, Piece, read_pattern
from pfw.policy.ports import LAST_PORT, merge
from pfw.policy.report import MisfitError, shown

MAX_CONDITIONS = 32
MAX_RANGES = 2000

Pair = tuple[int, int]
"""IP version and protocol."""

PROTOCOLS: dict[str, frozenset[Pair]] = {
    "tcp": frozenset({(4, TCP)}),
    "tcp6": frozenset({(6, TCP)}),
    "udp": frozenset({(4, UDP)}),
    "udp6": frozenset({(6, UDP)}),
    "udplite": frozenset({(4, UDPLITE)}),
    "udplite6": frozenset({(6, UDPLITE)}),
    "sctp": frozenset({(4, SCTP)}),
    "sctp6": frozenset({(6, SCTP)}),
    "icmp": frozenset({(4, ICMP), (4, ICMPV6), (6, ICMP)}),
    "icmp6": frozenset({(6, ICMPV6)}),
}
"""ICMP has the 6 only where it is ICMPv6 in IPv6."""

UNKEEPABLE = {
    "process.id": "process ids",
    "process.parent.path": "the parents of a program",
    "process.command": "command lines",
    "process.hash.md5": "checksums of programs",
    "process.hash.sha1": "checksums of programs",
    "dest.host": "names of hosts",
    "lists.domains": "names of hosts",
    "lists.domains_regexp": "names of hosts",
    "lists.hash.md5": "checksums of programs",
    "lists.ips": "lists beside other conditions, or in rules that allow",
    "lists.nets": "lists beside other conditions, or in rules that allow",
}
LISTS = ("lists.ips", "lists.nets")
_RANGE = re.compile("([0-9]{1,9})-([0-9]{1,9})")


class CannotError(Exception):
    """An allow rule asks for something that no rule of ours can ask for."""


class NeverError(Exception):
    """The rule never matched anything."""


class Operator(Struct, frozen=True):
    """One condition of OpenSnitch, none of it checked."""

    type: str
    operand: str
    data: str
    sensitive: bool = False


class Box(Struct, frozen=True):
    """What matches: None is everything. `pairs` are of what OpenSnitch hands to rules."""

    apps: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    interfaces: tuple[str, ...] | None = None
    source: AddressSet | None = None
    destination: AddressSet | None = None
    source_ports: tuple[PortRange, ...] | None = None
    ports: tuple[PortRange, ...] | None = None
    pairs: frozenset[Pair] | None = None


class Difference(Struct, frozen=True):
    """Why a rule is not quite what it was. `stricter`: it blocks more. Otherwise it matches less."""

    text: str
    stricter: bool


class Reading:
    """Reads the conditions of one rule into a box. `wide`: of a deny rule, which must not match less."""

    def __init__(self, wide: bool, aliases: Mapping[str, tuple[str, ...]]) -> None:
        self.wide = wide
        self.aliases = aliases
        self.differences: list[Difference] = []

    def read(self, operators: Iterable[Operator]) -> Box:
        """The box of all of them together. Raises CannotError and NeverError."""
        box = Box()
        for number, operator in enumerate(operators):
            if number >= MAX_CONDITIONS:
                self.cannot(f"more than {MAX_CONDITIONS} conditions cannot be kept")
                break
            if operator.operand == "true":
                continue
            field, found = self._read_one(operator)
            if found is None:
                continue
            before = getattr(box, field)
            both = found if before is None else _both(field, before, found)
            if not both:
                raise NeverError(f"{operator.operand} {shown(operator.data)} can match nothing here")
            box = replace(box, **{field: both})
        return box

    def _read_one(self, operator: Operator) -> tuple[str, object]:
        """A field of the box and what it is to hold, None for everything."""
        operand = operator.operand
        if operand in UNKEEPABLE or operand.startswith("process.env."):
            what = UNKEEPABLE.get(operand, "the environment of a program")
            self.cannot(f"{shown(operand)[1:-1]} cannot be kept, a rule here does not know {what}")
        elif operand == "iface.in":
            raise NeverError("iface.in can match nothing, since what goes out came in by no interface")
        elif operand in _FIELDS:
            field, read = _FIELDS[operand]
            return field, read(self, operator)
        else:
            self.cannot(f"{shown(operand)} is not known here")
        return "", None

    def cannot(self, what: str) -> None:
        """A condition without a counterpart: a deny without it matches more, an allow without it there is none."""
        if not self.wide:
            raise CannotError(what)
        self.note(f"{what}; blocks without that condition", stricter=True)

    def note(self, text: str, *, stricter: bool) -> None:
        difference = Difference(text, stricter)
        if difference not in self.differences:
            self.differences.append(difference)

    def in_part(self, operator: Operator) -> None:
        """Notes that only a part is kept of what an operator compares with."""
        what = "blocks more" if self.wide else "allows less"
        self.note(f"{operator.operand} {shown(operator.data)} is not kept exactly; {what}", stricter=self.wide)

    def spelling(self, operator: Operator, text: str) -> None:
        """Notes that letters are of one case here."""
        if not operator.sensitive and text.lower() != text.upper():
            self.note("upper and lower case letters are different here, and were not", stricter=False)

    def pieces(self, operator: Operator, *, fold: bool = True) -> tuple[Piece, ...]:
        """The texts that an operator compares with. `fold`: those of one that does not look at the case of letters
        in lower case."""
        data = operator.data.lower() if fold and not operator.sensitive else operator.data
        if operator.type == "simple":
            return (Piece(data),)
        if operator.type != "regexp":
            self.cannot(f"type {shown(operator.type)} of {operator.operand} cannot be kept")
            return (ANYTHING,)
        found = read_pattern(data)
        if not operator.sensitive and re.search(r"\\[A-Z]", operator.data):
            # OpenSnitch puts the whole pattern into lower case, so that \S becomes \s.
            found = Found((), (ANYTHING,))
        if not self.wide and not found.inside:
            self.cannot(f"{operator.operand} {shown(operator.data)} is a pattern that cannot be kept")
        if found.inside != found.around:
            self.in_part(operator)
        return found.around if self.wide else found.inside

    def anchored(self, operator: Operator, *, fold: bool = True) -> tuple[Piece, ...] | None:
        """The same where only the begin of a text can be kept open; None for everything."""
        found: list[Piece] = []
        for piece in self.pieces(operator, fold=fold):
            if not piece.text and (piece.open_left or piece.open_right):
                return None
            if piece.open_left:
                self.in_part(operator)
                if self.wide:
                    return None
                if not piece.open_right:
                    continue
            found.append(Piece(piece.text, open_right=piece.open_right))
        if not found:
            self.cannot(f"{operator.operand} {shown(operator.data)} does not say how the text begins")
        return tuple(found)

    def names(
        self, operator: Operator, reader: Callable[[object], object], never: Callable[[str, bool], bool]
    ) -> tuple[str, ...] | None:
        """Texts that may end in `*`, which `reader` takes or refuses; None for everything. Nothing is called what is
        `never`."""
        found: list[str] = []
        pieces = self.anchored(operator, fold=False)
        for piece in pieces or ():
            if never(piece.text, piece.open_right):
                continue
            name = piece.text + "*" * piece.open_right
            try:
                if "*" in piece.text:
                    raise MisfitError("")
                reader(name)
            except MisfitError:
                self.cannot(f"{operator.operand} {shown(operator.data)} cannot be written here")
                return None
            self.spelling(operator, piece.text)
            found.append(name)
        return None if pieces is None else tuple(dict.fromkeys(found))


def _apps(reading: Reading, operator: Operator) -> tuple[str, ...] | None:
    """`/dir/*` is what begins with `/dir/`, as the pattern `^/dir/.*` is; but for a line break in the path."""
    return reading.names(operator, values.read_app, _no_path)


def _no_path(text: str, open_right: bool) -> bool:
    """Whether the kernel gives no such path: it takes out `//`, `.` and `..`, and a program is no folder."""
    parts = text.split("/")[1:]
    inner = parts[:-1] if open_right else parts
    return text.startswith("/") and any(part in ("", ".", "..") for part in inner)


def _interfaces(reading: Reading, operator: Operator) -> tuple[str, ...] | None:
    return reading.names(operator, values.read_interface, _no_interface)


def _no_interface(text: str, open_right: bool) -> bool:
    """Whether the kernel allows no such name (dev_valid_name in net/core/dev.c)."""
    too_long = len(text.encode(errors="replace")) > values.MAX_INTERFACE
    return too_long or (not text and not open_right) or bool(set(text) & set("/: \t\n"))


def _users(reading: Reading, operator: Operator) -> tuple[str, ...] | None:
    pieces = reading.anchored(operator)
    found: list[str] = []
    for piece in pieces or ():
        if piece.open_right or piece.text in ("-1", str(values.LAST_USER_ID + 1)):
            reading.cannot(f"user.id {shown(operator.data)} is not the id of a user")
            return None
        if DECIMAL.fullmatch(piece.text) and int(piece.text) <= values.LAST_USER_ID:
            found.append(piece.text)
    return None if pieces is None else tuple(dict.fromkeys(found))


def _user_name(reading: Reading, operator: Operator) -> tuple[str, ...] | None:
    name = operator.data
    try:
        if operator.type != "simple" or name.startswith("group:") or name.lstrip("-").isdecimal():
            raise MisfitError("")
        return (str(values.read_user(name)),)
    except MisfitError:
        reading.cannot(f"user.name {shown(name)} is not the name of a user")
        return None


def _ports(reading: Reading, operator: Operator) -> tuple[PortRange, ...] | None:
    if operator.type == "range":
        ends = _RANGE.fullmatch(operator.data)
        if ends is None:
            reading.cannot(f"{operator.operand} {shown(operator.data)} is not a range of ports")
            return None
        first, last = int(ends[1]), min(int(ends[2]), LAST_PORT)
        return ((first, last),) if first <= last else ()
    found: list[PortRange] = []
    for piece in dict.fromkeys(reading.pieces(operator)):
        if not piece.text and (piece.open_left or piece.open_right):
            return None
        if re.fullmatch("[0-9]{1,5}", piece.text):
            found += _ports_with(piece)
    ports = merge(found)
    if len(ports) > MAX_RANGES:
        reading.cannot(f"{operator.operand} {shown(operator.data)} is of {len(ports):,} ranges of ports")
        return None
    return ports


@lru_cache(maxsize=64)
def _ports_with(piece: Piece) -> tuple[PortRange, ...]:
    """The ports that have these digits: at their begin, at their end, somewhere."""
    most = 5 - len(piece.text)
    found: list[PortRange] = []
    for before in ("", *map(str, range(1, 10**most))) if piece.open_left and most else ("",):
        digits = before + piece.text
        if digits.startswith("0") and digits != "0":
            continue
        for more in range(6 - len(digits)) if piece.open_right and digits != "0" else (0,):
            first = int(digits) * 10**more
            if first <= LAST_PORT:
                found.append((first, min(first + 10**more - 1, LAST_PORT)))
    return merge(found)


def _protocols(reading: Reading, operator: Operator) -> frozenset[Pair]:
    pieces = reading.pieces(operator)
    names = [name for name in PROTOCOLS if any(piece.finds(name) for piece in pieces)]
    return frozenset().union(*(PROTOCOLS[name] for name in names))


def _address(reading: Reading, operator: Operator) -> AddressSet | None:
    pieces = reading.anchored(operator)
    ranges: list[Range] = []
    for piece in pieces or ():
        found, exact = (beginning if piece.open_right else single)(piece.text, reading.wide)
        ranges += found
        if not exact:
            reading.in_part(operator)
    return None if pieces is None else AddressSet(ranges)


def _network(reading: Reading, operator: Operator) -> AddressSet | None:
    members = reading.aliases.get(operator.data)
    if operator.type != "network":
        reading.cannot(f"type {shown(operator.type)} of {operator.operand} cannot be kept")
        return None
    if members is None:
        try:
            return AddressSet([network(operator.data)])
        except ValueError:
            reading.cannot(f"{shown(operator.data)} is neither a network nor a name in network_aliases.json")
            return None
    ranges: list[Range] = []
    for each in members:
        try:
            ranges.append(network(each))
        except ValueError:
            # OpenSnitch passes over it.
            if reading.wide and near_network(each):
                ranges += near_network(each)
                reading.note(f"{shown(each)} of {shown(operator.data)} is blocked too, and was not", stricter=True)
    return AddressSet(ranges)


_FIELDS: dict[str, tuple[str, Callable[[Reading, Operator], object]]] = {
    "process.path": ("apps", _apps),
    "user.id": ("users", _users),
    "user.name": ("users", _user_name),
    "iface.out": ("interfaces", _interfaces),
    "source.ip": ("source", _address),
    "source.network": ("source", _network),
    "source.port": ("source_ports", _ports),
    "dest.ip": ("destination", _address),
    "dest.network": ("destination", _network),
    "dest.port": ("ports", _ports),
    "protocol": ("pairs", _protocols),
}


def _both(field: str, first: object, second: object) -> object:
    """What is in both values of a field."""
    if isinstance(first, AddressSet) and isinstance(second, AddressSet):
        return first.without(EVERYWHERE.without(second))
    if isinstance(first, frozenset) and isinstance(second, frozenset):
        return first & second
    if not isinstance(first, tuple) or not isinstance(second, tuple):
        raise TypeError(field)
    if field in ("ports", "source_ports"):
        return _ranges_of_both(first, second)
    return tuple(dict.fromkeys((*_within(first, second), *_within(second, first))))


def _ranges_of_both(first: tuple[PortRange, ...], second: tuple[PortRange, ...]) -> tuple[PortRange, ...]:
    """Both are sorted and apart, so that one walk along them is enough."""
    found: list[PortRange] = []
    one = other = 0
    while one < len(first) and other < len(second):
        low, high = max(first[one][0], second[other][0]), min(first[one][1], second[other][1])
        if low <= high:
            found.append((low, high))
        if first[one][1] <= second[other][1]:
            one += 1
        else:
            other += 1
    return tuple(found)


def _within(texts: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    """Those texts, which may end in `*`, that the others hold as a whole."""
    whole = set(others)
    begins = {each[:-1] for each in others if each.endswith("*")}
    lengths = {len(each) for each in begins}
    return [
        text
        for text in texts
        if text in whole or any(text.removesuffix("*")[:length] in begins for length in lengths if length < len(text))
    ]
