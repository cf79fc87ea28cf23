"""Sockets of other processes, taken in hand to write a label into their marks. As root only.

A socket that is taken is the very socket, not a copy: nothing is done to it but reading what it is and setting
SO_MARK, and it is let go at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from msgspec import Struct

from pfw.drivers.processes import program
from pfw.model.program import Program

SOCKETS_MAX = 1 << 18
"""So many sockets are looked at in one go."""

_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
"""The same on x86-64 and arm64."""
_SO_MARK, _SO_COOKIE, _SO_NETNS_COOKIE = 36, 57, 71
_MARK_BITS = 0xFFFFFFFF
_DOMAINS = frozenset({socket.AF_INET, socket.AF_INET6})
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EBADF, errno.ENOTDIR})
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long

_FIRST = 1
"""Some virtual machines close it even to root (`holders.py` says why that is borne with)."""

Choose = Callable[[Program], int | None]
Noted = Callable[[int], int | None]
Place = tuple[int, int]
"""A process and a descriptor of its."""


class Marked(Struct, frozen=True):
    """How many sockets carry another mark now, how many had the right one, and how many could not be told or set."""

    changed: int = 0
    unchanged: int = 0
    failed: int = 0


def open_remote(pid: int, fd: int) -> int:
    """A descriptor of ours for what another process has open as `fd`. Raises OSError."""
    process = _call(_PIDFD_OPEN, pid, 0, 0)
    try:
        return _call(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)


def mark_sockets(choose: Choose, mask: int, noted: Noted = lambda _: None) -> Marked:
    """Set the bits of `mask` in the marks of all IPv4 and IPv6 sockets of this network namespace that processes hold.

    `choose` says for a program which bits; None leaves its sockets as they are. A socket that programs hold for whom
    it says different things gets none of the bits: it is nobody's. What `noted` says for a socket's cookie goes before
    that, None being nothing. Sockets of other kinds and of other network
    namespaces are no failures. Those above SOCKETS_MAX are, and stay as they are. Raises OSError where not even sockets
    of ours can be marked.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.setsockopt(socket.SOL_SOCKET, _SO_MARK, 0)
        namespace = _namespace(ours)
    places, failed = _places(choose)
    changed = unchanged = 0
    for inode, ((pid, fd), bits) in places.items():
        if bits is None:
            continue
        try:
            done = _mark(pid, fd, inode, namespace, bits & mask, mask, noted=noted)
        except OSError as error:
            failed += error.errno not in _GONE
        else:
            changed += done is True
            unchanged += done is False
    return Marked(changed, unchanged, failed)


def mark_process(pid: int, bits: int, mask: int, is_own: Callable[[int], bool]) -> int:
    """Set the bits of `mask` in the marks of those sockets of a process that have none of them, and of whose cookies
    `is_own` is true; of how many. What cannot be told or set stays as it is."""
    changed = 0
    with suppress(OSError):
        for inode, fd in _sockets(pid):
            with suppress(OSError):
                changed += _mark(pid, fd, inode, None, bits & mask, mask, is_own) is True
    return changed


def cookie_of(pid: int, inode: int) -> int | None:
    """The cookie of a socket that a process holds; None where it holds it no more, or cannot be asked."""
    with suppress(OSError):
        for held, fd in _sockets(pid):
            if held != inode:
                continue
            descriptor = open_remote(pid, fd)
            # Whatever it is by now; all of it is given, so that Python asks nothing and sets nothing.
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor) as sock:
                return _cookie(sock) if os.fstat(descriptor).st_ino == inode else None
    return None


def _places(choose: Choose) -> tuple[dict[int, tuple[Place, int | None]], int]:
    """Where each socket is held, by inode, with the bits that it is to carry; and how many could not be told."""
    found: dict[int, tuple[Place, int | None]] = {}
    failed = 0
    for pid in _pids():
        try:
            sockets = dict(islice(_sockets(pid), SOCKETS_MAX + 1))
        except OSError as error:
            failed += error.errno not in _GONE and pid != _FIRST
            continue
        owner = program(pid) if sockets else None
        if owner is None:
            continue
        bits = choose(owner)
        for inode, fd in sockets.items():
            known = found.get(inode)
            if known is not None:
                if known[1] != bits:
                    found[inode] = (known[0], 0)
            elif len(found) < SOCKETS_MAX:
                found[inode] = ((pid, fd), bits)
            else:
                failed += 1
    return found, failed


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name[0].isdecimal())


def _sockets(pid: int) -> Iterator[tuple[int, int]]:
    """Inode and descriptor of each socket of a process; a kernel thread has none. Raises OSError."""
    path = f"/proc/{pid}/fd"
    for name in os.listdir(path):
        with suppress(FileNotFoundError):
            target = os.readlink(f"{path}/{name}")
            if target.startswith("socket:["):
                yield int(target[8:-1]), int(name)


def _mark(
    pid: int, fd: int, inode: int, namespace: int | None, bits: int, mask: int,
    unmarked: Callable[[int], bool] | None = None, noted: Noted = lambda _: None,
) -> bool | None:  # fmt: skip
    """Whether the mark of a socket was changed; None for a socket that is not our business. With `unmarked`, only of
    one that has none of the bits, and of whose cookie that is true. Raises OSError."""
    descriptor = open_remote(pid, fd)
    try:
        if os.fstat(descriptor).st_ino != inode:
            return None  # it was closed, and the number is another file's now
        # All of it is given, so that Python asks nothing and sets nothing.
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    with held:
        if held.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) not in _DOMAINS or namespace not in (
            None, _namespace(held)
        ):  # fmt: skip
            return None
        old = held.getsockopt(socket.SOL_SOCKET, _SO_MARK) & _MARK_BITS
        if unmarked is not None and (old & mask or not unmarked(_cookie(held))):
            return False
        known = noted(_cookie(held))
        new = old & ~mask & _MARK_BITS | (bits if known is None else known & mask)
        if new != old:
            held.setsockopt(socket.SOL_SOCKET, _SO_MARK, struct.pack("=I", new))
        return new != old


def _namespace(sock: socket.socket) -> int:
    """The number of a socket's network namespace, never used again. Raises OSError before Linux 5.14."""
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0])


def _cookie(sock: socket.socket) -> int:
    return int(struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0])


def _call(number: int, *words: int) -> int:
    result = int(_syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in words)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
