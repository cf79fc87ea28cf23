"""Whether two rules can match one connection.

Asked of headers alone, and answered with yes where it is not certain: two rules for different programs
overlap here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pfw.model.address import AddressSet
from pfw.model.flow import Direction
from pfw.model.rule import PortRange, Rule

Ends = tuple[AddressSet | None, AddressSet | None]
"""Where connections come from and go to; None for anywhere."""


def ends(rule: Rule, direction: Direction) -> Ends:
    """The addresses of both ends, of which `remote` is the one or the other."""
    if rule.remote is None or direction is Direction.FORWARD:
        return rule.source, rule.destination
    return (rule.remote, None) if direction is Direction.IN else (None, rule.remote)


def overlap(one: Rule, other: Rule) -> bool:
    """Whether there may be a connection that both match."""
    shared = one.directions & other.directions
    if not shared or not one.enabled or not other.enabled:
        return False
    if one.protocols is not None and other.protocols is not None and not one.protocols & other.protocols:
        return False
    if one.icmp_types is not None and other.icmp_types is not None and not one.icmp_types & other.icmp_types:
        return False
    if not _ports_meet(one.ports, other.ports) or not _ports_meet(one.source_ports, other.source_ports):
        return False
    return any(_ends_meet(ends(one, direction), ends(other, direction)) for direction in shared)


def _ends_meet(one: Ends, other: Ends) -> bool:
    return _addresses_meet(one[0], other[0]) and _addresses_meet(one[1], other[1])


def _addresses_meet(one: AddressSet | None, other: AddressSet | None) -> bool:
    if one is None or other is None or one is other:
        return True
    return _ranges_meet(one.firsts, one.lasts, other.firsts, other.lasts)


def _ports_meet(one: tuple[PortRange, ...] | None, other: tuple[PortRange, ...] | None) -> bool:
    if one is None or other is None:
        return True
    return _ranges_meet(*_split(one), *_split(other))


def _split(ranges: tuple[PortRange, ...]) -> tuple[list[int], list[int]]:
    return [first for first, _ in ranges], [last for _, last in ranges]


def _ranges_meet(firsts: Sequence[int], lasts: Sequence[int], firsts2: Sequence[int], lasts2: Sequence[int]) -> bool:
    """Of sorted ranges. The shorter line is looked up in the longer one, which may be a block list."""
    if len(firsts) > len(firsts2):
        firsts, lasts, firsts2, lasts2 = firsts2, lasts2, firsts, lasts
    for first, last in zip(firsts, lasts, strict=True):
        at = bisect_left(lasts2, first)  # the first range that does not end before this one
        if at < len(firsts2) and firsts2[at] <= last:
            return True
    return False
