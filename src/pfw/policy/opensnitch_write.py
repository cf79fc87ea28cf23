"""What an OpenSnitch rule matches, written as the fields of rules of ours.

One box is several rules where its protocols differ between IPv4 and IPv6, and where port 0 is among its ports:
OpenSnitch takes ICMP for port 0, and here ICMP has no ports.
"""

from __future__ import annotations

from collections.abc import Iterator

from pfw.model.address import IPV4_LAST, IPV6_FIRST, IPV6_LAST, AddressSet, format_range
from pfw.model.packet import ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE
from pfw.model.rule import PortRange
from pfw.policy.opensnitch_match import PROTOCOLS, Box, Pair

Fields = dict[str, object]

_JUDGED: frozenset[Pair] = frozenset().union(*PROTOCOLS.values(), {(6, ICMPV6)})
_FAMILIES = {4: AddressSet([(0, IPV4_LAST)]), 6: AddressSet([(IPV6_FIRST, IPV6_LAST)])}
_WORDS = {TCP: "tcp", UDP: "udp", UDPLITE: "udplite", SCTP: "sctp", ICMP: 1, ICMPV6: "icmpv6"}


def rules_of(box: Box) -> list[Fields]:
    """The fields of the rules that together match what the box holds; none where it holds nothing."""
    made: list[Fields] = []
    for pairs, with_ports in _by_ports(box):
        for numbers, destination in _by_family(pairs, box.destination):
            fields = _owner(box)
            fields["protocol"] = _protocols(numbers)
            if box.source is not None:
                fields["from"] = _addresses(box.source)
            if with_ports and box.source_ports is not None:
                fields["from_port"] = _ports(box.source_ports)
            if destination is not None:
                fields["to"] = _addresses(destination)
            if with_ports and box.ports is not None:
                fields["port"] = _ports(box.ports)
            made.append(fields)
    return made


def _by_ports(box: Box) -> Iterator[tuple[frozenset[Pair], bool]]:
    """Protocols, and whether the conditions on ports hold for them."""
    pairs = _JUDGED if box.pairs is None else box.pairs
    asked = [ports for ports in (box.source_ports, box.ports) if ports is not None]
    if not asked:
        yield pairs, False
        return
    portless = frozenset(pair for pair in pairs if pair[1] in (ICMP, ICMPV6))
    yield pairs - portless, True
    if all(ports[0][0] == 0 for ports in asked):
        yield portless, False


def _by_family(
    pairs: frozenset[Pair], destination: AddressSet | None
) -> Iterator[tuple[frozenset[int], AddressSet | None]]:
    """Protocols and the addresses to which they go; both families at once where that is the same."""
    numbers = {family: frozenset(number for each, number in pairs if each == family) for family in _FAMILIES}
    if numbers[4] == numbers[6]:
        if numbers[4]:
            yield numbers[4], destination
        return
    for family, everywhere in _FAMILIES.items():
        inside = everywhere if destination is None else everywhere.without(everywhere.without(destination))
        if numbers[family] and inside:
            yield numbers[family], inside


def _owner(box: Box) -> Fields:
    fields: Fields = {}
    for key, several in (("app", box.apps), ("user", box.users), ("interface", box.interfaces)):
        if several is not None:
            fields[key] = _one_or_list(several)
    return fields


def _one_or_list(several: tuple[str, ...]) -> object:
    return several[0] if len(several) == 1 else list(several)


def _protocols(numbers: frozenset[int]) -> object:
    """`icmp` is both, as everywhere in a policy."""
    words: list[object] = [word for number, word in _WORDS.items() if number in numbers]
    if {ICMP, ICMPV6} <= numbers:
        words[-2:] = ["icmp"]
    return words[0] if len(words) == 1 else words


def _addresses(addresses: AddressSet) -> object:
    return _one_or_list(tuple(format_range(*pair) for pair in addresses.ranges))


def _ports(ports: tuple[PortRange, ...]) -> object:
    several = [first if first == last else f"{first}-{last}" for first, last in ports]
    return several[0] if len(several) == 1 else several
