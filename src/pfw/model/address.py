"""Addresses: their text, their packed form, and sets of them.

An address is its packed bytes in network order (4 for IPv4, 16 for IPv6): what a header holds, what a
hash table takes, what a log can serialise. Sets of addresses work on one line of integers that holds
both families, IPv4 first: `as_int` is the only place that knows how.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from struct import Struct as Layout

IPV4_LAST = (1 << 32) - 1
IPV6_FIRST = 1 << 128
"""IPv6 addresses follow IPv4's on the line, far enough that bit 128 alone tells the family."""
IPV6_LAST = IPV6_FIRST + (1 << 128) - 1

Range = tuple[int, int]
"""First and last address, both included, both of one family."""

ALL_RANGES: tuple[Range, ...] = ((0, IPV4_LAST), (IPV6_FIRST, IPV6_LAST))


def as_int(packed: bytes) -> int:
    """Where a packed address stands on the line of both families."""
    value = int.from_bytes(packed)
    return value if len(packed) == 4 else value | IPV6_FIRST


def from_int(value: int) -> bytes:
    """The inverse of `as_int`."""
    return value.to_bytes(4) if value <= IPV4_LAST else (value - IPV6_FIRST).to_bytes(16)


def parse_address(text: str) -> bytes:
    """The packed form of an IPv4 or IPv6 address.

    Raises ValueError with a reason that can stand behind the text. Zone names (`%eth0`) and IPv4 with
    leading zeros are refused: what they mean differs from program to program.
    """
    try:
        if ":" not in text:
            return IPv4Address(text).packed
        if "%" in text:
            raise ValueError
        return IPv6Address(text).packed
    except ValueError:
        raise ValueError("is not an address") from None


@lru_cache(maxsize=4096)
def format_address(packed: bytes) -> str:
    """The usual text: dotted IPv4, compressed lower-case IPv6 (RFC 5952)."""
    if len(packed) == 4:
        return ".".join(map(str, packed))
    return IPv6Address(packed).compressed


def format_endpoint(packed: bytes, port: int | None) -> str:
    """`192.0.2.1:443`, `[2001:db8::1]:443`, or the address alone where there is no port."""
    text = format_address(packed)
    if port is None:
        return text
    return f"{text}:{port}" if len(packed) == 4 else f"[{text}]:{port}"


def parse_range(text: str) -> Range:
    """An address, a prefix `address/length` or a range `first-last`, as a range.

    Bits of a prefix behind its length are ignored. Raises ValueError with a reason.
    """
    if "-" in text:
        first_text, _, last_text = text.partition("-")
        first = as_int(parse_address(first_text.strip()))
        last = as_int(parse_address(last_text.strip()))
        if (first <= IPV4_LAST) != (last <= IPV4_LAST):
            raise ValueError("mixes IPv4 and IPv6")
        if first > last:
            raise ValueError("ends before it begins")
        return first, last
    address_text, slash, length_text = text.partition("/")
    packed = parse_address(address_text)
    value = as_int(packed)
    if not slash:
        return value, value
    bits = len(packed) * 8
    if not re.fullmatch("[0-9]{1,3}", length_text) or int(length_text) > bits:
        raise ValueError(f"has a prefix length that is not 0-{bits}")
    host = (1 << (bits - int(length_text))) - 1
    return value & ~host, value | host


_BULK = 64
_IPV4_LINES = r"(?:[0-9]{1,3}+\.[0-9]{1,3}+\.[0-9]{1,3}+\.[0-9]{1,3}+/[0-9]{1,2}+\n)*+"
_OCTETS = {str(number): number for number in range(256)}
_HOST_BITS = tuple((1 << (32 - length)) - 1 for length in range(33))
_PREFIX_BITS = tuple(IPV4_LAST ^ host for host in _HOST_BITS)
_PREFIX = Layout(">IB")


def parse_ranges(texts: list[str]) -> list[Range]:
    """`parse_range` of each, quick for the long lists of IPv4 addresses and prefixes that block lists are.

    Raises ValueError when any of them is not a range; ask `parse_range` which one.
    """
    if len(texts) < _BULK:
        return [parse_range(text) for text in texts]
    ranges = _parse_ipv4([text if "/" in text else text + "/32" for text in texts])
    if ranges is not None:
        return ranges
    # Something else is among them: read what may be IPv4 alone, then put all in order again.
    plain = [text for text in texts if ":" not in text and "-" not in text]
    if not plain or len(plain) == len(texts):
        return [parse_range(text) for text in texts]
    quick = iter(parse_ranges(plain))
    return [next(quick) if ":" not in text and "-" not in text else parse_range(text) for text in texts]


def _parse_ipv4(prefixes: list[str]) -> list[Range] | None:
    """Prefixes as ranges; None if any is not an IPv4 prefix in its plain form. All are read in one go."""
    lines = "\n".join(prefixes) + "\n"
    if lines.count("\n") != len(prefixes) or not re.fullmatch(_IPV4_LINES, lines):
        return None
    numbers = lines[:-1].replace("/", ".").replace("\n", ".").split(".")
    try:
        packed = bytes(map(_OCTETS.__getitem__, numbers))
        return [
            (value & _PREFIX_BITS[length], value | _HOST_BITS[length]) for value, length in _PREFIX.iter_unpack(packed)
        ]
    except (KeyError, IndexError):
        return None


def format_range(first: int, last: int) -> str:
    """The shortest text that `parse_range` reads back: address, prefix or `first-last`."""
    size = last - first + 1
    if last <= IPV4_LAST and size & (size - 1) == 0 and first & (size - 1) == 0:
        # Most of what long lists hold: a fifth of the time.
        text = f"{first >> 24}.{first >> 16 & 255}.{first >> 8 & 255}.{first & 255}"
        return text if size == 1 else f"{text}/{33 - size.bit_length()}"
    packed = from_int(first)
    if size == 1:
        return format_address(packed)
    if size & (size - 1) == 0 and first & (size - 1) == 0:
        return f"{format_address(packed)}/{len(packed) * 8 - size.bit_length() + 1}"
    return f"{format_address(packed)}-{format_address(from_int(last))}"


class AddressSet:
    """Addresses of both families as sorted ranges that neither touch nor overlap. Immutable."""

    __slots__ = ("_split", "firsts", "lasts")

    def __init__(self, ranges: list[Range] | tuple[Range, ...] = ()) -> None:
        firsts: list[int] = []
        lasts: list[int] = []
        end = -2
        for first, last in sorted(ranges):
            # The gap between the families is too wide to be touched across.
            if first <= end + 1:
                if last > end:
                    lasts[-1] = end = last
            else:
                firsts.append(first)
                lasts.append(last)
                end = last
        self.firsts = firsts
        self.lasts = lasts
        self._split: tuple[tuple[Range, ...], tuple[Range, ...]] | None = None

    @property
    def by_family(self) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
        """The ranges of IPv4 and those of IPv6: always the same objects, by which many rules may know one list."""
        if self._split is None:
            at = bisect_left(self.firsts, IPV6_FIRST)
            ranges = tuple(zip(self.firsts, self.lasts, strict=True))
            self._split = ranges[:at], ranges[at:]
        return self._split

    @property
    def ranges(self) -> list[Range]:
        return list(zip(self.firsts, self.lasts, strict=True))

    def __contains__(self, packed: bytes) -> bool:
        value = as_int(packed)
        at = bisect_right(self.firsts, value) - 1
        return at >= 0 and value <= self.lasts[at]

    def __len__(self) -> int:
        """How many ranges, not how many addresses."""
        return len(self.firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressSet) and self.firsts == other.firsts and self.lasts == other.lasts

    def __hash__(self) -> int:
        return hash((tuple(self.firsts), tuple(self.lasts)))

    def __repr__(self) -> str:
        return f"AddressSet({', '.join(format_range(*pair) for pair in self.ranges)})"

    def without(self, other: AddressSet) -> AddressSet:
        """What is here and not in the other."""
        left: list[Range] = []
        cuts = iter(zip(other.firsts, other.lasts, strict=True))
        cut = next(cuts, None)
        for first, last in zip(self.firsts, self.lasts, strict=True):
            while cut is not None and cut[0] <= last:
                if cut[1] >= first:
                    if cut[0] > first:
                        left.append((first, cut[0] - 1))
                    first = cut[1] + 1
                    if cut[1] > last:
                        break
                cut = next(cuts, None)
            if first <= last:
                left.append((first, last))
        return AddressSet(left)

    def union(self, *others: AddressSet) -> AddressSet:
        return AddressSet(list(chain(self.ranges, *(other.ranges for other in others))))


EVERYWHERE = AddressSet(ALL_RANGES)
