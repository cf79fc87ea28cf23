"""Log files on disk: append, rotate by size, stay within a budget, and never stop the program.

`firewall.log` is the newest, `firewall.log.1` the one before it, and so on; all together they hold at most
`budget_bytes`. Files with such names beyond the budget are deleted whoever made them. One process writes to
a file.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from pfw.record.trouble import Trouble

BUDGET_BYTES = 100_000_000
FILE_BYTES = 10_000_000
CHECK_S = 1.0
"""How often to look whether somebody moved or deleted the file."""

# Without O_NONBLOCK a FIFO at the path would hold us until somebody reads it.
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FileRefusedError(Exception):
    """The path is not one that a log may be written to. One line that says why."""


def why_refused(log: str | None, eve: str | None) -> str | None:
    """Why there must be no logs at these paths, None standing for no log; None when there may."""
    paths = [path for path in (log, eve) if path is not None]
    if len(paths) == 2 and _stem(paths[0]) == _stem(paths[1]):
        return f"{log} and {eve} would get into each other's way when files are rotated, give two other paths"
    return next(filter(None, map(_why_path_refused, paths)), None)


def _stem(path: str) -> str:
    """The path without the number that rotation puts behind it."""
    return re.sub(r"(\.[0-9]+)+\Z", "", os.path.abspath(path))


def _why_path_refused(path: str) -> str | None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISLNK(mode):
        return f"{path} is a symbolic link, give the path of the file itself"
    if not stat.S_ISREG(mode):
        return f"{path} is not a regular file, give another path"
    return None


class RotatingFile:
    """An append-only file of lines, mode 0640. `written` counts lines; losses are in `trouble`.

    Raises FileRefusedError when it is made for a path that is a symbolic link or no regular file. From then on
    disk trouble is counted and told, never raised.
    """

    def __init__(
        self,
        path: str,
        tell: Callable[[str], None],
        budget_bytes: int = BUDGET_BYTES,
        file_bytes: int = FILE_BYTES,
    ) -> None:
        self.path = os.path.abspath(path)
        self.trouble = Trouble(path, tell)
        self.written = 0
        self._budget_bytes = max(budget_bytes, 2)
        self._file_bytes = max(1, min(file_bytes, self._budget_bytes // 2))
        self._fd = -1
        self._identity = (0, 0)
        self._size_bytes = 0
        self._torn = False
        self._checked_at = 0.0
        refusal = _why_path_refused(self.path)
        if refusal is not None:
            raise FileRefusedError(refusal)

    def write(self, line: bytes, now: float) -> bool:
        """Append one line that ends in a newline, whole or not at all; False when it is lost."""
        if self.trouble.waits(now):
            self.trouble.lose(len(line))
            return False
        try:
            self._ready(len(line), now)
            self._append(line)
        except OSError as error:
            self._close()
            self.trouble.fail(error, len(line), now)
            return False
        self.written += 1
        if self.trouble.failing:
            self.trouble.work()
        return True

    def tick(self, now: float) -> None:
        """Open the file if it is not there; the way out of trouble when no lines come."""
        if self.trouble.waits(now):
            return
        try:
            self._ready(0, now)
        except OSError as error:
            self._close()
            self.trouble.fail(error, 0, now)

    def close(self) -> None:
        self._close()

    def _ready(self, wanted_bytes: int, now: float) -> None:
        if self._fd >= 0 and abs(now - self._checked_at) >= CHECK_S and not self._still_there():
            self._close()
        if self._fd < 0:
            self._open()
            self._checked_at = now
        elif abs(now - self._checked_at) >= CHECK_S:
            self._checked_at = now
            self._size_bytes = os.fstat(self._fd).st_size
        if self._size_bytes and self._size_bytes + wanted_bytes > self._file_bytes:
            self._rotate()

    def _still_there(self) -> bool:
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _open(self) -> None:
        fd = os.open(self.path, _FLAGS, 0o640)
        self._fd = fd
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        self._identity = (found.st_dev, found.st_ino)
        self._size_bytes = found.st_size
        # A line that a crash cut off must not run into ours.
        self._torn = found.st_size > 0 and os.pread(fd, 1, found.st_size - 1) != b"\n"
        self._trim()

    def _append(self, line: bytes) -> None:
        if self._torn:
            self._write_whole(b"\n")
            self._torn = False
        self._write_whole(line)

    def _write_whole(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:] if done else data)
        except OSError:
            if done:
                self._take_back(done)
            raise
        self._size_bytes += done

    def _take_back(self, size_bytes: int) -> None:
        """Cut off what was written of a line that does not fit, unless somebody wrote behind it."""
        with suppress(OSError):  # opening it again finds the torn line and ends it
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - size_bytes)

    def _rotate(self) -> None:
        self._close()
        for number, _ in reversed(self._older()):
            os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
        self._open()

    def _older(self) -> list[tuple[int, int]]:
        """Number and size (bytes) of the rotated files, newest first."""
        folder, name = os.path.split(self.path)
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                number = entry.name.removeprefix(name + ".")
                plain = number.isascii() and number.isdigit() and len(number) < 10 and number[0] != "0"
                if number != entry.name and plain and entry.is_file(follow_symlinks=False):
                    found.append((int(number), entry.stat(follow_symlinks=False).st_size))
        return sorted(found)

    def _trim(self) -> None:
        """Delete the oldest until the rest and one full file fit into the budget."""
        left_bytes = self._budget_bytes - max(self._file_bytes, self._size_bytes)
        for number, size_bytes in self._older():
            left_bytes -= size_bytes
            if left_bytes < 0:
                os.unlink(f"{self.path}.{number}")

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # on Linux the descriptor is gone all the same
                os.close(fd)
