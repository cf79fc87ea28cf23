"""Hostile bytes at the readers of netlink messages: what does not fit is a WireError, and nothing else is raised."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.wire import conntrack, nflog, nftables, rtnetlink, sockdiag
from pfw.wire.conntrack import Tuple
from pfw.wire.error import WireError
from pfw.wire.netlink import attribute, messages, nested, parts, request
from pfw.wire.nfnetlink import write_long, write_number, write_text

SEED = 20_240_301
MUTATIONS = 1500

A, B = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
HOP = struct.pack("=HBBi", 16, 0, 0, 2) + attribute(5, A)
TCP_ENTRY = next(body for *_, body in parts(conntrack.create_request(Tuple(6, A, B, 1000, 443), 1)))
PING6 = Tuple(58, bytes(16), bytes(16), None, None, 128, 0, 7)
CHANGES = [nftables.SetChange("a", "add", [nftables.SetElement(A, 900, B), nftables.SetElement(B)])]

READERS = {
    "entry": (conntrack.entry, bytes(TCP_ENTRY) + nested(9, write_long(1, 7), write_long(2, 70))),
    "ping": (conntrack.entry, bytes(4) + conntrack.write_tuple(1, PING6) + conntrack.write_tuple(2, PING6)),
    "logged": (
        nflog.logged,
        b"\2\0\0\7" + attribute(1, b"\x08\0\1\0") + attribute(3, bytes(16)) + write_text(10, "pfw") + attribute(9, A),
    ),
    "chain": (
        nftables.read_chain,
        b"\1\0\0\0" + write_text(3, "in") + nested(4, write_number(1, 1), write_number(2, 7)) + write_text(7, "filter"),
    ),
    "rule": (nftables.read_rule, b"\1\0\0\0" + write_text(2, "in") + write_long(3, 6) + nested(4, write_text(1, "x"))),
    "counter": (nftables.read_counter, b"\1\0\0\0" + write_text(2, "c") + nested(4, write_long(1, 1), write_long(2, 2))
    ),
    "elements": (
        lambda body: list(nftables.read_elements(body)),
        next(bytes(body) for kind, _, _, body in parts(nftables.change_request("t", CHANGES)[0]) if kind == 2572),
    ),
    "gateways": (
        rtnetlink.default_gateways,
        struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(18, b"\2\0" + A) + attribute(9, HOP * 2),
    ),
    "way": (rtnetlink.route_index, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + attribute(4, bytes(4))),
    "address": (rtnetlink.interface_address, struct.pack("=BBBBI", 2, 24, 0, 0, 3) + attribute(1, A) + attribute(2, B)),
    "socket": (sockdiag.diag_socket, struct.pack("=BBBB2s2s16s16sI8s12xII", 10, 1, 0, 0, b"", b"", A, B, 0, b"", 0, 9)),
}  # fmt: skip


def fingerprint(body):
    """What a table's digest makes of a rule and of an anonymous set that are these bytes."""
    elements = list(nftables.read_raw_elements(body))
    rule = nftables.Rule("in", 1, bytes(body), bytes(body))
    return nftables.fingerprint(0, [nftables.Chain("t", "in", None)], [rule], {"__set0": (1, elements)})


RULE = nested(1, write_text(1, "lookup"), nested(2, write_text(1, "__set0"))) + nested(
    1, write_text(1, "immediate"), nested(2, nested(2, nested(2, write_number(1, 9), write_text(2, "__chain0"))))
)
READERS["digest"] = (fingerprint, RULE)


def read(reader, data):
    try:
        return reader(memoryview(data))
    except WireError as error:
        text = str(error)
    assert text.isprintable()
    return None


@pytest.mark.parametrize("name", READERS)
def test_the_examples_are_read(name):
    reader, example = READERS[name]
    assert reader(memoryview(example)) is not None


@pytest.mark.parametrize("name", READERS)
@given(data=st.binary(max_size=120))
@settings(deadline=None, max_examples=60)
def test_random_bytes(name, data):
    read(READERS[name][0], data)


@pytest.mark.parametrize("name", READERS)
def test_cut_at_every_place(name):
    reader, example = READERS[name]
    for end in range(len(example)):
        read(reader, example[:end])


@pytest.mark.parametrize("name", READERS)
def test_mutated(name):
    reader, example = READERS[name]
    chance = random.Random(SEED)
    for _ in range(MUTATIONS):
        changed = bytearray(example)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed))
            changed[at] = chance.choice((0, 1, 4, 5, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        read(reader, bytes(changed))


@given(st.lists(st.binary(max_size=40), max_size=4), st.binary(max_size=40), st.integers(0, 60))
@settings(deadline=None)
def test_messages(bodies, junk, cut):
    data = b"".join(request(20, body + bytes(-len(body) & 3)) for body in bodies)
    for each in (data + junk, data[: len(data) - cut], junk):
        for reader in (parts, messages):
            try:
                for found in reader(each):
                    assert len(found[-1]) <= len(each)
            except (WireError, OSError):
                pass
