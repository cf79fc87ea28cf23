"""The monitor: packets in, verdicts out, nothing changed in the kernel.

Puts capture or file, decoder, engine, screen and recorder together. Everything that is decided is decided
by the engine; everything that is shown, by the `show` that is passed in.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pfw.daemon.recording import RecorderProcess
from pfw.daemon.sources import Batch
from pfw.drivers import clock
from pfw.drivers.files import Watch
from pfw.engine.engine import Engine
from pfw.engine.totals import Totals
from pfw.model.command import Command, Notice
from pfw.model.event import Event, Finish, Packets, PolicyChanged, Tick
from pfw.model.policy import Policy, PolicyError
from pfw.model.text import counted
from pfw.wire.scan import scan

PERIOD_S = 0.5
"""How often the policy file is looked at and time passes for the engine."""
STATISTICS_S = 60.0

IMPATIENT_S = 1.0
"""A second signal that comes sooner is the same wish: timeout(1) sends one to us and one to our group."""

Load = Callable[[Path], Policy]
"""Reads a policy; raises PolicyError or OSError."""


class Stop:
    """Whether it is time to end: a signal, a number of packets, a number of seconds."""

    def __init__(self, packets: int | None, seconds: float | None) -> None:
        self.packets_left = packets
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.asked = False
        self._asked_at = 0.0

    def due(self) -> bool:
        if self.asked or self.packets_left == 0:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within, SIGINT, SIGTERM and SIGHUP ask for the end; a second one, where that takes too long, raises
        KeyboardInterrupt."""

        def ask(_signal: int, _frame: FrameType | None) -> None:
            now = time.monotonic()
            if self.asked and now - self._asked_at > IMPATIENT_S:
                raise KeyboardInterrupt
            if not self.asked:
                self._asked_at = now
            self.asked = True

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # A terminal that was closed; under nohup the watch goes on.
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, ask) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Monitor:
    """One watch. `show` gets the engine's commands, `tell` lines for the person at the screen."""

    def __init__(
        self,
        engine: Engine,
        show: Callable[[list[Command]], None],
        tell: Callable[[str], None],
        recorder: RecorderProcess | None = None,
    ) -> None:
        self._engine = engine
        self._show = show
        self._tell = tell
        self._recorder = recorder
        self._policy_watch: tuple[Path, Watch, Load] | None = None
        self._refresh: Callable[[], list[Event]] = list
        self._told_broken = False
        self._file_time: float | None = None
        self._next_period = 0.0
        self._next_statistics = time.monotonic() + STATISTICS_S

    def watch_policy(self, path: Path, watch: Watch, load: Load) -> None:
        """Take up changes of the file, since the watch was made, while running."""
        self._policy_watch = (path, watch, load)

    def refresh_with(self, refresh: Callable[[], list[Event]]) -> None:
        """Ask this for events, such as changed addresses, each period."""
        self._refresh = refresh

    def run(self, batches: Iterator[Batch | None], stop: Stop) -> None:
        """Until the batches end or `stop` is due; a batch that is None only lets time pass."""
        try:
            for batch in batches:
                if batch is not None:
                    self._take(batch, stop)
                self._pass_time(batch)
                if stop.due():
                    break
        finally:
            self._perform(self._engine.step(Finish(), self._now()))

    def _now(self) -> float:
        """The time: by the clock, or in a capture file that of the last packet."""
        return clock.now() if self._file_time is None else self._file_time

    def _take(self, batch: Batch, stop: Stop) -> None:
        frames = batch.frames
        if stop.packets_left is not None:
            frames = frames[: stop.packets_left]
            stop.packets_left -= len(frames)
        if frames and not batch.live:
            self._file_time = frames[-1][0]
        items = scan(batch.source, batch.buffer, frames)
        commands = self._engine.step(Packets(batch.source, batch.buffer, items, batch.sent), 0.0)
        if commands:
            self._perform(commands)

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Notice):
                self._tell(command.text)
        if self._recorder is not None:
            # First of all: showing them may fail, when nobody reads any more.
            self._recorder.send(commands)
        self._show(commands)

    def _pass_time(self, batch: Batch | None) -> None:
        at = time.monotonic()
        if at < self._next_period:
            return
        self._next_period = at + PERIOD_S
        now = self._now()
        events: list[Event] = [*self._refresh(), *self._changed_policy()]
        if batch is None or batch.live:
            events.append(Tick())
        for event in events:
            self._perform(self._engine.step(event, now))
        if self._recorder is not None:
            self._recorder.flush()
            if self._recorder.broken and not self._told_broken:
                self._told_broken = True
                self._tell("the recorder has ended early: nothing is recorded any more, what is lost is counted")
            if at >= self._next_statistics:
                self._next_statistics = at + STATISTICS_S
                self._recorder.statistics(statistics(self._engine.totals()))

    def _changed_policy(self) -> list[Event]:
        if self._policy_watch is None:
            return []
        path, watch, load = self._policy_watch
        if not watch.changed():
            return []
        try:
            policy = load(path)
        except PolicyError as error:
            more = f" (and {len(error.faults) - 1} more)" if len(error.faults) > 1 else ""
            self._tell(f"{error.faults[0]}{more}; the policy before stays in force")
            return []
        except OSError as error:
            self._tell(f"{path}: {error.strerror or error}; the policy before stays in force")
            return []
        self._tell(f"{path} has changed and is in force: {counted(len(policy.rules), 'rule')}")
        return [PolicyChanged(policy)]


def statistics(totals: Totals) -> dict[str, int]:
    """The counters of a `stats` record."""
    return {
        "packets": totals.packets,
        "bytes": totals.bytes,
        "connections": totals.connections,
        "allowed": totals.allowed,
        "blocked": totals.blocked,
        "rejected": totals.rejected,
        "undecodable": totals.undecodable,
        "not_ip": sum(totals.not_ip.values()),
    }
