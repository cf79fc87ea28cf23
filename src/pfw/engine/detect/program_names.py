"""Programs of this machine as alerts name them, and which of them lie where programs do not belong."""

from __future__ import annotations

IN_MEMORY = "memfd:"
"""How a program that never was a file is called (memfd_create(2))."""
ANYBODYS = ("/tmp/", "/var/tmp/", "/dev/shm/")
"""Where everybody may write."""
_DELETED = " (deleted)"


def shown(program: str | None) -> str:
    """`nginx (/usr/sbin/nginx)`."""
    if program is None:
        return "a program that is not known"
    path = program.removesuffix(_DELETED)
    name = path.rpartition("/")[2]
    return path if name == path or not name else f"{name} ({path})"


def is_in_memory(program: str | None) -> bool:
    """The kernel shows it as `/memfd:NAME (deleted)`."""
    return program is not None and program.removeprefix("/").startswith(IN_MEMORY)


def is_out_of_place(program: str | None) -> bool:
    """From memory, or from where everybody may write: no package puts a program there."""
    return program is not None and (is_in_memory(program) or program.startswith(ANYBODYS))
