"""Tunnels through echoes, and pings of all kinds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.icmp_tunnel import DIGESTS_MAX, REQUESTS_MAX, SIZES_MAX, WINDOW_S, IcmpTunnel
from pfw.model.observation import Alert, EchoSeen, Kind

HERE, THERE = bytes([192, 0, 2, 1]), bytes([203, 0, 113, 9])


class Dialogue:
    def __init__(self, detector: IcmpTunnel | None = None) -> None:
        self.detector = detector or IcmpTunnel()
        self.found: list[Alert] = []
        self.drawn = random.Random(1)
        self.sequence = 0

    def see(self, time: float, digest: int, size: int, *, request: bool = True, pattern: bool = False,
            sequence: int = -1, here: bytes = HERE) -> None:  # fmt: skip
        source, destination = (here, THERE) if request else (THERE, here)
        number = self.sequence if sequence < 0 else sequence
        self.found += self.detector.observe(
            EchoSeen(time, source, destination, request, 7, number, size, digest, pattern)
        )

    def echo(self, time: float, size: int, *, pattern: bool = False, digest: int | None = None) -> None:
        """A request, and what a host makes of it."""
        self.sequence += 1
        digest = self.drawn.getrandbits(32) if digest is None else digest
        self.see(time, digest, size, pattern=pattern)
        self.see(time, digest, size, pattern=pattern, request=False)

    def end(self) -> list[int]:
        self.found += self.detector.end(1e6)
        assert all(each.kind is Kind.ICMP_TUNNEL and each.ban == () for each in self.found)
        return [each.score for each in self.found]


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize("kernel_answers_too", [False, True])
def test_a_tunnel(dialogue, kernel_answers_too):
    for at in range(40):
        dialogue.sequence += 1
        digest, size = dialogue.drawn.getrandbits(32), dialogue.drawn.randint(28, 1100)
        dialogue.see(1000 + at, digest, size)
        if kernel_answers_too:
            dialogue.see(1000 + at, digest, size, request=False)
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), dialogue.drawn.randint(28, 1100), request=False)
    assert max(dialogue.end()) >= 85
    alert = dialogue.found[0]
    assert (alert.source, alert.target) == (HERE, THERE)
    assert "replies were not what had been sent" in alert.evidence


def test_one_that_only_replies(dialogue):
    dialogue.see(1000, 1, 100, sequence=9999)
    for at in range(60):
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 600 + at, request=False, sequence=at)
    assert max(dialogue.end()) >= 85


def test_a_shell_with_short_lines(dialogue):
    for at in range(60):
        dialogue.sequence += 1
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 20 + at % 30)
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 30, request=False)
    assert set(dialogue.end()) == {70}


def test_data_that_goes_only_one_way(dialogue):
    for at in range(200):
        dialogue.echo(1000 + at, dialogue.drawn.randint(200, 1400))
    assert set(dialogue.end()) == {55}


def test_it_is_told_at_each_doubling(dialogue):
    for at in range(250):
        dialogue.sequence += 1
        dialogue.see(1000 + at / 10, dialogue.drawn.getrandbits(32), 500)
        dialogue.see(1000 + at / 10, dialogue.drawn.getrandbits(32), 500, request=False)
    assert [each.evidence.split()[1] for each in dialogue.found] == ["20", "40", "80", "160", "320"]


def ping(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.echo(1000 + at, 56, pattern=True)


def ping_big(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.echo(1000 + at, 1400, pattern=True)


def ping_who_cuts_short(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.sequence += 1
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 1400, pattern=True)
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 64, pattern=True, request=False)


def flood(dialogue: Dialogue) -> None:
    for at in range(5000):
        dialogue.echo(1000 + at / 1000, 56, pattern=True)


def trace(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.echo(1000 + at, 36, digest=5)


def send_the_same(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.echo(1000 + at, 1400, digest=5)


def send_something_of_one_size(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.echo(1000 + at, 1400)


def wait_long_for_replies(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.see(1000 + at / 100, 5, 1400, sequence=at)
        if at >= 100:
            dialogue.see(1000 + at / 100, 5, 1400, sequence=at - 100, request=False)


def see_one_direction(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 1000, request=False, sequence=at)


def get_backscatter(dialogue: Dialogue) -> None:
    for at in range(300):
        dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 1000, request=False, here=bytes([10, 0, 0, at % 250]))


@pytest.mark.parametrize(
    "habit",
    [ping, ping_big, ping_who_cuts_short, flood, trace, send_the_same, send_something_of_one_size,
     wait_long_for_replies, see_one_direction, get_backscatter],
)  # fmt: skip
def test_what_is_no_tunnel(dialogue, habit):
    habit(dialogue)
    assert dialogue.end() == []


def test_a_few_replies_that_differ_among_many_pings(dialogue):
    for at in range(300):
        dialogue.echo(1000 + at, 56, pattern=True)
        if at % 10 == 0:
            dialogue.see(1000 + at, dialogue.drawn.getrandbits(32), 500, request=False)
    assert dialogue.end() == []


def test_echoes_far_apart_do_not_add_up(dialogue):
    for at in range(100):
        dialogue.sequence += 1
        dialogue.see(1000 + at * WINDOW_S / 5, dialogue.drawn.getrandbits(32), 500)
        dialogue.see(1000 + at * WINDOW_S / 5, dialogue.drawn.getrandbits(32), 500, request=False)
    assert dialogue.end() == []


def test_tables_are_bounded():
    dialogue = Dialogue(IcmpTunnel(capacity=4))
    for at in range(50):
        dialogue.see(1000, 1, 100, here=bytes([10, 0, 0, at]))
    assert dialogue.detector.refused == 46
    for at in range(3000):
        dialogue.see(1001, at, at, here=bytes([10, 0, 0, 0]), sequence=at)
    pair = dict(dialogue.detector._pairs.items())[bytes([10, 0, 0, 0]), THERE]
    assert len(pair.digests) <= DIGESTS_MAX
    assert len(pair.sizes) <= SIZES_MAX
    assert len(pair.requests) <= REQUESTS_MAX


@given(
    st.lists(
        st.builds(
            EchoSeen,
            time=st.floats(0, 1e10),
            source=st.sampled_from([HERE, THERE, bytes(4)]),
            destination=st.sampled_from([HERE, THERE, bytes(16)]),
            is_request=st.booleans(),
            identifier=st.integers(0, 2),
            sequence=st.integers(0, 3),
            payload_bytes=st.integers(0, 65535),
            digest=st.integers(0, 1 << 32),
            is_pattern=st.booleans(),
        ),
        max_size=120,
    )
)
def test_nothing_makes_it_raise(seen):
    detector = IcmpTunnel(capacity=2)
    for each in seen:
        for alert in detector.observe(each):
            assert 0 <= alert.score <= 100
    assert len(detector._pairs) <= 2
