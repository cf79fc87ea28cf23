"""ARP scans in made observations, and the neighbours and gateways that are none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.detect.dialogue import address, alerts

from pfw.engine.detect.arp_scan import RATES, ArpScan
from pfw.model.observation import ArpSeen, DhcpSeen, Kind, NeighbourSeen, RouterSeen
from pfw.model.packet import Arp

SCANNER, GATEWAY = b"\2\0\0\0\0\x66", b"\2\0\0\0\0\1"
BROADCAST, NOBODY = b"\xff" * 6, bytes(6)


def host(number):
    return address(f"192.0.2.{number}")


def asks(number, target, time=0.0, mac=SCANNER, to=BROADCAST):
    return ArpSeen(time, mac, to, Arp(1, mac, host(number), NOBODY, host(target)))


def answers(number, time=0.0, to=66, mac=None):
    mac = mac or b"\2\0\0\0\0" + bytes((number,))
    return ArpSeen(time, mac, SCANNER, Arp(2, mac, host(number), SCANNER, host(to)))


def test_a_scan_of_a_network():
    seen = []
    for target in range(1, 255):
        seen.append(asks(66, target, target / 100))
        if target % 10 == 0:
            seen.append(answers(target, target / 100 + 0.001))
    found = alerts(ArpScan(), seen)
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {(Kind.ARP_SCAN, SCANNER, None, ())}
    assert "asked as 192.0.2.66 for 228 addresses" in found[-1].evidence
    assert "192.0.2.1 to 192.0.2.254" in found[-1].evidence
    assert found[-1].score >= 80


def test_how_many_and_how_fast():
    for many, within_s in RATES:
        step = within_s / many
        assert alerts(ArpScan(), [asks(66, n, n * step) for n in range(1, many + 1)])
        if within_s > 5:
            assert alerts(ArpScan(), [asks(66, n, n * step * 1.5) for n in range(1, many + 1)]) == []
    assert alerts(ArpScan(), [asks(66, n, n / 100) for n in range(1, RATES[0][0])]) == []


def test_the_same_missing_host_is_none():
    assert alerts(ArpScan(), [asks(1, 50 + n % 5, n / 10, GATEWAY) for n in range(2_000)]) == []


def test_who_asks_for_hosts_that_are_there_is_none():
    """A server that wakes its clients: they answer, or have been heard before."""
    seen = []
    for target in range(1, 60):
        seen += [asks(66, target, target / 1000), answers(target, target / 1000 + 0.2)]
    assert alerts(ArpScan(), sorted(seen, key=lambda each: each.time)) == []
    heard = [asks(target, 1, target / 100, b"\2\0\0\0\1" + bytes((target,))) for target in range(2, 60)]
    assert alerts(ArpScan(), [*heard, *(asks(66, target, 2.0) for target in range(2, 60))]) == []


def test_a_phone_that_joins_is_none():
    probes = [ArpSeen(n, SCANNER, BROADCAST, Arp(1, SCANNER, bytes(4), NOBODY, host(77))) for n in range(3)]
    announces = [ArpSeen(4.0 + n, SCANNER, BROADCAST, Arp(1, SCANNER, host(77), NOBODY, host(77))) for n in range(2)]
    assert alerts(ArpScan(), [*probes, *announces, *(asks(77, target, 7.0) for target in (1, 2, 5, 20))]) == []


def test_announcements_and_unicast_questions_are_none():
    own = [ArpSeen(n / 100, SCANNER, BROADCAST, Arp(1, SCANNER, host(n), NOBODY, host(n))) for n in range(1, 200)]
    known = [asks(66, n, 3.0 + n / 100, to=GATEWAY) for n in range(1, 200)]
    assert alerts(ArpScan(), [*own, *known]) == []


def test_what_may_be_a_gateway_takes_more():
    absent = [asks(7, 100 + n, 10 + n / 10, GATEWAY) for n in range(40)]
    assert alerts(ArpScan(), absent)
    clients = [asks(20 + n, 7, 1.0, b"\2\0\0\0\2" + bytes((n,))) for n in range(3)]
    assert alerts(ArpScan(), [*clients, *absent]) == []
    assert alerts(ArpScan(), [asks(1, 100 + n, 10 + n / 10, GATEWAY) for n in range(40)]) == []
    [found, *_] = alerts(ArpScan(), [asks(1, n, 10 + n / 100, GATEWAY) for n in range(2, 250)])
    assert found.score == 50
    assert "gateway" in found.evidence


def test_a_gateway_asks_for_whom_it_likes():
    told = DhcpSeen(1.0, host(7), GATEWAY, 5, SCANNER, routers=(host(7),))
    assert alerts(ArpScan(), [told, *(asks(7, n, 10 + n / 100, GATEWAY) for n in range(8, 250))]) == []


def solicits(target, time, mac=SCANNER):
    target = address(f"2001:db8::{target:x}")
    return NeighbourSeen(
        time, address("2001:db8::66"), b"\xff\2" + bytes(9) + b"\1\xff" + target[-3:], mac, target, False
    )


def test_neighbour_solicitations_alike():
    [found] = alerts(ArpScan(), [solicits(n, n / 100) for n in range(1, 16)])
    assert "asked as 2001:db8::66 for 15 addresses" in found.evidence
    router = RouterSeen(0.0, address("fe80::1"), SCANNER, 64, 1800)
    assert alerts(ArpScan(), [router, *(solicits(n, n / 100) for n in range(1, 40))]) == []


def test_it_repeats_itself_once_per_doubling_and_is_bounded():
    detector = ArpScan(hosts_max=3)
    targets = [address(f"10.{n >> 8}.{n & 255}.1") for n in range(20_000)]
    seen = [ArpSeen(n / 1000, SCANNER, BROADCAST, Arp(1, SCANNER, host(66), NOBODY, t)) for n, t in enumerate(targets)]
    assert 2 <= len(alerts(detector, seen)) <= 14
    many = [asks(9, 200, 30.0, b"\2\0\0\0\3" + bytes((n,))) for n in range(200)]
    assert alerts(detector, many) == []
    assert detector.refused == 198
    assert all(len(asker.absent) <= 256 for _, asker in detector._askers.items())


ARPS = st.builds(
    ArpSeen,
    st.floats(0, 1e10),
    st.none() | st.sampled_from([SCANNER, GATEWAY]),
    st.none() | st.sampled_from([BROADCAST, GATEWAY]),
    st.builds(Arp, st.integers(0, 9), st.just(SCANNER), st.binary(min_size=4, max_size=4), st.just(NOBODY),
              st.binary(min_size=4, max_size=4)),
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(ARPS, max_size=60))
def test_never_raises_and_bans_nobody(seen):
    for each in alerts(ArpScan(), seen):
        assert 0 <= each.score <= 100
        assert each.ban == ()
        assert each.first <= each.last
