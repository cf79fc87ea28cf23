"""Netlink's messages and attributes, and what netfilter adds to them."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.wire.error import WireError
from pfw.wire.netlink import (
    ATTRIBUTE_BYTES_MAX,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    attribute,
    attributes,
    error_number,
    messages,
    nested,
    parts,
    request,
)
from pfw.wire.nfnetlink import (
    CONNTRACK,
    LOG,
    NFTABLES,
    batch,
    message_type,
    question,
    read_number,
    read_text,
    split,
    write_long,
    write_number,
    write_text,
)


def refusal(number, sequence=1):
    return request(NLMSG_ERROR, struct.pack("=i", -number) + bytes(16), 0, sequence)


class TestMessages:
    def test_their_parts(self):
        data = request(20, b"abc", NLM_F_REQUEST, 7) + b"\0" + request(21, b"", NLM_F_ACK, 8)
        assert [(kind, flags, sequence, bytes(body)) for kind, flags, sequence, body in parts(data)] == [
            (20, 1, 7, b"abc"),
            (21, 4, 8, b""),
        ]

    @pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
    def test_a_length_that_does_not_fit(self, length):
        with pytest.raises(WireError, match="netlink message"):
            list(parts(struct.pack("=IHHII", length, 20, 0, 1, 0) + bytes(4)))

    def test_errors(self):
        assert next(messages(refusal(0)))[0] == NLMSG_ERROR
        with pytest.raises(FileNotFoundError):
            list(messages(refusal(errno.ENOENT)))
        assert error_number(memoryview(struct.pack("=i", -17))) == 17
        with pytest.raises(WireError, match="netlink error"):
            error_number(memoryview(b"\0\0"))

    @given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
    def test_attributes_there_and_back(self, members):
        data = b"".join(attribute(kind, value) for kind, value in members)
        assert len(data) % 4 == 0
        assert [(kind, bytes(value)) for kind, value in attributes(memoryview(data))] == members
        outer = list(attributes(memoryview(nested(5, data))))
        assert [(kind, bytes(value)) for kind, value in outer] == [(5, data)]

    def test_an_attribute_that_is_too_long(self):
        attribute(1, bytes(ATTRIBUTE_BYTES_MAX - 4))
        with pytest.raises(ValueError, match="65535"):
            attribute(1, bytes(ATTRIBUTE_BYTES_MAX - 3))


class TestNetfilter:
    def test_a_question(self):
        assert message_type(NFTABLES, 12) == 2572
        data = question(LOG, 1, 2, write_number(3, 9), NLM_F_REQUEST, 5, 0x0102)
        assert data.hex() == "1c000000010401000500000000000000" + "02000102" + "0800030000000009"
        ((kind, _, sequence, body),) = parts(data)
        assert (kind, sequence) == (message_type(LOG, 1), 5)
        family, resource, rest = split(body)
        assert (family, resource) == (2, 0x0102)
        assert [(kind, read_number(value)) for kind, value in attributes(rest)] == [(3, 9)]

    def test_a_batch_as_nft_sends_it(self):
        data = batch(NFTABLES, [question(NFTABLES, 14, 1, sequence=2)], 1)
        assert [(kind, sequence, bytes(body).hex()) for kind, _, sequence, body in parts(data)] == [
            (16, 1, "0000000a"),
            (2574, 2, "01000000"),
            (17, 1, "0000000a"),
        ]

    def test_too_short(self):
        with pytest.raises(WireError, match="3 bytes"):
            split(memoryview(bytes(3)))

    @given(st.integers(0, 0xFFFFFFFF), st.integers(0, (1 << 64) - 1), st.text(max_size=20))
    def test_values_there_and_back(self, number, long, text):
        found = dict(attributes(memoryview(write_number(1, number) + write_long(2, long))))
        assert (read_number(found[1]), read_number(found[2])) == (number, long)
        if "\0" not in text:
            ((_, value),) = attributes(memoryview(write_text(3, text)))
            assert read_text(value) == text

    @pytest.mark.parametrize("size", [0, 3, 5, 9])
    def test_a_number_of_a_size_that_there_is_not(self, size):
        with pytest.raises(WireError, match="number"):
            read_number(memoryview(bytes(size)))

    def test_texts(self):
        assert read_text(memoryview(b"pfw 3\0\0\0")) == "pfw 3"
        assert read_text(memoryview(b"")) == ""
        assert read_text(memoryview(b"a\xffb")) == "a\\xffb"
        with pytest.raises(ValueError, match="zero byte"):
            write_text(1, "a\0b")

    def test_subsystems_are_told_apart(self):
        assert len({message_type(each, 1) for each in (CONNTRACK, LOG, NFTABLES)}) == 3
