"""Notifications by key, at a server that takes its time."""

from __future__ import annotations

import select
import time

import pytest

from pfw.agent.agent import Key, Kind
from pfw.agent.bus import Bus
from pfw.agent.notifications import Closed, Notifications, Pressed, ServerFound, ServerGone
from pfw.agent.wording import Notification, Urgency

from .conftest import ALL, WAIT_S, until

KEY, OTHER = Key(Kind.PROMPT, 1), Key(Kind.PROMPT, 2)


def words(summary: str) -> Notification:
    return Notification(summary, "", Urgency.NORMAL, "", (("a", "A"),))


class Screen:
    def __init__(self, bus: Bus) -> None:
        self.notifications = Notifications(bus)
        self.events: list = []

    def until(self, true) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, self.events
            if select.select([self.notifications], [], [], 0.01)[0]:
                self.events += self.notifications.receive()

    def settle(self, server) -> None:
        """Until the server has answered all that it was asked."""
        self.notifications.show(OTHER, words("last"))
        self.until(lambda: OTHER in self.notifications._ids)
        self.notifications.close(OTHER)
        self.until(lambda: "last" not in server.summaries)


@pytest.fixture
def server(desk):
    return desk.server()


@pytest.fixture
def screen(desk, server):
    with Bus(desk.bus.address) as bus:
        made = Screen(bus)
        made.until(lambda: made.events)
        assert made.events == [ServerFound(frozenset(ALL))]
        made.events.clear()
        yield made


@pytest.fixture
def held(screen, server):
    """One is shown, and the server does not answer about its replacement."""
    screen.notifications.show(KEY, words("one"))
    until(lambda: server.summaries == ["one"])
    screen.settle(server)
    server.held = []
    screen.notifications.show(KEY, words("two"))
    until(lambda: server.held)
    return next(iter(server.shown))


def test_replaced(screen, server):
    for text in ("one", "two"):
        screen.notifications.show(KEY, words(text))
        screen.settle(server)
        assert server.summaries == [text]
    assert [each["replaces_id"] for each in server.shown.values()] == list(server.shown)


def test_only_the_last_wish_is_done(screen, server, held):
    screen.notifications.show(KEY, words("three"))
    screen.notifications.show(KEY, words("four"))
    server.release()
    screen.settle(server)
    assert server.summaries == ["four"]
    assert server.notified == 5  # one, two, four, and what `settle` shows twice


def test_closed_before_it_is_shown(screen, server):
    server.held = []
    screen.notifications.show(KEY, words("one"))
    until(lambda: server.held)
    screen.notifications.close(KEY)
    server.release()
    screen.settle(server)
    assert server.summaries == []
    assert screen.events == []


def test_closed_while_it_is_replaced(screen, server, held):
    screen.notifications.close(KEY)
    until(lambda: not server.shown)
    server.release()
    screen.settle(server)
    assert server.summaries == []
    assert screen.events == []


def test_closed_by_the_person_while_it_is_replaced(screen, server, held):
    server.dismiss(held)
    screen.until(lambda: screen.events)
    server.release()
    screen.settle(server)
    assert server.summaries == []
    assert screen.events == [Closed(KEY)]


def test_pressed_while_it_is_replaced(screen, server, held):
    server.press(held, "a", closes=False)
    screen.until(lambda: screen.events)
    assert screen.events == [Pressed(KEY, "a")]


def test_closed_ones_are_not_pressed(screen, server):
    screen.notifications.show(KEY, words("one"))
    screen.settle(server)
    (number,) = server.shown
    screen.notifications.close(KEY)
    server.press(number, "a")
    screen.settle(server)
    assert screen.events == []


def test_refused_by_the_server(screen, server):
    server.refuses = True
    screen.notifications.show(KEY, words("one"))
    screen.until(lambda: screen.events)
    assert screen.events == [Closed(KEY)]


def test_a_refused_replacement_is_closed(screen, server):
    screen.notifications.show(KEY, words("one"))
    screen.settle(server)
    server.refuses = True
    screen.notifications.show(KEY, words("two"))
    screen.until(lambda: screen.events)
    until(lambda: not server.shown)
    assert screen.events == [Closed(KEY)]


def test_another_server(desk, screen, server):
    screen.notifications.show(KEY, words("one"))
    screen.settle(server)
    server.stop()
    screen.until(lambda: screen.events)
    other = desk.server(("body",))
    screen.until(lambda: len(screen.events) >= 3)
    assert screen.events == [ServerGone(""), ServerGone(""), ServerFound(frozenset({"body"}))]
    screen.notifications.show(KEY, words("two"))
    screen.settle(other)
    assert [each["replaces_id"] for each in other.shown.values()] == [0]
