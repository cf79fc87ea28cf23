"""Watching what the kernel does: the packets that its rules tell of, as the commands that screens and logs know.

Nothing is decided here. A packet comes with the number of the rule that matched it; the generation that the number
belongs to says which rule that is. Times, counts and verdicts are the kernel's.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct

from pfw.daemon import backends
from pfw.daemon.backend import Backend, Counted
from pfw.daemon.monitor import PERIOD_S, STATISTICS_S, Stop, statistics
from pfw.daemon.recording import RecorderProcess
from pfw.daemon.state import Applied, Named, State
from pfw.drivers import clock, netlink
from pfw.drivers.files import Watch
from pfw.drivers.nflog import LogReader
from pfw.drivers.programs import RefusedError
from pfw.enforce.conditions import BANNED, REFUSED
from pfw.enforce.nft_table import LOG_BYTES, LOG_GROUP, QUIET_GROUP
from pfw.enforce.plan import BAN_NAME, REFUSED_NAME
from pfw.engine.suspicion import TEXTS, flags_event
from pfw.engine.tcp import flags_are_valid
from pfw.engine.totals import RuleTotals, Totals
from pfw.model.address import AddressSet
from pfw.model.command import Command, Frame, Judged, Notice, Suspicious
from pfw.model.event import Source
from pfw.model.flow import Direction, make_flow, split_key
from pfw.model.packet import TCP
from pfw.model.verdict import Action, Verdict
from pfw.record.recorder import Counts, Options
from pfw.wire.error import WireError
from pfw.wire.nflog import Logged
from pfw.wire.scan import scan

_LINKTYPE_RAW = 101
_WAIT_MS = 250
_GENERATIONS_MAX = 8
_UNTOLD_S = 5.0
"""How often it is said how many packets were not told of."""
_PRE_ROUTING, _LOCAL_IN, _FORWARD, _LOCAL_OUT = 0, 1, 2, 3
_DIRECTIONS = {_LOCAL_IN: Direction.IN, _FORWARD: Direction.FORWARD, _LOCAL_OUT: Direction.OUT}

_OF_NO_GENERATION = {
    BANNED: Named(BAN_NAME, Action.BLOCK, ""),
    REFUSED: Named(REFUSED_NAME, Action.BLOCK, ""),
}
"""What is told of bans and of people's answers, which belong to no generation."""

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
        self._generations: dict[int, Applied | None] = {}
        self._number = 0
        self._local = AddressSet()
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
        named = self._named(packet.prefix)
        if named is None:
            return []
        at = packet.time if packet.time is not None else clock.now()
        interface = self._interface(packet)
        source = Source(_LINKTYPE_RAW, interface)
        payload = packet.payload
        ((key, _, size, flags, *_),) = scan(source, payload, [(at, 0, len(payload), len(payload))])
        if key is None:
            return []
        self._packets += 1
        protocol, sender, receiver, tail = split_key(key)
        flow = make_flow(protocol, sender, receiver, tail, self._direction(packet, receiver), interface)
        frame = Frame(_LINKTYPE_RAW, payload, size)
        verdict = _verdict(named)
        self._number += 1
        commands: list[Command] = [Judged(at, self._number, flow, verdict, frame, flags)]
        if verdict.base and flow.protocol == TCP and not flags_are_valid(flags):
            name = flags_event(flags)
            commands.append(
                Suspicious(time=at, event=name, text=TEXTS[name], frame=frame, flow=flow, interface=interface)
            )
        return commands

    def _named(self, prefix: str) -> Named | None:
        """The rule that a packet's prefix (`nft_table.log_prefix`) speaks of."""
        words = prefix.split()
        if len(words) != 3 or words[0] != "pfw" or not (words[1].isdecimal() and words[2].isdecimal()):
            return None
        generation, number = int(words[1]), int(words[2])
        if generation == 0:
            return _OF_NO_GENERATION.get(number)
        if generation not in self._generations:
            if len(self._generations) >= _GENERATIONS_MAX:
                self._generations.clear()
            with suppress(OSError):
                self._generations[generation] = self._state.applied(generation)
        applied = self._generations.get(generation)
        return applied.verdicts[number] if applied is not None and number < len(applied.verdicts) else None

    def _interface(self, packet: Logged) -> str | None:
        index = packet.in_index if packet.in_index else packet.out_index
        return self._reader.interface(index) if index else None

    def _direction(self, packet: Logged, receiver: bytes) -> Direction:
        known = _DIRECTIONS.get(packet.hook if packet.hook is not None else _PRE_ROUTING)
        if known is not None:
            return known
        # Before routing it is not settled yet whom a packet is for.
        return Direction.IN if receiver in self._local or receiver[0] >= 224 else Direction.FORWARD

    def _refresh(self, changed: tuple[Watch, Apply]) -> None:
        with suppress(OSError, WireError):
            self._local = netlink.local_addresses()
        watch, apply = changed
        if watch.changed():
            apply()
            self._generations.clear()
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


def _verdict(named: Named) -> Verdict:
    default = named.name.startswith("default ")
    base = named.index is None and not default
    reason = named.name if base or default else f'rule "{named.name}"'
    rule = None if default else named.name
    return Verdict(action=Action(named.action), rule=rule, index=named.index, base=base, log=named.log, reason=reason)
