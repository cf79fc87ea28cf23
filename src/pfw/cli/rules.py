"""The policy file on disk: which one is meant, and its content as a policy."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pfw.model.policy import Policy

DEFAULT_PATHS = (Path("rules.json"), Path("/etc/pfw/rules.json"))
_SERVICES = Path("/etc/services")
_BYTES_MAX = 64 << 20


class NoPolicyError(Exception):
    """There is no policy file where one could be."""


def find(named: str | None) -> Path:
    """The file that was named, or the first default that is there. Raises NoPolicyError."""
    if named is not None:
        return Path(named)
    path = next(defaults(), None)
    if path is not None:
        return path
    raise NoPolicyError("there is no rules.json here and no /etc/pfw/rules.json; name a policy file with --rules FILE")


def defaults() -> Iterator[Path]:
    """The default paths at which there is something, or it cannot be told."""
    for path in DEFAULT_PATHS:
        with suppress(FileNotFoundError, NotADirectoryError):
            with suppress(PermissionError):
                path.stat()
            yield path


def read(path: Path) -> bytes:
    """The file's bytes. Raises OSError, also for what is no regular file and what is too large."""
    # Without waiting: a named pipe would hold us for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "is not a file", str(path))
        if status.st_size > _BYTES_MAX:
            raise OSError(None, f"is larger than {_BYTES_MAX >> 20} MiB", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(_BYTES_MAX)
    finally:
        os.close(descriptor)


def services() -> str:
    """The text of /etc/services; empty where there is none."""
    try:
        return _SERVICES.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def load(path: Path) -> Policy:
    """The policy in a file. Raises PolicyError with all faults, or OSError."""
    return parse(read(path), path)


def parse(content: bytes, path: Path) -> Policy:
    """The policy in a file's content. Raises PolicyError with all faults."""
    from pfw.policy import load as loader

    return loader.load(content, str(path), services)
