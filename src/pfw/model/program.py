"""Programs: who opens a connection, or would receive it, and how well that is known."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Certainty(StrEnum):
    """How the owner of a connection was found, the surest first."""

    LABEL = "label"
    """The kernel noted who made the socket."""
    SOCKET = "socket"
    """One process alone holds the socket that the kernel names for these addresses."""
    PROC = "proc"
    """Several processes hold the socket; all are the same program."""
    GUESS = "guess"
    """Nobody holds it any more, or different programs do, or one of another user than its maker's, or not every process
    could be looked at. A guess is shown, and never allows anything."""


class File(Struct, frozen=True, gc=False):
    """A file as the kernel knows it, whatever it is called: device and inode in the kernel's own numbers (stat(2) shows
    others on some file systems), and the inode's generation, where the file system keeps one."""

    device: int
    inode: int
    generation: int = 0


class Program(Struct, frozen=True, kw_only=True):
    """A process, as a person wants to see it.

    `path` is the executable's path in the name space of the system, None where none is proven (a nameless file, another
    mount name space); a program that was upgraded while it runs keeps its. `shown` is what the kernel calls it.
    `command` are its arguments, which it may have changed, and `script` the file that an interpreter runs, told by
    them. `parents` are paths or names, the nearest first. `unit` is the path of its control group below the root of
    cgroup v2, None in the root itself.
    """

    pid: int
    started: int = 0
    """Clock ticks after boot: with the pid, what tells it from a later process of the same number."""
    path: str | None = None
    shown: str = ""
    command: tuple[str, ...] = ()
    script: str | None = None
    uid: int = 0
    gid: int = 0
    user: str = ""
    groups: tuple[int, ...] = ()
    unit: str | None = None
    parents: tuple[str, ...] = ()
    file: File | None = None
