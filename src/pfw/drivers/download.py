"""Fetches a file whole, from the disk or from a web server (`web.py`), within bounds of size and time."""

from __future__ import annotations

import os
import stat

from msgspec import Struct

from pfw.model.policy import public_source

TIMEOUT_S = 60.0
SIZE_BYTES_MAX = 64 << 20


class Fetched(Struct, frozen=True):
    """What came: no `data` where the server says that nothing has changed. What it says of the version goes with
    the next question."""

    data: bytes | None
    etag: str | None = None
    modified: str | None = None


def fetch(
    source: str,
    *,
    etag: str | None = None,
    modified: str | None = None,
    size_max: int = SIZE_BYTES_MAX,
    timeout_s: float = TIMEOUT_S,
) -> Fetched:
    """The content of an absolute path or of a URL (http, https), which may be the same as last time.

    Raises OSError whose text is a line for a person: the source, without passwords, and what is wrong.
    """
    try:
        if source.startswith("/"):
            return _read(source, size_max)
        from pfw.drivers import web  # only here: it takes longer to load than all the rest

        return web.get(source, etag, modified, size_max, timeout_s)
    except OSError as error:
        raise OSError(f"{public_source(source)}: {error.strerror or error}") from None


def version_of(path: str) -> str | None:
    """What tells the version of a file: another as soon as somebody has written to it. None where there is none."""
    try:
        return _version(os.stat(path))
    except OSError:
        return None


def _version(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _read(path: str, size_max: int) -> Fetched:
    # Without O_NONBLOCK a FIFO at the path would hold us until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("is not a regular file")
        data = file.read(size_max + 1) if status.st_size <= size_max else None
    if data is None or len(data) > size_max:
        raise OSError(f"is larger than {size_text(size_max)}")
    return Fetched(data, modified=_version(status))


def size_text(size_bytes: int) -> str:
    return f"{size_bytes >> 20} MiB" if size_bytes >= 1 << 20 else f"{size_bytes:,} bytes"
