"""Routers that are none, and networks that have several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.rogue_router import ALIVE_S, LEARN_S, PREFIXES_MAX, SEEN_MAX, RogueRouter
from pfw.model.address import parse_address as packed
from pfw.model.observation import Alert, Kind, NeighbourSeen, RouterSeen

GATE_MAC, EVIL_MAC = bytes.fromhex("525400000001"), bytes.fromhex("525400000003")
GATE, EVIL, HOST = packed("fe80::1"), packed("fe80::bad"), packed("fe80::5")
HOME, BAD = (packed("2001:db8::"), 64), (packed("2001:db8:bad::"), 64)
NAMES, BAD_NAMES = (packed("2001:db8::53"),), (packed("2001:db8:bad::53"),)


class Dialogue:
    def __init__(self, detector: RogueRouter | None = None) -> None:
        self.detector = detector or RogueRouter()
        self.found: list[Alert] = []

    def advertise(self, time, source=GATE, mac=GATE_MAC, prefixes=(HOME,), names=NAMES, **more):
        facts = {"hop_limit": 255, "lifetime_s": 1800} | more
        seen = RouterSeen(time, source, mac, prefixes=prefixes, name_servers=names, **facts)
        self.found += self.detector.observe(seen)

    def answer(self, time, mac, target=GATE, *, override=True, solicited=False):
        self.found += self.detector.observe(
            NeighbourSeen(
                time, target, HOST, mac, target, is_answer=True, mac=mac, override=override, solicited=solicited
            )
        )

    def end(self, time):
        self.found += self.detector.end(time)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize(
    ("said", "score", "words"),
    [
        ({"prefixes": (BAD,)}, 60, "for other prefixes: 2001:db8:bad::"),
        ({"names": BAD_NAMES}, 0, ""),
        ({"prefixes": (BAD,), "names": BAD_NAMES}, 70, "with other name servers: 2001:db8:bad::53"),
        ({"prefixes": (BAD,), "preference": 1}, 70, "and wants to be preferred"),
        ({"preference": 1}, 60, "and wants to be preferred"),
        ({"lifetime_s": 0, "names": BAD_NAMES}, 60, "with other name servers: 2001:db8:bad::53"),
        ({"time": LEARN_S + 2}, 0, ""),
        ({"time": LEARN_S + 2, "names": BAD_NAMES}, 60, "with other name servers: 2001:db8:bad::53"),
        ({"time": LEARN_S + 2, "prefixes": (), "names": ()}, 50, "beside fe80::1"),
        ({"time": ALIVE_S - 2, "prefixes": (BAD,)}, 60, "for other prefixes: 2001:db8:bad::"),
        ({"time": ALIVE_S + 2, "prefixes": (BAD,), "names": BAD_NAMES}, 0, ""),
    ],
)
def test_a_second_router(dialogue, said, score, words):
    dialogue.advertise(0)
    dialogue.advertise(**{"time": 2, "source": EVIL, "mac": EVIL_MAC} | said)
    assert dialogue.found == []
    dialogue.end(1000)
    if not score:
        assert dialogue.found == []
        return
    (alert,) = dialogue.found
    assert (alert.kind, alert.source, alert.score, alert.ban) == (Kind.ROGUE_ROUTER, EVIL, score, ())
    assert alert.evidence.startswith("52:54:00:00:00:03 advertises itself as a router beside fe80::1")
    assert words in alert.evidence


def test_who_was_there_first_is_no_newcomer_after_a_pause(dialogue):
    dialogue.advertise(0)
    dialogue.advertise(ALIVE_S + 100, EVIL, EVIL_MAC, prefixes=(BAD,), names=BAD_NAMES)
    for time in range(700, 1200, 100):
        dialogue.advertise(ALIVE_S + time)
        dialogue.advertise(ALIVE_S + time + 1, EVIL, EVIL_MAC, prefixes=(BAD,), names=BAD_NAMES)
    dialogue.end(9000)
    assert {(each.source, each.score) for each in dialogue.found} == {(EVIL, 70)}


def test_one_of_many_links_has_a_rogue(dialogue):
    a_router_of_many_links(dialogue)
    dialogue.advertise(4000, EVIL, EVIL_MAC, prefixes=(BAD,), link="trunk 3")
    dialogue.end(9000)
    (alert,) = dialogue.found
    assert (alert.source, alert.score) == (EVIL, 70)


def test_in_the_routers_name_that_it_is_none_any_more(dialogue):
    dialogue.advertise(0)
    dialogue.advertise(1, mac=EVIL_MAC, lifetime_s=0)
    (alert,) = dialogue.found
    assert (alert.source, alert.target, alert.score) == (EVIL_MAC, GATE, 85)


def test_the_lie_is_heard_before_the_router(dialogue):
    dialogue.advertise(0, mac=EVIL_MAC, lifetime_s=0)
    dialogue.advertise(1)
    dialogue.advertise(2, mac=EVIL_MAC, lifetime_s=0)
    assert {(each.source, each.target, each.score) for each in dialogue.found} == {(EVIL_MAC, GATE, 85)}


def test_took_leave_again_and_again(dialogue):
    for time in range(6):
        dialogue.advertise(time, lifetime_s=0 if time & 1 else 1800)
    (alert,) = dialogue.found
    assert (alert.source, alert.target, alert.score) == (None, GATE, 70)


@pytest.mark.parametrize("claim", ["advertisement", "neighbour"])
def test_the_routers_address_at_another_mac_while_it_goes_on(dialogue, claim):
    dialogue.advertise(0)
    if claim == "neighbour":
        dialogue.answer(10, EVIL_MAC)
    else:
        dialogue.advertise(10, mac=EVIL_MAC)
    assert dialogue.found == []
    dialogue.answer(20, GATE_MAC, solicited=True)
    (alert,) = dialogue.found
    assert (alert.source, alert.target, alert.score) == (EVIL_MAC, GATE, 80)


@pytest.mark.parametrize("from_one", [True, False])
def test_a_flood_gives_one_alert(dialogue, from_one):
    dialogue.advertise(0)
    for n in range(2000):
        source = EVIL if from_one else packed(f"fe80::{n + 16:x}")
        dialogue.advertise(5 + n / 1000, source, b"\2\0" + n.to_bytes(4), prefixes=((packed(f"2001:db8:{n:x}::"), 64),))
        dialogue.advertise(5 + n / 1000)
    dialogue.end(100)
    assert {(each.source, each.score) for each in dialogue.found} == {(None, 90)}
    assert len(dialogue.found) <= 12


@pytest.mark.parametrize(("source", "hop_limit"), [(GATE, 64), (packed("2001:db8::1"), 255)])
def test_from_beyond_the_link(dialogue, source, hop_limit):
    dialogue.advertise(0, source, hop_limit=hop_limit)
    (alert,) = dialogue.found
    assert (alert.source, alert.score) == (source, 60)


def one_router(d):
    for time in range(0, 4000, 200):
        d.advertise(time)
        d.answer(time, GATE_MAC)
    d.advertise(4000, lifetime_s=0)
    d.advertise(4010)
    d.advertise(4200, prefixes=((packed("2001:db8:1::"), 64),))


def two_routers_of_one_network(d):
    for time in range(0, 4000, 200):
        d.advertise(time)
        d.advertise(time + 1, packed("fe80::2"), b"\2\0\0\0\0\2")


def a_fellow_that_comes_back(d):
    for time in range(0, 4000, 200):
        d.advertise(time)
        if time > LEARN_S:
            d.advertise(time + 1, packed("fe80::2"), b"\2\0\0\0\0\2")


def to_the_office_and_home_again(d):
    for began, router, prefix, names in (
        (0, GATE, HOME, NAMES),
        (3300, EVIL, BAD, BAD_NAMES),
        (6600, GATE, HOME, NAMES),
    ):
        for time in range(began, began + 2400, 200):
            d.advertise(time, router, prefixes=(prefix,), names=names)


def a_router_of_many_links(d):
    """With the same address on each, and all at once."""
    for time in range(0, 4000, 200):
        for n in range(40):
            prefix = (packed(f"2001:db8:{n:x}::"), 64)
            d.advertise(time, mac=bytes([2, 0, 0, 0, 0, n]), prefixes=(prefix,), names=(prefix[0],), link=f"trunk {n}")
            d.advertise(time, HOST, mac=bytes([2, 0, 0, 0, 1, n]), prefixes=(prefix,), names=(), link=f"trunk {n}")


def a_border_router_of_a_mesh(d):
    d.advertise(0)
    for time in range(1000, 4000, 200):
        d.advertise(time, HOST, b"\2\0\0\0\0\2", prefixes=((packed("fd00:1::"), 64),), names=(), lifetime_s=0)


def another_network(d):
    """Many routers are fe80::1."""
    d.advertise(0)
    for time in range(100, 9000, 200):
        d.advertise(time, mac=EVIL_MAC, prefixes=(BAD,), names=BAD_NAMES)
        d.answer(time, EVIL_MAC)


def a_pair_with_a_shared_address(d):
    for time in range(0, 4000, 20):
        d.advertise(time, mac=bytes.fromhex("00005e000201"))
        d.answer(time, GATE_MAC)
        d.answer(time, EVIL_MAC)
        d.answer(time, bytes.fromhex("00005e000201"))


def neighbours_and_proxies(d):
    d.advertise(0)
    for n in range(2, 100):
        d.answer(n, b"\2\0\0\0\0" + bytes([n]), packed(f"fe80::{n:x}"))
        d.answer(n, EVIL_MAC, override=False)
        d.answer(n, GATE_MAC)


@pytest.mark.parametrize(
    "story",
    [
        one_router,
        two_routers_of_one_network,
        a_fellow_that_comes_back,
        to_the_office_and_home_again,
        a_router_of_many_links,
        a_border_router_of_a_mesh,
        another_network,
        a_pair_with_a_shared_address,
        neighbours_and_proxies,
    ],
)
def test_ordinary(dialogue, story):
    story(dialogue)
    dialogue.end(10_000)
    assert dialogue.found == []
    assert ALIVE_S > LEARN_S


SOURCES = st.sampled_from([GATE, EVIL, HOST, bytes(16), packed("2001:db8::1")])
MACS = st.none() | st.sampled_from([GATE_MAC, EVIL_MAC, bytes(6), bytes.fromhex("00005e000201")])
ROUTERS = st.builds(
    RouterSeen,
    st.floats(-9, 2000),
    SOURCES,
    MACS,
    st.sampled_from([0, 64, 255]),
    st.sampled_from([0, 30, 1800]),
    st.integers(-1, 1),
    st.lists(st.tuples(SOURCES, st.integers(0, 255)), max_size=3).map(tuple),
    st.lists(SOURCES, max_size=3).map(tuple),
)
NEIGHBOURS = st.builds(
    NeighbourSeen,
    st.floats(-9, 2000),
    SOURCES,
    SOURCES,
    MACS,
    SOURCES,
    st.booleans(),
    MACS,
    st.booleans(),
    st.booleans(),
)


@given(st.lists(ROUTERS | NEIGHBOURS, max_size=60))
def test_never_raises_and_never_bans(told):
    detector = RogueRouter(routers_max=2)
    for seen in told:
        for alert in detector.observe(seen):
            assert alert.ban == ()
            assert alert.evidence
    list(detector.end(3000))


def test_memory_is_bounded():
    dialogue = Dialogue(RogueRouter(routers_max=50))
    for n in range(3 * SEEN_MAX):
        prefixes = tuple((packed(f"2001:db8:{n:x}:{m:x}::"), 64) for m in range(9))
        dialogue.advertise(n * 11, packed(f"fe80::{n + 1:x}"), b"\2\0" + n.to_bytes(4), prefixes=prefixes)
        dialogue.advertise(n * 11, GATE, prefixes=prefixes, hop_limit=n % 255)
    detector = dialogue.detector
    assert len(detector._routers) <= 50
    assert len(detector._seen) <= SEEN_MAX
    assert len(detector._counts) <= SEEN_MAX
    assert len(detector._held) <= 50
    assert all(len(each.prefixes) < PREFIXES_MAX + 20 for _, each in detector._routers.items())
    assert detector.refused > 0
