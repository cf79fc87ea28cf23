"""Floods of UDP and ICMP in dialogues of made observations; streams, downloads and pings that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.detect.dialogue import alerts
from tests.engine.detect.flooding import (
    ATTACKER,
    SEEN,
    TARGET,
    confirmed,
    flows,
    forged,
    in_time,
    is_sound,
    met,
    stream,
    wanted,
)

from pfw.engine.detect.datagram_flood import STREAM_PER_S, IcmpFlood, UdpFlood
from pfw.model.address import parse_address
from pfw.model.observation import EchoSeen, Kind, Reply
from pfw.model.packet import ICMP, TCP, UDP


def udp(many, rate, **others):
    return flows(many, rate, UDP, **{"port": 9_999, **others})


def one(**others):
    [first] = udp(1, 1, source=ATTACKER, **others)
    return first


def test_new_flows_from_everywhere():
    found = alerts(UdpFlood(), udp(37_000, 10_000))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.UDP_FLOOD, None, TARGET, ())
    }  # fmt: skip
    assert found[-1].score >= 80
    assert "37000 datagrams to 192.0.2.10:9999" in found[-1].evidence


def test_new_flows_of_one():
    assert alerts(UdpFlood(), udp(5_000, 5_000, source=ATTACKER))[-1].source == ATTACKER
    # A program that opens a socket for each line of its log.
    assert alerts(UdpFlood(), udp(3_000, 500, source=ATTACKER)) == []


def test_a_busy_name_server_is_none():
    first = udp(9_000, 3_000, port=53)
    assert alerts(UdpFlood(), in_time(first, met(first))) == []


def test_peers_that_call_at_a_closed_port_are_none():
    first = udp(900, 60)
    assert alerts(UdpFlood(), in_time(first, met(first, Reply.REFUSED))) == []


def test_a_scan_of_many_ports_is_none_and_full_datagrams_to_them_are():
    assert alerts(UdpFlood(), udp(9_000, 3_000, source=ATTACKER, port=lambda number: number)) == []
    found = alerts(UdpFlood(), udp(9_000, 3_000, source=ATTACKER, port=lambda number: number, size_bytes=1_066))
    assert "many ports" in found[-1].evidence
    assert alerts(UdpFlood(), udp(9_000, 3_000, port=lambda number: number)) != []


def test_one_flow_of_a_pace_that_no_program_has():
    found = alerts(UdpFlood(), [one(), *stream(one(), 3, 50_000)])
    assert [each.source for each in found][-1] == ATTACKER
    assert alerts(UdpFlood(), [one(), *stream(one(), 5, STREAM_PER_S // 2)]) == []


@pytest.mark.parametrize("rate", [1_000, 100_000])
def test_a_flow_that_was_answered_is_a_stream(rate):
    """QUIC, games, calls; iperf3, whose receiver only says a word at first."""
    first = one()
    assert alerts(UdpFlood(), [first, *met([first]), *stream(first, 5, rate, is_answered=True)]) == []


def test_who_has_another_conversation_with_the_sender_has_agreed_to_the_stream():
    [control] = flows(1, 1, TCP, source=TARGET, target=ATTACKER, port=554, start=90.0)
    seen = [one(), *stream(one(), 5, 20_000)]
    assert alerts(UdpFlood(), [*confirmed([control]), *seen]) == []
    assert alerts(UdpFlood(), [*confirmed([control], by_reset=True), *seen]) != []


def test_to_a_closed_port():
    first = one()
    assert alerts(UdpFlood(), [first, *met([first], Reply.REFUSED), *stream(first, 3, 600)]) != []
    assert alerts(UdpFlood(), [first, *met([first], Reply.REFUSED), *stream(first, 3, 100)]) == []


@pytest.mark.parametrize("port", [443, 4500, 4789, 51820])
def test_half_of_a_download_or_tunnel_is_none(port):
    first = one(source_port=port)
    assert alerts(UdpFlood(), [first, *stream(first, 5, 50_000)]) == []


@pytest.mark.parametrize("target", ["239.1.1.1", "255.255.255.255", "ff0e::1"])
def test_what_goes_to_many_is_none(target):
    seen = udp(3_000, 3_000, target=parse_address(target))
    assert alerts(UdpFlood(), [*seen, *stream(seen[-1], 3, 50_000)]) == []


def test_answers_are_left_to_the_detector_of_reflection():
    assert alerts(UdpFlood(), udp(3_000, 3_000, source_port=53)) == []
    # One that sends empty datagrams from such a port answers nothing.
    first = one(source_port=53)
    assert alerts(UdpFlood(), stream(first, 3, 50_000, size_bytes=60)) != []


def pings(many, rate, **others):
    return flows(many, rate, ICMP, **{"source_port": None, "port": None, **others})


def echoes(first, many, digest, *, is_pattern=True):
    return [
        EchoSeen(first.time + n / 1_000, first.source, first.destination, True, 7, n, 56, digest(n), is_pattern)
        for n in range(many)
    ]


def test_pings_from_everywhere():
    found = alerts(IcmpFlood(), pings(20_000, 5_000))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.ICMP_FLOOD, None, TARGET, ())
    }  # fmt: skip


def test_pings_that_nobody_answers():
    [first] = pings(1, 1, source=ATTACKER)
    assert alerts(IcmpFlood(), [first, *stream(first, 3, 2_000)])[-1].source == ATTACKER
    # `ping -f` to a host that is silent.
    assert alerts(IcmpFlood(), [first, *stream(first, 9, 100)]) == []


def test_a_flood_of_pings_among_friends_is_none():
    [first] = pings(1, 1, source=ATTACKER)
    answered = stream(first, 5, 40_000, received=40_000)
    assert alerts(IcmpFlood(), in_time([first], echoes(first, 500, lambda n: n), answered)) == []
    # The same from a program that does not care how long it takes.
    for others in (echoes(first, 500, lambda _: 0), echoes(first, 500, lambda n: n, is_pattern=False)):
        assert alerts(IcmpFlood(), in_time([first], others, answered)) != []


def test_a_monitor_that_pings_many_and_is_pinged_by_some_is_none():
    assert alerts(IcmpFlood(), pings(5_000, 1_000, source=ATTACKER, target=forged)) == []
    assert alerts(IcmpFlood(), pings(900, 90)) == []


@pytest.mark.parametrize("make", [UdpFlood, IcmpFlood])
@settings(deadline=None, max_examples=40)
@given(seen=st.lists(SEEN, max_size=60))
def test_never_raises_and_bans_nobody(make, seen):
    detector = make(3)
    assert all(is_sound(each) and each.ban == () for each in alerts(detector, wanted(detector, seen)))


@pytest.mark.parametrize(("make", "protocol"), [(UdpFlood, UDP), (IcmpFlood, ICMP)])
def test_its_tables_are_bounded(make, protocol):
    detector = make(20)
    for each in flows(500, 1_000, protocol, source=ATTACKER, target=forged):
        list(detector.observe(each))
    assert (len(detector._floods), detector.refused) == (20, 0)


@pytest.mark.parametrize(("make", "protocol"), [(UdpFlood, 17), (IcmpFlood, 1)])
def test_ordinary_peers_make_room_and_a_flood_does_not(make, protocol):
    detector = make(20)
    peers = flows(4_000, 1_000, protocol, source=ATTACKER, target=lambda number: forged(70_000 + number))
    found = alerts(detector, in_time(peers, flows(40_000, 10_000, protocol, size_bytes=1_000)))
    assert {each.target for each in found} == {TARGET}
    assert detector.refused == 0
