"""Addresses and sets of them, against the standard library's ipaddress as the slow twin."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import (
    EVERYWHERE,
    IPV4_LAST,
    IPV6_FIRST,
    IPV6_LAST,
    AddressSet,
    Range,
    as_int,
    format_address,
    format_range,
    from_int,
    parse_address,
    parse_range,
    parse_ranges,
)

NETWORKS = st.one_of(
    st.builds(lambda n, length: IPv4Network((n, length), strict=False), st.integers(0, IPV4_LAST), st.integers(0, 32)),
    st.builds(
        lambda n, length: IPv6Network((n, length), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)
# Close together, so that ranges touch, overlap and contain each other.
NEAR = st.integers(0, 40)
NEAR_RANGES = st.lists(
    st.builds(
        lambda a, b, base: (base + min(a, b), base + max(a, b)),
        NEAR,
        NEAR,
        st.sampled_from([0, IPV4_LAST - 40, IPV6_FIRST, IPV6_LAST - 40]),
    ),
    max_size=8,
)


def range_of(network: IPv4Network | IPv6Network) -> Range:
    return as_int(network.network_address.packed), as_int(network.broadcast_address.packed)


def members(ranges: Iterable[Range]) -> set[int]:
    return {value for first, last in ranges for value in range(first, last + 1)}


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_text_and_packed_are_each_others_inverse(address) -> None:
    packed = parse_address(str(address))
    assert packed == address.packed
    assert format_address(packed) == str(address)
    assert from_int(as_int(packed)) == packed


@given(NETWORKS)
def test_a_prefix_is_what_ipaddress_says(network) -> None:
    assert parse_range(str(network)) == range_of(network)
    assert parse_range(format_range(*range_of(network))) == range_of(network)


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4%eth0", "fe80::1%eth0", ":::", "host", "1.2.3.4 "],
)
def test_what_is_no_address_is_refused(text) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.9-10.0.0.1", "ends before it begins"),
        ("10.0.0.1-::1", "mixes IPv4 and IPv6"),
        ("10.0.0.0/33", "prefix length that is not 0-32"),
        ("::/129", "prefix length that is not 0-128"),
        ("10.0.0.0/", "prefix length"),
        ("10.0.0.0/-1", "is not an address"),
    ],
)
def test_a_range_that_is_none_says_why(text, reason) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_range(text)


TEXTS = st.one_of(
    NETWORKS.map(str),
    st.ip_addresses().map(str),
    st.builds("{0}-{0}".format, st.ip_addresses(v=4)),
)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=12), st.integers(0, 100), st.sampled_from(["10.0.0.0/8", "1.2.3.4", "2001:db8::/32"]))
def test_many_ranges_are_read_as_one_at_a_time(texts, more, filler) -> None:
    texts = texts + [filler] * more
    assert parse_ranges(texts) == [parse_range(text) for text in texts]


ODD = [
    "1.2.3",
    "1.2.3.4/33",
    "1.2.3.256/8",
    "1.2.3.04",
    "1.2.3.4\n5.6.7.8",
    "",
    "1.2.3.4\n",
    "\n",
    "1.2.3.4/8/8",
    "x",
    "1/2.3.4.5",
]


@pytest.mark.parametrize("odd", [*ODD, "\u0661.2.3.4", "1.2.3.4 ", "::1/129", "1.2.3.4-", "1.2.3.4/+8", "1,2,3,4"])
@pytest.mark.parametrize("place", [0, 50, 99])
def test_one_wrong_entry_among_many_is_never_overlooked(odd, place) -> None:
    texts = [f"10.0.{number}.0/24" for number in range(100)]
    texts[place] = odd
    with pytest.raises(ValueError, match=r"is not an address|prefix length"):
        parse_ranges(texts)


@given(NEAR_RANGES)
def test_a_set_is_sorted_apart_and_holds_what_it_was_given(ranges) -> None:
    made = AddressSet(ranges)
    assert members(made.ranges) == members(ranges)
    for (_, last), (first, _) in zip(made.ranges, made.ranges[1:], strict=False):
        assert first > last + 1


@given(NEAR_RANGES, NEAR_RANGES)
def test_difference_and_union_are_those_of_sets(left, right) -> None:
    one, other = AddressSet(left), AddressSet(right)
    assert members(one.without(other).ranges) == members(left) - members(right)
    assert members(one.union(other).ranges) == members(left) | members(right)
    assert one.union(other) == AddressSet([*left, *right])
    assert hash(one.union(other)) == hash(other.union(one))


@given(st.lists(NETWORKS, max_size=6), st.ip_addresses())
def test_membership_is_that_of_the_networks(networks, address) -> None:
    made = AddressSet([range_of(network) for network in networks])
    expected = any(address in network for network in networks if network.version == address.version)
    assert (address.packed in made) is expected
    for network in networks:
        assert network.network_address.packed in made
        assert network.broadcast_address.packed in made


def test_prefixes_at_the_very_beginning_of_ipv6_are_merged() -> None:
    made = AddressSet([parse_range("::/0"), parse_range("::/8"), parse_range("::1")])
    assert made.ranges == [(IPV6_FIRST, IPV6_LAST)]


def test_everywhere_is_both_families() -> None:
    assert ip_address("0.0.0.0").packed in EVERYWHERE
    assert ip_network("::/0").broadcast_address.packed in EVERYWHERE
    assert len(EVERYWHERE) == 2
    assert not EVERYWHERE.without(EVERYWHERE)
