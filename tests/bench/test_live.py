from __future__ import annotations

import pytest

from live import Step, Watcher, search


class Machine:
    """Loses nothing up to a rate, and its sender does no more than another."""

    precision = 1.1

    def __init__(self, holds_up_to: float, sends_up_to: float = 1e9) -> None:
        self._holds_up_to = holds_up_to
        self._sends_up_to = sends_up_to
        self.tried: list[int] = []

    def holds(self, rate: int) -> Step | None:
        self.tried.append(rate)
        done = min(rate, self._sends_up_to)
        return Step(rate, done, 100, (100, 0), 0.1) if done <= self._holds_up_to else None


def watcher() -> Watcher:
    return Watcher("it", ("true",), lambda finished: (0, 0), (40_000, 640_000))


@pytest.mark.parametrize("limit", [45_000, 200_000, 500_000, 900_000])
def test_finds_the_highest_rate_that_holds(limit: int):
    found = watcher()
    search(Machine(limit), found)
    assert min(limit, 640_000) / 1.1 <= found.rates[0] <= limit


def test_goes_below_its_first_bracket():
    found = watcher()
    search(Machine(3_000), found)
    assert 3_000 / 1.1 <= found.rates[0] <= 3_000


def test_gives_up_where_nothing_holds():
    found = watcher()
    search(Machine(0), found)
    assert found.rates == []


def test_says_when_the_sender_was_the_limit():
    found = watcher()
    search(Machine(1e9, sends_up_to=300_000), found)
    assert found.is_limited_by_sender
    assert found.rates == [300_000]


def test_later_rounds_search_near_what_was_found():
    found = watcher()
    for _ in range(2):
        machine = Machine(200_000)
        search(machine, found)
    assert len(machine.tried) <= 6
    assert 200_000 / 1.1 <= found.rates[1] <= 200_000


def test_unseen_packets_are_lost_whoever_says_so():
    assert Step(10, 10, 100, (97, 0), 0.0).lost == 3
    assert Step(10, 10, 100, (100, 5), 0.0).lost == 5
