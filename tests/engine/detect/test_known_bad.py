"""Connections from and to addresses of lists."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.known_bad import KnownBad
from pfw.model.address import AddressSet, as_int, parse_range
from pfw.model.address import parse_address as packed
from pfw.model.observation import Began, Confirmed, Kind
from pfw.model.packet import TCP, UDP

BAD, BAD_6, HERE = packed("198.51.100.7"), packed("2001:db8:bad::7"), packed("192.0.2.1")
LISTS = {
    "drop": AddressSet([parse_range("198.51.100.0/24"), parse_range("2001:db8:bad::/48")]),
    "abuse": AddressSet([parse_range("198.51.100.7")]),
    "bogons": AddressSet([parse_range(each) for each in ("10.0.0.0/8", "192.168.0.0/16", "fe80::/10", "127.0.0.0/8")]),
}


def began(source, destination, protocol=TCP, time=1.0):
    return Began(time, protocol, source, destination, 40_000, 443)


@pytest.fixture
def detector() -> KnownBad:
    return KnownBad(LISTS)


@pytest.mark.parametrize(
    ("first", "score", "evidence"),
    [
        (began(BAD, HERE), 55, "is on the list abuse, drop, and opened a connection to 192.0.2.1:443"),
        (began(HERE, BAD, UDP), 75, "is on the list abuse, drop, and was called at 198.51.100.7:443"),
        (began(HERE, BAD_6), 75, "is on the list drop, and was called at [2001:db8:bad::7]:443"),
    ],
)
def test_from_and_to(detector, first, score, evidence):
    (alert,) = detector.observe(first)
    bad = first.source if first.source != HERE else first.destination
    assert (alert.kind, alert.source, alert.target, alert.score) == (Kind.KNOWN_BAD, bad, HERE, score)
    assert (alert.evidence, alert.ban) == (evidence, ())


@pytest.mark.parametrize("first", [began(BAD, HERE), began(HERE, BAD)])
def test_once_and_once_more_when_it_is_no_forgery(detector, first):
    assert len(list(detector.observe(first))) == 1
    for _ in range(10):
        assert list(detector.observe(first)) == []
    assert list(detector.observe(Confirmed(2.0, first, by_reset=True))) == []
    (alert,) = detector.observe(Confirmed(2.0, first))
    assert (alert.source, alert.ban, alert.score) == (BAD, (BAD,), 85)
    for _ in range(10):
        assert list(detector.observe(Confirmed(2.0, first))) == []
        assert list(detector.observe(first)) == []


def test_the_other_end_is_never_banned(detector):
    (alert,) = detector.observe(Confirmed(2.0, began(HERE, BAD)))
    assert HERE not in alert.ban


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "fe80::1", "127.0.0.1", "203.0.113.9", "2001:db8::1"])
def test_private_ones_and_those_on_no_list(detector, address):
    for first in (began(packed(address), HERE), began(HERE, packed(address))):
        assert list(detector.observe(first)) == []
        assert list(detector.observe(Confirmed(2.0, first))) == []


def test_without_lists():
    assert list(KnownBad().observe(began(BAD, HERE))) == []


def test_long_lists_are_cheap_and_each_is_named():
    """100,000 prefixes in two lists, and 20,000 connections of which a hundredth is listed: a second has 10,000."""

    def ranges(first):
        return AddressSet([(as_int(packed(f"{a}.{b}.{c}.0")),) * 2 for a in (first, first + 1) for b in range(250)
                           for c in range(0, 200, 2)])  # fmt: skip

    lists = {"drop": ranges(20), "botnets": ranges(21)}
    assert sum(map(len, lists.values())) == 100_000
    detector = KnownBad(lists)
    fine = [began(HERE, bytes((90, n >> 8 & 255, n & 255, 1)), time=n / 10_000) for n in range(19_800)]
    bad = [began(HERE, bytes((20 + n % 3, n, 2, 0)), time=2.0) for n in range(200)]
    seen = [(first, Confirmed(first.time, first)) for first in (*fine, *bad)]
    started = process_time()
    found = [alert for pair in seen for each in pair for alert in detector.observe(each)]
    assert process_time() - started < 1.0
    assert len(found) == 2 * 200
    names = {alert.source[0]: alert.evidence.split(",")[0] for alert in found if alert.source[0] != 21}
    assert names == {20: "is on the list drop", 22: "is on the list botnets"}
    assert {alert.evidence.split(", and")[0] for alert in found if alert.source[0] == 21} == {
        "is on the list botnets, drop"
    }


def test_memory_is_bounded():
    detector = KnownBad(LISTS, alerted_max=10)
    found = [alert for n in range(256) for alert in detector.observe(began(bytes([198, 51, 100, n]), HERE))]
    assert len(found) == len(detector._alerted) == 10
    assert detector.refused == 246


ADDRESSES = st.sampled_from([BAD, BAD_6, HERE, packed("10.0.0.1"), bytes(4), bytes(16)])


@given(
    st.lists(st.tuples(ADDRESSES, ADDRESSES, st.sampled_from([TCP, UDP, 1]), st.booleans(), st.booleans()), max_size=40)
)
def test_never_raises_and_bans_only_what_is_listed(told):
    detector = KnownBad(LISTS)
    for source, destination, protocol, confirmed, by_reset in told:
        first = began(source, destination, protocol)
        for alert in detector.observe(Confirmed(2.0, first, by_reset) if confirmed else first):
            assert alert.source in (BAD, BAD_6)
            assert alert.ban in ((), (alert.source,))
            assert not alert.ban or (confirmed and not by_reset and protocol == TCP)
    assert not list(detector.end(3.0))
