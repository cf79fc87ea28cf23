"""Bans without overlaps, against a twin that goes through the addresses one by one; and whom nobody bans."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.enforce.bans import flattened, protected
from pfw.enforce.nft_table import Ban
from pfw.model.address import IPV6_FIRST, IPV6_LAST, AddressSet, parse_range

BANS = st.lists(
    st.builds(
        lambda first, size, left_s: Ban((first, min(first + size, 40)), left_s),
        st.integers(0, 40),
        st.sampled_from([0, 0, 1, 3, 7, 15, 40]),
        st.sampled_from([None, 1, 60, 60, 3600]),
    ),
    max_size=12,
)


def slowly(bans: list[Ban]) -> dict[int, float]:
    """For how long each address is banned: as long as any ban says."""
    found: dict[int, float] = {}
    for ban in bans:
        for address in range(ban.range[0], ban.range[1] + 1):
            found[address] = max(found.get(address, 0), inf if ban.left_s is None else ban.left_s)
    return found


@settings(max_examples=400)
@given(BANS)
def test_each_address_is_banned_for_as_long_as_any_ban_says(bans) -> None:
    flat = flattened(bans)
    assert slowly(flat) == slowly(bans)
    assert all(before.range[1] < behind.range[0] for before, behind in pairwise(flat))
    assert len(flat) <= max(0, 2 * len(bans) - 1)


def test_what_lies_within_each_other_becomes_pieces() -> None:
    outer, inner = parse_range("203.0.113.0/24"), parse_range("203.0.113.64/26")
    assert flattened([Ban(outer, 60), Ban(inner, None)]) == [
        Ban((outer[0], inner[0] - 1), 60),
        Ban(inner, None),
        Ban((inner[1] + 1, outer[1]), 60),
    ]
    assert flattened([Ban(outer, None), Ban(inner, 60)]) == [Ban(outer, None)]


def test_families_stay_apart() -> None:
    whole = [Ban(parse_range("0.0.0.0/0"), 5), Ban((IPV6_FIRST, IPV6_LAST), 5)]
    assert flattened(whole) == whole


def test_nothing() -> None:
    assert flattened([]) == []


def test_whose_addresses_speak_against_a_ban() -> None:
    kept = [
        ("the gateway's", AddressSet([parse_range("192.168.1.1")])),
        ("mine", AddressSet([parse_range("fd00::/64")])),
    ]
    assert protected(parse_range("192.168.0.0/16"), kept) == "192.168.1.1 is the gateway's"
    assert protected(parse_range("fd00::5-fd00::9"), kept) == "fd00::5-fd00::9 is mine"
    assert protected(parse_range("192.168.2.0/24"), kept) is None
