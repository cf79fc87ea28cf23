"""Addresses by their text, as OpenSnitch compares them: what Go's net.IP.String prints (RFC 5952, lower case).

Each function gives ranges and whether they are exactly what is meant; where they are not, they hold more of it for
`wide` and less otherwise.
"""

from __future__ import annotations

import re

from pfw.model.address import ALL_RANGES, IPV4_LAST, IPV6_FIRST, Range, format_address, parse_address, parse_range

DECIMAL = re.compile("0|[1-9][0-9]{0,9}")
_GROUP = re.compile("[1-9a-f][0-9a-f]{0,3}")
_MAPPED = IPV6_FIRST | 0xFFFF << 32

Ranges = tuple[list[Range], bool]


def single(text: str, wide: bool) -> Ranges:
    """The address that is printed like that. Another way to write one was never equal to anything."""
    try:
        packed = parse_address(text)
    except ValueError:
        return [], True
    if format_address(packed) == text:
        return [parse_range(text)], True
    return ([parse_range(format_address(packed))], False) if wide else ([], True)


def beginning(text: str, wide: bool) -> Ranges:
    """The addresses whose text begins like that."""
    if not text:
        return list(ALL_RANGES), True
    ipv6, exact = _ipv6(text, wide)
    return _ipv4(text) + ipv6, exact


def _ipv4(text: str) -> list[Range]:
    *octets, partial = text.split(".")
    if len(octets) > 3 or any(not DECIMAL.fullmatch(each) or int(each) > 255 for each in octets):
        return []
    if partial and not DECIMAL.fullmatch(partial):
        return []
    host_bits = 24 - 8 * len(octets)
    network = sum(int(each) << 8 * (3 - at) for at, each in enumerate(octets))
    if not partial:
        return [(network, network | (256 << host_bits) - 1)]
    firsts = [network | number << host_bits for number in range(256) if str(number).startswith(partial)]
    return [(first, first | (1 << host_bits) - 1) for first in firsts]


def _ipv6(text: str, wide: bool) -> Ranges:
    """A group that is written has no zero in front, and only zeros are left out."""
    *groups, partial = text.split(":")
    if len(groups) > 8 or not re.fullmatch("[0-9a-f]{0,4}", partial):
        return [], True
    plain = next((at for at, each in enumerate(groups) if not _GROUP.fullmatch(each)), len(groups))
    exact = plain == len(groups) < 8 and not partial.startswith("0")
    if not exact:
        # Zeros may be left out in more ways than one: of these only what stands before them is known.
        if not wide:
            return [], False
        groups, partial = groups[: min(plain, 7)], ""
    network = IPV6_FIRST | sum(int(each, 16) << 16 * (7 - at) for at, each in enumerate(groups))
    bits = 16 * (8 - len(groups))
    if not partial:
        return [(network, network | (1 << bits) - 1)], exact
    found: list[Range] = []
    for more in range(5 - len(partial)):
        below = 4 * more + bits - 16
        first = network | int(partial, 16) << below
        found.append((first, first + (1 << below) - 1))
    return found, exact


def network(text: str) -> Range:
    """A network as Go's net.ParseCIDR takes it, of IPv4 also where it is written as IPv6. Raises ValueError."""
    if "/" not in text:
        raise ValueError("has no length of a prefix")
    first, last = parse_range(text)
    mapped = first - _MAPPED, last - _MAPPED
    return mapped if mapped[0] >= 0 and mapped[1] <= IPV4_LAST else (first, last)


def near_network(text: str) -> list[Range]:
    """What a text that is no network may have meant."""
    try:
        return [parse_range(text)]
    except ValueError:
        return []
