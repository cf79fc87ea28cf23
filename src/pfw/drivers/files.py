"""Files: one that is watched for changes, and capture files, read in pieces."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 18
"""Small enough for the processor's cache to hold it from reading to judging."""
_PATIENCE_MS = 250
"""How long a silent pipe is waited for before whoever reads may look at something else, a signal perhaps."""

Mark = tuple[int, int, int, int]


class Watch:
    """Whether a file has changed since it was last asked, by identity, size and times."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._look()

    def changed(self) -> bool:
        mark = self._look()
        changed = mark != self._mark
        self._mark = mark
        return changed

    def _look(self) -> Mark | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def size_bytes(path: str) -> int | None:
    """How large a file is; None for standard input and what has no size."""
    if path == "-":
        return None
    status = os.stat(path)
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def chunks(path: str) -> Iterator[memoryview]:
    """The content of a file, or of standard input for `-`, in pieces of at most CHUNK_BYTES.

    A piece is good until the next one is asked for: all are read into the same memory. It is empty where a
    pipe had nothing to give for a while. Raises OSError.
    """
    if path == "-":
        yield from _pieces(sys.stdin.fileno())
        return
    with open(path, "rb", buffering=0) as file:
        yield from _pieces(file.fileno())


def _pieces(descriptor: int) -> Iterator[memoryview]:
    memory = memoryview(bytearray(CHUNK_BYTES))
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if not poll.poll(_PATIENCE_MS):
            yield memory[:0]
            continue
        size = os.readv(descriptor, [memory])
        if not size:
            return
        yield memory[:size]
