"""Bans that alerts lead to: in the kernel at once, on the disk together with others, about a second later.

A ban must not wait for a disk, nor for a file of 10,000 others to be written anew. If we die before a ban is written
down, the kernel ends it when its time is over; it only does not outlast a boot.

`add` is called by one thread, `write` by another.
"""

from __future__ import annotations

import os
import threading

from pfw.daemon import banning
from pfw.daemon.backend import Backend
from pfw.daemon.banning import Record
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.programs import RefusedError
from pfw.enforce.nft_table import BANS_MAX, Ban
from pfw.model.address import Range, format_range

_APART_S = 60.0
"""Bans that are given at the same time begin within this."""
BOOT_S = 30.0
"""How often the file for the next boot is written. What it lacks comes a little later, from `bans.json`."""


class Batch:
    """The bans of one state folder."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._kernel = threading.Lock()
        """Who has it changes the kernel's sets."""
        self._waiting: dict[Range, Record] = {}
        self._known: dict[Range, Record] = {}
        self._stamp: object = None
        self._boot_due: float | None = None

    @property
    def waits(self) -> bool:
        """Whether something is not written down yet."""
        return bool(self._waiting) or self._boot_due is not None

    def add(self, backend: Backend, pair: Range, record: Record) -> bool:
        """Ban now; False where it is banned already, for as long or longer. Raises RefusedError and OSError; then it
        is not banned."""
        now = clock.now()
        with self._lock:
            known = self._everything()
            before = known.get(pair)
            if before is not None and _lasts(before, record):
                return False
            if len(known) >= BANS_MAX:
                raise RefusedError(f"there are {BANS_MAX:,} bans already")
            ban = banning.left(pair, record, now)
            with self._kernel:
                if pair[0] != pair[1] or not backend.ban_host(ban):
                    again = [] if before is None else [pair]
                    backend.ban([ban], again, _bans({**known, pair: record}, now))
            self._waiting[pair] = record
        return True

    def write(self, backend: Backend, *, last: bool = False) -> None:
        """Write down what came since the last time. Raises RefusedError and OSError; what waits goes on to wait."""
        with self._lock:
            waiting = dict(self._waiting)
        now = clock.now()
        if waiting:
            self._write(backend, waiting, now)
            self._boot_due = self._boot_due or now + BOOT_S
        if self._boot_due is not None and (last or now >= self._boot_due):
            self._boot_due = None
            with self._state.files.locked():
                banning.keep_for_boot(self._state, backend, _bans(banning.records(self._state, now), now))

    def _write(self, backend: Backend, waiting: dict[Range, Record], now: float) -> None:
        with self._state.files.locked():
            with self._lock:
                known = _alive(self._on_disk(), now)
            fresh = {pair: record for pair, record in waiting.items()
                     if pair not in known or not _lasts(known[pair], record)}  # fmt: skip
            everything = {**known, **fresh}
            banning.write(self._state, everything)
            self._repeat(backend, fresh, everything, now)
            stamp = self._file_stamp()
        with self._lock:
            self._known, self._stamp = everything, stamp
            for pair, record in waiting.items():
                if self._waiting.get(pair) is record:
                    del self._waiting[pair]

    def _repeat(
        self, backend: Backend, fresh: dict[Range, Record], everything: dict[Range, Record], now: float
    ) -> None:
        """Ban them once more: whoever changed the kernel's sets meanwhile did not know of them."""
        bans = [banning.left(pair, record, now) for pair, record in fresh.items()]
        for ban in bans:
            if ban.range[0] == ban.range[1]:
                with self._kernel:
                    backend.ban_host(ban)
        nets = [ban for ban in bans if ban.range[0] != ban.range[1]]
        if nets:
            all_bans = _bans(everything, now)
            with self._kernel:
                backend.ban(nets, [], all_bans)

    def _everything(self) -> dict[Range, Record]:
        return {**self._on_disk(), **self._waiting}

    def _on_disk(self) -> dict[Range, Record]:
        """The bans that are written down, read only where the file is another one than the last time."""
        stamp = self._file_stamp()
        if stamp != self._stamp:
            self._known, self._stamp = banning.records(self._state, clock.now()), stamp
        return self._known

    def _file_stamp(self) -> object:
        try:
            found = os.stat(self._state.files.path / banning.FILE)
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


def record_of(
    pair: Range, seconds: float, *, why: str, by: str, evidence: str = "", count: int = 1
) -> Record:  # fmt: skip
    """A ban from now on."""
    now = clock.now()
    return Record(format_range(*pair), now, now + seconds, why, by, evidence, count)


def _lasts(known: Record, record: Record) -> bool:
    """Whether a ban lasts as long as another one, or longer. One that begins later says nothing: the clock was set
    back."""
    if known.until is None:
        return True
    return record.until is not None and known.until >= record.until and known.since <= record.since + _APART_S


def _alive(found: dict[Range, Record], now: float) -> dict[Range, Record]:
    return {pair: record for pair, record in found.items() if record.until is None or record.until > now}


def _bans(found: dict[Range, Record], now: float) -> list[Ban]:
    return [banning.left(pair, record, now) for pair, record in _alive(found, now).items()]
