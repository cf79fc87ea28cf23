"""Telling of alerts outside: a program of the owner's, and a webhook. Nobody waits for either.

The program runs as we do, which is root within the bounds of our systemd unit: what it is for (mail, another firewall)
often needs that, and only root could have put it there. It has no shell, no environment to speak of and no terminal,
and gets one alert as JSON on its standard input. A webhook gets the same by POST.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from pfw.model.address import format_address
from pfw.model.observation import Alert
from pfw.model.policy import public_webhook
from pfw.model.text import printable

COMMANDS_AT_ONCE = 4
WAITING_MAX = 64
COMMAND_S = 30.0
WEBHOOK_S = 10.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin", "LC_ALL": "C.UTF-8"}
_MAC_BYTES = 6
_IDLE_S = 10.0
"""How long a thread stays that has nothing to do."""


class Alerting:
    """Of one policy. `tell` is told in one line what went wrong, by any thread; never a secret."""

    def __init__(self, command: tuple[str, ...], webhook: str, tell: Callable[[str], None]) -> None:
        self._outlets = []
        if command:
            self._outlets.append(_Outlet(lambda content: run(command, content), COMMANDS_AT_ONCE, tell))
        if webhook:
            self._outlets.append(_Outlet(lambda content: send(webhook, content), 1, tell))

    @property
    def lost(self) -> int:
        """Alerts that were not told, because too many waited already."""
        return sum(each.lost for each in self._outlets)

    def alert(self, facts: dict[str, object]) -> None:
        content = msgspec.json.encode(facts) + b"\n"
        for each in self._outlets:
            each.put(content)

    def close(self) -> None:
        """What waits is given up; what runs goes on to its end."""
        for each in self._outlets:
            each.close()


class _Outlet:
    """A queue, and the threads that empty it, as many as are needed."""

    def __init__(self, work: Callable[[bytes], None], threads_max: int, tell: Callable[[str], None]) -> None:
        self.lost = 0
        self._work = work
        self._tell = tell
        self._threads_max = threads_max
        self._threads = self._idle = 0
        self._waiting: deque[bytes] = deque()
        self._more = threading.Condition()
        self._closed = False

    def put(self, content: bytes) -> None:
        with self._more:
            if self._closed or len(self._waiting) >= WAITING_MAX:
                self.lost += 1
                return
            self._waiting.append(content)
            if self._idle < len(self._waiting) and self._threads < self._threads_max:
                self._threads += 1
                threading.Thread(target=self._empty, name="alerting", daemon=True).start()
            self._more.notify()

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._waiting.clear()
            self._more.notify_all()

    def _empty(self) -> None:
        while (content := self._next()) is not None:
            try:
                self._work(content)
            except OSError as error:
                self._tell(printable(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
            except Exception as error:  # a thread that ends unnoticed would never be replaced
                self._tell(f"an alert could not be told: {type(error).__name__}")

    def _next(self) -> bytes | None:
        with self._more:
            self._idle += 1
            self._more.wait_for(lambda: self._waiting or self._closed, _IDLE_S)
            self._idle -= 1
            if not self._waiting:
                self._threads -= 1
                return None
            return self._waiting.popleft()


def run(command: tuple[str, ...], content: bytes) -> None:
    """Run a program that reads this. Raises OSError with the reason: also where it is not only root's to write."""
    path = checked(command[0])
    process = subprocess.Popen(
        [path, *command[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=_ENVIRONMENT,
        umask=0o077,
        start_new_session=True,
    )
    try:
        process.communicate(content, COMMAND_S)
    except subprocess.TimeoutExpired:
        # With whatever it has started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise OSError(f"{path} did not end within {COMMAND_S:.0f} s, and was killed") from None
    if process.returncode:
        raise OSError(f"{path} ended with status {process.returncode}")


def checked(path: str) -> str:
    """The file to which a path leads, if nobody but root could have put it there or written to it. Raises OSError."""
    real = os.path.realpath(path)
    status = os.stat(real)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path} is not a file, and is not run")
    _check_owner(path, status)
    folder = real
    while folder != "/":
        folder = os.path.dirname(folder)
        _check_owner(folder, os.stat(folder))
    return real


def _check_owner(path: str, status: os.stat_result) -> None:
    # In a folder like /tmp nobody can take away what is another's.
    shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_uid != 0:
        raise OSError(f"{path} belongs to user {status.st_uid}; only what is root's is run about alerts")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not shared:
        raise OSError(f"{path} can be written by others than root; it is not run: chmod go-w {path}")


def send(webhook: str, content: bytes) -> None:
    """Send this to a webhook. Raises OSError with the reason, in which its key is not."""
    from pfw.drivers import web  # only here: it takes longer to load than all the rest

    try:
        web.post(webhook, content, WEBHOOK_S)
    except OSError as error:
        raise OSError(f"{public_webhook(webhook)}: {error}") from None


def alert_facts(alert: Alert, response: str) -> dict[str, object]:
    """An alert for programs. Times are UTC."""
    return {
        "host": socket.gethostname(),
        "kind": alert.kind.value,
        "score": alert.score,
        "source": _address(alert.source),
        "target": _address(alert.target),
        "first": _when(alert.first),
        "last": _when(alert.last),
        "evidence": printable(alert.evidence),
        "response": response,
    }


def _address(packed: bytes | None) -> str | None:
    if packed is None:
        return None
    return packed.hex(":") if len(packed) == _MAC_BYTES else format_address(packed)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
