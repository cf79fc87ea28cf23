"""Watching what the kernel does: the packets that its rules tell of, as the commands that screens and logs know.

Nothing is decided here. A packet comes with the number of the rule that matched it; the generation that the number
belongs to says which rule that is. Times, counts and verdicts are the kernel's.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping

from msgspec import Struct

from pfw.daemon import backends
from pfw.daemon.backend import Backend, Counted
from pfw.daemon.monitor import PERIOD_S, STATISTICS_S, Stop, statistics
from pfw.daemon.recording import RecorderProcess
from pfw.daemon.rule_log import RuleLog
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.files import Watch
from pfw.drivers.nflog import DELAY_MS, LogReader
from pfw.drivers.programs import RefusedError
from pfw.enforce.nft_table import LOG_BYTES, LOG_GROUP, QUIET_GROUP
from pfw.engine.suspicion import TEXTS, flags_event
from pfw.engine.tcp import flags_are_valid
from pfw.engine.totals import RuleTotals, Totals
from pfw.model.command import Command, Judged, Notice, Suspicious
from pfw.model.packet import TCP
from pfw.model.verdict import Action
from pfw.record.recorder import Counts, Options
from pfw.wire.error import WireError
from pfw.wire.nflog import Logged

_WAIT_MS = 250
_UNTOLD_S = 5.0
"""How often it is said how many packets were not told of."""

Apply = Callable[[], None]
"""Puts the changed policy file in force; tells what is wrong by itself."""


class Outcome(Struct, frozen=True):
    """How it ended."""

    totals: Totals
    losses: dict[str, int]
    duration_s: float
    error: str | None = None


class KernelWatch:
    """One watch. `show` gets the commands, `tell` lines for the person. Raises OSError where somebody else reads
    the kernel's log."""

    def __init__(
        self,
        state: State,
        backend: Backend,
        show: Callable[[list[Command]], None],
        tell: Callable[[str], None],
        records: Options,
    ) -> None:
        self._state = state
        self._backend = backend
        self._show = show
        self._tell = tell
        # Before the reader: what is told of is counted as well.
        self._began = self._counters()
        self._reader = LogReader([LOG_GROUP, QUIET_GROUP], LOG_BYTES)
        wanted = records.log or records.eve or records.syslog or records.journal
        self._recorder = RecorderProcess(records, wait=False) if wanted else None
        self._log = RuleLog(state, self._reader.interface)
        self._number = 0
        self._untold: dict[str, int] = {name: each.untold for name, each in self._began.items()}
        self._packets = 0

    def run(self, stop: Stop, changed: tuple[Watch, Apply]) -> Outcome:
        """Until `stop` is due. `changed` tells whether the policy file has, and what to do then."""
        began = time.monotonic()
        poll = select.poll()
        poll.register(self._reader.fileno(), select.POLLIN)
        next_period = next_untold = next_statistics = 0.0
        with stop.on_signals():
            while not stop.due():
                poll.poll(_WAIT_MS)
                self._take(stop)
                now = time.monotonic()
                if now >= next_period:
                    next_period = now + PERIOD_S
                    self._refresh(changed)
                if now >= next_untold:
                    next_untold = now + _UNTOLD_S
                    self._tell_untold()
                if now >= next_statistics and self._recorder is not None:
                    next_statistics = now + STATISTICS_S
                    self._recorder.statistics(statistics(self._totals()))
            if stop.packets_left != 0:
                time.sleep(2 * DELAY_MS / 1000)  # the last ones are on their way
            self._take(stop)
        return self._end(time.monotonic() - began)

    def _take(self, stop: Stop) -> None:
        try:
            logged = self._reader.read()
        except WireError as error:
            self._tell(f"the kernel's log could not be read: {error}")
            return
        commands: list[Command] = []
        for packet in logged:
            if stop.packets_left == 0:
                break
            found = self._commands(packet)
            if found and stop.packets_left is not None:
                stop.packets_left -= 1
            commands += found
        if commands:
            self._perform(commands)

    def _perform(self, commands: list[Command]) -> None:
        if self._recorder is not None:
            self._recorder.send(commands)
        self._show(commands)

    def _commands(self, packet: Logged) -> list[Command]:
        """What a packet that was told of says: a verdict, and whether the packet itself is suspicious."""
        told = self._log.read(packet)
        if told is None:
            return []
        self._packets += 1
        self._number += 1
        commands: list[Command] = [
            Judged(told.time, self._number, told.flow, told.verdict, told.frame, told.flags)
        ]  # fmt: skip
        if told.verdict.base and told.flow.protocol == TCP and not flags_are_valid(told.flags):
            name = flags_event(told.flags)
            commands.append(
                Suspicious(
                    time=told.time, event=name, text=TEXTS[name], frame=told.frame, flow=told.flow,
                    interface=told.flow.interface,
                )
            )  # fmt: skip
        return commands

    def _refresh(self, changed: tuple[Watch, Apply]) -> None:
        self._log.refresh()
        watch, apply = changed
        if watch.changed():
            apply()
            self._log.forget()
        if self._recorder is not None:
            self._recorder.flush()

    def _counters(self) -> Mapping[str, Counted]:
        try:
            return self._backend.counters()
        except (RefusedError, OSError, WireError) as error:
            self._tell(f"the kernel's counters could not be read: {error}")
            return {}

    def _tell_untold(self) -> None:
        """How many packets the rules did not tell of, since they were too many."""
        known = backends.in_force(self._state)
        if known is None:
            return
        names = {each.counter: each.name for each in known[1].verdicts}
        lines = []
        for counter, counted in self._counters().items():
            more = counted.untold - self._untold.get(counter, 0)
            self._untold[counter] = counted.untold
            if more > 0 and counter in names:
                lines.append(Notice(clock.now(), f'{more:,} more packets by "{names[counter]}", too many to show each'))
        for line in lines:
            self._tell(line.text)
        if lines and self._recorder is not None:
            self._recorder.send(list(lines))

    def _totals(self) -> Totals:
        """What the kernel counted since the watch began."""
        known = backends.in_force(self._state)
        rows = []
        now = self._counters()
        for each in known[1].verdicts if known is not None else []:
            counted = now.get(each.counter)
            if counted is None:
                continue
            before = self._began.get(each.counter, Counted(0, 0))
            packets = max(0, counted.packets - before.packets)
            rows.append(
                RuleTotals(each.name, Action(each.action), packets, packets, max(0, counted.bytes - before.bytes))
            )
        by_action = {action: sum(row.packets for row in rows if row.action is action) for action in Action}
        return Totals(
            packets=sum(row.packets for row in rows),
            bytes=sum(row.bytes for row in rows),
            connections=sum(row.packets for row in rows),
            allowed=by_action[Action.ALLOW],
            blocked=by_action[Action.BLOCK],
            rejected=by_action[Action.REJECT],
            asked=0,
            unknown=0,
            undecodable=0,
            undecodable_bytes=0,
            not_ip={},
            not_ip_bytes=0,
            midstream=0,
            untracked=0,
            evicted=0,
            rules=tuple(rows),
        )

    def _end(self, duration_s: float) -> Outcome:
        totals = self._totals()
        losses = {"packets by the kernel's log": self._reader.lost, "packets too many to tell of": self._all_untold()}
        self._reader.close()
        if self._recorder is not None:
            self._recorder.statistics(statistics(totals))
            counts: Counts | None = self._recorder.close()
            losses["records on their way to the logs"] = self._recorder.lost
            losses["log lines by the disk"] = sum(counts.lost.values()) if counts is not None else self._recorder.sent
        return Outcome(totals, losses, duration_s)

    def _all_untold(self) -> int:
        now = self._counters()
        before = {name: each.untold for name, each in self._began.items()}
        return sum(max(0, each.untold - before.get(name, 0)) for name, each in now.items())
