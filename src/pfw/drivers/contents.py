"""What files hold, as SHA-256, proven: whoever changes it behind that leaves a sign, another time of change (ctime).

A file may belong to whoever wants his program to be taken for another. What he has mapped for writing he changes
without a sign, so a lease is asked for first (fcntl(2), F_SETLEASE): the kernel gives none for a file that is open or
mapped for writing, and takes it back before it is opened so. Where leases do not tell, only files that root alone may
write count. Reading goes on in a thread of its own. Whoever asks waits a little, and asks again later.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import signal
import stat
import sys
import threading
from collections import OrderedDict
from queue import SimpleQueue
from time import monotonic, sleep, time_ns

from msgspec import Struct

BYTES_MAX = 1 << 30
"""A larger file has no proven content. It takes a machine one to three seconds to hash so much."""
READINGS_MAX = 256
PATIENCE_S, _SHARE = 1.0, 0.05
"""So long it is waited in all at first, and then this part of the time."""
_BLOCK_BYTES = 1 << 18
_FUSE = 0x65735546
"""The file system (statfs(2)) whose files hold what somebody's program says."""
_UNTOLD = frozenset({0x794C7630, 0x01021994, 0x858458F6})
"""Those that give leases, but on which the kernel writes in spite of them: on overlayfs what is mapped is another file;
on tmpfs and ramfs io_uring keeps pages to write into (IORING_REGISTER_BUFFERS) behind the end of their mapping."""
_STATFS_BYTES = 256
_COARSE_NS, _FINE_NS = 2_000_000_000, 50_000_000
"""Longer than a tick of a file system's clock, where it tells whole seconds, and else: two changes within one have the
same time."""

_Mark = tuple[int, int, int, int]


class _Reading(Struct, eq=False):
    descriptor: int
    done: threading.Event
    sha256: str | None = None
    error: OSError | None = None


class Contents:
    """What is known of contents. One thread asks."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_max_s = self._patience_s = patience_s
        self._asked = monotonic()
        self._readings: OrderedDict[_Mark, _Reading] = OrderedDict()
        self._wanted: SimpleQueue[_Reading] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def sha256(self, descriptor: int) -> str:
        """What a file holds, as 64 hex digits. Raises OSError where that is not proven: BlockingIOError where it may be
        later."""
        found = os.fstat(descriptor)
        mark = (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)
        reading = self._readings.get(mark)
        if reading is None:
            reading = self._readings[mark] = self._begin(descriptor, found)
        if not self._wait(reading.done):
            raise BlockingIOError(errno.EAGAIN, "is being read")
        if reading.sha256 is None:
            del self._readings[mark]
            raise reading.error or OSError(errno.EIO, "cannot be read")
        self._readings.move_to_end(mark)
        return reading.sha256

    def _begin(self, descriptor: int, found: os.stat_result) -> _Reading:
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no file")
        if found.st_size > BYTES_MAX:
            raise OSError(errno.EFBIG, "is too large")
        if len(self._readings) >= READINGS_MAX:
            oldest = next((mark for mark, each in self._readings.items() if each.done.is_set()), None)
            if oldest is None:
                raise BlockingIOError(errno.EAGAIN, "has to wait for others")
            del self._readings[oldest]
        reading = _Reading(os.dup(descriptor), threading.Event())
        self._wanted.put(reading)
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="contents", daemon=True)
            self._thread.start()
        return reading

    def _wait(self, done: threading.Event) -> bool:
        begun = monotonic()
        self._patience_s = min(self._patience_max_s, self._patience_s + (begun - self._asked) * _SHARE)
        is_done = done.wait(self._patience_s)
        self._asked = monotonic()
        self._patience_s -= self._asked - begun
        return is_done

    def _read(self) -> None:
        while True:
            reading = self._wanted.get()
            try:
                reading.sha256 = _sha256(reading.descriptor)
            except OSError as error:
                reading.error = error
            finally:
                os.close(reading.descriptor)
                reading.done.set()


def _sha256(descriptor: int) -> str:
    # Whoever holds a write lease on it would keep us waiting, but for O_NONBLOCK.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    with open(os.open(f"/proc/self/fd/{descriptor}", flags), "rb", buffering=0) as file:
        is_leased = _take_lease(file.fileno())
        changed_ns = os.fstat(file.fileno()).st_ctime_ns
        tick_ns = _FINE_NS if changed_ns % 1_000_000_000 else _COARSE_NS
        if 0 <= (age_ns := time_ns() - changed_ns) < tick_ns:
            sleep((tick_ns - age_ns) / 1e9)
        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK_BYTES))
        while size := file.readinto(block):
            digest.update(block[:size])
        if is_leased and fcntl.fcntl(file, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            raise BlockingIOError(errno.EAGAIN, "is about to be written")
    return digest.hexdigest()


def _take_lease(descriptor: int) -> bool:
    """Whether the file has leases; closing it gives the lease back. Raises OSError where its content is not proven."""
    kind = _file_system(descriptor)
    if kind == _FUSE:
        raise OSError(errno.ENOTSUP, "is on a file system of somebody's own")
    # Who opens it for writing has the kernel send us a signal. SIGIO would end this process, SIGURG does nothing.
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
    is_leased = True
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        is_leased = False
    found = os.fstat(descriptor)
    is_of_root = found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if (not is_leased or kind in _UNTOLD) and not is_of_root:
        raise OSError(errno.ENOTSUP, "is on a file system that does not tell who may write")
    return is_leased


def _file_system(descriptor: int) -> int:
    found = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, found):
        raise OSError(ctypes.get_errno(), "is on no file system that is known")
    return int.from_bytes(found.raw[:4], sys.byteorder)  # f_type comes first
