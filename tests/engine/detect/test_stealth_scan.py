"""Stealth scans in made observations, and what is left of connections and forgeries, which are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.detect.dialogue import address, alerts, stray

from pfw.engine.detect import contacts
from pfw.engine.detect.stealth_scan import BARE_TRIES, ODD_TRIES, StealthScan, flags_name
from pfw.model.observation import Kind, Stray
from pfw.model.packet import ACK, FIN, PSH, RST, SYN, URG

SCANNER, TARGET = "198.51.100.66", "192.0.2.10"
ODD = [
    0,
    FIN,
    FIN | PSH | URG,
    SYN | FIN,
    SYN | RST,
    URG,
    PSH,
    SYN | FIN | URG | PSH,
    SYN | FIN | RST | PSH | ACK | URG,
]


@pytest.mark.parametrize("flags", ODD)
def test_odd_flags_need_few(flags):
    seen = [stray(SCANNER, TARGET, port, flags, port) for port in range(1, ODD_TRIES + 1)]
    [found] = alerts(StealthScan(), seen)
    assert (found.kind, found.source, found.target, found.ban) == (
        Kind.STEALTH_SCAN,
        address(SCANNER),
        address(TARGET),
        (),
    )
    assert flags_name(flags) in found.evidence
    assert alerts(StealthScan(), seen[:-1]) == []
    assert alerts(StealthScan(), [stray(SCANNER, TARGET, 80, flags, number) for number in range(100)]) == []


def test_different_probes_count_together():
    [found] = alerts(
        StealthScan(), [stray(SCANNER, TARGET, 3390 + n, flags, n * 10) for n, flags in enumerate(ODD[:3])]
    )
    assert found.evidence.endswith("1 NULL, 1 FIN, 1 Xmas")


def test_different_flags_to_one_port_count():
    """`nmap -O` needs no more than one open and one closed port."""
    seen = [stray(SCANNER, TARGET, 22, 0), stray(SCANNER, TARGET, 22, ODD[-2]), stray(SCANNER, TARGET, 1, ODD[2])]
    [found] = alerts(StealthScan(), seen)
    assert "2 ports of 192.0.2.10" in found.evidence


@pytest.mark.parametrize("flags", [ACK, FIN | ACK, PSH | ACK])
def test_bare_ones_need_as_many_ports_as_a_port_scan(flags):
    seen = [stray(SCANNER, TARGET, port, flags, port) for port in range(1, BARE_TRIES + 1)]
    [found] = alerts(StealthScan(), seen)
    assert found.score >= 70
    assert alerts(StealthScan(), seen[:-1]) == []


def test_the_same_order_is_not_needed():
    """When no more comes of a connection is known at different times."""
    seen = [stray(SCANNER, TARGET, port, ACK, 100 - port) for port in range(1, 40)]
    found = alerts(StealthScan(), seen)
    assert (found[-1].first, found[-1].last) == (61, 99)


def test_an_acknowledgement_to_many_neighbours():
    """`nmap -PA80`."""
    found = alerts(StealthScan(), [stray(SCANNER, f"192.0.2.{n}", 80, ACK, n / 100) for n in range(1, 100)])
    assert found[-1].target is None
    assert "99 hosts" in found[-1].evidence


def test_a_client_that_wakes_up_is_none():
    """Its connections are gone at the other ends, all over the world, and some with one service."""
    far = [
        stray(SCANNER, f"{n}.{n}.7.{n}", 443, flags, 1.0, 40_000 + n)
        for n in range(1, 200)
        for flags in (ACK, FIN | ACK)
    ]
    one = [stray(SCANNER, TARGET, 443, ACK, 2.0, 40_000 + n) for n in range(100)]
    assert alerts(StealthScan(), [*far, *one]) == []


def test_a_server_whose_clients_are_gone_is_none():
    assert alerts(StealthScan(), [stray(SCANNER, TARGET, 50_000 + n, PSH | ACK, n / 10, 443) for n in range(200)]) == []


@pytest.mark.parametrize("flags", [SYN | ACK, RST, RST | ACK, FIN | RST | ACK])
@pytest.mark.parametrize("source_port", [80, 60_000])
def test_what_answers_a_forged_packet_is_none(flags, source_port):
    assert alerts(StealthScan(), [stray(SCANNER, TARGET, n, flags, n / 100, source_port) for n in range(1, 3000)]) == []


def test_a_flood_of_forged_sources_is_none():
    flood = [
        Stray(1.0, bytes((45, *n.to_bytes(3))), address(TARGET), 50_000, n % 60_000, FIN, 54) for n in range(37_000)
    ]
    detector = StealthScan()
    assert alerts(detector, flood) == []
    assert detector.refused


def test_what_goes_to_many_is_none():
    assert alerts(StealthScan(), [stray(SCANNER, "255.255.255.255", n, 0) for n in range(9)]) == []


def test_it_repeats_itself_once_per_doubling():
    assert len(alerts(StealthScan(), [stray(SCANNER, TARGET, n, 0, n / 1000) for n in range(60_000)])) <= 12


STRAYS = st.builds(
    Stray,
    st.floats(0, 1e10),
    st.sampled_from([address(SCANNER), address("2001:db8::1")]),
    st.sampled_from([address(TARGET), address("2001:db8::2"), address("224.0.0.1")]),
    st.integers(0, 65_535),
    st.integers(0, 65_535),
    st.integers(0, 255),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(STRAYS, max_size=80))
def test_never_raises_and_bans_nobody(seen):
    for each in alerts(StealthScan(sources_max=2), seen):
        assert 0 <= each.score <= 100
        assert each.ban == ()
        assert each.first <= each.last


def test_its_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(contacts, "FRESH_MAX", 50)
    detector = StealthScan(sources_max=20)
    for number in range(500):
        for port in range(4):
            detector.observe(Stray(1.0, bytes((45, *number.to_bytes(3))), address(TARGET), 50_000, port, FIN))
    assert len(detector._odd) <= 70
    assert detector.refused > 0
