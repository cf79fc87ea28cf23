"""Entries of connection tracking: as the kernel writes them, and as they are written for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.model.packet import ICMP, ICMPV6, TCP, UDP
from pfw.wire.conntrack import (
    IPS_ASSURED,
    IPS_CONFIRMED,
    IPS_SEEN_REPLY,
    Entry,
    Tuple,
    create_request,
    delete_request,
    dump_request,
    entry,
    read_tuple,
    write_tuple,
)
from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, attributes, nested, parts
from pfw.wire.nfnetlink import split, write_long, write_number

KERNEL = bytes.fromhex(
    "02000000"
    "3400018014000180080001000a009dc8080002000aff00011c000280050001000600000006000200a1b000000600030001bb0000"
    "3400028014000180080001000aff0001080002000a009dc81c00028005000100060000000600020001bb000006000300a1b00000"
    "080003000000000e0800080000000000" "08000c00983d7057" "08000b0000000001" "0800070000069 77e".replace(" ", "") +
    "300004802c000180050001000300000005000200000000000500030000000000060004000800000006000500080000001c001880"
    "080001000000000008000200000000000800030000000000"
)  # fmt: skip
"""An entry as Linux 6.18 tells it."""
SOURCE, DESTINATION = bytes((10, 0, 157, 200)), bytes((10, 255, 0, 1))
A, B = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
A6, B6 = bytes(15) + b"\1", bytes(15) + b"\2"

addresses = st.sampled_from([4, 16]).flatmap(
    lambda size: st.tuples(*[st.binary(min_size=size, max_size=size)] * 2)
)  # fmt: skip
ports = st.integers(0, 65535)
tuples = st.one_of(
    st.builds(
        lambda ends, protocol, *rest: Tuple(protocol, *ends, *rest),
        addresses, st.sampled_from([TCP, UDP, 132, 33, 47]), ports, ports,
    ),
    st.builds(
        lambda ends, protocol, kind, code, identifier: Tuple(protocol, *ends, None, None, kind, code, identifier),
        addresses, st.sampled_from([ICMP, ICMPV6]), st.integers(0, 255), st.integers(0, 255), ports,
    ),
    st.builds(lambda ends, protocol: Tuple(protocol, *ends), addresses, st.sampled_from([2, 50, 89])),
)  # fmt: skip


def inside(data):
    """What an attribute holds."""
    ((_, value),) = attributes(memoryview(data))
    return value


class TestReading:
    def test_an_entry_of_the_kernel(self):
        assert entry(memoryview(KERNEL)) == Entry(
            protocol=TCP,
            source=SOURCE,
            destination=DESTINATION,
            source_port=41392,
            port=443,
            icmp_type=None,
            icmp_code=None,
            icmp_id=None,
            reply_source=DESTINATION,
            reply_destination=SOURCE,
            reply_source_port=443,
            reply_port=41392,
            status=IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED,
            id=0x983D7057,
            tcp_state=3,
            timeout_s=431998,
        )

    def test_all_that_may_be_told(self):
        one = Tuple(ICMPV6, A6, B6, None, None, 128, 0, 77)
        found = entry(
            memoryview(
                bytes((10, 0, 0, 0))
                + write_tuple(1, one)
                + write_tuple(2, Tuple(ICMPV6, B6, A6, None, None, 129, 0, 77))
                + write_number(8, 5)
                + attribute(18, b"\0\7")
                + nested(9, write_long(1, 3), write_long(2, 300))
                + nested(10, write_long(1, 4), write_long(2, 1 << 40))
            )
        )
        assert (found.icmp_type, found.icmp_code, found.icmp_id) == (128, 0, 77)
        assert (found.source_port, found.port, found.tcp_state, found.timeout_s) == (None, None, None, None)
        assert (found.mark, found.zone, found.id) == (5, 7, 0)
        assert (found.packets, found.bytes, found.reply_packets, found.reply_bytes) == (3, 300, 4, 1 << 40)

    def test_a_state_that_does_not_come_first(self):
        more = nested(4, nested(1, attribute(2, b"\0"), attribute(1, b"\7")))
        found = entry(memoryview(KERNEL.replace(KERNEL[KERNEL.index(b"\x30\0\4\x80") :], more)))
        assert found.tcp_state == 7

    def test_a_zone_of_the_original_direction(self):
        zoned = nested(1, bytes(inside(write_tuple(1, Tuple(UDP, A, B, 1, 2)))), attribute(3, b"\0\x09"))
        found = entry(memoryview(bytes((2, 0, 0, 0)) + zoned + write_tuple(2, Tuple(UDP, B, A, 2, 1))))
        assert found.zone == 9

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            bytes(4),
            KERNEL[: 4 + 52],
            bytes(4) + nested(1) + nested(2),
            bytes(4) + nested(1, nested(1, attribute(1, A)), nested(2)) * 2,
            bytes(4) + nested(1, nested(1, attribute(1, A6), attribute(2, A6)), nested(2)) + nested(2),
            KERNEL[:-1],
            KERNEL.replace(b"\x08\0\3\0\0\0\0\x0e", b"\x07\0\3\0\0\0\0\x0e"),
        ],
    )
    def test_what_does_not_fit(self, data):
        with pytest.raises(WireError):
            entry(memoryview(data))


class TestTuples:
    @given(tuples)
    def test_there_and_back(self, values):
        assert read_tuple(inside(write_tuple(1, values))) == values

    def test_the_fast_way_is_taken_for_what_the_kernel_writes(self):
        for values in (Tuple(TCP, A, B, 1, 2), Tuple(UDP, A6, B6, 3, 4)):
            assert len(inside(write_tuple(1, values))) in (48, 72)

    def test_another_order_is_read_too(self):
        ends = nested(1, attribute(2, B), attribute(1, A))
        parts = nested(2, attribute(3, b"\1\xbb"), attribute(2, b"\0\7"), attribute(1, b"\6"))
        assert read_tuple(memoryview(ends + parts)) == Tuple(TCP, A, B, 7, 443)
        assert read_tuple(memoryview(parts + ends)) == Tuple(TCP, A, B, 7, 443)

    @pytest.mark.parametrize(("source", "destination"), [(A, B6), (b"", b""), (bytes(5), bytes(5))])
    def test_addresses_that_are_none(self, source, destination):
        with pytest.raises(ValueError, match="one family"):
            write_tuple(1, Tuple(TCP, source, destination, 1, 2))


class TestRequests:
    def test_the_list(self):
        ((kind, flags, _, body),) = parts(dump_request())
        assert (kind, flags, bytes(body)) == (0x0101, 0x301, bytes(4))

    @given(tuples, st.integers(0, 0xFFFFFFFF), st.integers(0, 65535))
    def test_forgetting_one(self, forth, number, zone):
        known = Entry(
            forth.protocol, forth.source, forth.destination, forth.source_port, forth.port,
            forth.icmp_type, forth.icmp_code, forth.icmp_id, b"", b"", None, None, id=number, zone=zone,
        )  # fmt: skip
        ((kind, flags, sequence, body),) = parts(delete_request(known, 9))
        assert (kind, flags, sequence) == (0x0102, 5, 9)
        family, _, rest = split(body)
        assert family == (2 if len(forth.source) == 4 else 10)
        found = dict(attributes(rest))
        assert read_tuple(found[1]) == forth
        assert bytes(found[12]) == number.to_bytes(4, "big")
        assert bytes(found.get(18, b"\0\0")) == zone.to_bytes(2, "big")

    @pytest.mark.parametrize(("source", "destination"), [(A, B), (A6, B6)])
    def test_making_one_of_tcp(self, source, destination):
        ((kind, flags, sequence, body),) = parts(create_request(Tuple(TCP, source, destination, 1000, 443), 4))
        assert (kind, flags, sequence) == (0x0100, 0x605, 4)
        made = entry(body)
        assert (made.source, made.destination, made.source_port, made.port) == (source, destination, 1000, 443)
        assert (made.reply_source, made.reply_destination) == (destination, source)
        assert (made.reply_source_port, made.reply_port) == (443, 1000)
        assert (made.status, made.tcp_state, made.timeout_s) == (14, 3, 432_000)
        # IP_CT_TCP_FLAG_BE_LIBERAL in both directions.
        assert bytes(body).count(b"\x08\x08") == 2

    def test_making_one_of_udp(self):
        ((_, _, _, body),) = parts(create_request(Tuple(UDP, A, B, 1000, 53), 1))
        made = entry(body)
        assert (made.protocol, made.status, made.tcp_state, made.timeout_s) == (UDP, 14, None, 120)
