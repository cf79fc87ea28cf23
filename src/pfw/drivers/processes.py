"""Processes as programs: executable, arguments, user, control group, parents, as /proc tells of them.

All but the executable is what a process says of itself or inherited. Whatever is hostile in it is cut to a bound and
made text; a process that ends while it is read is None, never an error. Reading an executable's place asks the file
system it is on: one that does not answer holds up the reader.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import cache, lru_cache

from msgspec import Struct

from pfw.drivers.scripts import script_argument
from pfw.model.program import Program

ARGUMENTS_MAX, ARGUMENT_BYTES_MAX, COMMAND_BYTES_MAX = 64, 512, 16384
PARENTS_MAX = 16
_ATTEMPTS = 3
_FIRST_PID = 1
_STATUS_BYTES_MAX = 1 << 20
"""A process may be in 65,536 groups, whose numbers have ten digits."""
_FILE_BYTES_MAX = 1 << 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_CLOEXEC
_DELETED = " (deleted)"
_NAMELESS = ("/memfd:", "/SYSV", "/dev/zero", "/proc/")
"""What the kernel calls files that never had a name in a folder."""

Identity = tuple[int, int]
"""Device and inode, as stat(2) gives them."""


class Change(StrEnum):
    """What has become of the file that a process was started from."""

    REPLACED = "replaced"
    """Another file has its path."""
    DELETED = "deleted"
    """None has."""
    NAMELESS = "nameless"
    """It never had a path: it is in memory alone, or in no folder."""


class Changed(Struct, frozen=True):
    """`since` (s since 1970) is when what is at the path now was put there, or changed its owner or mode; None where
    there is nothing."""

    change: Change
    since: float | None = None


class _Image(Struct, frozen=True):
    """The executable of a process: what the kernel calls it, its path with us, and which file it is."""

    shown: str
    path: str | None
    identity: Identity | None


class _Status(Struct, frozen=True):
    group: int
    state: str
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]


def program(pid: int, image: Identity | None = None) -> Program | None:
    """The program that a process runs; None for one that is not there (any more), or runs another file than `image`,
    where that is given. A thread's is its process'."""
    for attempt in range(_ATTEMPTS):
        try:
            folder = os.open(f"/proc/{pid}", _FOLDER)
        except (OSError, ValueError):
            return None
        try:
            status = _status(folder)
            if status.group != pid:
                pid = status.group
                continue
            before = identity_of(folder)
            found = _read(folder, pid, status, image)
            # A process that has begun another program meanwhile would be half of this one and half of that.
            if identity_of(folder) == before or attempt == _ATTEMPTS - 1:
                return None if status.state in "ZX" else found
        except (OSError, ValueError, IndexError):
            return None
        finally:
            os.close(folder)
    return None


def is_same(program: Program) -> bool:
    """Whether the process is still there, and no later one of the same number."""
    return started(program.pid) == program.started


def started(pid: int) -> int | None:
    """Clock ticks after boot at which a process began; None where there is none."""
    with suppress(OSError, ValueError, IndexError):
        folder = os.open(f"/proc/{pid}", _FOLDER)
        try:
            return _started_and_parent(folder)[0]
        finally:
            os.close(folder)
    return None


def command(pid: int) -> tuple[str, ...] | None:
    """The arguments of a process as they are now, like those of its `program`; None where there is none."""
    with suppress(OSError, ValueError):
        folder = os.open(f"/proc/{pid}", _FOLDER)
        try:
            return _command(_arguments(folder))
        finally:
            os.close(folder)
    return None


def executable(pid: int) -> Identity | None:
    """Which file a process runs; None where that cannot be seen."""
    with suppress(OSError, ValueError):
        return _identity(os.stat(f"/proc/{pid}/exe"))
    return None


def running(shown: Collection[str]) -> set[Identity]:
    """Which files processes run, of those that the kernel calls so. What is on other file systems is not asked for."""
    found = set()
    for place in (f"/proc/{name}/exe" for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            if os.readlink(place) in shown:
                found.add(_identity(os.stat(place)))
    return found


def changed(pid: int, begun: int, path: str | None) -> Changed | None:
    """Whether the executable of a process is no longer the one at the path that it had. None for one that still is, for
    a process that has ended, and where that cannot be told: paths in a container are its own."""
    with suppress(OSError, ValueError, IndexError):
        folder = os.open(f"/proc/{pid}", _FOLDER)
        try:
            return _changed(folder, path) if _started_and_parent(folder)[0] == begun else None
        finally:
            os.close(folder)
    return None


def users(pid: int) -> tuple[int, ...]:
    """Real, effective, saved and file system user of a process; empty where there is none."""
    with suppress(OSError, ValueError, IndexError):
        folder = os.open(f"/proc/{pid}", _FOLDER)
        try:
            return _status(folder).uids
        finally:
            os.close(folder)
    return ()


def identity_of(folder: int) -> Identity | None:
    """Which file a process runs whose folder of /proc is open; None for a kernel thread, or where it is not told."""
    try:
        found = os.stat("exe", dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        return None
    return found.st_dev, found.st_ino


def _read(folder: int, pid: int, status: _Status, wanted: Identity | None) -> Program:
    # The folder belongs to this process alone: once it has ended, reading in it fails, whoever has its number then.
    begun, parent = _started_and_parent(folder)
    image = _image(folder)
    if wanted is not None and image.identity != wanted:
        raise ValueError("it has begun another program")
    arguments = _arguments(folder)
    return Program(
        pid=pid,
        started=begun,
        path=image.path,
        shown=image.shown or _text(_content(folder, "comm", 64).rstrip(b"\n")),
        command=_command(arguments),
        script=_script(folder, image, arguments),
        uid=status.uids[1],
        gid=status.gids[1],
        user=_user(status.uids[1]),
        groups=status.groups,
        unit=_unit(folder),
        parents=_parents(parent, pid),
    )


def _content(folder: int, name: str, limit: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        content = b""
        while len(content) < limit and (more := os.read(descriptor, limit - len(content))):
            content += more
        return content
    finally:
        os.close(descriptor)


def _status(folder: int) -> _Status:
    """Raises OSError, and ValueError or IndexError for what is none."""
    found: dict[bytes, list[bytes]] = {}
    for line in _content(folder, "status", _STATUS_BYTES_MAX).split(b"\n"):
        name, _, value = line.partition(b":")
        found.setdefault(name, value.split())

    def numbers(name: bytes) -> tuple[int, ...]:
        return tuple(map(int, found.get(name, ())))

    group, state = numbers(b"Tgid")[0], found[b"State"][0].decode() if found.get(b"State") else "X"
    return _Status(group, state, numbers(b"Uid"), numbers(b"Gid"), numbers(b"Groups"))


def _started_and_parent(folder: int) -> tuple[int, int]:
    # The name may hold anything, brackets too: what follows the last one is numbers (proc(5), fields 3 and up).
    fields = _content(folder, "stat", _FILE_BYTES_MAX).rpartition(b")")[2].split()
    return int(fields[19]), int(fields[1])


def _image(folder: int) -> _Image:
    """The executable; nothing is known of it where it is a kernel thread's, or may not be looked at."""
    try:
        text = os.readlink("exe", dir_fd=folder)
        found = os.stat("exe", dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        return _Image("", None, None)
    identity = _identity(found)
    return _Image(_text(os.fsencode(text)), _path(folder, text, identity, found.st_nlink), identity)


def _path(folder: int, text: str, identity: Identity, links: int) -> str | None:
    """The executable's path, where it is proven.

    What the kernel calls a file is its path in the mount name space of whoever started it. It counts only if it leads
    to the same file in that of the system. A program that was upgraded while it runs leads nowhere any more; then the
    kernel adds ` (deleted)`. The path that it had is still its own if the file has lost its last name, its process sees
    the same root as the system, and the folder where it was is on the very mount that it was started from: a mount that
    is attached nowhere, whose paths begin where its maker likes, can be handed over to any process.
    """
    if not text.startswith("/") or not _is_unicode(text):
        return None
    with suppress(OSError):
        there = os.stat(text.lstrip("/"), dir_fd=_system().root)
        if (there.st_dev, there.st_ino) == identity:
            return text
    name = text.removesuffix(_DELETED)
    if name == text or links or name.startswith(_NAMELESS) or not _sees_our_root(folder):
        return None
    place = os.path.dirname(name).lstrip("/") or "."
    return name if _mount(folder, "exe") == _mount(_system().root, place) is not None else None


def _changed(folder: int, path: str | None) -> Changed | None:
    text = os.readlink("exe", dir_fd=folder)
    ours = os.stat("exe", dir_fd=folder)
    if text.startswith(_NAMELESS) and not ours.st_nlink:
        return Changed(Change.NAMELESS)
    path = path or text.removesuffix(_DELETED)
    is_ours = _sees_our_root(folder)
    if is_ours:
        with suppress(FileNotFoundError, NotADirectoryError):
            there = os.stat(path.lstrip("/"), dir_fd=_system().root)
            return None if _identity(there) == _identity(ours) else Changed(Change.REPLACED, there.st_ctime)
    # Without a name it is deleted, whoever's path it was.
    return Changed(Change.DELETED) if is_ours or not ours.st_nlink else None


def _is_unicode(text: str) -> bool:
    """Whether it is the same as a text of a policy; no escape may make it the name of another file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sees_our_root(folder: int) -> bool:
    """Whether a path means the same for a process as for the system."""
    with suppress(OSError):
        its = tuple(map(_identity, (os.stat("ns/mnt", dir_fd=folder), os.stat("root", dir_fd=folder))))
        return its == (_system().namespace, _system().top)
    return False


class _System(Struct, frozen=True):
    """Where paths begin, for the system: the mount name space and the root of its first process. A service may have its
    own ones, with parts that it may not write."""

    root: int
    namespace: Identity
    top: Identity


@cache
def _system() -> _System:
    for pid in (_FIRST_PID, "self"):
        # Some virtual machines close the first process even to root; then what we see counts.
        with suppress(OSError):
            root = os.open(f"/proc/{pid}/root", _PLACE)
            return _System(root, _identity(os.stat(f"/proc/{pid}/ns/mnt")), _identity(os.fstat(root)))
    raise OSError(errno.ENOENT, "is not mounted", "/proc")


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _mount(folder: int, name: str) -> bytes | None:
    """The number of the mount where a file is."""
    with suppress(OSError):
        descriptor = os.open(name, _PLACE, dir_fd=folder)
        try:
            with open(f"/proc/self/fdinfo/{descriptor}", "rb") as file:
                return next((line for line in file if line.startswith(b"mnt_id:")), None)
        finally:
            os.close(descriptor)
    return None


def _arguments(folder: int) -> list[bytes]:
    content = _content(folder, "cmdline", COMMAND_BYTES_MAX)
    return content.removesuffix(b"\0").split(b"\0", ARGUMENTS_MAX)[:ARGUMENTS_MAX] if content else []


def _command(arguments: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(_text(each[:ARGUMENT_BYTES_MAX]) for each in arguments)


def _script(folder: int, image: _Image, arguments: Sequence[bytes]) -> str | None:
    """The file that an interpreter runs, where there is such a file with us."""
    name = os.path.basename(image.path or image.shown.removesuffix(_DELETED))
    given = script_argument(name, arguments[1:])
    if given is None or not _sees_our_root(folder):
        return None
    with suppress(OSError, ValueError):
        path = os.path.realpath(os.path.join(os.fsencode(os.readlink("cwd", dir_fd=folder)), given))
        # Links in /proc and /dev mean another file for everybody who follows them.
        if given.startswith((b"/proc/", b"/dev/")) or not stat.S_ISREG(os.stat(path).st_mode):
            return None
        return path.decode()
    return None


@lru_cache(maxsize=256)
def _user_name(uid: int, changed: int) -> str:
    del changed  # a name that was looked up before the last change of /etc/passwd is not asked for again
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return ""


def _user(uid: int) -> str:
    changed = 0
    with suppress(OSError):
        changed = os.stat("/etc/passwd").st_mtime_ns
    return _user_name(uid, changed)


def _unit(folder: int) -> str | None:
    """The path below the root of cgroup v2; None for a process in the root itself, or outside of ours."""
    with suppress(OSError):
        for line in _content(folder, "cgroup", _FILE_BYTES_MAX).split(b"\n"):
            if line.startswith(b"0::/") and not line.startswith(b"0::/.."):
                return _text(line[4:]) or None
    return None


def _parents(parent: int, pid: int) -> tuple[str, ...]:
    found: list[str] = []
    seen = {pid, 0}
    while parent not in seen and len(found) < PARENTS_MAX:
        seen.add(parent)
        try:
            folder = os.open(f"/proc/{parent}", _FOLDER)
        except OSError:
            break
        try:
            found.append(_image(folder).path or _text(_content(folder, "comm", 64).rstrip(b"\n")))
            _, parent = _started_and_parent(folder)
        except (OSError, ValueError, IndexError):
            break
        finally:
            os.close(folder)
    return tuple(found)


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
