"""The guard: a process of its own that takes a change of the ruleset back when nobody says that it is good.

It is told everything beforehand, in one line of JSON: what to run and which files to write to return to what was.
Then it waits. When the one who started it dies before the change is complete, it takes it back at once; afterwards
it does so when the time is up, unless the file of the pending change has gone, which is what `pfw confirm` does.
It is in a session of its own and no signal of a terminal or a closing login ends it; it needs neither the network
nor any file of the program, for all that it uses is loaded before it says that it is ready.

It shares the lock of who started it until it is told a word. So nobody changes anything between a death and the way
back; and for the way back after the time it waits for whoever has the lock, but not for long.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, json

from pfw.daemon.backend import Undo
from pfw.daemon.iptables import go_back
from pfw.drivers import store
from pfw.drivers.programs import RefusedError, run

_LOOK_S = 0.1
_LOCK_S = 10.0
"""So long may somebody who hangs keep us from going back."""
READY, APPLIED, DROPPED = b"ready\n", b"applied\n", b"dropped\n"
_READY_TIMEOUT_S = 20.0
_ORDER_BYTES_MAX = 1 << 30


class Order(Struct):
    """How to go back. `pending` is the file that is there as long as the change is not confirmed; `timeout_s`
    counts from when the change is complete, None: then the guard is no longer needed."""

    pending: str
    timeout_s: float | None
    undo: Undo
    files: dict[str, bytes | None]
    """Content by path; None removes."""
    report: str
    """Where to write how it went."""
    lock: int | None = None
    """The descriptor of the lock that we share."""
    lock_file: str = ""


class Guard:
    """The starter's end. Raises RefusedError when the guard does not come up."""

    def __init__(self, order: Order) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "pfw.daemon.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=() if order.lock is None else (order.lock,),
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # So that the guard waits for a program that we left half way (`drivers/programs.py`).
        os.set_inheritable(self._process.stdin.fileno(), True)
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.encode(order) + b"\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _READY_TIMEOUT_S)
        if not ready or self._process.stdout.readline() != READY:
            self._process.kill()
            self._process.wait()
            raise RefusedError("the guard that would take the policy back did not start; nothing was changed")

    def applied(self) -> None:
        """The change is complete: from now on the time runs, or the guard goes."""
        self._say(APPLIED)

    def dropped(self) -> None:
        """There was no change: the guard goes."""
        self._say(DROPPED)

    def _say(self, word: bytes) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(word)
            self._process.stdin.close()


def take_back(undo: Undo) -> None:
    """Go back at once. Raises RefusedError."""
    for job in undo.jobs:
        run(job)
    if undo.tables is not None:
        go_back(undo.tables)


def main() -> int:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    order = json.decode(sys.stdin.buffer.readline(_ORDER_BYTES_MAX), type=Order)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    os.close(1)
    word = sys.stdin.buffer.readline()
    if word and order.lock is not None:
        os.close(order.lock)
    if word == DROPPED or (word == APPLIED and order.timeout_s is None):
        return 0
    if word == APPLIED and not _unconfirmed(order):
        return 0
    return _go_back(order)


def _unconfirmed(order: Order) -> bool:
    """Wait until the change is confirmed, or the time is up and this change is nobody's but ours to take back."""
    # This clock goes on while a machine sleeps.
    end = time.clock_gettime(time.CLOCK_BOOTTIME) + (order.timeout_s or 0)
    while time.clock_gettime(time.CLOCK_BOOTTIME) < end:
        if not os.path.exists(order.pending):
            return False
        time.sleep(_LOOK_S)
    _wait_for_lock(order.lock_file)
    try:
        # Whoever renames it first has it: a confirmation that comes now is too late, or was in time.
        os.rename(order.pending, f"{order.pending}.late")
    except OSError:
        return False
    return True


def _wait_for_lock(path: str) -> None:
    """Take the lock, for as long as we live; after a while go on without it."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        end = time.monotonic() + _LOCK_S
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(_LOOK_S)


def _go_back(order: Order) -> int:
    trouble: list[str] = []
    for job in order.undo.jobs:
        try:
            run(job)
        except RefusedError as error:
            trouble.append(error.what)
    if order.undo.tables is not None:
        try:
            go_back(order.undo.tables)
        except RefusedError as error:
            trouble.append(error.what)
    for path, content in order.files.items():
        try:
            if content is None:
                Path(path).unlink(missing_ok=True)
            else:
                store.write(Path(path), content, 0o600)
        except OSError as error:
            trouble.append(f"{path}: {error.strerror}")
    for leftover in (order.pending, f"{order.pending}.late"):
        with suppress(OSError):
            os.unlink(leftover)
    said = "; ".join(trouble) or "the policy before is back in force"
    with suppress(OSError):
        store.write(Path(order.report), f"{time.time():.0f} {said}\n".encode(), 0o600)
    return 3 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
