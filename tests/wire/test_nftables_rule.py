"""Batches that put one rule into a chain, byte by byte; `tests/netns/test_nfqueue.py` shows what a kernel makes of
them."""

import pytest

from pfw.wire.netlink import attributes, parts
from pfw.wire.nfnetlink import split
from pfw.wire.nftables_rule import close_batch, queue_batch

PLACE = "08000100 70667700 08000200 61736b00"
"""Table pfw, chain ask."""

NATIVE = "0a000100 71756575 65000000 0c000280 06000100 12340000"
XTABLES = "0b000100 74617267 6574000024000280 0c000100 4e465155 45554500 08000200 00000003 0c000300 3412 0100 0000 0000"
DROP = "0e000100 696d6d65 64696174 65000000 1c000280 08000100 00000000 10000280 0c000280 08000100 00000000"


def told(data):
    """Type, flags, sequence, family, resource and attributes of each message."""
    found = []
    for kind, flags, sequence, body in parts(data):
        family, resource, rest = split(body)
        found.append((kind, flags, sequence, family, resource, bytes(rest)))
    return found


@pytest.mark.parametrize(
    ("request_and_last", "expression"),
    [
        (queue_batch("pfw", "ask", 0x1234, xtables=False), NATIVE),
        (queue_batch("pfw", "ask", 0x1234, xtables=True), XTABLES),
        (close_batch("pfw", "ask"), DROP),
    ],
    ids=["native", "xtables", "drop"],
)
def test_a_batch(request_and_last, expression):
    data, last = request_and_last
    place, rule = bytes.fromhex(PLACE), bytes.fromhex(expression)
    size = len(rule)
    nest = (size + 8).to_bytes(2, "little") + b"\x04\x80" + (size + 4).to_bytes(2, "little") + b"\x01\x80"
    assert last == 3
    assert told(data) == [
        (16, 0x1, 1, 0, 10, b""),
        (0xA08, 0x1, 2, 1, 0, place),
        (0xA06, 0xC05, 3, 1, 0, place + nest + rule),
        (17, 0x1, 1, 0, 10, b""),
    ]


@pytest.mark.parametrize("xtables", [False, True])
def test_nothing_lets_a_packet_bypass_the_queue(xtables):
    data, _ = queue_batch("pfw", "ask", 7, xtables=xtables)
    rule = told(data)[2][-1]
    (expression,) = [value for kind, value in attributes(memoryview(rule)) if kind == 4]
    ((_, member),) = attributes(expression)
    found = dict(attributes(dict(attributes(member))[2]))
    assert (bytes(found[3])[4:] == bytes(4)) if xtables else (set(found) == {1})


@pytest.mark.parametrize("name", ["a\0b", "a" * 70_000])
def test_names_that_no_message_can_hold(name):
    with pytest.raises(ValueError, match=r"zero byte|netlink attribute"):
        close_batch("pfw", name)


@pytest.mark.parametrize("queue", [0, 65535])
def test_any_queue(queue):
    data, _ = queue_batch("pfw", "ask", queue, xtables=False)
    assert data[-20 - 4 : -20 - 2] == queue.to_bytes(2, "big")
