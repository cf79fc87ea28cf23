"""`pfw` that is killed with -9 right before its N-th step that changes anything: `dying.py N WORD…`.

A step is a program that loads something, a change of a set or of the table of connections by netlink, and a file
written or removed. With more steps asked for than there are the command runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pfw.commands.enforcing  # noqa: F401
from pfw import main
from pfw.drivers import netfilter, programs, store

left = int(sys.argv[1])


def count() -> None:
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)


def changes(arguments: tuple[Any, ...]) -> bool:
    words = arguments[0].words if arguments and isinstance(arguments[0], programs.Job) else ()
    return not words or (("restore" in words[0] or "-f" in words or "restore" in words)
                         and not {"--check", "--test"} & set(words))  # fmt: skip


def replace(real: Callable[..., Any]) -> None:
    """Everywhere, for modules have it under names of their own."""

    def dying(*arguments: Any, **named: Any) -> Any:
        if changes(arguments):
            count()
        return real(*arguments, **named)

    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if module.__name__.startswith("pfw.") else ():
            if value is real:
                setattr(module, name, dying)


def replace_method(owner: type, name: str) -> None:
    real = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        count()
        return real(*arguments, **named)

    setattr(owner, name, dying)


if __name__ == "__main__":
    for real in (programs.run, netfilter.change_set, netfilter.cut, netfilter.track, store.write):
        replace(real)
    replace_method(Path, "unlink")
    sys.exit(main.main(sys.argv[2:]))
