"""What the kernel tells of connections becomes the observations that packets would have become."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.engine.detect.crowd import PORT_PER_S
from pfw.engine.detect.live import LINK_BYTES, PACE, PORT_PACE, LiveWatch
from pfw.engine.detect.watch import SILENCE_S
from pfw.model.flow import make_key
from pfw.model.history import Traffic
from pfw.model.observation import Began, Busy, Confirmed, Ended, Met, Observation, Reply, Stray
from pfw.model.packet import TCP, UDP

A, B = bytes((192, 0, 2, 7)), bytes((192, 0, 2, 1))
KEY = b"key"


def first(time: float = 100.0, protocol: int = TCP, port: int = 22) -> Began:
    return Began(time, protocol, A, B, 40_000, port)


def kinds(told: Sequence[Observation]) -> list[type]:
    return [type(each) for each in told]


def test_handshake_and_end() -> None:
    live = LiveWatch()
    assert kinds(live.began(KEY, first())) == [Began]
    met, confirmed = live.established(KEY, 100.1)
    assert isinstance(met, Met)
    assert met.reply is Reply.ANSWERED
    assert confirmed == Confirmed(100.1, met.began)
    (ended,) = live.closed(KEY, 101.0, Traffic(500, 5, 300, 4))
    assert isinstance(ended, Ended)
    assert (ended.sent_bytes, ended.received_bytes) == (500 + 5 * LINK_BYTES, 300 + 4 * LINK_BYTES)
    assert len(live) == 0
    assert not live.gone(KEY, 102.0, Traffic())


@pytest.mark.parametrize("by_reset", [False, True])
def test_how_it_ended_is_told_also_where_nobody_could_ask_what_it_carried(by_reset: bool) -> None:
    live = LiveWatch()
    live.began(KEY, first())
    live.established(KEY, 100.1)
    assert not live.closed(KEY, 101.0, None, by_reset=by_reset)
    (ended,) = live.gone(KEY, 111.0, Traffic(180, 3, 120, 2))
    assert isinstance(ended, Ended)
    assert ended.by_reset is by_reset


def test_refused_half_open_and_silent() -> None:
    live = LiveWatch()
    live.began(KEY, first())
    (met,) = live.gone(KEY, 100.0, Traffic(60, 1, 40, 1))
    assert isinstance(met, Met)
    assert met.reply is Reply.REFUSED
    live.began(KEY, first())
    met, reset = live.closed(KEY, 100.1, None, by_reset=True)
    assert isinstance(met, Met)
    assert met.reply is Reply.ANSWERED
    assert isinstance(reset, Confirmed)
    assert reset.by_reset
    live = LiveWatch()
    live.began(KEY, first())
    assert not list(live.tick(100.0 + SILENCE_S - 0.1))
    (silent,) = live.tick(100.0 + SILENCE_S)
    assert isinstance(silent, Met)
    assert silent.reply is Reply.SILENT
    assert not list(live.tick(200.0))
    assert not live.gone(KEY, 220.0, Traffic(60, 1))


def test_table_full_of_spoofed_connections_gone_early_says_silent() -> None:
    live = LiveWatch()
    live.began(KEY, first())
    (met,) = live.gone(KEY, 100.5, Traffic(60, 1))
    assert isinstance(met, Met)
    assert met.reply is Reply.SILENT


def test_datagrams() -> None:
    live = LiveWatch()
    live.began(KEY, first(protocol=UDP, port=53))
    (met,) = live.answered(KEY, 100.1)
    assert isinstance(met, Met)
    assert met.reply is Reply.ANSWERED
    assert not live.answered(KEY, 100.2)
    assert kinds(live.gone(KEY, 130.0, Traffic(60, 1, 120, 1))) == [Ended]
    live.began(KEY, first(protocol=UDP, port=53))
    (met,) = live.refused_by(KEY, 100.1, Reply.REFUSED)
    assert isinstance(met, Met)
    assert met.reply is Reply.REFUSED
    assert not live.gone(KEY, 130.0, Traffic(60, 1))


def test_picked_up_in_the_middle_is_a_stray() -> None:
    live = LiveWatch()
    assert kinds(live.began(KEY, first(), is_picked_up=True)) == [Stray]
    assert len(live) == 0


def test_busy_is_told_of_what_grows_fast() -> None:
    live = LiveWatch()
    live.began(KEY, first(protocol=UDP))
    live.answered(KEY, 100.1)
    assert not live.carried(KEY, 105.0, Traffic(3000, 30, 3000, 30))
    (busy,) = live.carried(KEY, 110.0, Traffic(1_003_000, 1030, 3000, 30))
    assert isinstance(busy, Busy)
    assert (busy.sent_packets, busy.since, busy.is_answered) == (200, 105.0, True)
    assert not live.carried(KEY, 115.0, Traffic(1_003_000, 1030, 3000, 30))


@pytest.mark.parametrize(("protocol", "attempts"), [(UDP, 0), (TCP, 60)])
def test_busy_is_told_of_little_that_nobody_answers(protocol: int, attempts: int) -> None:
    live = LiveWatch()
    live.began(KEY, first(protocol=protocol))
    (busy,) = live.carried(KEY, 105.0, Traffic(30_000, 300))
    assert isinstance(busy, Busy)
    assert (busy.sent_packets, busy.attempts, busy.is_answered) == (60, attempts, False)
    assert not live.carried(KEY, 110.0, Traffic(30_400, 335))


def test_full_table_lets_the_unanswered_go_first() -> None:
    live = LiveWatch(capacity=2)
    live.began(b"1", first())
    live.established(b"1", 100.0)
    live.began(b"2", first())
    live.began(b"3", first())
    assert live.refused == 0
    assert not live.established(b"2", 100.0)
    live.established(b"3", 100.0)
    live.began(b"4", first())
    assert live.refused == 1
    assert len(live) == 2


def test_many_that_are_answered_are_a_sample() -> None:
    live = LiveWatch()
    told = 0
    for number in range(500):
        key = number.to_bytes(2)
        told += len(live.began(key, first(100 + number / 1000)))
        live.established(key, 100 + number / 1000)
        live.gone(key, 100 + number / 1000, Traffic())
    assert told == PACE
    assert live.sampled_out == 500 - PACE
    assert len(live.began(b"other port", first(100.6, port=23))) == 1


def test_a_busy_service_of_many_clients_is_a_sample() -> None:
    live = LiveWatch()
    told = 0
    for number in range(3_000):
        key = number.to_bytes(2)
        time = 100 + number / 4_000
        told += len(live.began(key, Began(time, TCP, number.to_bytes(4), B, 40_000, 80)))
        live.established(key, time)
        live.gone(key, time, Traffic())
    assert told == PORT_PACE
    assert live.sampled_out == 3_000 - PORT_PACE
    assert len(live.began(b"login", first(100.8))) == 1


def test_a_program_that_reaches_many_hosts_is_a_sample_and_one_that_reaches_none_is_not() -> None:
    for is_met, wanted in ((True, PORT_PACE), (False, 1_000)):
        live = LiveWatch()
        told = 0
        for number in range(1_000):
            key = make_key(TCP, A, number.to_bytes(4), b"\x9c\x40\x01\xbb")
            told += len(live.began(key, Began(100 + number / 2_000, TCP, A, number.to_bytes(4), 40_000, 443)))
            if is_met:
                live.established(key, 100 + number / 2_000)
        assert told == wanted


def test_a_flood_that_nobody_answers_is_told_by_a_part_that_stands_for_all() -> None:
    live = LiveWatch()
    told = []
    for number in range(900):
        key = make_key(TCP, number.to_bytes(4), B, number.to_bytes(2) + b"\0\x50")
        told += live.began(key, Began(100 + number / 1000, TCP, number.to_bytes(4), B, number, 80))
    assert PORT_PER_S <= len(told) < 600
    assert 870 < sum(each.stands_for for each in told) <= 900
    assert live.sampled_out == 900 - len(told)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("nuecdgt"), st.integers(0, 3), st.booleans()), max_size=60))
def test_never_raises_and_each_connection_is_met_once(steps: list[tuple[str, int, bool]]) -> None:
    live = LiveWatch(capacity=3)
    now, met = 0.0, {}
    for what, number, flag in steps:
        now += 0.7
        key = bytes((number,))
        told: Sequence[Observation]
        match what:
            case "n":
                told = live.began(key, Began(now, TCP if flag else UDP, A, B, number, 22))
            case "u":
                told = live.answered(key, now)
            case "e":
                told = live.established(key, now)
            case "c":
                told = live.closed(key, now, Traffic() if flag else None, by_reset=flag)
            case "d":
                told = live.gone(key, now, Traffic(1, 1, number, number))
            case "g":
                told = live.carried(key, now, Traffic(1, 1 + number * 1000))
            case _:
                told = list(live.tick(now))
        for each in told:
            if isinstance(each, Met):
                name = (each.began.time, each.began.source_port)
                assert name not in met
                met[name] = each
        assert len(live) <= 3
