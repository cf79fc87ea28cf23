"""Uploads that stand out, and those that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.engine.detect.upload_spike import SOURCES_MAX, WINDOW_S, UploadSpike, is_local
from pfw.model.address import parse_address
from pfw.model.observation import Alert, Began, Ended, Kind
from pfw.model.packet import TCP

HERE, THERE, ELSEWHERE = map(parse_address, ("192.168.1.5", "203.0.113.9", "198.51.100.7"))
MEGABYTE = 1_000_000


class Dialogue:
    def __init__(self, detector: UploadSpike | None = None) -> None:
        self.detector = detector or UploadSpike()
        self.found: list[Alert] = []

    def transfer(self, time: float, sent: float, received: float, destination: bytes = THERE, *, source: bytes = HERE,
                 is_open: bool = False, program: str | None = None) -> None:  # fmt: skip
        began = Began(time - 10, TCP, source, destination, 40000, 443, program=program)
        sizes = int(sent * MEGABYTE), 100, int(received * MEGABYTE), 100
        self.found += self.detector.observe(Ended(time, began, *sizes, is_open=is_open))

    def scores(self) -> list[int]:
        assert list(self.detector.end(1e6)) == []
        assert all(each.kind is Kind.UPLOAD_SPIKE and each.ban == () for each in self.found)
        return [each.score for each in self.found]


@pytest.fixture
def dialogue() -> Dialogue:
    return Dialogue()


@pytest.mark.parametrize(
    ("sent", "score"), [(101, 55), (999, 55), (1000, 65), (9_000, 65), (10_000, 75), (1_000_000, 75)]
)
@pytest.mark.parametrize("is_open", [False, True])
def test_one_connection(dialogue, sent, score, is_open):
    dialogue.transfer(1000, sent, 1, is_open=is_open)
    assert dialogue.scores() == [score]
    alert = dialogue.found[0]
    assert (alert.source, alert.target, alert.last) == (HERE, THERE, 1000)
    assert alert.evidence == (
        f"sent {sent} MB to 203.0.113.9 in 1 connections, and received 1.0 MB; a backup looks the same, so see which "
        "program it is"
    )


def test_many_connections_add_up_and_are_told_at_each_doubling(dialogue):
    for at in range(1000):
        dialogue.transfer(1000 + at, 1, 0.01)
    assert dialogue.scores() == [55, 55, 55, 55]


def test_more_than_elsewhere(dialogue):
    dialogue.transfer(1000, 60, 1, ELSEWHERE)
    dialogue.transfer(1010, 150, 1)
    assert dialogue.scores() == []
    dialogue.transfer(1020, 50, 1)
    assert dialogue.scores() == [55]
    assert "where the most elsewhere was 60.0 MB" in dialogue.found[0].evidence


def test_what_is_usual_is_not_told_again(dialogue):
    for day in range(5):
        dialogue.transfer(1000 + day * 86400, 150, 1)
    assert dialogue.scores() == [55]
    dialogue.transfer(1000 + 6 * 86400, 500, 1)
    assert dialogue.scores() == [55, 55]


@pytest.mark.parametrize(
    ("sent", "received", "destination"),
    [
        (99, 0, "203.0.113.9"),
        (500, 51, "203.0.113.9"),
        (1, 5000, "203.0.113.9"),
        (5000, 1, "192.168.1.9"),
        (5000, 1, "10.1.2.3"),
        (5000, 1, "172.31.0.1"),
        (5000, 1, "100.64.0.1"),
        (5000, 1, "239.1.2.3"),
        (5000, 1, "127.0.0.1"),
        (5000, 1, "fe80::1"),
        (5000, 1, "fd00::1"),
        (5000, 1, "ff02::1"),
    ],
)
def test_what_is_no_spike(dialogue, sent, received, destination):
    dialogue.transfer(1000, sent, received, parse_address(destination))
    assert dialogue.scores() == []


def test_a_neighbour_with_a_public_address_is_local(dialogue):
    dialogue.transfer(1000, 5000, 1, parse_address("2001:db8::9"), source=parse_address("2001:db8::5"))
    dialogue.transfer(1000, 5000, 1, parse_address("198.51.100.9"), source=parse_address("198.51.100.5"))
    assert dialogue.scores() == []
    dialogue.transfer(1000, 5000, 1, parse_address("2001:db8:1::9"), source=parse_address("2001:db8::5"))
    assert dialogue.scores() == [65]


def test_a_trickle_is_no_spike(dialogue):
    for at in range(300):
        dialogue.transfer(1000 + at * WINDOW_S / 3, 20, 0)
    assert dialogue.scores() == []


def test_tables_are_bounded():
    dialogue = Dialogue(UploadSpike(capacity=4))
    for at in range(SOURCES_MAX + 10):
        dialogue.transfer(1000, 1, 1, source=at.to_bytes(4))
    assert len(dialogue.detector._uploads) == 4
    assert len(dialogue.detector._usual) == SOURCES_MAX
    for at in range(50):
        dialogue.transfer(1001 + at * 2 * WINDOW_S, at, 1, bytes([9, 9, 9, at]), source=bytes(4))
    usual = dict(dialogue.detector._usual.items())[bytes(4)]
    assert len(usual.most) == 2
    assert usual.elsewhere(THERE) == 49 * MEGABYTE


def test_what_finds_no_room_is_counted():
    dialogue = Dialogue(UploadSpike(capacity=4))
    for at in range(SOURCES_MAX + 10):
        dialogue.transfer(1000, 1, 1, source=at.to_bytes(4))
    assert dialogue.detector.refused == 0
    dialogue = Dialogue(UploadSpike(capacity=4))
    for at in range(SOURCES_MAX + 10):
        dialogue.transfer(1000, 50, 1, source=at.to_bytes(4))
    assert dialogue.detector.refused == SOURCES_MAX + 10 - 4


def test_what_carries_nothing_is_not_counted():
    dialogue = Dialogue(UploadSpike(capacity=4))
    dialogue.transfer(1000, 0.0009, 0)
    assert (len(dialogue.detector._uploads), len(dialogue.detector._usual)) == (0, 0)


PROGRAM = "/usr/bin/rclone"


def test_a_program_is_named_and_held_against_itself(dialogue):
    """Another program of the same host sends as much elsewhere: to the host that is usual, to this one it is not."""
    for program in (None, "/usr/bin/backup"):
        dialogue.transfer(1000, 90, 1, ELSEWHERE, program=program)
    dialogue.transfer(1100, 150, 1)
    dialogue.transfer(1200, 150, 1, program=PROGRAM)
    assert dialogue.scores() == [55]
    (found,) = dialogue.found
    assert (found.program, found.source, found.target) == (PROGRAM, HERE, THERE)
    assert found.evidence == (
        f"rclone ({PROGRAM}) sent 150 MB to 203.0.113.9 in 1 connections, and received 1.0 MB; a backup looks the same"
    )


def test_a_program_is_the_same_from_any_address(dialogue):
    for at in range(4):
        dialogue.transfer(1000 + at, 30, 1, source=bytes([192, 168, 1, at]), program=PROGRAM)
    assert dialogue.scores() == [55]


def test_local_addresses():
    assert not is_local(parse_address("172.32.0.1"))
    assert is_local(parse_address("::1"))


ADDRESSES = st.sampled_from([HERE, THERE, ELSEWHERE, bytes(16), bytes(4), parse_address("2001:db8::1")])


@given(
    st.lists(
        st.tuples(st.floats(0, 1e10), st.floats(0, 1e9), st.floats(0, 1e9), ADDRESSES, ADDRESSES),
        max_size=60,
    )
)
def test_nothing_makes_it_raise(seen):
    dialogue = Dialogue()
    for time, sent, received, source, destination in seen:
        dialogue.transfer(time, sent, received, destination, source=source)
    assert all(55 <= score <= 75 for score in dialogue.scores())
