"""What becomes of connections when events were lost, and the kernel's table is read while others begin and end.

The kernel here is a model: which events it loses, and what happens between two pieces of its table, can't be had of the
real one on demand.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from pfw.daemon import tracking as module
from pfw.daemon.tracking import Tracking
from pfw.drivers import conntrack
from pfw.model.flow import Direction, Flow
from pfw.model.history import Entry, Finish, Subject
from pfw.model.packet import UDP
from pfw.wire.conntrack_event import DESTROY, NEW, Event

HERE, THERE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
CHUNK = 3


class Kernel:
    """Connections by their source ports, what it told and nobody has read yet, and its table piece by piece."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.overrun = False
        self.open: dict[int, int] = {}
        self.told: list[Event] = []
        self.loses = False
        self._next_id = 1

    def read(self, _limit: int) -> list[Event]:
        told, self.told = self.told, []
        return told

    def happens(self, many: int) -> None:
        """Connections begin and end, of few ports, so that many have the same ends as one before."""
        for _ in range(many):
            port = self.chance.randrange(1, 30)
            if port in self.open:
                self._tell(event(DESTROY, port, self.open.pop(port)))
            else:
                self.open[port] = self._next_id
                self._next_id += 1
                self._tell(event(NEW, port, self.open[port]))

    def table(self) -> Iterator[Event]:
        """A piece is written down when the one before is taken, as a dump is."""
        at, piece = 0, self._piece(0)
        while piece:
            at = piece[-1].port or 0
            following = self._piece(at)
            for each in piece:
                yield each
                self.happens(self.chance.choice((0, 0, 1, 3)))
            piece = following

    def _piece(self, behind: int) -> list[Event]:
        ports = sorted(port for port in self.open if port > behind)[:CHUNK]
        return [event(NEW, port, self.open[port]) for port in ports]

    def _tell(self, told: Event) -> None:
        if self.loses and self.chance.random() < 0.4:
            self.overrun = True
        else:
            self.told.append(told)


def event(what: int, port: int, number: int) -> Event:
    """A connection's remote port stands for it here: the model's table is in its order."""
    key = b"\x11" + HERE + THERE + (5000).to_bytes(2) + port.to_bytes(2)
    return Event(what, key, UDP, HERE, THERE, 5000, port, None, None, None, number)


class Chronicle:
    """Everything goes out, and of everything the same is known."""

    def __init__(self) -> None:
        self.first: list[object] = []
        self._last = 0

    def direction(self, _source: bytes, _answering: bytes) -> Direction:
        return Direction.OUT

    def is_local(self, address: bytes) -> bool:
        return address == HERE

    def began(self, flow: Flow, now: float, _sent: Flow | None = None) -> Entry:
        self._last += 1
        subject = Subject(direction=Direction.OUT, protocol=UDP, local=HERE, port=flow.port, action="allow")
        return Entry(id=self._last, subject=subject, remote=THERE, start=now, from_port=flow.source_port)


class History:
    """The rows, and how often each was ended."""

    def __init__(self) -> None:
        self.rows: dict[int, Entry] = {}
        self.ends: Counter[int] = Counter()

    def write(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert entry.id not in self.rows
            self.rows[entry.id] = entry

    def finish(self, ends: list[Finish]) -> None:
        self.ends.update(each.id for each in ends if each.end is not None)

    def open_ports(self) -> list[int | None]:
        return sorted(row.subject.port or 0 for number, row in self.rows.items() if number not in self.ends)


@pytest.mark.parametrize("seed", range(300))
def test_after_a_loss_what_is_open_is_what_the_kernel_has(monkeypatch, seed):
    kernel, history = Kernel(seed), History()
    monkeypatch.setattr(conntrack, "tracked", kernel.table)
    monkeypatch.setattr(module, "_PIECE", kernel.chance.choice((1, 2, 5)))
    seen: list[float] = []
    tracking = Tracking(kernel, Chronicle(), history, lambda told: seen.extend(each.time for each in told))
    tracking.begin(())
    for _ in range(kernel.chance.randrange(1, 4)):
        kernel.loses = True
        for _ in range(8):
            kernel.happens(5)
            tracking.take()
        kernel.loses = False
        tracking.look_again()
        tracking.take()
        assert history.open_ports() == sorted(kernel.open)
        assert max(history.ends.values(), default=1) == 1
    for _ in range(8):
        kernel.happens(3)
        tracking.take()
    assert history.open_ports() == sorted(kernel.open)
    assert seen == sorted(seen)


def test_what_the_table_tells_twice_is_taken_up_once(monkeypatch):
    kernel, history, chronicle = Kernel(0), History(), Chronicle()
    ends = Flow(direction=Direction.OUT, protocol=UDP, source=HERE, destination=THERE, source_port=5000, port=1)
    known = chronicle.began(ends, 0.0)
    table = [event(NEW, port, port) for port in (1, 2, 1, 2)]
    monkeypatch.setattr(conntrack, "tracked", lambda: iter(table))
    tracking = Tracking(kernel, chronicle, history, lambda _: None)
    tracking.begin([known])
    assert [row.subject.port for row in history.rows.values()] == [2]
    assert not history.ends
    kernel.told = [event(DESTROY, 1, 1), event(DESTROY, 2, 2)]
    tracking.take()
    assert history.ends == Counter({known.id: 1, known.id + 1: 1})
