"""What may be loaded of a block list, and address sets as prefixes."""

from __future__ import annotations

import random
import time
from ipaddress import collapse_addresses, ip_address, ip_network, summarize_address_range

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.enforce.lists import Removed, count, intersection, never_listed, prefixes, usable
from pfw.model.address import EVERYWHERE, IPV4_LAST, IPV6_FIRST, IPV6_LAST, AddressSet, format_address, parse_range

NOBODY = AddressSet()
NEAR = st.integers(0, 40)
NEAR_SETS = st.lists(
    st.builds(
        lambda a, b, base: (base + min(a, b), base + max(a, b)),
        NEAR,
        NEAR,
        st.sampled_from([0, IPV4_LAST - 40, IPV6_FIRST, IPV6_LAST - 40]),
    ),
    max_size=8,
).map(AddressSet)


def ranges(text: str) -> list[tuple[int, int]]:
    return [parse_range(word) for word in text.split()]


def addresses(text: str) -> AddressSet:
    return AddressSet(ranges(text))


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/8", "172.16.5.0/24", "192.168.1.1", "127.0.0.1", "169.254.0.0/16", "224.0.0.251", "239.255.255.250",
     "255.255.255.255", "0.0.0.0", "100.64.0.0/10", "fc00::/7", "fd00::1", "fe80::1", "ff02::1", "::1", "::"],
)  # fmt: skip
def test_nobody_blocks_these_by_a_list(text) -> None:
    left, removed = usable(ranges(f"{text} 203.0.113.0/24"), NOBODY)
    assert left == addresses("203.0.113.0/24")
    assert removed == Removed(1, count(ranges(text)), 0)


@pytest.mark.parametrize(
    "text",
    ["203.0.113.1", "198.51.100.0/24", "192.0.2.0/24", "2001:db8::/32", "11.0.0.0/8", "100.128.0.0/9", "172.32.0.0/16",
     "240.0.0.0/5", "0.0.0.1-0.255.255.255", "64:ff9b::/96", "::2", "fec0::/10"],
)  # fmt: skip
def test_the_rest_stays(text) -> None:
    assert usable(ranges(text), NOBODY) == (addresses(text), Removed())


def test_this_machine_is_cut_out_of_what_holds_it() -> None:
    own = addresses("203.0.113.5 198.51.100.1 2001:db8::7 192.168.1.1")
    left, removed = usable(ranges("203.0.113.0/24 2001:db8::/64 192.168.0.0/16 8.8.8.8"), own)
    assert left == addresses(
        "203.0.113.0-203.0.113.4 203.0.113.6-203.0.113.255 2001:db8::-2001:db8::6 "
        "2001:db8::8-2001:db8::ffff:ffff:ffff:ffff 8.8.8.8"
    )
    assert removed == Removed(ranges=3, addresses=2 + 65536, own_ranges=2)


def test_a_list_of_everything_leaves_this_machine_its_network() -> None:
    own = addresses("203.0.113.5")
    left, _ = usable(EVERYWHERE, own)
    assert left == EVERYWHERE.without(own.union(never_listed()))
    assert ip_address("192.168.1.1").packed not in left
    assert ip_address("203.0.113.5").packed not in left


@given(NEAR_SETS, NEAR_SETS)
def test_intersection(many, few) -> None:
    both = many.without(many.without(few))
    assert AddressSet(intersection(many, few)) == both
    assert count(intersection(many, few)) == count(both.ranges)


@given(NEAR_SETS, NEAR_SETS)
def test_usable_is_a_difference(listed, own) -> None:
    left, removed = usable(listed, own)
    assert left == listed.without(never_listed()).without(own)
    assert count(left.ranges) + removed.addresses == count(listed.ranges)
    assert usable(left, own) == (left, Removed())


def by_standard_library(wanted: AddressSet) -> list[str]:
    found = []
    for first, last in wanted.ranges:
        kind, base = (4, 0) if first <= IPV4_LAST else (6, IPV6_FIRST)
        ends = [ip_address((value - base).to_bytes(4 if kind == 4 else 16)) for value in (first, last)]
        found += [str(network) for network in summarize_address_range(*ends)]
    return found


def written(wanted: AddressSet) -> list[str]:
    return [f"{format_address(packed)}/{length}" for packed, length in prefixes(wanted)]


@given(NEAR_SETS)
def test_prefixes_are_those_of_the_standard_library(wanted) -> None:
    assert written(wanted) == by_standard_library(wanted)


def test_prefixes_of_the_ends() -> None:
    assert written(NOBODY) == []
    assert written(EVERYWHERE) == ["0.0.0.0/0", "::/0"]
    assert written(addresses("255.255.255.255 ::")) == ["255.255.255.255/32", "::/128"]
    assert written(addresses("0.0.0.1-255.255.255.255"))[:3] == ["0.0.0.1/32", "0.0.0.2/31", "0.0.0.4/30"]
    longest = addresses("0.0.0.1-255.255.255.254 ::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")
    assert len(prefixes(longest)) == 62 + 254
    assert written(longest) == by_standard_library(longest)


def test_prefixes_are_the_fewest() -> None:
    chance = random.Random(3)
    hosts = [ip_network(chance.randrange(1 << 16)) for _ in range(20000)]
    wanted = AddressSet([(int(host.network_address), int(host.network_address)) for host in hosts])
    assert written(wanted) == [str(network) for network in collapse_addresses(hosts)]


def test_a_long_list_takes_no_time() -> None:
    chance = random.Random(1)
    firsts = [chance.randrange(1 << 32) & ~255 for _ in range(100_000)]
    listed = [(first, first + 255) for first in firsts]
    begin = time.process_time()
    left, removed = usable(listed, addresses("203.0.113.5"))
    found = prefixes(left)
    assert time.process_time() - begin < 15  # a fiftieth of it on a quiet machine
    assert removed.ranges > 100
    assert sum(1 << (32 - length) for _, length in found) == count(left.ranges)
