"""Messages of nflog."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, attributes, parts
from pfw.wire.nflog import Logged, bind_request, logged
from pfw.wire.nfnetlink import split, write_number, write_text


def packet(*members, family=2, group=7):
    return memoryview(struct.pack(">BBH", family, 0, group) + b"".join(members))


def test_binding_to_a_group():
    ((kind, flags, sequence, content),) = parts(bind_request(7, 256, 32768, 50, 5, sequence=3))
    assert (kind, flags, sequence) == (0x0401, 5, 3)
    family, group, rest = split(content)
    assert (family, group) == (0, 7)
    assert {kind: bytes(value).hex() for kind, value in attributes(rest)} == {
        1: "01",
        2: "000001000200",
        3: "00008000",
        4: "00000005",
        5: "00000032",
        6: "0001",
    }


def test_a_packet():
    found = logged(
        packet(
            attribute(1, b"\x08\0\1\0"),
            write_number(2, 0x2A),
            attribute(3, struct.pack(">QQ", 1_700_000_000, 250_000)),
            write_number(4, 3),
            write_number(5, 4),
            attribute(9, b"\x45abc"),
            write_text(10, "pfw 12 x"),
            write_number(11, 1000),
            write_number(12, 99),
            write_number(14, 100),
            attribute(16, b"link header"),
        )
    )
    assert found == Logged(
        group=7,
        family=2,
        time=1_700_000_000.25,
        hook=1,
        prefix="pfw 12 x",
        in_index=3,
        out_index=4,
        payload=b"\x45abc",
        uid=1000,
        gid=100,
        mark=0x2A,
        ethertype=0x0800,
        sequence=99,
    )


def test_a_packet_of_which_nothing_is_told():
    assert logged(packet(family=10, group=65535)) == Logged(group=65535, family=10)


def test_a_prefix_that_is_no_text():
    assert logged(packet(attribute(10, b"a\xff\x1b[0m"))).prefix == "a\\xff\x1b[0m"


@pytest.mark.parametrize(
    "members", [(attribute(1, b"\x08"),), (attribute(3, bytes(15)),), (attribute(2, b"abc"),), (b"\xff\xff\1\0",)]
)
def test_what_does_not_fit(members):
    with pytest.raises(WireError):
        logged(packet(*members))


def test_too_short():
    with pytest.raises(WireError):
        logged(memoryview(b"\2\0\0"))


@given(st.integers(0, 65535), st.integers(0, 0xFFFFFFFF), st.binary(max_size=300))
def test_values(group, number, payload):
    found = logged(packet(write_number(12, number), attribute(9, payload), write_number(11, number), group=group))
    assert (found.group, found.sequence, found.uid, found.payload) == (group, number, number, payload)
