"""Port scans in dialogues of made observations: what is one, what is none, who could be banned."""

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

from pfw.engine.detect import contacts
from pfw.engine.detect.port_scan import (
    FAST_PORTS,
    FEW_PORTS,
    SETTLED_S,
    SLOW_PORTS,
    SLOW_S,
    UDP_PORTS,
    WALK_PORTS,
    PortScan,
)
from pfw.engine.detect.proof import MEMBERS_MAX
from pfw.model.observation import Began, Confirmed, Ended, HalfOpen, Kind, Met, ProtocolTried, Reply
from pfw.model.packet import SCTP, TCP, UDP

SCANNER, TARGET = "198.51.100.66", "192.0.2.10"
REPLIES = [Reply.REFUSED, Reply.FORBIDDEN, Reply.SILENT]


def tries(ports, reply=Reply.REFUSED, every_s=0.01, source=SCANNER, target=TARGET, protocol=TCP, start=100.0):
    return [
        met(began(source, target, port, start + number * every_s, protocol), reply) for number, port in enumerate(ports)
    ]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize(("source", "target"), [(SCANNER, TARGET), ("2001:db8:a::66", "2001:db8:b::10")])
def test_many_ports_in_a_short_time(reply, source, target):
    found = alerts(PortScan(), tries(range(1, 101), reply, source=source, target=target))
    assert {(each.kind, each.source, each.target) for each in found} == {
        (Kind.PORT_SCAN, address(source), address(target))
    }
    assert found[-1].score >= 80
    assert "100 TCP ports" in found[-1].evidence
    assert (found[-1].first, found[-1].last) == (100.0, pytest.approx(100.99))
    assert all(each.ban == () for each in found)


def test_one_port_less_is_none_where_nobody_is_heard_to_speak():
    assert alerts(PortScan(), tries(range(FAST_PORTS - 1), Reply.SILENT)) == []
    assert len(alerts(PortScan(), tries(range(FAST_PORTS), Reply.SILENT))) == 1


def test_few_refusals_suffice_for_the_random_walk():
    assert alerts(PortScan(), tries(range(WALK_PORTS - 1), every_s=300)) == []
    [found] = alerts(PortScan(), tries(range(WALK_PORTS), every_s=300))
    assert 50 <= found.score < 80


def test_silence_of_a_host_that_speaks_counts_for_the_random_walk():
    answered = talked(began("203.0.113.1", TARGET, 443, 50.0))
    assert alerts(PortScan(), [*answered, *tries(range(WALK_PORTS), Reply.SILENT, 300)])
    assert alerts(PortScan(), tries(range(WALK_PORTS), Reply.SILENT, 300)) == []


def test_who_is_let_in_as_often_is_no_scanner():
    seen = tries([1, 2], every_s=60)
    for port in range(3, 9):
        seen += [*talked(began(SCANNER, TARGET, 1000 + port, port * 60.0)), *tries([port], start=port * 60.0 + 1)]
    assert alerts(PortScan(), seen) == []


def test_a_slow_scan_of_a_host_that_says_nothing():
    assert alerts(PortScan(), tries(range(SLOW_PORTS - 1), Reply.SILENT, 200)) == []
    assert len(alerts(PortScan(), tries(range(SLOW_PORTS), Reply.SILENT, 200))) == 1


def test_the_time_of_the_try_counts_not_that_of_the_silence():
    """What is told at the end comes at once, and was slow all the same."""
    ports = [Met(9_000.0, began(SCANNER, TARGET, port, port * 100.0), Reply.SILENT) for port in range(1, 13)]
    assert alerts(PortScan(), ports) == []


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_retries_of_the_same_port_are_none(protocol):
    seen = [met(began(SCANNER, TARGET, 80, number, protocol, 40_000 + number), Reply.REFUSED) for number in range(500)]
    assert alerts(PortScan(), seen) == []
    two = [met(began(SCANNER, TARGET, 80 + number % 2, number), Reply.SILENT) for number in range(500)]
    assert alerts(PortScan(), two) == []


def test_ports_that_answer_and_talk_are_none():
    """Passive FTP opens a new port for each file."""
    assert (
        alerts(PortScan(), chain(*(talked(began(SCANNER, TARGET, port, port)) for port in range(20_000, 20_200)))) == []
    )


def test_a_scan_with_connect_proves_its_source():
    opened = chain(*(tried_with_connect(began(SCANNER, TARGET, port, 99.0)) for port in (22, 80)))
    found = alerts(PortScan(), [*opened, *tries(range(100, 140))])
    assert found[-1].ban == (address(SCANNER),)


def test_the_proof_may_come_later():
    opened = tried_with_connect(began(SCANNER, TARGET, 22, 110.0))
    found = alerts(PortScan(), [*tries(range(100, 140)), *opened])
    assert [each.ban for each in found][-1] == (address(SCANNER),)


@pytest.mark.parametrize("forged", [5, 12, 40])
@pytest.mark.parametrize("talks", [False, True])
def test_a_health_check_in_whose_name_somebody_scans_proves_nothing(forged, talks):
    """It opens a port and leaves it, or asks something there, before, meanwhile and after."""
    checks = chain(*(tried_with_connect(began(SCANNER, TARGET, 80, n * 10.0)) for n in range(3 if talks else 0, 30)))
    uses = chain(*(talked(began(SCANNER, TARGET, 80, n * 10.0)) for n in range(3 if talks else 0)))
    found = alerts(PortScan(), in_time(uses, checks, tries(range(1000, 1000 + forged), start=101.0)))
    assert found
    assert {each.ban for each in found} == {()}


def test_a_port_opened_for_the_first_time_proves_the_source_only_about_when_it_scans():
    scan = tries(range(100, 140), start=5_000.0)
    for opened, banned in [(4_990.0, set()), (4_996.0, {address(SCANNER)}), (5_010.0, {address(SCANNER)}),
                           (5_002.0 + SLOW_S, set())]:  # fmt: skip
        found = alerts(PortScan(), in_time(scan, tried_with_connect(began(SCANNER, TARGET, 22, opened))))
        assert {ban for each in found for ban in each.ban} == banned, opened


def test_who_uses_one_service_and_scans_is_proved_by_another():
    seen = in_time(talked(began(SCANNER, TARGET, 22, 10.0)), tries(range(100, 140)),
                   *(tried_with_connect(began(SCANNER, TARGET, port, 100.2)) for port in (22, 80)))  # fmt: skip
    assert alerts(PortScan(), seen)[-1].ban == (address(SCANNER),)


SERVICES = (5432, 6379, 8080, 9200, 5672, 9000)


@pytest.mark.parametrize("once", [tried_with_connect, talked])
@pytest.mark.parametrize("reply", REPLIES)
def test_services_that_are_down_are_no_scan(once, reply):
    """A monitor checks them each minute."""
    rounds = [
        once(each) if number < 6 else [met(each, reply)]
        for number in range(8)
        for each in (began(SCANNER, TARGET, port, number * 60.0 + n) for n, port in enumerate(SERVICES))
    ]
    assert alerts(PortScan(), in_time(*rounds)) == []


def test_what_opens_at_last_is_what_was_waited_for():
    """`nc -z` in a loop, until the services are there."""
    vain = [tries(SERVICES, start=second) for second in range(3)]
    opened = (tried_with_connect(began(SCANNER, TARGET, port, 4.0)) for port in SERVICES)
    found = alerts(PortScan(), in_time(*vain, *opened))
    assert {each.ban for each in found} == {()}


def in_periods(detector, seen):
    """As `Detection` does it."""
    found, next_period = [], 60.0
    for each in seen:
        while each.time >= next_period:
            found += detector.end(next_period)
            next_period += 60.0
        found += detector.observe(each)
    return found + list(detector.end(next_period))


@pytest.mark.parametrize("check", [tried_with_connect, half_open])
@pytest.mark.parametrize("every_s", [2.0, 10.0, 30.0])
def test_checks_of_a_load_balancer_that_fail_ban_nobody(check, every_s):
    """Of twelve ports four have a service."""
    seen = []
    for number in range(10):
        start = number * every_s
        seen += tries(range(30_000, 30_008), start=start)
        seen += chain(*(check(began(SCANNER, TARGET, port, start + 0.1)) for port in range(31_000, 31_004)))
    found = in_periods(PortScan(), seen)
    assert {each.ban for each in found} == {()}


@pytest.mark.parametrize("at", [99.5, 100.5])
def test_a_ban_for_what_a_policy_stops_does_not_wait(at):
    """As nmap begins: ten ports at once, of which two are open; they are told of before the others or behind them."""
    stopped = tries(range(100, 108), Reply.SILENT, every_s=0.001)
    opened = chain(*(half_open(began(SCANNER, TARGET, port, at)) for port in (22, 80)))
    seen = sorted([*stopped, *opened], key=lambda each: each.began.time)
    assert [each.ban for each in alerts(PortScan(), seen) if each.ban] == [(address(SCANNER),)]


@pytest.mark.parametrize("proof", [half_open, tried_with_connect])
@pytest.mark.parametrize("again", [0, 2])
def test_for_few_ports_that_are_not_tried_again_and_again_the_ban_comes_later(proof, again):
    """A scanner may repeat what nobody answered, within seconds."""
    seen = in_time(*(tries(range(100, 110), start=100.0 + n) for n in range(again + 1)),
                   proof(began(SCANNER, TARGET, 22, 100.05)))  # fmt: skip
    other = [met(began("203.0.113.9", TARGET, 443, 100.0 + n * 20), Reply.ANSWERED) for n in range(1, 10)]
    found = in_periods(PortScan(), [*seen, *other])
    bans = [each for each in found if each.ban]
    assert (found[0].ban, len(bans)) == ((), 1)
    soon = PortScan()
    before = list(chain(*map(soon.observe, seen)))
    assert {each.ban for each in [*before, *soon.end(100.0 + SETTLED_S - 1)]} == {()}
    assert [each.ban for each in soon.end(105.0 + SETTLED_S)] == [(address(SCANNER),)]


@pytest.mark.parametrize("proof", [half_open, tried_with_connect])
def test_a_ban_for_many_ports_does_not_wait(proof):
    detector = PortScan()
    seen = in_time(proof(began(SCANNER, TARGET, 22, 99.9)), tries(range(100, 100 + FEW_PORTS), every_s=0.001))
    assert [alert.ban for each in seen for alert in detector.observe(each)] == [(address(SCANNER),)]


def test_open_ports_alone_that_are_reset_count_but_prove_nothing():
    """SYN-ACKs are drawn so upon a host in whose name somebody else begins: it resets them, and never meets a closed
    port."""
    found = alerts(PortScan(), chain(*(half_open(began(SCANNER, TARGET, port, 100.0)) for port in range(1, 40))))
    assert "39 half open and reset" in found[-1].evidence
    assert {each.ban for each in found} == {()}


def resets(ports=(22, 80), source=SCANNER, start=100.0, source_port=50_000):
    """A half-open scan, as nmap does it, meets these open."""
    return list(
        chain(*(half_open(began(source, TARGET, port, start, source_port=source_port)) for port in ports))
    )  # fmt: skip


def in_time(*parts):
    return sorted(chain(*parts), key=lambda seen: seen.time)


@pytest.mark.parametrize("target", [TARGET, "2001:db8:b::10"])
def test_a_scan_that_resets_our_answers_proves_its_source(target):
    source = SCANNER if "." in target else "2001:db8:a::66"
    opened = half_open(began(source, target, 22, 100.2))
    found = alerts(PortScan(), in_time(tries(range(100, 140), source=source, target=target), opened))
    assert found[-1].ban == (address(source),)
    assert "40 refused, 1 half open and reset" in found[-1].evidence


@pytest.mark.parametrize("reply", REPLIES)
def test_a_scan_that_met_silence_or_our_resets_alone_proves_nothing(reply):
    assert {each.ban for each in alerts(PortScan(), tries(range(100, 200), reply))} == {()}


def test_resets_may_come_later_than_the_alert():
    found = alerts(PortScan(), [*tries(range(100, 150), every_s=0.1), *resets(start=110.0)])
    assert (found[0].ban, found[-1].ban) == ((), (address(SCANNER),))


@pytest.mark.parametrize("source_port", [20, 53, 80, 1023])
def test_resets_of_a_service_prove_nothing(source_port):
    """`nmap -sI` scans in the name of a host that answers at such a port."""
    seen = [*tries(range(100, 140)), *resets(source_port=source_port)]
    assert {each.ban for each in alerts(PortScan(), in_time(seen))} == {()}


def test_of_decoys_that_reset_nobody_is_proved():
    """One decoy or many, alive or dead; and whoever scans may keep its own resets back."""
    ports = range(100, 140)
    for many in (1, 4):
        others = [f"203.0.113.{number}" for number in range(1, many + 1)]
        for who_resets in ([SCANNER], others, [SCANNER, *others]):
            seen = in_time(*(tries(ports, source=each) for each in (SCANNER, *others)),
                           *(resets(source=each) for each in who_resets))  # fmt: skip
            found = alerts(PortScan(), seen)
            assert found
            assert {each.ban for each in found} == {()}


def test_decoys_in_company_of_a_scanner_that_began_a_little_earlier():
    """The first may be found out some seconds before, since it tried more."""
    early = tries(range(1, 140), every_s=0.1)
    decoy = tries(range(100, 140), every_s=0.1, start=109.9, source="203.0.113.1")
    found = alerts(PortScan(), in_time(early, decoy, resets(source="203.0.113.1", start=110.0)))
    assert {each.source for each in found} == {address(SCANNER), address("203.0.113.1")}
    assert {each.ban for each in found} == {()}


def test_decoys_that_are_dead_are_known_though_nobody_can_tell_them_that_a_port_is_closed():
    """On a link what goes to an absent host is never sent: the decoys' ports seem silent, 3 s later."""
    sources = (SCANNER, "203.0.113.1", "203.0.113.2")
    firsts = [began(each, TARGET, port, 100.0 + port / 1000) for port in range(100, 140) for each in sources]
    mets = [met(each, Reply.REFUSED if each.source == address(SCANNER) else Reply.SILENT) for each in firsts]
    found = alerts(PortScan(), in_time(firsts, mets, resets()))
    assert found
    assert {each.ban for each in found} == {()}
    ours = [each for each in firsts if each.source == address(SCANNER)]
    found = alerts(PortScan(), in_time(ours, [met(each, Reply.REFUSED) for each in ours], resets()))
    assert {each.ban for each in found} == {(address(SCANNER),)}


def test_decoys_of_a_host_whose_ports_are_mostly_open():
    """What a dead decoy does not reset is known 3 s later; what is closed tells that it is there."""
    opened, closed = range(100, 110), range(110, 122)
    quiet = chain(*(unsaid(began("203.0.113.1", TARGET, port, 100.0)) for port in opened))
    found = alerts(
        PortScan(), in_time(quiet, tries(closed, source="203.0.113.1"), resets(opened), tries(closed))
    )  # fmt: skip
    assert {each.source for each in found} == {address(SCANNER), address("203.0.113.1")}
    assert any("10 half open and then nothing" in each.evidence for each in found)
    assert {each.ban for each in found} == {()}


def test_who_keeps_quiet_after_our_answers_is_found_all_the_same():
    found = alerts(PortScan(), chain(*(unsaid(began(SCANNER, TARGET, port, 100.0)) for port in range(100, 140))))
    assert "40 half open and then nothing" in found[-1].evidence
    assert {each.ban for each in found} == {()}


@pytest.mark.parametrize("proof", [half_open, tried_with_connect])
def test_who_has_proved_itself_is_told_of_at_once(proof):
    detector = PortScan()
    seen = in_time(proof(began(SCANNER, TARGET, 22, 99.9)), tries(range(100, 140), every_s=0.001))
    first = next((each, alert) for each in seen for alert in detector.observe(each))
    assert first[1].ban == (address(SCANNER),)
    assert first[0].time < 100.02
    later = PortScan()
    seen = in_time(tries(range(100, 140), every_s=0.001), proof(began(SCANNER, TARGET, 22, 100.5)))
    assert [(each.time < 100.51, alert.ban) for each in seen for alert in later.observe(each)] == [
        (True, (address(SCANNER),))
    ]


def test_who_has_not_proved_itself_is_told_of_when_others_would_be_known():
    """Any connection that is seen then lets it out, of whomever."""
    detector = PortScan()
    seen = [
        *tries(range(100, 140), every_s=0.001),
        *(met(began("192.0.2.7", "192.0.2.8", 443, 101.0 + n), Reply.ANSWERED) for n in range(3)),
    ]
    assert [each.time for each in seen if detector.observe(each)] == [pytest.approx(103.0, abs=0.1)]


@pytest.mark.parametrize(
    ("ports", "start"), [(range(2_000, 2_040), 100.0), (range(100, 140), 200.0), (range(100, 110), 95.0)]
)
def test_another_scan_with_other_ports_or_at_another_time_is_no_company(ports, start):
    other = tries(ports, source="203.0.113.1", start=start)
    seen = in_time(other, tries(range(100, 140), every_s=0.3), resets())
    assert {ban for each in alerts(PortScan(), seen) for ban in each.ban} == {address(SCANNER)}


def test_among_too_many_to_tell_apart_resets_prove_nothing():
    crowd = in_time(*(tries([number, number + 1], source=f"203.0.113.{number}") for number in range(MEMBERS_MAX)))
    scan = [*tries(range(100, 140), start=150.0), *resets(start=150.0)]
    for company, banned in ((crowd[:-8], {address(SCANNER)}), (crowd, set())):
        found = alerts(PortScan(), [*company, *in_time(scan)])
        assert found
        assert {ban for each in found for ban in each.ban} == banned


def test_a_connection_of_another_kind_proves_nothing():
    """Somebody left a TCP port open, and somebody else sends datagrams in its name."""
    opened = tried_with_connect(began(SCANNER, TARGET, 22, 90.0))
    seen = [*tries([1, 2], start=80.0), *opened, *tries(range(100, 140), Reply.SILENT, protocol=UDP)]
    assert {each.ban for each in alerts(PortScan(), seen)} == {()}


def test_an_ordinary_connection_of_a_forged_source_is_no_proof():
    """Somebody has a session, and somebody else sends in its name to closed ports: it is not to be locked out."""
    found = alerts(PortScan(), [*talked(began(SCANNER, TARGET, 22, 90.0)), *tries(range(100, 140))])
    assert found
    assert {each.ban for each in found} == {()}


def test_decoys_are_one_alert_without_a_source_and_ban_nobody():
    sources = [f"203.0.113.{number}" for number in range(1, 6)]
    seen = [
        met(began(source, TARGET, port, 100.0 + port / 1000), Reply.REFUSED)
        for port in range(1, 101)
        for source in sources
    ]
    found = alerts(PortScan(), seen)
    assert {(each.source, each.target, each.ban) for each in found} == {(None, address(TARGET), ())}
    assert "5 sources at once" in found[-1].evidence


def test_few_decoys_with_few_ports():
    seen = [
        met(began(f"203.0.113.{n}", TARGET, port, 100.0), Reply.REFUSED)
        for port in range(WALK_PORTS)
        for n in (1, 2, 3)
    ]
    [found] = alerts(PortScan(), seen)
    assert (found.source, found.target) == (None, address(TARGET))


def test_many_decoys_are_not_told_of_each_time():
    sources = [f"203.0.{number}.1" for number in range(200)]
    seen = [met(began(source, TARGET, port, 100.0 + port), Reply.REFUSED) for port in range(40) for source in sources]
    found = alerts(PortScan(), seen)
    assert {each.source for each in found} == {None}
    assert len(found) <= 16


def test_among_decoys_who_proves_itself_is_named():
    decoys = [
        met(began(f"203.0.113.{n}", TARGET, port, 100.0), Reply.REFUSED) for port in range(50) for n in range(1, 5)
    ]
    opened = tried_with_connect(began(SCANNER, TARGET, 80, 100.0))
    found = alerts(PortScan(), [*opened, *decoys, *tries(range(50))])
    assert {each.source for each in found} == {None, address(SCANNER)}
    assert {ban for each in found for ban in each.ban} == {address(SCANNER)}


def test_many_sources_with_a_few_ports_each():
    seen = talked(began("203.0.113.200", TARGET, 443, 50.0))
    for number in range(1, 9):
        ports = range(number * 10, number * 10 + 4)
        seen += tries(ports, Reply.REFUSED, 2.0, source=f"203.0.113.{number}", start=100.0 + number)
    found = alerts(PortScan(), seen)
    assert {(each.source, each.target, each.ban) for each in found} == {(None, address(TARGET), ())}


def forged(number: int) -> bytes:
    return bytes((45, *number.to_bytes(3)))


def test_a_flood_of_forged_sources_is_none_and_does_not_hide_a_scan():
    flood = [
        Met(100.0 + n / 10_000, Began(100.0 + n / 10_000, TCP, forged(n), address(TARGET), 1024, 80), Reply.SILENT)
        for n in range(37_000)
    ]
    detector = PortScan()
    assert alerts(detector, flood) == []
    assert detector.refused > 0
    known = tries(range(2), start=50.0)
    assert alerts(PortScan(), [*known, *flood, *tries(range(2, 100), start=105.0)])


def test_a_flood_to_ports_at_random_from_forged_sources_is_none():
    flood = [
        Met(100.0, Began(100.0, TCP, forged(n), address(TARGET), 1024, n % 65_536), Reply.REFUSED)
        for n in range(20_000)
    ]
    assert alerts(PortScan(), flood) == []


def test_a_flood_to_ports_at_random_whose_sources_come_again_is_none():
    seen = [
        met(Began(100 + n / 10_000, TCP, forged(n % 5_000), address(TARGET), 1024, n * 7 % 65_536), Reply.REFUSED)
        for n in range(20_000)
    ]
    assert alerts(PortScan(), seen) == []


def test_udp_takes_more_ports():
    assert alerts(PortScan(), tries(range(100, 100 + UDP_PORTS - 1), Reply.SILENT, protocol=UDP)) == []
    [found] = alerts(PortScan(), tries(range(100, 100 + UDP_PORTS), Reply.SILENT, protocol=UDP))
    assert "15 UDP ports" in found.evidence


@pytest.mark.parametrize(
    ("source_port", "ports"), [(50_000, range(33_434, 33_534)), (53, range(2_000, 2_100)), (443, range(50_000, 50_100))]
)
def test_traceroute_late_answers_and_the_like_are_none(source_port, ports):
    seen = [met(began(SCANNER, TARGET, port, port / 100, UDP, source_port), Reply.REFUSED) for port in ports]
    assert alerts(PortScan(), seen) == []


@pytest.mark.parametrize("target", ["255.255.255.255", "192.0.2.255", "239.255.255.250", "ff02::fb"])
def test_what_goes_to_many_is_none(target):
    assert alerts(PortScan(), tries(range(1, 60), Reply.SILENT, target=target, protocol=UDP)) == []


def test_a_host_whose_address_ends_as_a_broadcast_address_does_is_scanned_all_the_same():
    """Once it has answered, it is a host: of a network larger than a /24."""
    host = "10.1.4.255"
    found = alerts(PortScan(), tries(range(1000, 1030), target=host))
    assert "30 TCP ports of 10.1.4.255" in found[-1].evidence
    answered = talked(began("203.0.113.1", host, 443, 50.0))
    assert alerts(PortScan(), [*answered, *tries(range(1000, 1030), Reply.SILENT, target=host)])
    assert alerts(PortScan(), tries(range(1000, 1030), Reply.SILENT, target=host)) == []
    # A router may say of what went to all that the port cannot be reached.
    assert alerts(PortScan(), tries(range(1, 60), target=host, protocol=UDP)) == []
    protocols = [ProtocolTried(60.0, address(SCANNER), address(host), number) for number in range(140, 150)]
    assert alerts(PortScan(), [*answered, *protocols])
    assert alerts(PortScan(), protocols) == []


def test_ip_protocols():
    def tried(numbers, target=TARGET):
        return [ProtocolTried(n / 100, address(SCANNER), address(target), n) for n in numbers]

    found = alerts(PortScan(), tried(range(100, 250)))
    # Without SCTP and UDP-Lite, which have ports.
    assert "148 IP protocols" in found[-1].evidence
    assert alerts(PortScan(), tried([47, 50, 51, 4])) == []
    assert alerts(PortScan(), tried([2, 88, 89, 103, 112, 113, 114], "224.0.0.5")) == []


def test_it_repeats_itself_once_per_doubling():
    assert len(alerts(PortScan(), tries(range(1, 10_000), every_s=0.001))) <= 16


ADDRESSES = st.sampled_from([address(text) for text in (SCANNER, TARGET, "192.0.2.11", "2001:db8::1", "224.0.0.1")])
TIMES = st.floats(0, 1e10)
BEGAN = st.builds(
    Began,
    TIMES,
    st.sampled_from([1, TCP, UDP, SCTP, 58]),
    ADDRESSES,
    ADDRESSES,
    st.none() | st.integers(0, 65_535),
    st.none() | st.integers(0, 65_535),
    st.none() | st.integers(0, 255),
    st.integers(0, 65_535),
)
SEEN = st.one_of(
    BEGAN,
    st.builds(Met, TIMES, BEGAN, st.sampled_from(list(Reply)), st.integers(1, 9)),
    st.builds(Confirmed, TIMES, BEGAN, st.booleans()),
    st.builds(HalfOpen, TIMES, BEGAN),
    st.builds(Ended, TIMES, BEGAN, *[st.integers(0, 1 << 40)] * 4, st.booleans(), st.booleans(), st.booleans()),
    st.builds(ProtocolTried, TIMES, ADDRESSES, ADDRESSES, st.integers(0, 255)),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(SEEN, max_size=80))
def test_never_raises_and_bans_only_sources(seen):
    for each in alerts(PortScan(pairs_max=3), seen):
        assert 0 <= each.score <= 100
        assert set(each.ban) <= {each.source}
        assert each.first <= each.last


@pytest.mark.parametrize("each", [2, 4])
def test_many_sources_that_try_a_little_do_not_hide_a_scan(each):
    """Fewer ports each, and more sources, than anything is said of."""
    seen = [
        met(Began(100.0 + n, TCP, forged(n), address(TARGET), 1024, 80 + port), Reply.SILENT)
        for n in range(100)
        for port in range(each)
    ]
    detector = PortScan(pairs_max=50)
    assert alerts(detector, seen) == []
    opened = tried_with_connect(began(SCANNER, TARGET, 22, 210.0))
    found = alerts(detector, [*opened, *tries(range(100, 140), start=210.0)])
    assert {ban for each in found for ban in each.ban} == {address(SCANNER)}
    assert "40 TCP ports" in found[-1].evidence
    # Who was told of stays, whatever comes later.
    more = [Began(300.0, TCP, forged(n), address(TARGET), 1024, port) for n in range(200) for port in (1, 2)]
    alerts(detector, [met(each, Reply.SILENT) for each in more])
    assert "80 TCP ports" in alerts(detector, tries(range(140, 180), start=301.0))[-1].evidence


def test_its_tables_are_bounded(monkeypatch):
    monkeypatch.setattr(contacts, "FRESH_MAX", 50)
    detector = PortScan(pairs_max=20)
    for number in range(500):
        source = forged(number)
        for port in range(3):
            detector.observe(met(Began(100.0, TCP, source, address(TARGET), 1024, port), Reply.REFUSED))
    assert len(detector._scans) <= 70
    assert detector.refused > 0
