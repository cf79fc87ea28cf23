"""A place to pin: a folder of the system's bpf file system, or one that is mounted for us where there is none."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from pfw.drivers import store

_SYSTEMS = Path("/sys/fs/bpf")
_OWN = "bpf"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8


def folder(run: Path) -> Path:
    """Where labels are pinned by whose runtime folder this is. Raises OSError."""
    usual = _in_systems(run)
    if usual is not None and _is_bpf(_SYSTEMS):
        place = usual
    else:
        place = run / _OWN
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_bpf(place):
            _mount(place)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def found(run: Path) -> Path | None:
    """Where labels may be pinned already; None where nothing can be."""
    for place in (_in_systems(run), run / _OWN):
        if place is not None and _is_bpf(place):
            return place
    return None


def _in_systems(run: Path) -> Path | None:
    """The folder for a runtime folder in the usual place. No name in there may have a dot (kernel/bpf/inode.c:
    bpf_lookup), as that of a network namespace may."""
    if not run.is_relative_to(store.RUN_DIR):
        return None
    return _SYSTEMS.joinpath("pfw", *(part.replace(".", "%2e") for part in run.relative_to(store.RUN_DIR).parts))


def let_go(run: Path) -> None:
    """Unmount what was mounted for us. Raises OSError."""
    place = run / _OWN
    if _is_bpf(place):
        _check(_libc().umount2(os.fsencode(place), 0), place)


def _is_bpf(path: Path) -> bool:
    """Whether a path is on a bpf file system, whose magic number is 0xcafe4a11 (include/uapi/linux/magic.h)."""
    buffer = ctypes.create_string_buffer(256)
    if _libc().statfs(os.fsencode(path), buffer) != 0:
        return False
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF == 0xCAFE4A11


def _mount(path: Path) -> None:
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_libc().mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(flags), b"mode=700"), path)


def _check(result: int, path: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
