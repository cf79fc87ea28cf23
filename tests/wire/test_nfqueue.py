"""Messages of nfqueue."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, attributes, nested, parts
from pfw.wire.nfnetlink import split, write_number
from pfw.wire.nfqueue import ACCEPT, DROP, FLAG_GSO, FLAG_UID_GID, REPEAT, Queued, bind_request, queued, verdict_request

HEADER = attribute(1, struct.pack(">IHB", 7, 0x0800, 3))


def packet(*members, queue=5):
    return memoryview(struct.pack(">BBH", 2, 0, queue) + b"".join(members))


def test_binding_to_a_queue():
    ((kind, flags, sequence, content),) = parts(bind_request(0x1234, 256, 8192, sequence=3))
    assert (kind, flags, sequence) == (0x0302, 5, 3)
    family, queue, rest = split(content)
    assert (family, queue) == (0, 0x1234)
    assert {kind: bytes(value).hex() for kind, value in attributes(rest)} == {
        1: "01000000",
        2: "0000010002",
        3: "00002000",
        4: "0000000c",
        5: "0000000c",
    }


@pytest.mark.parametrize("flags", [0, FLAG_GSO, FLAG_UID_GID])
def test_flags_that_are_left_out_are_switched_off(flags):
    ((*_, content),) = parts(bind_request(1, 64, 10, flags))
    found = dict(attributes(split(content)[2]))
    assert (bytes(found[4]), bytes(found[5])) == (b"\0\0\0\x0c", bytes((0, 0, 0, flags)))


@pytest.mark.parametrize("flag", [1 << 0, 1 << 1, 1 << 4, 1 << 5])
def test_flags_that_are_never_asked_for(flag):
    with pytest.raises(ValueError, match="only 0xc are known"):
        bind_request(1, 64, 10, FLAG_UID_GID | flag)


def test_a_packet():
    found = queued(
        packet(
            HEADER,
            write_number(5, 3),
            write_number(7, 33),
            write_number(6, 4),
            write_number(8, 44),
            write_number(3, 0x2A),
            attribute(9, b"\0\6\0\0\2\0\0\0\0\1\0\0"),
            nested(19, attribute(1, b"\x81\0")),
            attribute(4, bytes(16)),
            write_number(16, 1000),
            write_number(17, 100),
            write_number(14, 1),
            write_number(13, 1500),
            attribute(10, b"\x45abcd"),
            write_number(99, 1),
        )
    )
    assert found == Queued(
        queue=5,
        id=7,
        hook=3,
        hw_protocol=0x0800,
        payload=b"\x45abcd",
        mark=0x2A,
        in_index=3,
        out_index=4,
        uid=1000,
        gid=100,
        full_bytes=1500,
    )


def test_a_packet_as_the_kernel_sent_it():
    body = bytes.fromhex(
        "0200000c0b000100000000010800030008000600000000010800100000000000080011000000000008000d0000000021"
        "08000e000000000118000a004500002183aa40004011b91f7f0000017f000001"
    )
    assert queued(memoryview(body)) == Queued(
        queue=12,
        id=1,
        hook=3,
        hw_protocol=0x0800,
        payload=bytes.fromhex("4500002183aa40004011b91f7f0000017f000001"),
        out_index=1,
        uid=0,
        gid=0,
        full_bytes=33,
    )


def test_a_packet_of_which_nothing_is_told():
    assert queued(packet(HEADER, queue=65535)) == Queued(65535, 7, 3, 0x0800)


@pytest.mark.parametrize("kind", [3, 5, 6, 13, 16, 17])
@pytest.mark.parametrize("value", [b"", b"abc", bytes(5), bytes(8)])
def test_numbers_of_another_size(kind, value):
    with pytest.raises(WireError, match="where a queued packet has a number"):
        queued(packet(HEADER, attribute(kind, value)))


@pytest.mark.parametrize(
    "members",
    [
        (),
        (attribute(10, b"\x45"),),
        (attribute(1, bytes(6)),),
        (HEADER, b"\3\0\12\0"),
        (HEADER, b"\xff\xff\12\0"),
        (b"\0\0\0\0", HEADER),
    ],
)
def test_what_does_not_fit(members):
    with pytest.raises(WireError):
        queued(packet(*members))


@pytest.mark.parametrize("size", range(4))
def test_too_short(size):
    with pytest.raises(WireError):
        queued(memoryview(bytes(size)))


@pytest.mark.parametrize(
    ("verdict", "mark", "members"),
    [
        (ACCEPT, None, "0c000200 00000001 01020304"),
        (DROP, None, "0c000200 00000000 01020304"),
        (ACCEPT, 0, "0c000200 00000001 01020304 08000300 00000000"),
        (ACCEPT, 0xAABBCCDD, "0c000200 00000001 01020304 08000300 aabbccdd"),
        (REPEAT, 0x0100, "0c000200 00000004 01020304 08000300 00000100"),
    ],
)
def test_a_verdict(verdict, mark, members):
    data = verdict_request(0x1234, 0x01020304, verdict, mark)
    content = bytes.fromhex("00001234" + members.replace(" ", ""))
    assert data == struct.pack("=IHHII", 16 + len(content), 0x0301, 1, 0, 0) + content


numbers = st.integers(0, 0xFFFFFFFF)
maybe = st.none() | numbers


@given(
    st.builds(
        Queued,
        queue=st.integers(0, 0xFFFF),
        id=numbers,
        hook=st.integers(0, 255),
        hw_protocol=st.integers(0, 0xFFFF),
        payload=st.binary(max_size=300),
        mark=numbers,
        in_index=maybe,
        out_index=maybe,
        uid=maybe,
        gid=maybe,
        full_bytes=maybe,
    ),
    st.randoms(use_true_random=False),
)
def test_there_and_back(each, chance):
    told = {3: each.mark, 5: each.in_index, 6: each.out_index, 13: each.full_bytes, 16: each.uid, 17: each.gid}
    members = [write_number(kind, value) for kind, value in told.items() if value is not None]
    members.append(attribute(1, struct.pack(">IHB", each.id, each.hw_protocol, each.hook)))
    members.append(attribute(10, each.payload))
    chance.shuffle(members)
    assert queued(packet(*members, queue=each.queue)) == each


@given(st.binary(max_size=120))
@settings(deadline=None)
def test_random_bytes(data):
    for each in (data, bytes(packet(HEADER)) + data):
        try:
            found = queued(memoryview(each))
        except WireError:
            continue
        assert len(found.payload) <= len(each)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40), st.binary(max_size=12)), max_size=6))
@settings(deadline=None)
def test_attributes_that_lie(members):
    data = b"".join(struct.pack("=HH", length, kind) + value for kind, length, value in members)
    try:
        found = queued(packet(HEADER, data))
    except WireError:
        return
    assert len(found.payload) <= len(data)


@pytest.mark.parametrize("end", range(len(packet(HEADER, write_number(3, 1), attribute(10, b"\x45ab")))))
def test_cut_at_every_place(end):
    whole = packet(HEADER, write_number(3, 1), attribute(10, b"\x45ab"))
    try:
        found = queued(whole[:end])
    except WireError:
        return
    assert found.id == 7
    assert found.payload in (b"", b"\x45ab")
