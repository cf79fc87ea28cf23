"""SYN floods in dialogues of made observations: by destination, with nobody banned; and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
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

from pfw.engine.detect.syn_flood import PORT_PER_S, REFUSED_PER_S, SynFlood
from pfw.model.observation import Kind, Reply, Stray
from pfw.model.packet import ACK, RST, SYN


def test_a_forged_flood_is_one_alert_by_destination_and_bans_nobody():
    found = alerts(SynFlood(), flows(37_000, 10_000))
    assert {(each.kind, each.source, each.target, each.ban) for each in found} == {
        (Kind.SYN_FLOOD, None, TARGET, ())
    }  # fmt: skip
    assert found[-1].score >= 80
    assert "37000 connections to 192.0.2.10:80" in found[-1].evidence
    assert (found[-1].first, found[-1].last) == (100.0, pytest.approx(103.7, abs=0.01))


def test_a_single_source_is_named_and_not_banned():
    found = alerts(SynFlood(), flows(200, 1_000, source=ATTACKER, source_port=lambda number: number))
    assert [(each.source, each.ban) for each in found] == [(ATTACKER, ())]
    assert 50 <= found[0].score < 80


def test_strangers_at_the_same_time_do_not_hide_the_one_source():
    first = in_time(flows(2_000, 1_000, source=ATTACKER), flows(20, 10))
    assert {each.source for each in alerts(SynFlood(), first)} == {ATTACKER}


def test_it_is_told_while_it_lasts():
    detector = SynFlood()
    assert any(list(detector.observe(each)) for each in flows(4_000, 1_000))


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_a_busy_server_is_none(share):
    first = flows(3_000, 1_000)
    completed = confirmed(first[: int(len(first) * share)]) if share == 1.0 else confirmed(first[:: int(1 / share)])
    assert alerts(SynFlood(), in_time(first, met(first), completed)) == []


def test_handshakes_that_a_kernel_resets_are_not_completed():
    first = flows(3_000, 1_000, source=ATTACKER)
    assert alerts(SynFlood(), in_time(first, met(first), confirmed(first, by_reset=True)))


def test_fewer_are_none():
    assert alerts(SynFlood(), flows(3_000, PORT_PER_S * 0.9, source=ATTACKER)) == []
    assert alerts(SynFlood(), flows(3_000, PORT_PER_S * 1.1, source=ATTACKER)) != []


def test_more_slowly_but_from_everywhere():
    first = flows(2_000, 40)
    assert {(each.source, each.target) for each in alerts(SynFlood(), first)} == {(None, TARGET)}
    assert alerts(SynFlood(), in_time(first, met(first), confirmed(first[::10]))) == []
    assert alerts(SynFlood(), in_time(first, met(first, Reply.REFUSED))) == []
    assert alerts(SynFlood(), flows(2_000, 20)) == []
    assert alerts(SynFlood(), flows(2_000, 40, source=ATTACKER)) == []


def test_a_program_that_tries_a_closed_port_again_and_again_is_none():
    first = flows(2_000, REFUSED_PER_S / 2, source=ATTACKER)
    assert alerts(SynFlood(), in_time(first, met(first, Reply.REFUSED, 0.0001))) == []
    first = flows(20_000, REFUSED_PER_S * 4, source=ATTACKER)
    assert alerts(SynFlood(), in_time(first, met(first, Reply.REFUSED, 0.0001))) != []


@pytest.mark.parametrize("decoys", [1, 11, 60])
def test_a_scan_of_all_ports_is_none(decoys):
    scan = flows(
        60_000, 20_000, source=lambda number: forged(number % decoys), port=lambda number: 1 + number // decoys
    )
    assert alerts(SynFlood(), scan) == []


def test_a_flood_of_all_ports_is_one():
    assert (
        "many ports" in alerts(SynFlood(), flows(20_000, 5_000, port=lambda number: number * 31 % 65_536))[-1].evidence
    )
    again_and_again = flows(210_000, 50_000, source=ATTACKER, port=lambda number: number % 65_536)
    assert alerts(SynFlood(), again_and_again) != []


def test_a_sweep_is_none():
    assert alerts(SynFlood(), flows(5_000, 2_000, source=ATTACKER, target=forged)) == []


def test_invented_addresses_at_both_ends():
    [found] = alerts(SynFlood(), flows(100, 6_000, target=lambda number: forged(70_000 + number)))
    assert (found.source, found.target, found.ban) == (None, None, ())
    first = flows(100, 6_000, target=lambda number: forged(70_000 + number))
    assert alerts(SynFlood(), in_time(first, met(first))) == []


def test_the_same_connection_begun_without_end():
    [first] = flows(1, 1, source=ATTACKER)
    assert alerts(SynFlood(), stream(first, 5, 2_000, attempts=2_000, size_bytes=60)) != []
    # An upload of which one direction was captured.
    assert alerts(SynFlood(), stream(first, 5, 2_000)) == []


def strays(many, rate, flags, source=forged, source_port=lambda number: 1_024 + number % 60_000):
    return [
        Stray(100.0 + number / rate, source(number), TARGET, source_port(number), 80, flags) for number in range(many)
    ]


def test_other_tcp_packets_of_no_connection():
    assert alerts(SynFlood(), strays(3_000, 1_000, ACK))[-1].target == TARGET
    # The rest of a download that began before the capture, and answers to what others sent in our name.
    assert alerts(SynFlood(), strays(3_000, 1_000, ACK, lambda _: ATTACKER, lambda _: 443)) == []
    assert alerts(SynFlood(), strays(3_000, 1_000, SYN | ACK)) == []
    assert alerts(SynFlood(), strays(3_000, 1_000, RST)) == []


def test_what_a_host_sends_itself_is_none():
    assert alerts(SynFlood(), flows(5_000, 5_000, source=TARGET)) == []


def test_it_repeats_itself_once_per_doubling():
    assert len(alerts(SynFlood(), flows(60_000, 500))) <= 12


@settings(deadline=None, max_examples=60)
@given(st.lists(SEEN, max_size=60))
def test_never_raises_and_bans_nobody(seen):
    detector = SynFlood(3)
    assert all(is_sound(each) and each.ban == () for each in alerts(detector, wanted(detector, seen)))


def test_ordinary_peers_make_room_and_floods_do_not():
    detector = SynFlood(20)
    peers = flows(4_000, 1_000, source=ATTACKER, target=lambda number: forged(70_000 + number))
    found = alerts(detector, in_time(peers, flows(20_000, 5_000)))
    assert {each.target for each in found} == {TARGET}
    assert detector.refused == 0
    detector = SynFlood(20)
    flooded = [flows(300, 300, target=forged(number)) for number in range(20)]
    alerts(detector, in_time(*flooded))
    list(detector.observe(flows(1, 1, target=forged(99), start=104.0)[0]))
    assert detector.refused == 1


def test_one_that_stands_for_many_counts_as_many():
    some = [replace(each, stands_for=100) for each in flows(40, 10)]
    found = alerts(SynFlood(), some)
    assert "4000 connections to 192.0.2.10:80 begun and none completed" in found[-1].evidence
    assert "(3960 of them only counted)" in found[-1].evidence
    done = [each for first in some for each in (*met([first]), *confirmed([first]))]
    assert alerts(SynFlood(), in_time(some, done)) == []
    assert alerts(SynFlood(), in_time(some, done[:4])) != []


def test_its_tables_are_bounded():
    detector = SynFlood(20)
    for each in flows(500, 1_000, source=ATTACKER, target=forged):
        list(detector.observe(each))
    assert (len(detector._floods), detector.refused) == (20, 0)
    for each in flows(30_000, 30_000, port=lambda number: number):
        list(detector.observe(each))
    assert max(len(window.ports) for _, flood in detector._floods.items() for window in flood.windows) <= 257
