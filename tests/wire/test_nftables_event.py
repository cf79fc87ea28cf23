from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import attribute
from pfw.wire.nfnetlink import NFPROTO_INET, NFPROTO_IPV4, NFTABLES, message_type, write_number, write_text
from pfw.wire.nftables_event import Committed, Touched, read_event


def body(*attributes: bytes, family: int = NFPROTO_INET) -> memoryview:
    return memoryview(bytes((family, 0, 0, 0)) + b"".join(attributes))


@pytest.mark.parametrize(
    ("number", "deleted"), [(0, False), (2, True), (3, False), (5, True), (6, False), (8, True)]
)  # fmt: skip
def test_tables_chains_and_rules(number, deleted):
    found = read_event(message_type(NFTABLES, number), body(write_number(9, 7), write_text(1, "pfw")))
    assert found == Touched("pfw", deleted)


@pytest.mark.parametrize("number", [1, 9, 11, 12, 14, 18, 20])
def test_all_else_is_nothing(number):
    assert read_event(message_type(NFTABLES, number), body(write_text(1, "pfw"))) is None


def test_other_families_are_nothing():
    assert read_event(message_type(NFTABLES, 2), body(write_text(1, "pfw"), family=NFPROTO_IPV4)) is None
    assert read_event(message_type(NFTABLES, 2), body()) is None


def test_who_made_it():
    kind = message_type(NFTABLES, 15)
    told = body(write_number(1, 77), write_number(2, 4242), write_text(3, "nft"), family=0)
    assert read_event(kind, told) == Committed(4242, "nft")
    assert read_event(kind, body(write_number(1, 77), family=0)) == Committed(0, "")


@given(st.integers(0, 20), st.binary(max_size=60))
def test_whatever_comes(number, data):
    with suppress(WireError):
        read_event(message_type(NFTABLES, number), memoryview(data))


def test_what_is_cut_off():
    with pytest.raises(WireError):
        read_event(message_type(NFTABLES, 2), memoryview(b"\x01\0"))
    with pytest.raises(WireError):
        read_event(message_type(NFTABLES, 2), body(attribute(1, b"pfw\0")[:6]))
