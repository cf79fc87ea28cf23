"""Sockets as sock_diag tells them: bytes <-> values. What the kernel makes of it: drivers/test_sockets.py."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, parts
from pfw.wire.sockdiag import diag_socket, receiver_request, socket_request, socket_traits

ANSWER = struct.Struct("=BBBB2s2s16s16sIQ12xII")
A, B = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 2])
MAPPED = bytes(10) + b"\xff\xff"


def answer(family=2, source=A, destination=B, state=1):
    return ANSWER.pack(family, state, 0, 0, b"\x01\xbb", b"\x00\x35", source, destination, 3, 77, 1000, 4711)


def test_a_socket():
    found = diag_socket(memoryview(answer()))
    assert (found.source, found.source_port, found.destination, found.destination_port) == (
        A,
        b"\x01\xbb",
        B,
        b"\0\x35",
    )
    assert (found.state, found.interface_index, found.uid, found.inode, found.cookie) == (1, 3, 1000, 4711, 77)


def test_ipv4_within_ipv6():
    assert diag_socket(memoryview(answer(10, MAPPED + A, MAPPED + B))).source == A
    assert diag_socket(memoryview(answer(10, MAPPED + A, bytes(16)))).source == MAPPED + A


def test_what_follows():
    members = attribute(8, b"\0") + attribute(15, struct.pack("=I", 0x80000001)) + attribute(21, struct.pack("=Q", 9))
    traits = socket_traits(memoryview(answer() + members))
    assert (traits.mark, traits.cgroup) == (0x80000001, 9)
    traits = socket_traits(memoryview(answer()))
    assert (traits.mark, traits.cgroup) == (None, None)


@pytest.mark.parametrize("members", [attribute(15, b"abc"), attribute(21, bytes(7)), b"\x03\0\0\0", b"\xff\0\x0f\0"])
def test_what_follows_and_does_not_fit(members):
    with pytest.raises(WireError):
        socket_traits(memoryview(answer() + members))


def identity(message):
    ((_, flags, sequence, body),) = parts(message)
    return flags, sequence, struct.unpack("=BBBxI2s2s16s16sI8s", body)


def test_a_question_for_one_socket_is_the_sockets_for_tcp_and_the_packets_for_udp():
    flags, sequence, found = identity(receiver_request(6, A, 443, B, 53, 3, 9))
    assert (flags, sequence) == (1, 9)
    assert found == (2, 6, 0, 0xFFFFFFFF, b"\x01\xbb", b"\0\x35", A + bytes(12), B + bytes(12), 3, b"\xff" * 8)
    assert identity(receiver_request(17, A, 443, B, 53))[2][4:8] == (
        b"\0\x35",
        b"\x01\xbb",
        B + bytes(12),
        A + bytes(12),
    )
    assert identity(receiver_request(6, bytes(16), 1, bytes(16), 2))[2][0] == 10


@pytest.mark.parametrize("wrong", [(A, 1, bytes(16), 2), (A[:3], 1, B[:3], 2), (A, -1, B, 2), (A, 1, B, 65536)])
def test_no_question(wrong):
    with pytest.raises(ValueError, match=r"addresses|ports"):
        receiver_request(6, *wrong)


def test_a_question_for_all():
    ((_, flags, _, body),) = parts(socket_request(10, 17, (1, 7)))
    assert (flags, len(body), body[:2].tobytes()) == (0x301, 56, bytes((10, 17)))
    assert struct.unpack_from("=I", body, 4)[0] == 0x82
    assert not any(body[8:])
    ((_, _, _, body),) = parts(socket_request(10, 17, (1, 7), port=b"\x14\xe9"))
    assert (body[8:10], any(body[10:])) == (b"\x14\xe9", False)


@given(st.binary(max_size=200), st.booleans())
def test_anything(data, complete):
    body = memoryview(answer() + data if complete else data)
    for read in (diag_socket, socket_traits):
        with suppress(WireError):
            read(body)
