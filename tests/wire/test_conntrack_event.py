"""Events of connection tracking: as the kernel writes them, and what the careful way makes of anything else."""

import pytest

from pfw.model.flow import split_key
from pfw.model.packet import GRE, ICMP, ICMPV6, SCTP, TCP, UDP
from pfw.wire.conntrack import IPS_CONFIRMED, IPS_SEEN_REPLY, Entry, Tuple, write_tuple
from pfw.wire.conntrack_event import DESTROY, NEW, UPDATE, Event, flow_key, read_event
from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, nested, parts
from pfw.wire.nfnetlink import write_long, write_number

BEGAN = bytes.fromhex(
    "d0000000000100000000000000000000020000003400018014000180080001000a4d0001080002000a4d00021c00028005000100"
    "0600000006000200ea4000000600030013b900003400028014000180080001000a4d0002080002000a4d00011c00028005000100"
    "060000000600020013b9000006000300ea40000008000c00a9ffe26f080003000000000a080007000000003c300004802c000180"
    "0500010002000000050002000a000000050003000a000000060004000300000006000500230000000c001b0018eb1d8062f5e4cc"
)  # fmt: skip
ENDED = bytes.fromhex(
    "340100000201000000000000321000000a000000540001802c00018014000300fd77000000000000000000000000000114000400"
    "fd77000000000000000000000000000224000280050001003a00000006000700102f000005000800800000000500090000000000"
    "540002802c00018014000300fd77000000000000000000000000000214000400fd77000000000000000000000000000124000280"
    "050001003a00000006000700102f00000500080081000000050009000000000008000c00317ccfd8080003000000020a08000700"
    "0000001d1c0009800c00010000000000000000010c00020000000000000000681c000a800c00010000000000000000010c000200"
    "00000000000000681c0014800c00010018eb1d8053efc26c0c00020018eb1d80740122ed0c001b0018eb1d807401231f"
)  # fmt: skip
"""As Linux 6.18 tells of a TCP handshake that goes on, and of the end of a ping."""
A, B, C = bytes((10, 77, 0, 1)), bytes((10, 77, 0, 2)), bytes((192, 0, 2, 9))
A6, B6 = bytes.fromhex("fd77") + bytes(13) + b"\1", bytes.fromhex("fd77") + bytes(13) + b"\2"


def read(data):
    (event,) = [read_event(kind, flags, body) for kind, flags, _, body in parts(data)]
    return event


def told(forth, back, *more, kind=0x100, flags=0x600):
    """What is made of a message with these tuples."""
    return read_event(kind, flags, memoryview(bytes(4) + write_tuple(1, forth) + write_tuple(2, back) + b"".join(more)))


def test_a_connection_that_changed():
    assert read(BEGAN) == Event(
        what=UPDATE,
        key=A + B + b"\xea\x40\x13\xb9",
        protocol=TCP,
        source=A,
        destination=B,
        source_port=59968,
        port=5049,
        icmp_type=None,
        reply_source=None,
        reply_port=None,
        id=0xA9FFE26F,
        status=IPS_SEEN_REPLY | IPS_CONFIRMED,
        tcp_state=2,
        time_ns=0x18EB1D8062F5E4CC,
    )


def test_a_connection_that_ended():
    event = read(ENDED)
    assert (event.what, event.protocol, event.source, event.destination) == (DESTROY, ICMPV6, A6, B6)
    assert (event.source_port, event.port, event.icmp_type, event.reply_port) == (None, None, 128, None)
    assert split_key(event.key) == (ICMPV6, A6, B6, b"\x10\x2f\x80\0")
    assert (event.packets, event.bytes, event.reply_packets, event.reply_bytes) == (1, 104, 1, 104)
    assert 0 < event.stop_ns - event.start_ns < 10**9
    assert 0 < event.time_ns - event.stop_ns < 10**6


@pytest.mark.parametrize(
    ("kind", "flags", "what"),
    [
        (0x100, 0x600, NEW),
        (0x100, 0x400, NEW),
        (0x100, 0, UPDATE),
        (0x102, 0, DESTROY),
        (0x101, 0, None),
        (0x200, 0x600, None),
        (2, 0, None),
    ],
)
def test_what_happened(kind, flags, what):
    event = told(Tuple(TCP, A, B, 1, 2), Tuple(TCP, B, A, 2, 1), kind=kind, flags=flags)
    assert (None if event is None else event.what) == what


def test_who_answers_where_the_destination_was_rewritten():
    event = told(Tuple(TCP, A, B, 1000, 8080), Tuple(TCP, C, A, 80, 1000))
    assert (event.destination, event.port, event.reply_source, event.reply_port) == (B, 8080, C, 80)


def test_who_answers_where_the_source_was_rewritten():
    event = told(Tuple(TCP, A, B, 1000, 80), Tuple(TCP, B, C, 80, 2000))
    assert (event.reply_source, event.reply_port) == (None, None)


@pytest.mark.parametrize(
    ("forth", "tail", "ports", "icmp_type"),
    [
        (Tuple(UDP, A6, B6, 5353, 53), b"\x14\xe9\0\x35", (5353, 53), None),
        (Tuple(SCTP, A, B, 1, 2), b"\0\1\0\2", (1, 2), None),
        (Tuple(GRE, A, B, 7, 8), bytes(4), (None, None), None),
        (Tuple(ICMP, A, B, None, None, 8, 0, 77), b"\0\x4d\x08\0", (None, None), 8),
        (Tuple(89, A, B), bytes(4), (None, None), None),
        (Tuple(UDP, A, B), bytes(4), (None, None), None),
        (Tuple(ICMP, A, B), bytes(4), (None, None), None),
    ],
)
def test_protocols(forth, tail, ports, icmp_type):
    """A key of GRE (the "port" of its tuple) is no port."""
    event = told(forth, Tuple(forth.protocol, forth.destination, forth.source, forth.port, forth.source_port))
    assert split_key(event.key) == (forth.protocol, forth.source, forth.destination, tail)
    assert ((event.source_port, event.port), event.icmp_type) == (ports, icmp_type)


def test_what_else_may_be_told():
    event = told(
        Tuple(UDP, A, B, 1, 2),
        Tuple(UDP, B, A, 2, 1),
        attribute(18, b"\0\7"),
        write_number(8, 0x2A),
        attribute(99, b"?"),
        nested(20, write_long(1, 5)),
    )
    assert (event.zone, event.mark, event.start_ns, event.stop_ns, event.time_ns) == (7, 0x2A, 5, None, None)


def test_the_key_of_an_entry():
    entry = Entry(UDP, A, B, 1, 2, None, None, None, B, A, 2, 1)
    assert flow_key(entry) == told(Tuple(UDP, A, B, 1, 2), Tuple(UDP, B, A, 2, 1)).key


@pytest.mark.parametrize(
    "parts_of",
    [
        [attribute(1, b"\1\0")],
        [attribute(1, b"\x11"), attribute(2, b"\1\0\0")],
        [attribute(1, b"\x11"), attribute(2, b"\1\0\0\0")],
        [attribute(1, b"\1"), attribute(5, b"\1\0")],
    ],
)
def test_numbers_that_no_packet_can_hold(parts_of):
    addresses = nested(1, attribute(1, A), attribute(2, B))
    body = bytes(4) + nested(1, addresses, nested(2, *parts_of)) + write_tuple(2, Tuple(UDP, B, A, 2, 1))
    with pytest.raises(WireError):
        read_event(0x100, 0, memoryview(body))


@pytest.mark.parametrize("body", [b"", bytes(3), bytes(4), bytes(4) + write_tuple(1, Tuple(TCP, A, B, 1, 2))])
def test_too_little(body):
    with pytest.raises(WireError):
        read_event(0x100, 0, memoryview(body))
