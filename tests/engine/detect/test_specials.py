"""What ICMP errors say of the packets that they quote. The rest is told by `test_watch.py`, and on real devices."""

import pytest

from pfw.engine.detect.specials import Quoted, Specials, quoted
from pfw.model.observation import ArpSeen, Odd, Reply
from pfw.model.packet import ICMP, ICMPV6, Arp, Fragment, Packet

NOON = 1_795_392_000.0
ROUTER, HERE, THERE = bytes((192, 0, 2, 254)), bytes((192, 0, 2, 1)), bytes((198, 51, 100, 2))
KEY = HERE + THERE + b"\x9c\x40\x01\xbb"


def error(protocol, kind, code, **fields):
    fields = {"source": ROUTER, "destination": HERE, "quoted_key": KEY} | fields
    return Packet(protocol=protocol, icmp_type=kind, icmp_code=code, **fields)


@pytest.mark.parametrize(
    ("protocol", "kind", "code", "reply"),
    [
        (ICMP, 3, 3, Reply.REFUSED),
        (ICMP, 3, 0, Reply.FORBIDDEN),
        (ICMP, 3, 13, Reply.FORBIDDEN),
        (ICMP, 3, 4, None),  # too big: it will be sent again
        (ICMP, 11, 0, Reply.EXPIRED),
        (ICMP, 5, 1, None),
        (ICMP, 1, 4, None),
        (ICMPV6, 1, 4, Reply.REFUSED),
        (ICMPV6, 1, 0, Reply.FORBIDDEN),
        (ICMPV6, 3, 0, Reply.EXPIRED),
        (ICMPV6, 2, 0, None),
        (ICMPV6, 11, 0, None),
    ],
)
def test_errors(protocol, kind, code, reply):
    found = quoted(error(protocol, kind, code), NOON)
    assert found == (None if reply is None else Quoted(NOON, KEY, ROUTER, reply))


@pytest.mark.parametrize("missing", ["quoted_key", "source"])
def test_errors_that_name_nothing(missing):
    assert quoted(error(ICMP, 3, 3, **{missing: None}), NOON) is None
    assert quoted(Packet(), NOON) is None


@pytest.mark.parametrize(
    ("interface", "vlans", "link"),
    [(None, (), ""), ("eth0", (), "eth0"), (None, (7,), "7"), ("eth0", (7, 8), "eth0 7 8")],
)
def test_the_link_of_a_neighbour(interface, vlans, link):
    arp = Arp(1, bytes(6), HERE, bytes(6), THERE)
    (seen,) = Specials().packet(Packet(arp=arp, vlans=vlans), NOON, interface)
    assert seen == ArpSeen(NOON, None, None, arp, link)


def test_holes_are_told_of_once_they_are_old():
    specials = Specials()
    for start, size, more in ((0, 64, True), (72, 64, False)):
        piece = Packet(protocol=17, source=HERE, destination=THERE, fragment=Fragment(7, start, more, size))
        assert list(specials.packet(piece, NOON)) == []
    assert specials.gaps(NOON + 1) == []
    assert specials.gaps(NOON + 60) == [Odd(NOON + 60, HERE, THERE, 17, ("gap",), is_fragment=True)]
    assert specials.gaps(NOON + 60, is_end=True) == []
