"""Floods of which a part is looked at: what that changes of what is told, and that it hides no scan."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.detect import crowd
from pfw.engine.detect.all import detectors
from pfw.engine.detect.crowd import AGAIN_PER_S, HOST_PER_S, OFTEN, PLACES_MAX, PORT_PER_S, Crowds
from pfw.engine.detect.detection import Detection
from pfw.engine.detect.watch import Watch
from pfw.model.address import parse_address
from pfw.model.event import Item
from pfw.model.flow import make_key, reverse_key
from pfw.model.observation import Alert, Began, Ended, Kind, Met, Observation, Stray
from pfw.model.packet import ACK, ICMP, RST, SYN, TCP, UDP

NOON = 1_795_392_000.0
TARGET, OTHER, SCANNER = map(parse_address, ("192.0.2.10", "192.0.2.11", "198.51.100.66"))
TARGET_6 = parse_address("2001:db8::10")
SOURCES = 37_000


def forged(number: int, length: int = 4) -> bytes:
    return bytes((11, *bytes(length - 4), *(number % SOURCES).to_bytes(3)))


def packet(time, source, destination, ports=(50_000, 80), flags=SYN, protocol=TCP) -> Item:
    return make_key(protocol, source, destination, struct.pack(">HH", *ports)), NOON + time, 60, flags, 0, 0, None


def answer(item: Item, flags: int, after_s: float = 0.0001) -> Item:
    return reverse_key(item[0]), item[1] + after_s, 60, flags, 0, 0, None


def flood(many, per_s, target=TARGET, port=lambda number: 80, protocol=TCP, flags=SYN, start=0.0) -> list[Item]:
    return [
        packet(start + n / per_s, forged(n, len(target)), target, (1024 + n % 60_000, port(n)), flags, protocol)
        for n in range(many)
    ]


def scan(ports=range(1, 101), target=TARGET, start=1.0, every_s=0.01, source=SCANNER) -> list[Item]:
    """Closed ports, as nmap meets them."""
    tries = [packet(start + n * every_s, source, target, (40_000, port)) for n, port in enumerate(ports)]
    return [each for first in tries for each in (first, answer(first, RST | ACK))]


def tell(watch: Watch, *parts: Iterable[Item]) -> list[Observation]:
    items = sorted((item for part in parts for item in part), key=lambda item: item[1])
    told = [seen for item in items for seen in watch.packet(item)]
    return told + watch.end(items[-1][1])


def alerts(*parts: Iterable[Item]) -> tuple[dict[Kind, Alert], Watch]:
    watch, detection = Watch(), Detection(detectors())
    last = NOON
    for seen in tell(watch, *parts):
        detection.observe(seen)
        last = max(last, seen.time)
    detection.end(last)
    assert len({(each.kind, each.source) for each in detection.alerts}) == len(detection.alerts)
    return {each.kind: each for each in detection.alerts}, watch


@pytest.mark.parametrize("target", [TARGET, TARGET_6])
@pytest.mark.parametrize("per_s", [600, 20_000])
def test_of_a_flood_a_part_is_looked_at_and_all_is_counted(target, per_s):
    watch = Watch()
    began = [seen for seen in tell(watch, flood(40_000, per_s, target)) if isinstance(seen, Began)]
    assert watch.sampled + len(began) == 40_000
    assert 40_000 - max(each.stands_for for each in began) <= sum(each.stands_for for each in began) <= 40_000
    assert len(began) <= PORT_PER_S + (40_000 / per_s + 1) * (100 if per_s == 600 else 350)
    assert {each.stands_for for each in began[:PORT_PER_S]} == {1}


@pytest.mark.parametrize("answered", [False, True])
def test_a_spoofed_flood_is_one_alert_with_the_whole_number(answered):
    """The target answers, and hosts in whose name others sent reset that."""
    first = flood(SOURCES, 10_000)
    answers = [answer(each, SYN | ACK) for each in first] if answered else []
    resets = [answer(each, RST, 0.001) for each in answers[::7]]
    found, watch = alerts(first, answers, resets)
    assert set(found) == {Kind.SYN_FLOOD}
    (alert,) = found.values()
    assert (alert.source, alert.target, alert.ban, alert.score) == (None, TARGET, (), 90)
    counted = int(alert.evidence.split()[0])
    assert SOURCES - 300 <= counted <= SOURCES
    assert "of them only counted" in alert.evidence
    assert watch.refused == 0


@pytest.mark.parametrize("where", ["another port", "another host", "the same port", "all ports"])
def test_a_scan_beside_a_flood_is_found(where):
    port = (lambda number: number * 7 % 65_536) if where == "all ports" else (lambda number: 80)
    first = flood(60_000, 20_000, port=port)
    ports = [*range(20, 40), 80, 443] if where == "the same port" else range(1, 60)
    found, watch = alerts(first, scan(ports, OTHER if where == "another host" else TARGET))
    assert set(found) == {Kind.PORT_SCAN, Kind.SYN_FLOOD}
    assert (found[Kind.PORT_SCAN].source, found[Kind.SYN_FLOOD].source) == (SCANNER, None)
    assert watch.sampled > (35_000 if where == "all ports" else 50_000)
    # One more than was answered may be lost: the port that is flooded, or the first one.
    tried = int(found[Kind.PORT_SCAN].evidence.split()[1])
    assert len(ports) - 1 <= tried <= len(ports)


def test_a_sweep_of_the_flooded_port_is_found():
    hosts = [bytes((192, 0, 2, number)) for number in range(20, 60)]
    swept = [packet(1 + n / 100, SCANNER, host, (40_000, 80)) for n, host in enumerate(hosts)]
    found, _ = alerts(flood(60_000, 20_000), swept)
    assert set(found) == {Kind.SWEEP, Kind.SYN_FLOOD}


@pytest.mark.parametrize("per_s", [300, 5_000])
def test_a_busy_server_is_looked_at_whole(per_s):
    """What is answered and acknowledged is meant, however much it is."""
    watch = Watch()
    first = flood(10_000, per_s)
    told = tell(watch, first, [answer(each, SYN | ACK, 0.01) for each in first],
                [(each[0], each[1] + 0.02, 60, ACK, 0, 0, None) for each in first])  # fmt: skip
    assert watch.sampled == 0
    assert sum(isinstance(seen, Began) for seen in told) == 10_000


def test_a_flood_that_is_over_is_forgotten_with_the_next_second():
    others = [packet(5 + n / 100, forged(20_000 + n), TARGET, (1024, 80)) for n in range(300)]
    told = tell(Watch(), flood(5_000, 5_000), others)
    later = [seen for seen in told if isinstance(seen, Began) and seen.time > NOON + 6.05]
    assert len(later) == sum(each.stands_for for each in later) == 194


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 3), st.integers(500, 2_000), st.booleans(), st.booleans())
def test_the_short_way_is_the_same_as_the_long_one(resets, many, is_answered, is_busy):
    first = flood(many, 3_000)
    parts = [first, flood(300, 300, OTHER)]
    parts += [[answer(each, SYN | ACK) for each in first]] if is_answered else []
    parts += [[answer(answer(each, RST), RST) for each in first[:: resets + 1]]] if resets else []
    parts += [[(each[0], each[1] + 0.02, 60, ACK, 0, 0, None) for each in first]] if is_busy else []
    items = sorted((item for part in parts for item in part), key=lambda item: item[1])
    short, long = Watch(), Watch()
    told = [seen for _, some in short.packets(items) for seen in some]
    assert told == [seen for item in items for seen in long.packet(item)]
    assert (short.sampled, len(short)) == (long.sampled, len(long))


def test_connections_that_are_older_than_the_capture_are_followed_all_the_same():
    """A busy server, and a capture that begins in between: packets of 3,000 connections at once, of one direction."""
    many = [packet(n / 9_000, forged(n % 3_000), TARGET, (1024 + n % 3_000, 80), ACK) for n in range(18_000)]
    watch = Watch()
    ends = [seen for seen in tell(watch, many) if isinstance(seen, Ended)]
    assert len(ends) == 3_000
    assert {each.is_older for each in ends} == {True}


def test_a_flood_of_acknowledgements_is_sampled_and_found():
    found, watch = alerts(flood(30_000, 15_000, flags=ACK))
    assert set(found) == {Kind.SYN_FLOOD}
    assert watch.sampled > 20_000
    assert 25_000 < int(found[Kind.SYN_FLOOD].evidence.split()[0]) <= 30_000


def test_a_flood_of_datagrams_is_sampled_and_its_answers_are_no_reflection():
    asked = flood(30_000, 10_000, port=lambda number: 53, protocol=UDP, flags=0)
    found, watch = alerts(asked, [answer(each, 0) for each in asked[::9]])
    assert set(found) == {Kind.UDP_FLOOD}
    assert watch.sampled > 20_000
    assert found[Kind.UDP_FLOOD].target == TARGET


def test_answers_of_a_flooded_port_are_no_strays():
    watch = Watch()
    first = flood(5_000, 5_000)
    told = tell(watch, first, [answer(each, SYN | ACK) for each in first])
    assert not [seen for seen in told if isinstance(seen, Stray)]
    elsewhere = [packet(1.0, TARGET, SCANNER, (443, 50_000), SYN | ACK)]
    assert [seen for seen in tell(watch, flood(3_000, 5_000), elsewhere) if isinstance(seen, Stray)]


def test_a_second_datagram_of_one_flow_is_looked_at():
    watch = Watch()
    flow = [packet(0.9 + n / 10, SCANNER, TARGET, (4_000, 53), 0, UDP) for n in range(3)]
    told = tell(watch, flood(5_000, 5_000, port=lambda number: 53, protocol=UDP, flags=0), flow)
    assert [seen for seen in told if isinstance(seen, Met) and seen.began.source == SCANNER]


@pytest.mark.parametrize(("many", "is_sampled"), [(PORT_PER_S - 1, False), (PORT_PER_S + 100, True)])
def test_how_many_are_needed(many, is_sampled):
    crowds = Crowds()
    for each in flood(many, many):
        crowds.came(each[0])
    assert (crowds.sampled > 0) == is_sampled


def test_of_a_host_whose_ports_are_flooded_each_source_is_looked_at_the_second_time():
    crowds = Crowds()
    for each in flood(HOST_PER_S + 100, 1, port=lambda number: number):
        crowds.came(each[0])
    told = Counter(crowds.came(packet(0, SCANNER, TARGET, (40_000, port))[0]) for port in range(30))
    assert told[1] == 29
    assert {each for each in told if each != 1} <= {0}


def test_where_many_sources_come_again_to_all_ports_they_are_sampled_too_and_a_scan_is_not():
    watch = Watch()
    first = [packet(n / 20_000, forged(n % 15_000), TARGET, (1024, n * 7 % 65_536)) for n in range(60_000)]
    told = tell(watch, first, scan(range(1, 201), every_s=0.002))
    began = [seen for seen in told if isinstance(seen, Began) and seen.source != SCANNER]
    assert len(began) < HOST_PER_S + 4 * (AGAIN_PER_S + 350) + 6_000
    assert sum(each.stands_for for each in began) > 59_000
    assert sum(isinstance(seen, Began) and seen.source == SCANNER for seen in told) >= 200 - 2 * OFTEN


@pytest.mark.parametrize("many", [1, 60])
def test_a_fast_scan_of_all_ports_is_no_flood_and_counted_well(many):
    """By one, or among decoys."""
    sources = [forged(number) for number in range(1, many)] + [SCANNER]
    tries = range(30_000 if many == 1 else 60_000)
    first = [packet(n / 30_000, sources[n % many], TARGET, (40_000, 1 + n // many)) for n in tries]
    found, _ = alerts(item for each in first for item in (each, answer(each, RST | ACK)))
    assert set(found) == {Kind.PORT_SCAN}
    if many == 1:
        assert int(found[Kind.PORT_SCAN].evidence.split()[1]) > 29_900


def test_a_flood_of_echoes_is_sampled_and_its_replies_are_none():
    keys = [make_key(ICMP, forged(n), TARGET, struct.pack(">HBB", n % 65_536, 8, 0)) for n in range(20_000)]
    first = [(key, NOON + n / 10_000, 60, 0, 0, 0, None) for n, key in enumerate(keys)]
    watch = Watch()
    told = tell(watch, first, [answer(each, 0) for each in first])
    assert watch.sampled > 15_000
    assert {seen.icmp_type for seen in told if isinstance(seen, Began)} == {8}


def test_places_are_bounded(monkeypatch):
    crowds = Crowds()
    for number in range(2 * PLACES_MAX):
        crowds.came(packet(0, SCANNER, number.to_bytes(4), (1, number % 65_536))[0])
    assert len(crowds._ports) == len(crowds._hosts) == PLACES_MAX
    crowds.turn(1.0)
    assert len(crowds._ports) == len(crowds._hosts) == 0
    monkeypatch.setattr(crowd, "KNOWN_MAX", 100)
    for each in flood(20_000, 1, port=lambda number: number % 65_536):
        crowds.came(each[0])
    assert crowds._marked <= 100


KEYS = st.builds(
    make_key,
    st.sampled_from([TCP, UDP, ICMP, 47]),
    st.sampled_from([TARGET, OTHER, SCANNER]),
    st.sampled_from([TARGET, OTHER]),
    st.binary(min_size=4, max_size=4),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(KEYS, st.integers(1, 600), st.booleans(), st.booleans()), max_size=12))
def test_never_raises_and_loses_no_count(steps):
    crowds = Crowds()
    came = stood_for = 0
    for key, many, begins, is_done in steps:
        for _ in range(many):
            came += 1
            stood_for += abs(crowds.came(key, begins=begins))
            crowds.is_answer(key), crowds.is_to_one(key)
            if is_done:
                crowds.completed(key, begins=begins)
        assert 0 <= came - stood_for <= crowds.sampled
        if is_done:
            crowds.turn(came / 1_000)
