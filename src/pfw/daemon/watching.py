"""One watch from beginning to end: opens what is wished for, runs the monitor, closes, counts the losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import if_nametoindex

from msgspec import Struct

from pfw.daemon import local
from pfw.daemon.monitor import Load, Monitor, Stop, statistics
from pfw.daemon.recording import RecorderProcess
from pfw.daemon.sources import Batch, CaptureFile, live
from pfw.drivers import clock
from pfw.drivers.bpf import compile_live_filter
from pfw.drivers.capture import Capture
from pfw.drivers.files import Watch
from pfw.drivers.scapy_capture import ScapyCapture
from pfw.engine.engine import Engine
from pfw.engine.flows import CONNECTIONS_MAX, REPLAYED_CONNECTIONS_MAX, FlowTable
from pfw.engine.totals import Totals
from pfw.model.address import AddressSet
from pfw.model.command import Command
from pfw.model.event import Event
from pfw.model.policy import Policy
from pfw.record.files import FileRefusedError, why_refused
from pfw.record.recorder import Options

Show = Callable[[list[Command]], None]
Tell = Callable[[str], None]
FileWatch = tuple[Path, Watch, Load]
"""The policy file, a watch on it from before it was loaded, and how to load it."""


class Wish(Struct, frozen=True, kw_only=True):
    """What to watch and where to record it; None for no limit, all interfaces, no file, no filter."""

    interface: str | None = None
    read: str | None = None
    filter_text: str | None = None
    local: AddressSet | None = None
    packets: int | None = None
    seconds: float | None = None
    every_packet: bool = False
    records: Options


class Outcome(Struct, frozen=True):
    """How a watch ended. `error` says what ended it too early: a broken capture file, an interface that went."""

    totals: Totals
    losses: dict[str, int]
    duration_s: float
    error: str | None = None


def watching(wish: Wish, policy: Policy, file_watch: FileWatch, show: Show, tell: Tell) -> Outcome:
    """Watch until it ends or a signal comes.

    Raises PermissionError without the right to capture, OSError for a file or an interface that cannot be
    opened, FilterError for a bad filter, and FileRefusedError for a log that must not be written.
    """
    reason = why_refused(wish.records.log, wish.records.eve)
    if reason is not None:
        raise FileRefusedError(reason)
    capture: Capture | ScapyCapture | None = None
    file: CaptureFile | None = None
    if wish.read is None:
        capture = _capture(wish, tell)
        batches: Iterator[Batch | None] = live(capture)
    else:
        file = CaptureFile(wish.read, wish.filter_text)
        batches = file.batches()
    recorder = _recorder(wish.records, wait=capture is None)
    table = FlowTable(CONNECTIONS_MAX if file is None else REPLAYED_CONNECTIONS_MAX)
    engine = Engine(policy, clock.utc_offset_s, every_packet=wish.every_packet, table=table)
    monitor = Monitor(engine, show, tell, recorder)
    monitor.watch_policy(*file_watch)
    for event in _begin(wish):
        engine.step(event, clock.now())
    if capture is not None:
        monitor.refresh_with(local.addresses)
    stop = Stop(wish.packets, wish.seconds)
    began = time.monotonic()
    with stop.on_signals():
        try:
            monitor.run(batches, stop)
        finally:
            losses = _close(capture, recorder, engine)
    if file is not None:
        losses["packets by the capturing system"] = file.dropped
    error = file.error if file is not None else None
    if capture is not None and capture.gone:
        error = "the interface is gone"
    return Outcome(engine.totals(), losses, time.monotonic() - began, error)


def _capture(wish: Wish, tell: Tell) -> Capture | ScapyCapture:
    program = compile_live_filter(wish.filter_text) if wish.filter_text is not None else None
    if wish.interface is not None:
        # Whatever is refused from here on is not the interface's fault.
        if_nametoindex(wish.interface)
    try:
        return Capture(wish.interface, program)
    except PermissionError:
        raise
    except OSError as error:
        tell(f"the kernel refuses a capture ring ({error.strerror}); going on with Scapy's sockets, which are slower")
        return ScapyCapture(wish.interface, wish.filter_text)


def _begin(wish: Wish) -> list[Event]:
    if wish.read is not None:
        return [local.viewpoint(wish.local)]
    return [*local.addresses(), *local.open_connections()]


def _recorder(options: Options, *, wait: bool) -> RecorderProcess | None:
    if not (options.log or options.eve or options.syslog or options.journal):
        return None
    return RecorderProcess(options, wait=wait)


def _close(capture: Capture | ScapyCapture | None, recorder: RecorderProcess | None, engine: Engine) -> dict[str, int]:
    """Close everything; what was lost, by whom."""
    losses = {}
    if capture is not None:
        capture.count()
        losses["packets by the kernel"] = capture.lost
        capture.close()
    if recorder is not None:
        recorder.statistics(statistics(engine.totals()))
        counts = recorder.close()
        losses["records on their way to the logs"] = recorder.lost
        if counts is not None:
            losses["log lines by the disk"] = sum(counts.lost.values())
        else:
            losses["records, or fewer, with a recorder that died"] = recorder.sent
    return losses
