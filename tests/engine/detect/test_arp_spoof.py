"""ARP spoofing, and what only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.arp_spoof import ALIVE_S, ASKED_MAX, REPLY_S, TAKEN_MAX, UNASKED_MANY, ArpSpoof
from pfw.model.address import parse_address
from pfw.model.observation import Alert, ArpSeen, DhcpSeen, Kind, NeighbourSeen, RouterSeen
from pfw.model.packet import Arp

ALL = b"\xff" * 6
GATE_MAC, VICTIM_MAC, EVIL_MAC = (bytes.fromhex(f"5254000000{n:02x}") for n in (1, 2, 3))
GATE, VICTIM, OTHER = (parse_address(f"192.0.2.{n}") for n in (1, 2, 4))
REQUEST, REPLY = 1, 2


class Dialogue:
    def __init__(self, detector: ArpSpoof | None = None) -> None:
        self.detector = detector or ArpSpoof()
        self.found: list[Alert] = []

    def tell(self, time, operation, mac, sender, target_mac, target, frame=None, to=None, link=""):
        arp = Arp(operation, mac, sender, target_mac, target)
        seen = ArpSeen(time, frame or mac, to or (ALL if operation == REQUEST else target_mac), arp, link)
        self.found += self.detector.observe(seen)

    def ask(self, time, mac, sender, target):
        self.tell(time, REQUEST, mac, sender, bytes(6), target)

    def reply(self, time, mac, sender, to_mac, to, frame=None):
        self.tell(time, REPLY, mac, sender, to_mac, to, frame)

    def asked_and_answered(self, time, mac=GATE_MAC, address=GATE, by=(VICTIM_MAC, VICTIM)):
        self.ask(time, *by, address)
        self.reply(time + 0.001, mac, address, *by)

    def announce(self, time, mac, address, operation=REQUEST):
        self.tell(time, operation, mac, address, ALL if operation == REPLY else bytes(6), address, to=ALL)


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


def test_replies_that_nobody_asked_for_while_the_gateway_lives(dialogue):
    for time in range(0, 20, 2):
        if time % 10 == 0:
            dialogue.asked_and_answered(time)
        dialogue.reply(time + 1, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    last = dialogue.found[-1]
    assert (last.kind, last.source, last.target, last.ban) == (Kind.ARP_SPOOF, EVIL_MAC, GATE, ())
    assert last.score >= 75
    assert {each.source for each in dialogue.found} == {EVIL_MAC}


def test_without_having_seen_the_gateway_before(dialogue):
    for time in range(0, 40, 10):
        dialogue.reply(time, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    (alert,) = dialogue.found
    assert (alert.source, alert.score) == (EVIL_MAC, 65)
    assert alert.evidence == (
        "told 52:54:00:00:00:02 4 times in 30.0 s that 192.0.2.1 is at 52:54:00:00:00:03, and nobody had asked"
    )


def test_both_ends_at_once_weighs_more(dialogue):
    dialogue.asked_and_answered(0)
    for time in range(1, 30, 4):
        dialogue.reply(time, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
        dialogue.reply(time, EVIL_MAC, VICTIM, GATE_MAC, GATE)
        dialogue.asked_and_answered(time + 1, address=GATE)
    assert max(each.score for each in dialogue.found) >= 85
    assert {each.source for each in dialogue.found} == {EVIL_MAC}


def test_the_truth_put_back_by_the_same_hand(dialogue):
    """arpspoof tells the truth in the end, in the owner's name; nobody else is blamed for it."""
    for time in range(0, 20, 2):
        dialogue.reply(time, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    for time in range(20, 40):
        dialogue.reply(time, GATE_MAC, GATE, VICTIM_MAC, VICTIM, frame=EVIL_MAC)
    assert {each.source for each in dialogue.found} == {EVIL_MAC}


def test_the_router_is_named(dialogue):
    dialogue.detector.observe(DhcpSeen(0, GATE, GATE_MAC, 5, VICTIM_MAC, VICTIM, GATE, routers=(GATE,)))
    for time in (1, 2, 3, 4):
        dialogue.reply(time, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    assert "that the router 192.0.2.1 is at" in dialogue.found[-1].evidence


def test_an_address_that_two_have(dialogue):
    for time in range(0, 40, 4):
        dialogue.asked_and_answered(time)
        dialogue.reply(time + 0.002, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    assert [each.score for each in dialogue.found][:1] == [55]
    assert dialogue.found[0].source == EVIL_MAC
    assert dialogue.found[0].evidence.startswith(
        "192.0.2.1 is claimed by 52:54:00:00:00:03 and by 52:54:00:00:00:01, which had it before, "
    )


@pytest.mark.parametrize("operation", [REQUEST, REPLY])
def test_told_to_all_again_and_again(dialogue, operation):
    dialogue.asked_and_answered(0)
    for time in range(1, 40):
        dialogue.announce(time, EVIL_MAC, GATE, operation)
        if time % 10 == 0:
            dialogue.asked_and_answered(time)
    assert dialogue.found
    assert dialogue.found[-1].source == EVIL_MAC


def test_frames_of_another_than_the_message_says(dialogue):
    for time in range(3):
        dialogue.ask(time, VICTIM_MAC, VICTIM, GATE)
        dialogue.reply(time, b"\x02\0\0\0\0\x09", GATE, VICTIM_MAC, VICTIM, frame=EVIL_MAC)
    (alert,) = dialogue.found
    assert (alert.source, alert.score) == (EVIL_MAC, 55)


def test_silence_grows(dialogue):
    for time in range(1000):
        dialogue.reply(time * 0.05, EVIL_MAC, GATE, VICTIM_MAC, VICTIM)
    assert 2 <= len(dialogue.found) <= 12


def quiet_network(d):
    for time in range(0, 600, 10):
        d.asked_and_answered(time)
        d.asked_and_answered(time, VICTIM_MAC, VICTIM, by=(GATE_MAC, GATE))
        d.ask(time, GATE_MAC, GATE, OTHER)


def a_host_that_rejoins(d):
    for time in range(0, 600, 5):
        d.announce(time, VICTIM_MAC, VICTIM)
        d.announce(time, VICTIM_MAC, VICTIM, REPLY)
        d.tell(time, REQUEST, VICTIM_MAC, bytes(4), bytes(6), VICTIM)


def a_new_network_card(d):
    quiet_network(d)
    d.announce(601, EVIL_MAC, GATE)
    for time in range(602, 900, 10):
        d.asked_and_answered(time, mac=EVIL_MAC)


def a_router_that_takes_over_and_gives_back(d):
    quiet_network(d)
    for time in range(10):
        d.announce(610 + time, EVIL_MAC, GATE, REPLY)
    for time in range(620, 660, 5):
        d.asked_and_answered(time, mac=EVIL_MAC)
    for time in range(10):
        d.announce(660 + time, GATE_MAC, GATE, REPLY)
    for time in range(680, 800, 5):
        d.asked_and_answered(time)


def a_shared_address(d):
    """VRRP, HSRP: the MAC is the group's, the frame's may be either."""
    for at, shared in enumerate(("00005e000101", "00000c07ac0a", "00000c9ff001", "0007b4000101", "02bf0a000001")):
        mac = bytes.fromhex(shared)
        for time in range(at * 100, at * 100 + 60, 2):
            d.reply(time, mac, GATE, VICTIM_MAC, VICTIM, frame=EVIL_MAC if time % 4 else GATE_MAC)
            d.reply(time, mac, GATE, VICTIM_MAC, VICTIM)
            d.announce(time, GATE_MAC, OTHER)


def proxy_arp(d):
    """A router answers for all that is behind it."""
    for n in range(3, 200):
        d.asked_and_answered(n, address=parse_address(f"192.0.2.{n}"))
        d.asked_and_answered(n + 0.5, address=parse_address(f"192.0.2.{n}"))


def a_sleep_proxy(d):
    """It claims the addresses of hosts that go to sleep, which take them back when they wake."""
    for n in range(10, 30):
        mac, address = b"\x02\0\0\0\1" + bytes([n]), parse_address(f"192.0.2.{n}")
        d.asked_and_answered(n, mac, address)
        d.announce(n * 10, EVIL_MAC, address)
        for time in range(1, 50, 10):
            d.asked_and_answered(n * 10 + time, EVIL_MAC, address)
        d.announce(n * 10 + 50, mac, address)
        d.announce(n * 10 + 51, mac, address)
        d.asked_and_answered(n * 10 + 52, mac, address)


def answers_that_are_late_and_double(d):
    for time in range(0, 100, 10):
        d.ask(time, VICTIM_MAC, VICTIM, GATE)
        for late in (0.001, 0.002, REPLY_S - 1):
            d.reply(time + late, GATE_MAC, GATE, VICTIM_MAC, VICTIM)


def the_same_addresses_on_two_links(d):
    for time in range(0, 200, 20):
        for link, gate, host in ((" 10", GATE_MAC, VICTIM_MAC), (" 20", EVIL_MAC, b"\2\0\0\0\0\7")):
            d.tell(time, REQUEST, host, VICTIM, bytes(6), GATE, link=link)
            d.tell(time + 0.1, REPLY, gate, GATE, host, VICTIM, link=link)


def a_lease_that_another_gets(d):
    for n, mac in enumerate((VICTIM_MAC, EVIL_MAC, b"\2\0\0\0\0\7") * 4):
        d.announce(n * (ALIVE_S + 60), mac, OTHER)
        d.asked_and_answered(n * (ALIVE_S + 60) + 1, mac, OTHER)


@pytest.mark.parametrize(
    "story",
    [
        quiet_network,
        a_host_that_rejoins,
        a_new_network_card,
        a_router_that_takes_over_and_gives_back,
        a_shared_address,
        proxy_arp,
        a_sleep_proxy,
        answers_that_are_late_and_double,
        the_same_addresses_on_two_links,
        a_lease_that_another_gets,
    ],
)
def test_what_only_looks_like_it(dialogue, story):
    story(dialogue)
    assert dialogue.found == []
    assert dialogue.detector.refused == 0


def neighbour(time, mac, target, *, override=True):
    return NeighbourSeen(
        time, target, parse_address("ff02::1"), mac, target, is_answer=True, mac=mac, override=override
    )


@pytest.mark.parametrize(("override", "is_router", "count"), [(True, False, 1), (False, False, 0), (True, True, 0)])
def test_ipv6(override, is_router, count):
    detector, found = ArpSpoof(), []
    target = parse_address("fe80::1")
    if is_router:
        detector.observe(RouterSeen(0, target, GATE_MAC, 255, 1800))
    for time in range(4):
        found += detector.observe(neighbour(time, GATE_MAC, target))
        found += detector.observe(neighbour(time + 0.5, EVIL_MAC, target, override=override))
    assert len({each.source for each in found}) == count


MACS = st.sampled_from([ALL, bytes(6), GATE_MAC, VICTIM_MAC, EVIL_MAC, bytes.fromhex("00005e000101")])
ADDRESSES = st.sampled_from([GATE, VICTIM, OTHER, bytes(4), b"\xff" * 4])


@given(
    st.lists(
        st.tuples(
            st.floats(-9, 999), st.none() | MACS, st.none() | MACS, st.integers(0, 4), MACS, ADDRESSES, MACS, ADDRESSES
        ),
        max_size=60,
    )
)
def test_never_raises_and_never_bans(told):
    detector = ArpSpoof(addresses_max=2, claimants_max=2)
    for time, frame, to, *arp in told:
        for alert in detector.observe(ArpSeen(time, frame, to, Arp(*arp))):
            assert alert.ban == ()
            assert alert.evidence
    assert not list(detector.end(1000))


def test_memory_is_bounded():
    dialogue = Dialogue(ArpSpoof(addresses_max=50, claimants_max=50))
    for n in range(2 * ASKED_MAX):
        mac, address = b"\2\0" + n.to_bytes(4), b"\x0a" + n.to_bytes(3)
        dialogue.ask(n / 1000, mac, address, GATE)
        dialogue.reply(n / 1000, EVIL_MAC, address, mac, address[::-1])
    detector = dialogue.detector
    assert len(detector._asked) == ASKED_MAX
    assert len(detector._owners) == 50
    assert len(detector._claimants) <= 50
    assert all(len(each.unasked) <= TAKEN_MAX for _, each in detector._claimants.items())
    assert detector.refused > 0
    assert UNASKED_MANY > 1
