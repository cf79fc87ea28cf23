"""Sweeps in dialogues of made observations, and the ordinary traffic that looks like one."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.detect.dialogue import (
    address,
    alerts,
    began,
    half_open,
    met,
    talked,
    tried_with_connect,
    unsaid,
)
from tests.engine.detect.test_port_scan import REPLIES, SEEN

from pfw.engine.detect import contacts
from pfw.engine.detect.sweep import FAR_HOSTS, NEAR_HOSTS, SLOW_HOSTS, SLOW_SOURCES_MAX, SWEEPS_S, Sweep
from pfw.model.observation import Began, Kind, Met, ProtocolTried, Reply
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP

SCANNER = "198.51.100.66"
FAR = [f"{number}.{number * 7 % 256}.9.{number}" for number in range(11, 211)]


def neighbours(count, network="192.0.2."):
    return [f"{network}{number}" for number in range(1, count + 1)]


def tries(
    targets, port=22, reply=Reply.SILENT, every_s=0.1, protocol=TCP, attempts=1, source=SCANNER, source_port=50_000
):
    return [
        met(began(source, target, port, 100.0 + number * every_s, protocol, source_port), reply, attempts)
        for number, target in enumerate(targets)
    ]


def echoes(targets, kind=8, protocol=ICMP, reply=Reply.SILENT, every_s=0.1):
    return [
        met(Began(100 + n * every_s, protocol, address(SCANNER), address(target), None, None, kind, 60), reply)
        for n, target in enumerate(targets)
    ]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_neighbours(reply, protocol):
    found = alerts(Sweep(), tries(neighbours(100), 161, reply, protocol=protocol))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.SWEEP, address(SCANNER), None, ())
    }
    assert "100 hosts" in found[-1].evidence
    assert found[-1].score >= 80


def test_how_many_neighbours_it_takes():
    every = {"every_s": 5.0, "attempts": 2}
    assert alerts(Sweep(), tries(neighbours(NEAR_HOSTS - 1), **every)) == []
    assert len(alerts(Sweep(), tries(neighbours(NEAR_HOSTS), **every))) == 1


def test_a_network_of_ipv6():
    targets = [f"2001:db8:b::{number:x}" for number in range(1, 40)]
    assert alerts(Sweep(), tries(targets, source="2001:db8:a::66"))
    # What a browser makes of IPv6 that does not work.
    scattered = [f"2001:db8:{number:x}::1" for number in range(1, 80)]
    assert alerts(Sweep(), tries(scattered, 443, source="2001:db8:a::66")) == []


@pytest.mark.parametrize(("protocol", "kind"), [(ICMP, 8), (ICMP, 13), (ICMPV6, 128)])
def test_echoes(protocol, kind):
    targets = neighbours(40) if protocol == ICMP else [f"2001:db8::{number:x}" for number in range(1, 40)]
    assert alerts(Sweep(), echoes(targets, kind, protocol))


def test_a_traceroute_and_a_monitor_are_none():
    trace = [
        met(Began(n, ICMP, address(SCANNER), address("192.0.2.1"), None, None, 8, 60), Reply.EXPIRED) for n in range(30)
    ]
    assert alerts(Sweep(), trace) == []
    assert alerts(Sweep(), [*echoes(neighbours(60), reply=Reply.ANSWERED), *echoes(neighbours(9, "192.0.3."))]) == []


def test_hosts_far_and_wide():
    assert len(alerts(Sweep(), tries(FAR[:FAR_HOSTS], 23))) == 1
    assert alerts(Sweep(), tries(FAR[: FAR_HOSTS - 1], 23)) == []


def test_a_client_whose_network_stops_it_is_none():
    """It repeats its SYN."""
    assert alerts(Sweep(), tries(FAR, 443, attempts=2)) == []


def test_a_browser_is_none():
    seen = list(chain(*(talked(began(SCANNER, target, 443, 90.0)) for target in FAR[:40])))
    assert alerts(Sweep(), [*seen, *tries(FAR[:8], 443)]) == []


def test_file_sharing_is_none():
    """Most peers are gone; those that are there are on ports of their own, or on the usual one."""
    seen = []
    for number, target in enumerate(FAR * 3):
        seen += tries([target], 6881 if number % 3 else 10_000 + number, REPLIES[number % 3])
        if number % 8 == 0:
            seen += talked(began(SCANNER, f"203.0.113.{number % 250}", 6881, 100.0))
    assert alerts(Sweep(), sorted(seen, key=lambda each: each.time)) == []
    same_provider = [f"82.33.{number}.{number}" for number in range(100)]
    assert alerts(Sweep(), [each for n, t in enumerate(same_provider) for each in tries([t], 20_000 + n)]) == []


@pytest.mark.parametrize(
    ("port", "reply"), [(53, Reply.SILENT), (123, Reply.SILENT), (443, Reply.SILENT), (6881, Reply.REFUSED)]
)
def test_resolvers_clocks_quic_and_peers_over_udp_are_none(port, reply):
    assert alerts(Sweep(), tries(FAR, port, reply, protocol=UDP)) == []
    assert alerts(Sweep(), tries(neighbours(40), 443, protocol=UDP)) == []


def test_answers_that_nobody_heard_the_question_of_are_none():
    assert alerts(Sweep(), tries(neighbours(60), 40_000, protocol=UDP, source_port=53)) == []


@pytest.mark.parametrize(("source_port", "port"), [(67, 68), (547, 546), (5353, 5353), (137, 137)])
def test_answers_to_what_went_to_all_are_none(source_port, port):
    assert alerts(Sweep(), tries(neighbours(60), port, protocol=UDP, source_port=source_port)) == []


@pytest.mark.parametrize("target", ["224.0.0.{}", "255.255.255.255"])
def test_multicast_is_none(target):
    assert alerts(Sweep(), tries([target.format(number) for number in range(1, 60)], 5353, protocol=UDP)) == []


def test_retries_with_the_same_hosts_are_none():
    assert alerts(Sweep(), tries(neighbours(NEAR_HOSTS - 1) * 30, every_s=0.01, attempts=2)) == []


def test_slowly():
    """Hosts of one network in hours, on few ports, once each."""
    targets = [f"10.10.{number * 40}.{number}" for number in range(1, SLOW_HOSTS + 1)]
    seen = [met(began(SCANNER, target, port, n * 2_000.0), Reply.SILENT) for n, (target, port) in
            enumerate(zip(targets, [80, 8080, 80, 88, 80], strict=True))]  # fmt: skip
    [found] = alerts(Sweep(), seen)
    assert 50 <= found.score < 80
    assert "80, 88, 8080" in found.evidence
    assert alerts(Sweep(), seen[:-1]) == []


def test_slow_failures_of_a_client_are_none():
    targets = [f"10.10.{number * 40}.{number}" for number in range(1, SLOW_HOSTS + 1)]
    failures = [met(began(SCANNER, target, 443, n * 2_000.0), Reply.SILENT) for n, target in enumerate(targets)]
    assert alerts(Sweep(), [Met(each.time, each.began, each.reply, 3) for each in failures]) == []
    for n in range(2):
        failures[2:2] = talked(began(SCANNER, f"203.0.113.{n}", 443, 2_000.0))
    assert alerts(Sweep(), failures) == []


def test_hosts_that_are_opened_and_left_prove_the_source():
    opened = chain(*(tried_with_connect(began(SCANNER, f"192.0.2.{n}", 22, 99.0)) for n in range(101, 103)))
    found = alerts(Sweep(), [*tries(neighbours(60)), *opened])
    assert found[-1].ban == (address(SCANNER),)
    reset = chain(*(half_open(began(SCANNER, target, 22, 100.0)) for target in neighbours(60)))
    found = alerts(Sweep(), reset)
    assert found
    assert {each.ban for each in found} == {()}  # SYN-ACKs are drawn upon a victim so


def left(hosts, time=99.0):
    return list(chain(*(tried_with_connect(began(SCANNER, f"192.0.2.{n}", 22, time)) for n in hosts)))


@pytest.mark.parametrize("hosts", [(101,), (101, 102), range(101, 131)])
def test_health_checks_in_whose_name_somebody_sweeps_prove_nothing(hosts):
    """They open the same ports of the same hosts again and again."""
    checks = chain(*(left(hosts, 10.0 * n) for n in range(30)))
    assert banned(checks, tries(neighbours(60))) == set()


def test_one_host_that_is_left_again_and_again_is_not_two():
    assert banned(tries(neighbours(60)), *(left([101], 105.0 + n) for n in range(9))) == set()
    assert banned(tries(neighbours(60)), *(left([101 + n], 105.0 + n) for n in range(2))) == {address(SCANNER)}
    assert banned(tries(neighbours(60)), left([101], 105.0), left([102], 106.0 + SWEEPS_S)) == set()


@pytest.mark.parametrize("once", [tried_with_connect, talked])
@pytest.mark.parametrize("reply", REPLIES)
def test_hosts_that_are_down_are_no_sweep(once, reply):
    """A monitor asks each of a rack once a minute, and most lose power."""
    seen = []
    for number in range(10):
        for host in range(24):
            first = began(SCANNER, f"192.0.2.{100 + host}", 22, number * 60.0 + host * 2)
            seen += [met(first, reply)] if number >= 6 and host >= 8 else once(first)
    assert alerts(Sweep(), sorted(seen, key=lambda each: each.time)) == []


def test_hosts_that_were_waited_for_prove_nothing():
    vain = tries(neighbours(30), reply=Reply.REFUSED)
    assert banned(vain, left(range(1, 31), 110.0)) == set()


def resets(hosts, source=SCANNER, source_port=50_000):
    return list(
        chain(*(half_open(began(source, f"192.0.2.{n}", 22, 101.0, source_port=source_port)) for n in hosts))
    )  # fmt: skip


def banned(*parts):
    found = alerts(Sweep(), sorted(chain(*parts), key=lambda seen: seen.time))
    assert found
    return {ban for each in found for ban in each.ban}


def test_hosts_whose_answers_are_reset_prove_the_source():
    assert banned(tries(neighbours(60)), resets((101, 102))) == {address(SCANNER)}
    assert banned(tries(neighbours(60), reply=Reply.REFUSED), resets((101, 102))) == {address(SCANNER)}
    assert banned(tries(neighbours(60)), resets((101,))) == set()
    assert banned(tries(neighbours(60)), resets((101, 102), source_port=80)) == set()
    late = [*tries(neighbours(16), every_s=0.01), *resets((101, 102))]
    assert [each.ban for each in alerts(Sweep(), late)][-1] == (address(SCANNER),)


@pytest.mark.parametrize("resetting", [[SCANNER], ["203.0.113.1"], [SCANNER, "203.0.113.1"]])
def test_of_decoys_that_sweep_together_nobody_is_proved(resetting):
    both = [tries(neighbours(60), source=each) for each in (SCANNER, "203.0.113.1")]
    assert banned(*both, *(resets((101, 102), each) for each in resetting)) == set()


def test_decoys_are_known_before_it_is_known_how_they_were_met():
    firsts = [began(each, target, 22, 100.0 + n / 100) for n, target in enumerate(neighbours(40))
              for each in (SCANNER, "203.0.113.1")]  # fmt: skip
    mets = [met(each, Reply.REFUSED if each.source == address(SCANNER) else Reply.SILENT) for each in firsts]
    answered = [began(SCANNER, f"192.0.2.{n}", 22, 100.05) for n in (101, 102)]
    opened = list(chain(*map(half_open, answered)))
    assert banned(firsts, mets, answered, opened) == set()
    ours = [each for each in firsts if each.source == address(SCANNER)]
    assert banned(ours, [met(each, Reply.REFUSED) for each in ours], answered, opened) == {address(SCANNER)}


def test_who_sweeps_other_hosts_or_another_port_is_no_company():
    ours = [tries(neighbours(60)), resets((101, 102))]
    others = tries(neighbours(60, "198.18.0."), source="203.0.113.1"), tries(neighbours(60), 80, source="203.0.113.1")
    for other in others:
        assert banned(*ours, other) == {address(SCANNER)}


def test_hosts_that_hear_nothing_more_count():
    found = alerts(Sweep(), chain(*(unsaid(began(SCANNER, target, 22, 100.0)) for target in neighbours(60))))
    assert "60 hosts" in found[-1].evidence
    assert {each.ban for each in found} == {()}


def test_a_flood_is_none_and_does_not_hide_a_sweep():
    def forged(n):
        return Met(100.0, Began(100.0, TCP, bytes((45, *n.to_bytes(3))), address("192.0.2.10"), 1024, 80), Reply.SILENT)

    flood = [forged(number) for number in range(37_000)]
    detector = Sweep()
    assert alerts(detector, flood) == []
    assert detector.refused
    assert alerts(Sweep(), [*tries(neighbours(2)), *flood, *tries(neighbours(40))])


@pytest.mark.parametrize("each", [2, 4])
def test_many_sources_that_try_a_little_do_not_hide_a_sweep(each):
    seen = [
        Met(100.0 + n, Began(100.0 + n, TCP, bytes((45, *n.to_bytes(3))), address(target), 1024, 80), Reply.SILENT)
        for n in range(100)
        for target in neighbours(each)
    ]
    detector = Sweep(sweeps_max=50)
    assert alerts(detector, seen) == []
    found = alerts(detector, tries(neighbours(60)))
    assert "60 hosts" in found[-1].evidence
    # Who was told of stays.
    alerts(detector, seen)
    assert "61 hosts" in alerts(detector, tries(["192.0.2.99"]))[-1].evidence


def test_many_sources_that_try_a_little_do_not_hide_a_slow_sweep():
    seen = [
        met(Began(100.0 + n / 10, TCP, bytes((45, *n.to_bytes(3))), address(target), 1024, 80), Reply.SILENT)
        for n in range(SLOW_SOURCES_MAX + 100)
        for target in neighbours(2)
    ]
    detector = Sweep()
    assert alerts(detector, seen) == []
    targets = [f"10.10.{number * 40}.{number}" for number in range(1, SLOW_HOSTS + 1)]
    later = [met(began(SCANNER, target, 80, 200.0 + n * 500.0), Reply.SILENT) for n, target in enumerate(targets)]
    assert len(alerts(detector, later)) == 1


@settings(deadline=None, max_examples=100)
@given(st.lists(SEEN.filter(lambda each: not isinstance(each, ProtocolTried)), max_size=80))
def test_never_raises_and_bans_only_sources(seen):
    for each in alerts(Sweep(sweeps_max=3), seen):
        assert 0 <= each.score <= 100
        assert set(each.ban) <= {each.source}
        assert each.first <= each.last


def test_its_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(contacts, "FRESH_MAX", 50)
    detector = Sweep(sweeps_max=20)
    for number in range(500):
        for target in neighbours(3):
            detector.observe(
                met(Began(100.0, TCP, bytes((45, *number.to_bytes(3))), address(target), 1, 80), Reply.SILENT)
            )
    assert len(detector._sweeps) <= 70
    assert detector.refused > 0
