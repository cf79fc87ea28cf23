"""What is remembered: the generation in force, the last policies, and what is left of a file that broke."""

import pytest

from pfw.daemon.state import GENERATIONS_MAX, HISTORY_MAX, Applied, Named, Pending, State
from pfw.drivers.store import Store


@pytest.fixture
def state(tmp_path):
    return State(Store(tmp_path))


def applied(generation: int) -> Applied:
    verdicts = [Named('a "name"', "allow", "r_1", 0)]
    return Applied(
        generation=generation, backend="nftables", path="/p", sha256="s", digest="d", time=1.0, verdicts=verdicts
    )


def remember(state: State, number: int, path: str = "/p") -> None:
    state.remember(time=float(number), path=path, text=b"%d" % number, sha256=str(number), why="up")


class TestGenerations:
    def test_nothing_at_first(self, state):
        assert state.current() is None
        assert state.applied(state.current()) is None
        assert state.next_generation(None) == 1

    def test_kept_and_found(self, state):
        state.keep(applied(3), b"text")
        state.set_current(3)
        assert state.applied(state.current()) == applied(3)
        assert state.rules_of(3) == b"text"

    def test_numbers_are_new_to_disk_and_kernel(self, state):
        state.keep(applied(3), b"")
        assert state.next_generation(None) == 4
        assert state.next_generation(9) == 10

    def test_the_oldest_go_but_never_the_one_in_force(self, state):
        state.keep(applied(1), b"")
        state.set_current(1)
        for generation in range(2, 9):
            state.keep(applied(generation), b"")
        kept = [number for number in range(1, 9) if state.applied(number)]
        assert kept == [1, *range(9 - GENERATIONS_MAX, 9)]

    def test_a_broken_file_is_told_and_not_there(self, state):
        state.files.write("generations/2.json", b'{"generation": "two"}')
        assert state.applied(2) is None
        assert "taken as not there" in state.trouble[0]
        state.files.write("current", b"nonsense")
        assert state.current() is None


class TestPending:
    def test_taken_once(self, state):
        state.set_pending(Pending(2, 1, 5.0))
        assert state.take_pending() == Pending(2, 1, 5.0)
        assert state.take_pending() is None


class TestHistory:
    def test_in_order_each_once_and_no_more_than_there_may_be(self, state):
        for number in range(1, HISTORY_MAX + 6):
            remember(state, number)
            remember(state, number)
        entries = state.history()
        assert [entry.number for entry in entries] == list(range(6, HISTORY_MAX + 6))
        assert state.remembered_text(entries[0]) == b"6"
        assert state.files.read("history/5.rules") is None

    def test_what_was_undone_may_come_again(self, state):
        remember(state, 1)
        remember(state, 2)
        state.mark_undone(state.history()[-1])
        remember(state, 1)
        remember(state, 2)
        assert [(entry.number, entry.undone) for entry in state.history()] == [(1, False), (2, True), (3, False)]
