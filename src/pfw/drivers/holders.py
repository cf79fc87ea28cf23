"""Which processes hold a socket, and how sure it is who owns it.

The kernel does not keep who holds a socket: all descriptors of all processes must be looked at before it can be said
that one process alone holds it. What no walk sees: a socket on its way from process to process or registered with
io_uring without a descriptor, and the descriptors of a thread that has a table of its own beside its process'. To hide
a socket so, its holders must work together. One that does nothing but give its descriptors other numbers, which a walk
passes in their order, escapes about one walk of some hundred. Processes of outer pid name spaces are not seen either.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from os import readlink

from msgspec import Struct

from pfw.drivers.processes import executable, is_same, program, users
from pfw.model.program import Certainty, Program
from pfw.wire.sockdiag import DiagSocket

_RECENT_MAX = 256
_RECENT_TRIED_MAX = 8
_ROUNDS_MAX = 8
_LOOKS_MAX = 4
"""At a process whose descriptors come and go: a busy server's never stand still."""
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENOTDIR})
_FIRST = "1"
"""Init may be closed even to root (some virtual machines do that). It is not what a socket is hidden in: whoever rules
over it needs no detour."""
_LONE_TASK_LINKS = 3
"""Links of /proc/PID/task where a process has one thread (fs/proc/base.c: proc_task_getattr)."""


class Holders(Struct, frozen=True):
    """The processes that hold sockets, by the sockets' inodes. `complete` says that there are no others."""

    pids: dict[int, tuple[int, ...]]
    complete: bool


def find_holders(inodes: Iterable[int]) -> Holders:
    """Look at all processes, also at those that began meanwhile. One that may not be looked at makes it incomplete."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes if inode}
    found: dict[int, list[int]] = {inode: [] for inode in wanted.values()}
    seen: set[str] = set()
    complete = bool(wanted)
    for _ in range(_ROUNDS_MAX if wanted else 0):
        # A child that a holder has made while we walked holds it too, and was not in the list.
        newer = [name for name in os.listdir("/proc") if name[0].isdecimal() and name not in seen]
        if not newer:
            break
        for name in newer:
            seen.add(name)
            complete &= _look(name, wanted, found)
    else:
        complete = False
    return Holders({inode: tuple(pids) for inode, pids in found.items()}, complete)


def holders(inodes: Iterable[int]) -> dict[int, tuple[int, ...]]:
    """Which processes hold each of these sockets."""
    return find_holders(inodes).pids


def _look(name: str, wanted: dict[str, int], found: dict[int, list[int]]) -> bool:
    """Note which wanted sockets a process holds; whether all of it could be seen."""
    try:
        held = {wanted[target] for target in _targets(name, wanted)}
    except OSError as error:
        return error.errno in _GONE or name == _FIRST
    for inode in held:
        found[inode].append(int(name))
    return True


def _targets(name: str, wanted: Collection[str]) -> set[str]:
    """The wanted sockets among the descriptors of a process. Raises OSError."""
    found = _links(f"/proc/{name}/fd", wanted)
    if found is not None:
        return found
    # The first thread has none if it has ended; the others run on with what they share.
    tasks = f"/proc/{name}/task"
    found = set()
    if os.stat(tasks).st_nlink > _LONE_TASK_LINKS:
        for task in os.listdir(tasks):
            with suppress(FileNotFoundError, ProcessLookupError):
                found |= _links(f"{tasks}/{task}/fd", wanted) or set()
    return found


def _links(path: str, wanted: Collection[str]) -> set[str] | None:
    """The wanted ones among the descriptors in a folder; None where there are no descriptors. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = os.listdir(folder)
        found: set[str] = set()
        for _ in range(_LOOKS_MAX):
            before: list[str] | None = names
            try:
                # From an open folder, and all at once: a walk is mostly this line.
                found |= {link for name in names if (link := readlink(name, dir_fd=folder)) in wanted}
            except FileNotFoundError:
                found |= {link for link in _still_there(names, folder) if link in wanted}
                before = None
            names = os.listdir(folder)
            if names == before:
                break  # else it may have moved one behind our back, from a number to another
        return found if names or found else None
    finally:
        os.close(folder)


def _still_there(names: Iterable[str], folder: int) -> Iterator[str]:
    for name in names:
        with suppress(FileNotFoundError):
            yield readlink(name, dir_fd=folder)


def holds(pid: int, inode: int) -> bool:
    """Whether a process holds a socket; False where it may not be looked at."""
    with suppress(OSError):
        return bool(_targets(str(pid), (f"socket:[{inode}]",)))
    return False


class SocketOwners:
    """Tells whose sockets are. It remembers which processes had some lately, by user, to look at them first."""

    def __init__(self) -> None:
        self._recent: OrderedDict[tuple[int, int], None] = OrderedDict()

    def find(self, inode: int, uid: int) -> tuple[tuple[int, ...], bool]:
        """Processes that hold a socket of this user, and whether there are no others.

        Where one that had sockets lately holds it, nobody else is looked for.
        """
        tried = 0
        for user, pid in reversed(self._recent):
            if user == uid and tried < _RECENT_TRIED_MAX:
                tried += 1
                if holds(pid, inode):
                    self._recent.move_to_end((user, pid))
                    return (pid,), False
        found = find_holders((inode,))
        pids = found.pids.get(inode, ())
        self._remember(pids, uid)
        return pids, found.complete

    def guess(self, sock: DiagSocket) -> tuple[Program | None, Certainty]:
        """A program that holds a socket, for eyes only: found quickly, and others may hold it too."""
        pids, _ = self.find(sock.inode, sock.uid) if sock.inode else ((), False)
        return (program(pids[0]) if pids else None), Certainty.GUESS

    def owner(self, sock: DiagSocket, *others: DiagSocket) -> tuple[Program | None, Certainty]:
        """The program that a socket belongs to, and how sure that is.

        With `others`, sockets that are as likely to be meant, it is sure only if all have the same owner. A socket that
        a plain user made and a process of another user holds was handed over: whose it is now nobody can say.
        """
        socks = (sock, *others)
        found = find_holders(each.inode for each in socks)
        self._remember(found.pids.get(sock.inode, ()), sock.uid)
        return _judged(socks, found, _Now(socks))

    def _remember(self, pids: tuple[int, ...], uid: int) -> None:
        for pid in pids[:_RECENT_TRIED_MAX]:
            self._recent[uid, pid] = None
            self._recent.move_to_end((uid, pid))
        while len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)


def owners(socks: Iterable[DiagSocket]) -> dict[int, tuple[Program | None, Certainty]]:
    """The programs that many sockets belong to, by the sockets' inodes, found in one walk."""
    held = {each.inode: each for each in socks if each.inode}
    found = find_holders(held)
    now = _Now(held.values())
    return {inode: _judged((each,), found, now) for inode, each in held.items()}


class _Now:
    """What processes are, and which of some sockets they hold, each looked at once: one process may hold thousands."""

    def __init__(self, socks: Iterable[DiagSocket]) -> None:
        self._wanted = {f"socket:[{each.inode}]" for each in socks}
        self._programs: dict[int, Program | None] = {}
        self._held: dict[int, set[str]] = {}

    def program(self, pid: int) -> Program | None:
        if pid not in self._programs:
            self._programs[pid] = program(pid)
        return self._programs[pid]

    def holds(self, pid: int, inode: int) -> bool:
        """To be asked behind `program`."""
        if pid not in self._held:
            self._held[pid] = set()
            with suppress(OSError):
                self._held[pid] = _targets(str(pid), self._wanted)
        return f"socket:[{inode}]" in self._held[pid]


def _judged(socks: tuple[DiagSocket, ...], found: Holders, now: _Now) -> tuple[Program | None, Certainty]:
    """The program that sockets belong to, given who holds each of them, and how sure that is."""
    held = [found.pids.get(each.inode, ()) for each in socks]
    pids = tuple(sorted({pid for each in held for pid in each}))
    if not pids:
        return None, Certainty.GUESS
    shown = now.program(pids[0])
    if shown is None or not (found.complete and all(held)):
        return shown, Certainty.GUESS
    if not _is_one_program(pids) or not all(_may_have_made(pids, each.uid) for each in socks):
        return shown, Certainty.GUESS
    # Read before this question, the program is that of the holder only if it is still there and holds it now.
    if not is_same(shown) or not any(now.holds(pids[0], each.inode) for each in socks):
        return shown, Certainty.GUESS
    return shown, Certainty.SOCKET if len(pids) == 1 else Certainty.PROC


def _is_one_program(pids: tuple[int, ...]) -> bool:
    files = {executable(pid) for pid in pids}
    return len(files) == 1 and None not in files


def _may_have_made(pids: tuple[int, ...], uid: int) -> bool:
    return uid == 0 or any(uid in users(pid) for pid in pids)
