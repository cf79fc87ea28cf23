"""Files of the program's own state: written whole by rename, read whole, one writer at a time.

What is written is on the disk before it takes the old one's place, so that a crash leaves one or the other.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STATE_DIR = Path("/var/lib/pfw")
VARIABLE = "PFW_STATE_DIR"
RUN_DIR = Path("/run/pfw")
RUN_VARIABLE = "PFW_RUN_DIR"
_NAMESPACES = Path("/run/netns")
_FILE_BYTES_MAX = 512 << 20


def folder() -> Path:
    """Where the state is kept: as PFW_STATE_DIR says, else under /var/lib/pfw. A network namespace that is not
    the system's has a folder of its own in there: its firewall is another one."""
    return _folder(VARIABLE, STATE_DIR)


def run_folder() -> Path:
    """Where is what lasts until the next boot: as PFW_RUN_DIR says, else under /run/pfw."""
    return _folder(RUN_VARIABLE, RUN_DIR)


def _folder(variable: str, usual: Path) -> Path:
    named = os.environ.get(variable)
    if named:
        return Path(named)
    own = _namespace()
    return usual if own is None else usual / "netns" / own


def _namespace() -> str | None:
    """The name of the network namespace, None for the one in which the system began."""
    try:
        here = os.stat("/proc/self/ns/net")
    except OSError:
        return None
    began: int | None = None
    with suppress(OSError):
        began = os.stat("/proc/1/ns/net").st_ino
    if began == here.st_ino:
        return None
    with suppress(OSError):
        for entry in sorted(_NAMESPACES.iterdir()):
            with suppress(OSError):
                if (entry.stat().st_ino, entry.stat().st_dev) == (here.st_ino, here.st_dev):
                    return entry.name
    # Where the first process may not be looked at, a namespace without a name counts as the system's.
    return None if began is None else str(here.st_ino)


class Store:
    """The state in one folder. Raises OSError for what the system refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock: int | None = None
        """The descriptor of the lock, while we have it."""

    def make(self) -> None:
        """Make the folder where it is not there. Who is not its owner finds nothing in it that he cannot name."""
        self.path.mkdir(mode=0o711, parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(None, "is not a file", str(self.path / name))
            return file.read(_FILE_BYTES_MAX)

    def write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        """Put a file in the place of the one there was, or leave that one as it is."""
        write(self.path / name, content, mode)

    def rename(self, old: str, new: str) -> None:
        """Put a file in the place of another, or leave that one as it is. Raises OSError."""
        os.replace(self.path / old, self.path / new)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.path / name).unlink()

    def names(self, under: str) -> list[str]:
        """The files in a folder of the state, by name."""
        try:
            return sorted(entry.name for entry in (self.path / under).iterdir() if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, nobody else changes anything. Waits for whoever does; a lock outlives its process only as long as
        a program that it has started (`programs.py`). Who has it may ask again."""
        if self.lock is not None:
            yield
            return
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.set_inheritable(descriptor, True)
            self.lock = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            self.lock = None
            os.close(descriptor)

    @contextmanager
    def locked_at_once(self) -> Iterator[bool]:
        """As `locked`, but without waiting: whether nobody else has the lock, so that it is ours within."""
        if self.lock is not None:
            yield True
            return
        self.make()
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.set_inheritable(descriptor, True)
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.lock = descriptor
            yield self.lock is not None
        finally:
            self.lock = None
            os.close(descriptor)


def write(path: Path, content: bytes, mode: int, owner: os.stat_result | None = None) -> None:
    """Write a file by rename; `owner` is whose it shall be. Raises OSError, and leaves what was there."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with open(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        if error.filename is None:
            error.filename = str(path)
        raise
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
