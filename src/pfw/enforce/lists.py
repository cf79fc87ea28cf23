"""What of a block list may be loaded, and address sets as prefixes.

Published lists hold more than hostile hosts: FireHOL's level 1 has 10.0.0.0/8 in it, and loading it as it is cuts
the machine off from its own network. So what nobody blocks by a list is taken out and counted. Who wants private
addresses blocked writes a rule.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from pfw.model.address import IPV6_FIRST, AddressSet, Range, from_int, parse_range
from pfw.policy.addresses import BUILT_IN_ALIASES

Prefix = tuple[bytes, int]
"""Packed address and length."""

_SHARED = "100.64.0.0/10"
"""Between a provider and its customers (RFC 6598): where many a router's other side is."""

_NOBODY = ("0.0.0.0", "255.255.255.255", "::")
"""Who has no address yet, and everybody on the link: DHCP needs both."""


class Removed(Struct, frozen=True):
    """What was taken out of a list: how many pieces, how many addresses are in them, and how many of the pieces are
    this machine's own."""

    ranges: int = 0
    addresses: int = 0
    own_ranges: int = 0


@lru_cache(maxsize=1)
def never_listed() -> AddressSet:
    """What no list blocks, whatever it holds. (Documentation's addresses are nobody's, and may stay.)"""
    texts = (*(text for alias in BUILT_IN_ALIASES.values() for text in alias), _SHARED, *_NOBODY)
    return AddressSet([parse_range(text) for text in texts])


def usable(listed: list[Range] | AddressSet, own: AddressSet) -> tuple[AddressSet, Removed]:
    """The addresses of a list that may be blocked. `own` are this machine's: its addresses, gateways, resolvers,
    the other ends of its remote sessions."""
    addresses = listed if isinstance(listed, AddressSet) else AddressSet(listed)
    never = never_listed()
    taken = intersection(addresses, never.union(own))
    if not taken:
        return addresses, Removed()
    own_ranges = len(intersection(addresses, own.without(never)))
    return addresses.without(AddressSet(taken)), Removed(len(taken), count(taken), own_ranges)


def intersection(many: AddressSet, few: AddressSet) -> list[Range]:
    """What is in both, as sorted ranges. Quick where one set is small."""
    found: list[Range] = []
    for first, last in few.ranges:
        begin = bisect_left(many.lasts, first)
        end = bisect_right(many.firsts, last)
        for at in range(begin, end):
            found.append((max(first, many.firsts[at]), min(last, many.lasts[at])))
    return found


def count(ranges: Iterable[Range]) -> int:
    """How many addresses are in ranges that do not overlap."""
    return sum(last - first + 1 for first, last in ranges)


def prefixes(addresses: AddressSet) -> list[Prefix]:
    """The fewest prefixes that hold these addresses and no others, in order."""
    found: list[Prefix] = []
    for first, last in zip(addresses.firsts, addresses.lasts, strict=True):
        bits = 32 if first < IPV6_FIRST else 128
        while first <= last:
            # As large as its begin allows (the bit of the family bounds IPv6) and as what is left.
            begin_bits = ((first & -first) or 1 << 32).bit_length() - 1
            free = min(begin_bits, (last - first + 1).bit_length() - 1)
            found.append((from_int(first), bits - free))
            first += 1 << free
    return found
