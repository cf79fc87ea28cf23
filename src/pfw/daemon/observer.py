"""The observer: a process beside the daemon that keeps the history, notices what is suspicious, and answers it.

No verdict waits for it: it reads what the kernel tells of connections, of packets that rules stopped, and a few kinds
of packets for what they say, and where it cannot keep up the kernel drops and it counts. `observing.py` is the daemon's
end; the messages between both stand there. When the daemon ends, this process ends, too.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from pfw.daemon.attribution import Attribution
from pfw.daemon.chronicle import Chronicle
from pfw.daemon.inside import Inside
from pfw.daemon.loop import Loop
from pfw.daemon.messages import frames
from pfw.daemon.noticing import Noticing
from pfw.daemon.observing import Begin, Counted, Raised, Said, Sender, Stopped, receive_begin
from pfw.daemon.recording import RecorderProcess
from pfw.daemon.rule_log import RuleLog
from pfw.daemon.special_packets import SpecialPackets
from pfw.daemon.state import State
from pfw.daemon.tracking import Tracking
from pfw.drivers import clock, labels, store
from pfw.drivers.conntrack import EventReader
from pfw.drivers.nflog import LogReader
from pfw.enforce.nft_table import HISTORY_GROUP, LOG_BYTES
from pfw.engine.detect.connection import UNANSWERED_S
from pfw.engine.detect.specials import Quoted
from pfw.engine.names import Names
from pfw.model.flow import Flow
from pfw.model.history import Entry, New
from pfw.model.name import Answer
from pfw.model.observation import Began, Reply
from pfw.model.program import Program
from pfw.model.verdict import Action
from pfw.record.history_read import HistoryError, open_history
from pfw.record.history_schema import FILE
from pfw.record.history_writer import HistoryWriter

_Source = TypeVar("_Source")

_MANY_EVENTS = 50
_PAUSE_S, _PAUSE_LONG_S = 0.005, 0.02
_TICK_S = 1.0
_REFRESH_S = 3.0
_COUNTS_S = 5.0
_OPEN_MAX = 100_000
"""Rows without an end that are taken up when the observer begins."""
_LOSSES_S = 60.0
_READ_BYTES = 1 << 16
_STOPPED_MAX = 8_192
"""Connections that were stopped lately."""


class _Earlier(Struct):
    """What the history has of earlier lives: its highest id, the connections whose end nobody saw, the newest first,
    and who waited at which port."""

    last_id: int
    unfinished: list[Entry]
    listeners: dict[str, str | None]


class Observer:
    """One run. Raises OSError where the kernel tells nothing of connections."""

    def __init__(self, begin: Begin, said: bytearray, sender: Sender) -> None:
        self._sender = sender
        self.loop = Loop(self._failed)
        self.state = State(store.Store(store.folder()))
        pinned = None if begin.bpffs is None else labels.find(Path(begin.bpffs))
        wanted = begin.records
        is_recorded = wanted.log or wanted.eve or wanted.syslog or wanted.journal
        self._recorder = RecorderProcess(wanted, wait=False) if is_recorded else None
        path = self.state.files.path / FILE
        earlier = _earlier(path)
        self.names = Names()
        self.history = HistoryWriter(str(path), tell=self._say, last_id=earlier.last_id)
        self.chronicle = Chronicle(
            self.state, Attribution(pinned), self.names, self.history.next_id, self._policy_changed, self._talks
        )
        self.noticing = Noticing(
            self.state, self.chronicle, self.history, self._recorder, self._say, self._raise, random.random
        )  # fmt: skip
        self.noticing.learn_listeners(earlier.listeners)
        self._inside = Inside(self.noticing.see, self.history.first_seen, is_first=not earlier.listeners)
        self.reader = EventReader()
        self.tracking = Tracking(self.reader, self.chronicle, self.history, self.noticing.see)
        self._log_reader = self._opened("packets that rules stop are not recorded", _log_reader)
        self._log = RuleLog(self.state, self._log_reader.interface) if self._log_reader is not None else None
        self._special = self._opened(
            "packets are not looked at for what they say", lambda: SpecialPackets(self._learn, self._quoted)
        )
        self._losses: dict[str, int] = {}
        self._said = said
        self._stopped: dict[tuple[object, ...], float] = {}
        self._refresh()
        self.tracking.begin(earlier.unfinished)

    def run(self) -> None:
        """Until the daemon ends."""
        loop = self.loop
        loop.stop_on((signal.SIGTERM,))
        loop.watch(sys.stdin.fileno(), self._heard)
        self._take_said()
        self._watch_events()
        if self._log_reader is not None:
            loop.watch(self._log_reader.fileno(), self._take_stopped)
        if self._special is not None:
            loop.watch(self._special.fileno(), self._take_special)
        loop.every(_TICK_S, self._tick)
        loop.every(_REFRESH_S, self._refresh)
        loop.every(_COUNTS_S, self._count)
        loop.every(_LOSSES_S, self._tell_losses)
        loop.run(lambda: None, lambda: None)

    def close(self) -> None:
        """Write what is left to write."""
        self.reader.close()
        if self._log_reader is not None:
            self._log_reader.close()
        if self._special is not None:
            self._special.close()
        self._inside.close()
        self.noticing.close()
        self.history.close()
        if self._recorder is not None:
            self._recorder.close()
        self.loop.close()

    def counts(self) -> dict[str, int]:
        """What was counted since the observer began. What ends in `_lost` or `_refused` is a bound that was hit."""
        found = {
            "connection_events": self.tracking.events,
            "connection_events_lost": self.reader.lost,
            "connections_followed": len(self.tracking),
            "connections_follow_refused": self.tracking.not_followed + self.tracking.live.refused,
            "connections_sampled_out": self.tracking.live.sampled_out,
            "owners_look_up_refused": self.chronicle.not_looked_up,
            "history_lost": self.history.lost,
            "listeners_refused": self._inside.refused,
            "alerts": self.noticing.alerts,
            "alerts_untold_lost": self.noticing.untold,
            "bans_refused": self.noticing.performer.too_many,
            "detectors_refused": self.noticing.refused,
        }
        if self._log_reader is not None:
            found["stopped_packets_lost"] = self._log_reader.lost
        if self._special is not None:
            found["special_packets"] = self._special.seen
            found["special_packets_lost"] = self._special.lost
        if self._recorder is not None:
            found["records_lost"] = self._recorder.lost
        return found

    def _heard(self) -> None:
        """What the daemon tells of connections that it stopped; when it says nothing more, that is its end."""
        with suppress(BlockingIOError):
            piece = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not piece:
                self.loop.stop()
            self._said += piece
        self._take_said()

    def _take_said(self) -> None:
        entries = []
        for payload in frames(self._said):
            told = msgspec.msgpack.decode(payload, type=Stopped)
            if not self._is_repeated(told.flow, told.time):
                entries.append(self.chronicle.not_allowed(told.flow, told.owner, told.rule, told.time))
        if entries:
            self.history.write(entries)

    def _watch_events(self) -> None:
        self.loop.watch(self.reader.fileno(), self._take_events)

    def _take_events(self) -> None:
        """Take what has come, and no more for a moment: to be woken for each event costs three times as much."""
        many = self.tracking.take() >= _MANY_EVENTS
        self.loop.unregister(self.reader.fileno())
        self.loop.after(_PAUSE_LONG_S if many else _PAUSE_S, self._watch_events)

    def _take_stopped(self) -> None:
        """Packets that rules stopped, or that they were asked to tell of."""
        assert self._log_reader is not None
        assert self._log is not None
        entries = []
        for packet in self._log_reader.read():
            told = self._log.read(packet)
            if told is None or told.verdict.action not in (Action.BLOCK, Action.REJECT):
                continue
            flow = told.flow
            if not self._is_repeated(flow, told.time):
                entries.append(self.chronicle.stopped(told))
            began = Began(
                told.time, flow.protocol, flow.source, flow.destination, flow.source_port, flow.port, flow.icmp_type,
                told.frame.size,
            )  # fmt: skip
            reply = Reply.REFUSED if told.verdict.action is Action.REJECT else Reply.SILENT
            self.noticing.see(self.tracking.live.stopped(began, told.flags, reply))
        if entries:
            self.history.write(entries)

    def _is_repeated(self, flow: Flow, time: float) -> bool:
        """Whether a connection was stopped just before: it is tried again by the kernel, and not by anybody."""
        key = flow.protocol, flow.source, flow.destination, flow.source_port, flow.port
        before = self._stopped.pop(key, 0.0)
        self._stopped[key] = time
        if len(self._stopped) > _STOPPED_MAX:
            del self._stopped[next(iter(self._stopped))]
        return 0 <= time - before < UNANSWERED_S

    def _take_special(self) -> None:
        assert self._special is not None
        self.noticing.see(self._special.read())

    def _talks(self, program: Program, remote: bytes, port: int | None, now: float) -> None:
        self._inside.talks(program, remote, port, now)

    def _learn(self, answer: Answer, time: float) -> None:
        self.names.add(answer, time)

    def _quoted(self, error: Quoted) -> None:
        self.noticing.see(self.tracking.live.refused_by(error.key, error.time, error.reply))

    def _tick(self) -> None:
        now = clock.now()
        if self._special is not None:
            self._take_special()
        self.tracking.tick(now)
        self._inside.tick(now)
        self.noticing.tick(now)
        if self._recorder is not None:
            self._recorder.flush()
        self._sender.flush()

    def _refresh(self) -> None:
        self.chronicle.refresh()
        if self._log is not None:
            self._log.refresh()

    def _policy_changed(self) -> None:
        if self._log is not None:
            self._log.forget()
        self.noticing.use(self.chronicle.in_force.policy)

    def _count(self) -> None:
        self._sender.send(Counted(self.counts()))

    def _tell_losses(self) -> None:
        """Say which bounds were hit since the last time."""
        counts = {name: count for name, count in self.counts().items() if name.endswith(("_lost", "_refused"))}
        grown = {name: count - self._losses.get(name, 0) for name, count in counts.items()}
        self._losses = counts
        said = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in grown.items() if count > 0)
        if said:
            self._say(f"too much to keep up with in the last minute: {said}")

    def _opened(self, what: str, make: Callable[[], _Source]) -> _Source | None:
        try:
            return make()
        except OSError as error:
            self._say(f"{what}: {error.strerror or error}")
            return None

    def _say(self, text: str) -> None:
        self._sender.send(Said(text))

    def _raise(self, kind: str, says: str) -> None:
        self._sender.send(Raised(kind, says))

    def _failed(self, error: Exception) -> None:
        self._say(f"internal error, and the observer goes on: {type(error).__name__}: {error}")


def _log_reader() -> LogReader:
    return LogReader([HISTORY_GROUP], LOG_BYTES)


def _earlier(path: Path) -> _Earlier:
    try:
        with open_history(path) as reader:
            listeners = {each.what: each.by for each in reader.first_seen(None, New.LISTENER)}
            return _Earlier(reader.last_id(), reader.unfinished(_OPEN_MAX), listeners)
    except HistoryError:
        return _Earlier(0, [], {})


def main() -> int:
    """The process that `observing.py` starts: the daemon is at its standard input."""
    sock = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    try:
        begin, said = receive_begin(sock)
    except (OSError, ValueError, msgspec.DecodeError, msgspec.ValidationError):
        return 2
    sock.setblocking(False)
    sender = Sender(sock)
    # Connections are many objects without cycles: to look for some costs a tenth of the time under load.
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        observer = Observer(begin, said, sender)
    except OSError as error:
        sender.send(Said(f"connections are not recorded: {error.strerror or error}"))
        return 3
    try:
        observer.run()
    finally:
        observer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
