"""Regular connections, and those that only look so."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.engine.detect.beacon import REMEMBERED, Beacon, regularity
from pfw.model.observation import Alert, Began, Confirmed, Ended, Kind, Met, Reply
from pfw.model.packet import ICMP, TCP, UDP

HERE, THERE = bytes([192, 0, 2, 1]), bytes([203, 0, 113, 9])


class Dialogue:
    def __init__(self, detector: Beacon | None = None) -> None:
        self.detector = detector or Beacon()
        self.found: list[Alert] = []
        self.connections = 0

    def connect(self, time: float, sent: int = 500, *, protocol: int = TCP, port: int = 443, reply: Reply | None = None,
                source_port: int | None = None, source: bytes = HERE, destination: bytes = THERE,
                program: str | None = None, late: str | None = None) -> None:  # fmt: skip
        self.connections += 1
        own = source_port or 40000 + self.connections % 20000
        began = Began(time, protocol, source, destination, own, port, program=program)
        told: list[Met | Confirmed | Ended] = [Met(time + 0.05, began, reply or Reply.ANSWERED)]
        if reply is None:
            if protocol == TCP:
                told.append(Confirmed(time + 0.06, began))
            told.append(Ended(time + 0.4, replace(began, program=program or late), sent, 6, 2000, 5))
        for seen in told:
            self.found += self.detector.observe(seen)

    def end(self, time: float = 1e6) -> list[int]:
        self.found += self.detector.end(time)
        assert all(each.kind is Kind.BEACON and each.ban == () for each in self.found)
        return [each.score for each in self.found]


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


def varied(interval_s: float, share: float, count: int = 40) -> list[float]:
    """Times between which an interval is shorter by chance by as much as a share."""
    drawn = random.Random(3)
    times = [1000.0]
    for _ in range(count - 1):
        times.append(times[-1] + interval_s * (1 - share * drawn.random()))
    return times


@pytest.mark.parametrize("interval_s", [5, 60, 600, 3600])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_clock(dialogue, interval_s, protocol):
    for at in range(60):
        dialogue.connect(1000 + at * interval_s, protocol=protocol, port=8443)
    assert dialogue.end() == [79]
    alert = dialogue.found[0]
    assert (alert.source, alert.target, alert.first) == (HERE, THERE, 1000.0)
    assert alert.evidence.startswith(
        f"called 60 times at {'TCP' if protocol == TCP else 'UDP'} 203.0.113.9:8443, every {interval_s}.0 s "
        "(give or take 0.0 s), sending 500 bytes (give or take 0);"
    )
    assert "cannot be told" in alert.evidence


@pytest.mark.parametrize("share", [0.1, 0.2, 0.37, 0.5])
@pytest.mark.parametrize("interval_s", [10, 60, 300])
def test_chance_added_to_the_interval(dialogue, share, interval_s):
    drawn = random.Random(5)
    for time in varied(interval_s, share):
        dialogue.connect(time, 500 + drawn.randint(0, 40))
    scores = dialogue.end()
    assert len(scores) == 1
    assert 50 <= scores[0] < 80


def test_regular_times_with_sizes_that_differ_stay_below_80(dialogue):
    drawn = random.Random(5)
    for at in range(60):
        dialogue.connect(1000 + 60 * at, 800 + drawn.randint(0, 300))
    assert all(50 <= score < 80 for score in dialogue.end())


def test_requests_of_a_page_at_the_same_time_are_one_call(dialogue):
    for at in range(60):
        for nth in range(4):
            dialogue.connect(1000 + 60 * at + nth / 10)
    assert dialogue.end() == [79]
    assert dialogue.found[0].evidence.startswith("called 60 times at TCP 203.0.113.9:443, every 60.0 s ")


@pytest.mark.parametrize(("count", "scores"), [(15, 0), (40, 1)])
def test_intervals_that_vary_need_more_connections(dialogue, count, scores):
    time = 1000
    for at in range(count):
        dialogue.connect(time)
        time += (45, 75, 55, 65, 60, 50, 70)[at % 7]
    assert len(dialogue.end()) == scores


def test_it_is_told_again_when_there_is_twice_as_much():
    dialogue = Dialogue()
    counts = []
    for at in range(100):
        dialogue.connect(1000 + 60 * at)
        counts.append(len(dialogue.end(1060 + 60 * at)))
    assert [at + 1 for at in range(100) if counts[at] > counts[at - 1]] == [10, 20, 40, 80]


def browse(dialogue: Dialogue) -> None:
    drawn = random.Random(11)
    time = 1000.0
    for _ in range(200):
        time += drawn.expovariate(1 / 20)
        for nth in range(drawn.randint(1, 6)):
            dialogue.connect(time + nth / 20, drawn.randint(300, 4000))


def poll_with_all_kinds_of_sizes(dialogue: Dialogue) -> None:
    drawn = random.Random(11)
    for at in range(60):
        dialogue.connect(1000 + 60 * at, int(drawn.lognormvariate(7, 1)))


def vary_evenly(dialogue: Dialogue) -> None:
    for at in range(60):
        dialogue.connect(1000 + 300 * (at // 5) + (0, 20, 60, 120, 200)[at % 5])


def be_late_often(dialogue: Dialogue) -> None:
    time = 1000
    for at in range(60):
        dialogue.connect(time)
        time += (60, 60, 61, 90, 90)[at % 5]


def come_at_any_time(dialogue: Dialogue) -> None:
    for time in varied(60, 1.0):
        dialogue.connect(time)


def download_in_a_loop(dialogue: Dialogue) -> None:
    for at in range(3000):
        dialogue.connect(1000 + at / 5)


def try_too_few_times(dialogue: Dialogue) -> None:
    for at in range(9):
        dialogue.connect(1000 + 60 * at)


def stop_after_two_minutes(dialogue: Dialogue) -> None:
    for at in range(24):
        dialogue.connect(1000 + 5 * at)


def set_the_clock(dialogue: Dialogue) -> None:
    for at in range(60):
        for port in (53, 123, 853, 1900, 5353):
            dialogue.connect(1000 + 64 * at, protocol=UDP, port=port)
        dialogue.connect(1000 + 64 * at, protocol=UDP, port=9999, destination=bytes([239, 255, 255, 250]))
        dialogue.connect(1000 + 64 * at, protocol=UDP, port=9999, destination=b"\xff\x02" + bytes(14))


def keep_alive(dialogue: Dialogue) -> None:
    for at in range(60):
        dialogue.connect(1000 + 120 * at, protocol=UDP, port=51820, source_port=51820)


def ping(dialogue: Dialogue) -> None:
    for at in range(600):
        began = Began(1000.0 + at, ICMP, HERE, THERE, None, None, 8)
        dialogue.detector.observe(Met(1000.0 + at, began, Reply.ANSWERED))
        dialogue.detector.observe(Ended(1000.0 + at, began, 84, 1, 84, 1))


def try_again_in_vain(dialogue: Dialogue) -> None:
    for at in range(60):
        dialogue.connect(1000 + 30 * at, reply=Reply.REFUSED)
        dialogue.connect(1010 + 30 * at, reply=Reply.SILENT)


def have_many_customers(dialogue: Dialogue) -> None:
    for at in range(600):
        dialogue.connect(1000 + 10 * at, source=bytes([10, 0, at // 256, at % 256]))


@pytest.mark.parametrize(
    "habit",
    [browse, poll_with_all_kinds_of_sizes, vary_evenly, be_late_often, come_at_any_time, download_in_a_loop,
     try_too_few_times, stop_after_two_minutes, set_the_clock, keep_alive, ping, try_again_in_vain,
     have_many_customers],
)  # fmt: skip
def test_what_is_no_beacon(dialogue, habit):
    habit(dialogue)
    assert dialogue.end() == []


def test_forged_connections_take_no_room():
    dialogue = Dialogue(Beacon(capacity=4))
    for at in range(1000):
        began = Began(1000.0, TCP, at.to_bytes(4), THERE, 1024, 443)
        dialogue.detector.observe(Met(1000.0, began, Reply.ANSWERED))
        dialogue.detector.observe(Confirmed(1000.0, began, by_reset=True))
        datagram = Began(1000.0, UDP, at.to_bytes(4), THERE, 1024, 443)
        dialogue.detector.observe(Met(1003.0, datagram, Reply.SILENT))
    assert (len(dialogue.detector._peers), dialogue.detector.refused) == (0, 0)


def test_tables_are_bounded():
    dialogue = Dialogue(Beacon(capacity=4))
    for at in range(50):
        dialogue.connect(1000, destination=bytes([203, 0, 113, at]))
    assert len(dialogue.detector._peers) == 4
    for at in range(500):
        dialogue.connect(1000 + at * 10, destination=bytes([203, 0, 113, 0]))
    peer = dict(dialogue.detector._peers.items())[HERE, bytes([203, 0, 113, 0]), TCP, 443]
    assert len(peer.started) == len(peer.sent) == REMEMBERED


def test_who_calls_once_makes_room_and_who_calls_again_does_not():
    dialogue = Dialogue(Beacon(capacity=64))
    for at in range(20):
        dialogue.connect(1000 + at * 60)
        for other in range(50):
            dialogue.connect(1001 + at * 60 + other, destination=bytes([203, 0, at, other]))
    assert dialogue.detector.refused == 0
    assert dialogue.end() == [79]
    dialogue = Dialogue(Beacon(capacity=4))
    for time in (1000, 1060):
        for at in range(4):
            dialogue.connect(time, destination=bytes([203, 0, 113, at]))
    dialogue.connect(1070, destination=bytes([203, 0, 113, 4]))
    assert dialogue.detector.refused == 1


AGENT = "/opt/agent/bin/agent"


def test_a_program_is_named_and_judged_by_itself(dialogue):
    """It calls from two addresses by turns, and another program of the same host calls there by chance."""
    for at in range(40):
        dialogue.connect(1000 + at * 60, source=(HERE, bytes([192, 0, 2, 7]))[at % 2], program=AGENT)
    for at in varied(50, 1.0):
        dialogue.connect(at, program="/usr/bin/firefox")
    assert dialogue.end() == [79]
    (found,) = dialogue.found
    assert (found.program, found.source, found.target) == (AGENT, bytes([192, 0, 2, 7]), THERE)
    assert found.evidence.startswith(f"agent ({AGENT}) called 40 times at TCP 203.0.113.9:443, every 60.0 s")


@pytest.mark.parametrize(("program", "score"), [(AGENT, 79), ("/tmp/.x/agent", 85), ("/memfd:x (deleted)", 85)])
def test_a_clock_is_grave_where_the_program_is_out_of_place(dialogue, program, score):
    for at in range(60):
        dialogue.connect(1000 + at * 60, program=program)
    assert dialogue.end() == [score]


def test_two_programs_that_call_in_turns_hide_each_other_only_where_they_are_not_known(dialogue):
    other = Dialogue()
    for at in range(60):
        for each, programs in ((dialogue, (AGENT, "/usr/bin/other")), (other, (None, None))):
            each.connect(1000 + at * 60, 500, program=programs[0])
            each.connect(1003 + at * 60, 5000, program=programs[1])
    assert dialogue.end() == [79, 79]
    assert other.end() == []


def test_the_program_may_be_known_late(dialogue):
    for at in range(60):
        dialogue.connect(1000 + at * 60, late=AGENT)
    assert dialogue.end() == [79]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([60.0] * 9, 1.0), ([0.0] * 9, 0.5), ([10.0, 20.0, 30.0, 40.0, 50.0], 5 / 6), ([1.0, 1.0, 1.0, 100.0], 1.0)],
)
def test_regularity(values, expected):
    assert regularity(values) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1e10), min_size=2, max_size=80))
def test_regularity_is_from_0_to_1(values):
    assert 0 <= regularity(sorted(values)) <= 1


@given(st.lists(st.tuples(st.floats(0, 1e10), st.integers(0, 1 << 40)), max_size=80))
def test_nothing_makes_it_raise(seen):
    dialogue = Dialogue()
    for time, sent in seen:
        dialogue.connect(time, sent)
    assert all(50 <= score <= 85 for score in dialogue.end())
