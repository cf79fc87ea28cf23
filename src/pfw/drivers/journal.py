"""Logins, as sshd and dropbear tell of them: from systemd's journal, or from a file of syslog where there is none.

Both are read without waiting, and never end: `journalctl` is started again when it ends, a file opened again when
another one has its name. What an entry of the journal says counts only if journald vouches for its sender, since anyone
may write in sshd's name. Of a file nobody can tell, which is why it says so (`is_trusted`).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from pfw.drivers import clock
from pfw.model.observation import LoginFailed, LoginSucceeded
from pfw.wire.log_lines import JOURNAL_FIELDS, Lines, read_journal, read_syslog
from pfw.wire.sshd_log import LoginLog

Logins = list[LoginFailed | LoginSucceeded]

PROGRAMS = ("sshd", "sshd-session", "sshd-auth", "dropbear")
"""What they call themselves in logs. Since OpenSSH 9.8 a session is served by a program of its own."""
EXECUTABLES = frozenset({*PROGRAMS, "dropbearmulti"})
COMMAND = (
    "journalctl", "--follow", "--no-tail", "--output=json", f"--output-fields={','.join(JOURNAL_FIELDS)}",
    "--system", "--quiet", *(f"--identifier={each}" for each in PROGRAMS),
)  # fmt: skip
"""A time is added, since with `--lines=0` version 252 leaves out the first entry that fits if there was none before."""
LOG_FILES = ("/var/log/auth.log", "/var/log/secure", "/var/log/messages")
"""Debian's, Red Hat's, and what is left of others."""
PATIENCE_S, PATIENCE_MAX_S = 1.0, 300.0
"""So long after its end it is started again: doubled each time, unless it had run for so long."""
STEADY_S = 60.0
END_S = 2.0

_SOCKET = "/run/systemd/journal/socket"
_READ_BYTES = 1 << 16
_READS_MAX = 4
"""After so many a call returns: what is left waits, and with it whoever writes it."""


class Journal:
    """Follows the journal from now on.

    `fileno` is readable when there is something, and stays the same. `read` must also be called from time to time: it
    starts journalctl again. `trouble` says why there is nothing to read, where it is so.
    """

    is_trusted = True

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.trouble: str | None = None
        self.restarts = 0
        self._command = command
        # The end for writing stays open here, too: so the other one never ends.
        self._pipe, self._theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        self._lines = Lines()
        self._log = LoginLog()
        self._process: subprocess.Popen[bytes] | None = None
        self._since = clock.now()
        self._began = 0.0
        self._patience_s = PATIENCE_S
        self._next_start = 0.0
        self._start(time.monotonic())

    def fileno(self) -> int:
        return self._pipe

    def read(self) -> Logins:
        """What has come, up to a bound."""
        process, now = self._process, time.monotonic()
        has_ended = process is not None and process.poll() is not None
        found = [login for line in _lines(self._pipe, self._lines) if (login := self._login(line)) is not None]
        if process is None:
            if now >= self._next_start:
                self.restarts += 1
                self._start(now)
        elif has_ended:
            self._ended(f"{self._command[0]} has ended with status {process.returncode}", now)
        else:
            self._since = clock.now()
            if now - self._began > STEADY_S:
                self.trouble = None
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        os.close(self._pipe)
        os.close(self._theirs)

    def _login(self, line: bytes) -> LoginFailed | LoginSucceeded | None:
        entry = read_journal(line)
        if entry is None or entry.uid != 0:
            return None
        # Often the last message of a session is all that is left of its process when journald looks for it. That it was
        # root's came with the message; nobody else can have that written there.
        if entry.program and entry.program not in EXECUTABLES:
            return None
        return self._log.read(entry.message, entry.time, entry.pid)

    def _start(self, now: float) -> None:
        self._began = now
        try:
            self._process = subprocess.Popen(
                (*self._command, f"--since=@{self._since:.6f}"),
                stdin=subprocess.DEVNULL,
                stdout=self._theirs,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._ended(f"{self._command[0]} cannot be started: {error.strerror}", now)

    def _ended(self, why: str, now: float) -> None:
        """It is left alone for a while, longer each time."""
        self.trouble = why
        self._process = None
        self._lines.break_off()
        if now - self._began > STEADY_S:
            self._patience_s = PATIENCE_S
        self._next_start = now + self._patience_s
        self._patience_s = min(self._patience_s * 2, PATIENCE_MAX_S)


class LogFile:
    """Follows a file from its end on. It has no descriptor to wait for: `read` is to be called about once a second."""

    is_trusted = False

    def __init__(self, path: str) -> None:
        self.trouble: str | None = None
        self._path = path
        self._lines = Lines()
        self._log = LoginLog(is_sure=self.is_trusted)
        self._file = self._open()
        if self._file is not None:
            os.lseek(self._file, 0, os.SEEK_END)

    def fileno(self) -> None:
        """None to wait for."""

    def read(self) -> Logins:
        """What has been written since, up to a bound."""
        now = clock.now()
        found = list(self._read(now))
        if self._is_another():
            self.close()
            self._file = self._open()
            found += self._read(now)
        return found

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._lines.break_off()

    def _open(self) -> int | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            self.trouble = f"{self._path} cannot be read: {error.strerror}"
            return None
        if stat.S_ISREG(os.fstat(file).st_mode):
            self.trouble = None
            return file
        os.close(file)
        self.trouble = f"{self._path} is no file"
        return None

    def _read(self, now: float) -> Iterator[LoginFailed | LoginSucceeded]:
        if self._file is None:
            return
        if os.fstat(self._file).st_size < os.lseek(self._file, 0, os.SEEK_CUR):
            # Emptied, as copytruncate of logrotate does.
            os.lseek(self._file, 0, os.SEEK_SET)
            self._lines.break_off()
        for line in _lines(self._file, self._lines):
            said = read_syslog(line)
            if said is None or said.tag not in PROGRAMS:
                continue
            for _ in range(said.times):
                login = self._log.read(said.message, now, said.pid)
                if login is not None:
                    yield login

    def _is_another(self) -> bool:
        """Whether the name is another file's, and this one is read to its end."""
        if self._file is None:
            return True
        ours = os.fstat(self._file)
        if os.lseek(self._file, 0, os.SEEK_CUR) < ours.st_size:
            return False
        with suppress(OSError):
            there = os.stat(self._path)
            return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)
        return False


def login_log(files: Iterable[str] = LOG_FILES, command: Sequence[str] = COMMAND) -> Journal | LogFile | None:
    """What there is here to follow: the journal, else a file, else nothing."""
    if os.path.exists(_SOCKET) and shutil.which(command[0]) is not None:
        return Journal(command)
    return next((LogFile(path) for path in files if os.path.isfile(path)), None)


def _lines(descriptor: int, lines: Lines) -> Iterator[bytes]:
    """The lines that are there to be read."""
    for _ in range(_READS_MAX):
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        yield from lines.add(data)
        if len(data) < _READ_BYTES:
            return
