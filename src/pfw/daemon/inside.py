"""What goes on on this machine itself: who logs in, who waits at a port, whose program was changed on the disk.

All of it is looked at now and then, and costs next to nothing while nothing changes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from time import perf_counter

from pfw.daemon.listeners import Listeners
from pfw.drivers import clock
from pfw.drivers.journal import Journal, LogFile, login_log
from pfw.drivers.processes import Change, changed
from pfw.engine.detect.new_listener import listener_name
from pfw.engine.suspicion import LOOPBACK
from pfw.model.history import FirstSeen, New
from pfw.model.observation import Listening, Observation, ProgramTalks
from pfw.model.program import Program

LISTENERS_S, LISTENERS_SHARE = 5.0, 0.05
"""How often it is looked who waits at ports, and of the time no more than this: many sockets make it long."""
TALKERS_MAX = 4_096
TALKS_S = 60.0
"""How often the file of a program that talks is looked at."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Inside:
    """`see` gets observations, `first_seen` what may be new to the history. Where nothing is known from an earlier life
    (`is_first`), whoever waits at a port at first is taken for known."""

    def __init__(
        self,
        see: Callable[[Sequence[Observation]], None],
        first_seen: Callable[[Sequence[FirstSeen]], None],
        *,
        is_first: bool,
    ) -> None:
        self._is_first = is_first
        self._see = see
        self._first_seen = first_seen
        self._logins: Journal | LogFile | None = login_log()
        self._listeners = Listeners()
        self._listening: frozenset[tuple[int, bytes, int, str | None]] = frozenset()
        self._next_look, self._pause_s = 0.0, LISTENERS_S
        self._talked: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._booted = clock.now() - _uptime_s()

    @property
    def refused(self) -> int:
        return self._listeners.refused

    def tick(self, now: float) -> None:
        """Look at what has changed; about once a second."""
        if self._logins is not None:
            self._see(self._logins.read())
        if not 0 < self._next_look - now <= self._pause_s:
            began = perf_counter()
            with suppress(OSError):
                self._look(now)
            self._pause_s = max(LISTENERS_S, (perf_counter() - began) / LISTENERS_SHARE)
            self._next_look = now + self._pause_s

    def talks(self, program: Program, remote: bytes, port: int | None, now: float) -> None:
        """A program has to do with somebody else: now and then it is looked whether it is still what is on the disk."""
        name = program.pid, program.started
        if 0 < self._talked.get(name, 0.0) - now <= TALKS_S:
            return
        self._talked[name] = now + TALKS_S
        self._talked.move_to_end(name)
        if len(self._talked) > TALKERS_MAX:
            self._talked.popitem(last=False)
        found = changed(program.pid, program.started, program.path)
        if found is None:
            return
        path = program.path or program.shown
        self._see(
            (
                ProgramTalks(
                    time=now,
                    program=f"memfd:{path}" if found.change is Change.NAMELESS and ":" not in path else path,
                    pid=program.pid,
                    started=self._booted + program.started / _TICKS_PER_S,
                    is_replaced=True,
                    remote=remote,
                    port=port,
                    is_missing=found.change is Change.DELETED,
                    changed=found.since,
                ),
            )
        )

    def close(self) -> None:
        if self._logins is not None:
            self._logins.close()

    def _look(self, now: float) -> None:
        there = frozenset(
            (each.protocol, each.address, each.port, each.program)
            for each in self._listeners.look()
            if not each.is_ephemeral
        )
        fresh, self._listening = there - self._listening, there
        self._see([Listening(now, *each, first=self._is_first) for each in _in_order(fresh)])
        self._is_first = False
        self._first_seen(
            [
                FirstSeen(now, New.LISTENER, listener_name(protocol, address, port), program)
                for protocol, address, port, program in _in_order(fresh)
                if address not in LOOPBACK
            ]
        )


def _in_order(
    listeners: Iterable[tuple[int, bytes, int, str | None]],
) -> list[tuple[int, bytes, int, str | None]]:
    return sorted(listeners, key=lambda each: (each[0], each[2], each[1], each[3] or ""))


def _uptime_s() -> float:
    with suppress(OSError, ValueError, IndexError), open("/proc/uptime") as file:
        return float(file.read(64).split()[0])
    return 0.0
