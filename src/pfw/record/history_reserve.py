"""Disk space that is held back beside the history, and given up when the disk is full.

Without it nothing could be folded then: SQLite writes all changes to its log first, the log is brought into the file
only where the file can grow, and neither can.
"""

from __future__ import annotations

import os
from contextlib import suppress

_PLENTY = 3
"""It is held only where so many times as much is free: we are not to be those who fill the disk."""


class Reserve:
    """A file that has nothing in it. Nothing is raised: where it cannot be held there is none."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self._path = path
        self.size_bytes = size_bytes
        self._is_held = False

    def hold(self) -> bool:
        """Whether it is there now."""
        if self._is_held or self.free_bytes() < self.size_bytes * _PLENTY:
            return self._is_held
        self.give_up()
        try:
            opened = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(opened, 0, self.size_bytes)
                self._is_held = True
            finally:
                os.close(opened)
        except OSError:
            self.give_up()
        return self._is_held

    def give_up(self) -> None:
        self._is_held = False
        with suppress(OSError):
            os.unlink(self._path)

    @property
    def is_tight(self) -> bool:
        """Whether the disk, and no budget, is what is full."""
        return self.free_bytes() < self.size_bytes

    def free_bytes(self) -> int:
        try:
            found = os.statvfs(os.path.dirname(os.path.abspath(self._path)))
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize
