"""What a connection carries, told of once a second; and what a clock that goes to and fro costs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest

from pfw.engine.detect.connection import IDLE_S
from pfw.engine.detect.watch import SILENCE_S, Watch
from pfw.model.event import Source
from pfw.model.observation import Busy, Ended, Observation
from pfw.model.packet import TCP
from pfw.wire.scan import scan

RAW_IP = 101


def tell(watch: Watch, timed: Iterable[tuple[float, bytes]]) -> list[Observation]:
    items = (scan(Source(RAW_IP), each, [(time, 0, len(each), len(each))])[0] for time, each in timed)
    return [seen for _, observations in watch.packets(items) for seen in observations]


def busy(told: Iterable[Observation]) -> list[Busy]:
    return [each for each in told if isinstance(each, Busy)]


def test_much_is_told_of_once_a_second(wire):
    watch = Watch()
    # 200 packets/s for three seconds without an answer, then 5 a second.
    told = busy(tell(watch, [(wire.noon + n / 200, wire.out.udp()) for n in range(600)]))
    assert [(each.sent_packets, each.received_packets, each.attempts) for each in told] == [(200, 0, 200)] * 2
    tell(watch, [(wire.noon + 10, wire.out.udp())] * 8)
    assert not busy(tell(watch, [(wire.noon + 11 + n / 5, wire.out.udp()) for n in range(100)]))


def test_much_in_less_than_a_second_is_told_of_in_the_end(wire):
    watch = Watch()
    tell(watch, [(wire.noon + n / 1000, wire.out.udp()) for n in range(100)])
    (found,) = busy(watch.end(wire.noon + 0.1))
    assert (found.sent_packets, found.attempts, found.is_answered) == (99, 99, False)


@pytest.mark.parametrize("name", ["udp", "syn", "half open"])
def test_little_that_nobody_answers_is_told_of_too(wire, name):
    packet = wire.out.udp() if name == "udp" else wire.out.tcp("S")
    timed = [(wire.noon + n / 20, packet) for n in range(41)]
    if name == "half open":
        timed.insert(1, (wire.noon + 0.01, wire.out.back.tcp("SA")))
    told = busy(tell(Watch(), timed))
    assert [(each.sent_packets, each.attempts, each.is_answered) for each in told] == [(20, 20, False)]


def test_little_that_somebody_answers_is_not(wire):
    timed = [(wire.noon + n / 40, (wire.out.back if n & 1 else wire.out).udp()) for n in range(400)]
    assert not busy(tell(Watch(), timed))


@pytest.mark.parametrize("is_answered", [True, False])
@pytest.mark.parametrize("per_s", [70, 100, 190, 249])
def test_as_much_is_told_as_comes_in_a_second(wire, per_s, is_answered):
    """Also of what is left in the end: it counts for a second of its own."""
    watch = Watch()
    packets = [wire.out.udp(), *[wire.out.back.udp()] * is_answered]
    told = tell(watch, [(wire.noon + n / per_s, each) for n in range(int(3.5 * per_s)) for each in packets])
    told += watch.end(wire.noon + 3.5)
    assert 2 <= len(busy(told)) <= 4
    assert all(each.sent_packets <= per_s for each in busy(told))
    assert all(per_s - 2 <= each.sent_packets for each in busy(told)[:-1])
    assert all(after.time - before.time >= 1 for before, after in pairwise(busy(told)))


class Walked(dict):
    """Counts those that are gone through."""

    seen = 0

    def values(self):
        self.seen += len(self)
        return super().values()


@pytest.mark.parametrize("clocks", [(0, 3600), (0, 40, 3600), (0, 86_400)])
def test_clocks_that_differ_do_not_have_all_connections_gone_through_again_and_again(wire, clocks):
    watch = Watch()
    watch._forth = walked = Walked()
    count = 4000
    for n in range(count):
        way = wire.Path(f"203.0.{n >> 8}.{n & 255}", wire.here)
        tell(watch, [(wire.noon + n / 1000 + clocks[n % len(clocks)], way.tcp("S"))])
    assert walked.seen <= 100 * count


def test_after_a_step_back_the_idle_are_forgotten_still(wire):
    watch = Watch()
    way = wire.out
    tell(watch, [(wire.noon, each) for each in (way.tcp("S"), way.back.tcp("SA"), way.tcp("A"))])
    tell(watch, [(wire.noon + 100_000, wire.strangers.udp())])
    assert len(watch) == 1
    tell(watch, [(wire.noon, each) for each in (way.tcp("S"), way.back.tcp("SA"), way.tcp("A"))])
    told = tell(watch, [(wire.noon + IDLE_S[TCP] + n * SILENCE_S, wire.strangers.udp()) for n in range(1, 40)])
    assert [type(each) for each in told if isinstance(each, Ended)] == [Ended]
