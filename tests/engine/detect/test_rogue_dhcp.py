"""DHCP servers that are none of the network's, and floods of requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.daemon.detecting import detect
from pfw.daemon.sources import CaptureFile
from pfw.engine.detect.rogue_dhcp import (
    CLIENTS_MANY,
    MESSAGES_MANY,
    NAMED_MAX,
    NEW_MAX,
    ONE_SENDER_MANY,
    RogueDhcp,
)
from pfw.model.address import parse_address as packed
from pfw.model.observation import Alert, DhcpSeen, Kind

DISCOVER, OFFER, REQUEST, ACK, REFUSAL, INFORM = 1, 2, 3, 5, 6, 8
SERVER, ROGUE, NOBODY = packed("192.0.2.1"), packed("192.0.2.66"), bytes(4)
SERVER_MAC, ROGUE_MAC, CLIENT = (bytes.fromhex(f"5254000000{n:02x}") for n in (1, 66, 7))


class Dialogue:
    def __init__(self, detector: RogueDhcp | None = None) -> None:
        self.detector = detector or RogueDhcp()
        self.found: list[Alert] = []

    def ask(self, time, client=CLIENT, kind=DISCOVER, frame=None, source=NOBODY, link=""):
        self.found += self.detector.observe(DhcpSeen(time, source, frame or client, kind, client, link=link))

    def answer(self, time, server=SERVER, mac=SERVER_MAC, client=CLIENT, kind=OFFER, routers=None, names=None, **more):
        facts = {"offered": packed("192.0.2.100"), "server": server} | more
        self.found += self.detector.observe(
            DhcpSeen(
                time, server, mac, kind, client,
                routers=(server,) if routers is None else routers, name_servers=(server,) if names is None else names,
                **facts,
            )
        )  # fmt: skip

    def lease(self, time, server=SERVER, mac=SERVER_MAC, client=CLIENT, **more):
        link = more.get("link", "")
        self.ask(time, client, link=link)
        self.answer(time + 0.1, server, mac, client, **more)
        self.ask(time + 0.2, client, REQUEST, link=link)
        self.answer(time + 0.3, server, mac, client, ACK, **more)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "the router 192.0.2.66, not 192.0.2.1"),
        ({"routers": (SERVER,)}, "the name server 192.0.2.66, not 192.0.2.1"),
        ({"routers": ()}, "the name server 192.0.2.66, not 192.0.2.1"),
        ({"server": SERVER, "routers": (ROGUE,)}, "the router 192.0.2.66, not 192.0.2.1"),
    ],
)
def test_two_answers_to_one_question(dialogue, said, words):
    dialogue.lease(0)
    dialogue.ask(100)
    dialogue.answer(100.1)
    dialogue.answer(100.2, **{"server": ROGUE, "mac": ROGUE_MAC} | said)
    alert = dialogue.found[0]
    assert (alert.kind, alert.source, alert.score, alert.ban) == (Kind.ROGUE_DHCP, said.get("server", ROGUE), 80, ())
    assert words in alert.evidence
    assert len(dialogue.found) == 1


def test_the_rogue_is_who_came_later_not_who_answers_later(dialogue):
    dialogue.lease(0)
    dialogue.ask(100)
    dialogue.answer(100.1, ROGUE, ROGUE_MAC)
    dialogue.answer(100.2)
    assert {each.source for each in dialogue.found} == {ROGUE}


def test_the_first_server_goes_on(dialogue):
    dialogue.lease(0)
    dialogue.lease(100, ROGUE, ROGUE_MAC)
    assert dialogue.found == []
    dialogue.lease(200, client=b"\2\0\0\0\0\1")
    assert {(each.source, each.score) for each in dialogue.found} == {(ROGUE, 65)}


def test_one_hand_asks_for_many(dialogue):
    for n in range(500):
        dialogue.ask(n / 2, b"\2\0" + n.to_bytes(4), frame=ROGUE_MAC)
    alert = dialogue.found[0]
    assert (alert.source, alert.score) == (ROGUE_MAC, 80)
    assert alert.evidence == f"asked for addresses in the name of {ONE_SENDER_MANY} different clients within 60 s"
    assert len(dialogue.found) < 12


def test_many_that_are_new(dialogue):
    for n in range(3 * CLIENTS_MANY):
        dialogue.ask(n / 100, b"\2\0" + n.to_bytes(4))
    assert {(each.source, each.score) for each in dialogue.found} == {(None, 75)}
    assert len(dialogue.found) < 12


def test_one_client_that_will_not_stop(dialogue):
    for n in range(3 * MESSAGES_MANY):
        dialogue.ask(n / 50, kind=INFORM, source=packed("192.0.2.9"))
    assert {(each.source, each.score) for each in dialogue.found} == {(CLIENT, 75)}


def an_ordinary_day(d):
    for n in range(60):
        d.lease(n * 30, client=b"\2\0\0\0\0" + bytes([n]))
        d.answer(n * 30 + 1, kind=REFUSAL)


def a_pair_of_servers(d):
    for n in range(60):
        d.ask(n * 30)
        d.answer(n * 30 + 0.1, routers=(SERVER,), names=(SERVER, ROGUE))
        d.answer(n * 30 + 0.2, ROGUE, ROGUE_MAC, routers=(SERVER,), names=(ROGUE, SERVER))


def another_network(d):
    for time in range(0, 1000, 100):
        d.lease(time)
    for time in range(1000, 9000, 100):
        d.lease(time, ROGUE, ROGUE_MAC)


def a_server_on_each_link(d):
    """One host has an address on both, and asks on both at once."""
    for time in range(0, 8000, 900):
        d.ask(time, link="eth0 10")
        d.ask(time, link="eth0 20")
        d.answer(time + 0.1, link="eth0 10")
        d.answer(time + 0.1, ROGUE, ROGUE_MAC, link="eth0 20")
        d.lease(time + 100, client=ROGUE_MAC, link="eth0 10")
        d.lease(time + 200, ROGUE, ROGUE_MAC, SERVER_MAC, link="eth0 20")


def a_server_for_booting_only(d):
    for time in range(0, 1000, 100):
        d.ask(time)
        d.answer(time + 0.1)
        d.answer(time + 0.2, ROGUE, ROGUE_MAC, routers=(), names=(), offered=None)


def a_server_that_says_little(d):
    for time in range(0, 1000, 100):
        d.ask(time)
        d.answer(time + 0.1)
        d.answer(time + 0.2, ROGUE, ROGUE_MAC, routers=(), names=())


def a_relay(d):
    """It passes on what many ask, and the same message is seen twice, once from it."""
    for n in range(80):
        client = b"\2\0\0\0\0" + bytes([n])
        d.ask(n / 2, client)
        d.ask(n / 2, client, frame=SERVER_MAC, source=SERVER)
        d.answer(n / 2 + 0.1, client=client, mac=SERVER_MAC)
        d.answer(n / 2 + 0.1, client=client, mac=ROGUE_MAC)


def virtual_machines(d):
    for n in range(ONE_SENDER_MANY - 1):
        for time in (0, 4, 12):
            d.ask(time + n / 10, b"\2\0\0\0\0" + bytes([n]), frame=SERVER_MAC)


def a_class_room(d):
    for n in range(40):
        for time in (0, 4, 12):
            d.ask(time + n / 10, b"\2\0\0\0\0" + bytes([n]))


@pytest.mark.parametrize(
    "story",
    [
        an_ordinary_day,
        a_server_on_each_link,
        a_pair_of_servers,
        another_network,
        a_server_for_booting_only,
        a_server_that_says_little,
        a_relay,
        virtual_machines,
        a_class_room,
    ],
)
def test_ordinary(dialogue, story):
    story(dialogue)
    assert dialogue.found == []
    assert dialogue.detector.refused == 0


def test_a_real_flood(captures):
    paths = [each for each in captures if each.name == "flood-dhcp.pcap"]
    if not paths:
        pytest.skip("no flood-dhcp.pcap")
    found = detect([CaptureFile(str(paths[0]))], None).alerts
    assert [each.kind for each in found] == [Kind.ROGUE_DHCP]


ADDRESSES = st.sampled_from([SERVER, ROGUE, NOBODY, b"\xff" * 4])
MACS = st.sampled_from([SERVER_MAC, ROGUE_MAC, CLIENT, bytes(6), b"\xff" * 6, b""])
SEEN = st.builds(
    DhcpSeen,
    st.floats(-9, 999),
    ADDRESSES,
    st.none() | MACS,
    st.integers(0, 9),
    MACS,
    st.none() | ADDRESSES,
    st.none() | ADDRESSES,
    st.lists(ADDRESSES, max_size=3).map(tuple),
    st.lists(ADDRESSES, max_size=3).map(tuple),
)


@given(st.lists(SEEN, max_size=80))
def test_never_raises_and_never_bans(told):
    detector = RogueDhcp(servers_max=2, clients_max=2)
    for seen in told:
        for alert in detector.observe(seen):
            assert alert.ban == ()
            assert alert.evidence
    assert not list(detector.end(1000))


def test_memory_is_bounded():
    dialogue = Dialogue(RogueDhcp(servers_max=20, clients_max=50))
    for n in range(NEW_MAX + 100):
        client = b"\2\0" + n.to_bytes(4)
        dialogue.ask(n / 1000, client)
        dialogue.answer(n / 1000, b"\x0a" + (n % 100).to_bytes(3), client=client, routers=(n.to_bytes(4),))
    detector = dialogue.detector
    assert len(detector._servers) == 20
    assert len(detector._clients) == NEW_MAX
    for each in (detector._questions, detector._senders, detector._messages, detector._counts):
        assert len(each) <= 50
    assert all(len(each.routers) <= NAMED_MAX for _, each in detector._servers.items())
    assert detector.refused > 0
