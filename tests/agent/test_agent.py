"""What is shown and what a press means, without bus and daemon."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.agent.agent import (
    ALERTS_A_MINUTE,
    ALERTS_SHOWN_MAX,
    PROGRAM_SHOWN_MAX,
    PROMPTS_MAX,
    SHOWN_MAX,
    Agent,
    Close,
    Key,
    Kind,
    Show,
)
from pfw.api.interface import AlertsResult, PromptsResult

from .conftest import ALL, PROGRAM, prompt

ABLE = frozenset(ALL)
GIT = replace(PROGRAM, path="/usr/bin/git")


class Screen:
    """What a server shows after all that it was told."""

    def __init__(self) -> None:
        self.agent = Agent()
        self.agent.server(ABLE)
        self.shown: dict = {}
        self.commands = 0

    def news(self, *prompts, gone=()) -> None:
        self.agent.prompts(PromptsResult(prompts=prompts, gone=tuple(gone)))
        self.settle()

    def settle(self) -> None:
        for command in self.agent.settle():
            self.commands += 1
            match command:
                case Show(key, notification):
                    self.shown[key] = notification
                case Close(key):
                    self.shown.pop(key, None)

    @property
    def numbers(self) -> list[int]:
        return sorted(key.number for key in self.shown if key.kind is Kind.PROMPT)

    def close(self, key: Key) -> None:
        del self.shown[key]
        self.agent.closed(key)
        self.settle()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def key(number: int, daemon: int = 0) -> Key:
    return Key(Kind.PROMPT, number, daemon)


def alert(says: str) -> AlertsResult:
    return AlertsResult(time=1.0, kind="scan", says=says)


MORE = Key(Kind.MORE)


class TestPrompts:
    def test_nothing_without_a_server(self, screen):
        screen.agent.server(None)
        screen.news(prompt(1))
        assert screen.commands == 0
        screen.agent.server(ABLE)
        screen.settle()
        assert screen.numbers == [1]

    def test_the_first_ones_stay_and_the_next_move_up(self, screen):
        screen.news(*map(prompt, range(1, 31)))
        assert screen.numbers == list(range(1, 21))
        assert screen.shown[MORE].summary == "10 more wait: pfw ask"
        screen.news(gone=(3, 5))
        assert screen.numbers == [1, 2, 4, *range(6, 23)]
        assert screen.shown[MORE].summary == "8 more wait: pfw ask"

    def test_a_program_does_not_crowd_out_another(self, screen):
        screen.news(*map(prompt, range(1, 21)))
        screen.news(prompt(21, program=GIT))
        assert screen.numbers == [1, 2, 3, 4, 5, 21]
        assert screen.shown[MORE].summary == "15 more wait: pfw ask"
        screen.news(prompt(22), gone=(1, 3))
        assert screen.numbers == [2, *range(4, 23)], "there is room for all"
        assert MORE not in screen.shown
        screen.news(*map(prompt, range(23, 33)), gone=(4,))
        assert screen.numbers == [2, 5, 6, 7, 8, 21]
        screen.close(key(21))
        assert screen.numbers == [2, *range(5, 21), 22, 23, 24], "nobody else waits"

    def test_what_has_no_path_counts_as_one_program(self, screen):
        """Such a program can call itself what it likes."""
        named = [replace(PROGRAM, path=None, shown=f"({number})") for number in range(30)]
        screen.news(*(prompt(number, program=own) for number, own in enumerate([*named, None, None], 1)))
        screen.news(prompt(50, program=GIT))
        assert screen.numbers == [1, 2, 3, 4, 5, 50]

    def test_places_are_given_in_turn(self, screen):
        programs = [replace(PROGRAM, path=f"/opt/{number}") for number in range(8)]
        screen.news(*(prompt(10 * at + number, program=own) for at, own in enumerate(programs) for number in range(6)))
        # Two of each, and a third of the four that came first.
        firsts = [10 * at + number for at in range(8) for number in (0, 1)]
        assert screen.numbers == sorted([*firsts, 2, 12, 22, 32])
        assert screen.shown[MORE].summary == "28 more wait: pfw ask"

    def test_the_late_ones_of_a_program_give_room_too(self, screen):
        screen.news(*map(prompt, range(1, 21)))
        screen.news(*(prompt(number, state="unanswered") for number in range(1, 16)))
        screen.news(*map(prompt, range(21, 37)), prompt(50, program=GIT))
        assert screen.numbers == [16, 17, 18, 19, 20, 50]

    @given(st.lists(st.integers(0, 5) | st.integers(0, 30), min_size=SHOWN_MAX - 2, max_size=60))
    def test_no_program_is_left_out_for_another(self, asking):
        screen = Screen()
        screen.news(*(prompt(at, program=replace(PROGRAM, path=f"/opt/{number}")) for at, number in enumerate(asking)))
        shown = Counter(asking[number] for number in screen.numbers)
        assert screen.numbers == list(range(len(asking))) or len(asking) > SHOWN_MAX
        assert len(shown) == min(len(set(asking)), SHOWN_MAX)
        if len(asking) > SHOWN_MAX and len(set(asking)) > 1:
            assert max(shown.values()) <= PROGRAM_SHOWN_MAX
        for number, places in shown.items():
            own = [at for at, each in enumerate(asking) if each == number]
            assert [at for at in screen.numbers if at in own] == own[:places], "the oldest first"
            assert all(places <= other + 1 or other == asking.count(each) for each, other in shown.items())
        more = screen.shown.get(MORE)
        assert (0 if more is None else int(more.summary.split()[0])) == len(asking) - len(screen.numbers)

    def test_what_is_closed_makes_room_and_does_not_come_back(self, screen):
        screen.news(*map(prompt, range(1, 23)))
        screen.close(key(1))
        assert screen.numbers == list(range(2, 22))
        screen.news(prompt(1, held=3))
        assert 1 not in screen.numbers
        assert screen.agent.pressed(key(1), "allow-once") is None

    def test_more_is_closed_until_there_are_no_more(self, screen):
        screen.news(*map(prompt, range(1, 25)))
        screen.close(MORE)
        screen.news(prompt(25))
        assert MORE not in screen.shown
        screen.news(gone=range(1, 10))
        screen.news(*map(prompt, range(30, 40)))
        assert MORE in screen.shown

    def test_late_ones_give_room_to_those_that_wait(self, screen):
        screen.news(*map(prompt, range(1, 21)))
        screen.news(*(prompt(number, state="unanswered") for number in range(1, 21)))
        assert screen.numbers == list(range(1, 21))
        screen.news(prompt(50))
        assert screen.numbers == [*range(2, 21), 50]
        assert MORE not in screen.shown

    def test_what_was_not_shown_in_time_is_not_shown_late(self, screen):
        screen.news(prompt(1, state="unanswered"))
        assert screen.numbers == []

    def test_late_without_anything_to_answer(self, screen):
        screen.news(prompt(1, program=None))
        screen.news(prompt(1, program=None, state="unanswered"))
        assert screen.shown == {}

    def test_a_press_after_a_restart_of_the_daemon(self, screen):
        screen.news(prompt(1))
        screen.agent.daemon_gone()
        screen.agent.prompts(PromptsResult(prompts=(prompt(1, remote="192.0.2.9"),), gone=()))
        assert screen.agent.pressed(key(1), "allow-always") is None
        screen.settle()
        assert list(screen.shown) == [key(1, 1)]
        assert screen.agent.pressed(key(1), "allow-always") is None
        assert screen.agent.pressed(key(1, 1), "allow-always") is not None

    def test_one_press_is_one_answer(self, screen):
        screen.news(prompt(1))
        assert screen.agent.pressed(key(1), "allow-once") is not None
        assert screen.agent.pressed(key(1), "block-once") is None
        screen.settle()
        assert screen.agent.pressed(key(1), "block-once") is None
        assert screen.shown == {}

    def test_refused_is_asked_again_though_the_server_closed_it(self, screen):
        screen.news(prompt(1))
        screen.agent.pressed(key(1), "allow-once")
        screen.agent.refused(1, "no")
        screen.agent.closed(key(1))
        screen.settle()
        assert screen.numbers == [1]
        assert screen.shown[Key(Kind.ALERT, 0)].body == "no"

    def test_too_many_are_not_looked_at(self, screen):
        screen.news(*map(prompt, range(1, PROMPTS_MAX + 10)))
        screen.news(gone=range(1, PROMPTS_MAX + 1))
        assert screen.shown == {}

    def test_close_all(self, screen):
        screen.news(*map(prompt, range(1, 30)))
        closed = screen.agent.close_all()
        assert {command.key for command in closed} == set(screen.shown)
        assert screen.agent.close_all() == []

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 45)), max_size=60))
    def test_whatever_happens(self, steps):
        """Every prompt that waits and was neither closed nor pressed is shown, or counted."""
        screen, waiting = Screen(), {}
        for step, number in steps:
            match step:
                case 0 | 1 | 2:
                    waiting.setdefault(number, True)
                    screen.news(prompt(number))
                case 3:
                    waiting.pop(number, None)
                    screen.news(gone=(number,))
                case 4 if key(number) in screen.shown:
                    waiting[number] = False
                    screen.close(key(number))
                case 5 if key(number) in screen.shown:
                    waiting[number] = False
                    assert screen.agent.pressed(key(number), "block-once").id == number
                    screen.settle()
                case 6:
                    screen.agent.server(ABLE)
                    screen.shown.clear()
                    screen.settle()
            wanted = [each for each, shown in waiting.items() if shown]
            assert screen.numbers == sorted(wanted[:SHOWN_MAX])
            more = screen.shown.get(MORE)
            assert (0 if more is None else int(more.summary.split()[0])) == max(0, len(wanted) - SHOWN_MAX)


class TestAlerts:
    def test_a_few_at_a_time(self, screen):
        for number in range(ALERTS_SHOWN_MAX + 2):
            screen.agent.alert(alert(f"alert {number}"), float(number))
        screen.settle()
        assert sorted(each.body for each in screen.shown.values()) == [f"alert {n}" for n in range(2, 7)]

    def test_a_flood_is_counted(self, screen):
        for number in range(ALERTS_A_MINUTE + 30):
            screen.agent.alert(alert(f"alert {number}"), 1.0)
        screen.settle()
        assert len(screen.shown) == ALERTS_SHOWN_MAX + 1
        assert screen.shown[Key(Kind.MORE_ALERTS)].summary == "Firewall: 30 more alerts"
        screen.agent.alert(alert("later"), 61.5)
        screen.settle()
        assert "later" in [each.body for each in screen.shown.values()]

    def test_a_closed_one_stays_closed(self, screen):
        screen.agent.alert(alert("one"), 1.0)
        screen.settle()
        screen.close(Key(Kind.ALERT, 0))
        screen.news(prompt(1))
        assert list(screen.shown) == [key(1)]

    def test_not_told_again_to_the_next_server(self, screen):
        screen.agent.alert(alert("one"), 1.0)
        screen.settle()
        screen.agent.server(None)
        screen.agent.alert(alert("two"), 2.0)
        screen.agent.server(ABLE)
        screen.shown.clear()
        screen.settle()
        assert [each.body for each in screen.shown.values()] == ["two"]

    def test_a_press_on_one_answers_nothing(self, screen):
        screen.news(prompt(0))
        screen.agent.alert(alert("one"), 1.0)
        screen.settle()
        assert screen.agent.pressed(Key(Kind.ALERT, 0), "allow-once") is None
