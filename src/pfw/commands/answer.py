"""How commands that change the system answer: what can go wrong as a line and an exit status, facts as JSON."""

from __future__ import annotations

import os
import stat
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from pfw.cli import rules
from pfw.cli.ask import BAD_INPUT, OK, REFUSED, Loaded, tell, tell_faults
from pfw.daemon.enforcing import PendingError
from pfw.daemon.lockout import LockoutError
from pfw.daemon.state import State
from pfw.drivers.programs import RefusedError
from pfw.drivers.store import Store, folder
from pfw.enforce.conditions import CannotError
from pfw.enforce.plan import PlanError
from pfw.model.policy import Fault, PolicyError
from pfw.wire.error import WireError

NO = 1
"""The exit status of "the answer is no"."""

Command = Callable[[Namespace], int]

__all__ = ["BAD_INPUT", "NO", "OK", "REFUSED", "Loaded", "state", "tell", "told"]


def _check_owner(path: Path, named: str | None) -> None:
    """Root does not put in force what somebody else could have written. Raises RefusedError and OSError."""
    status = path.stat()
    own = {0, os.geteuid(), int(sudo) if (sudo := os.environ.get("SUDO_UID", "")).isdecimal() else 0}
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
        raise RefusedError(f"{path}: everybody may write it; take that away first: chmod o-w {path}")
    if named is None and status.st_uid not in own:
        raise RefusedError(
            f"{path}: belongs to somebody else (user {status.st_uid}); name it with --rules if it is meant"
        )


def state() -> State:
    """What is remembered, where the environment says that it is."""
    return State(Store(folder()))


def told(*, root: bool = True) -> Callable[[Command], Command]:
    """Of a command that may be refused: tells why, and makes the exit status of it. With `root` only root may."""

    def wrap(command: Command) -> Command:
        @wraps(command)
        def run(options: Namespace) -> int:
            if root and os.geteuid() != 0:
                tell(f"this needs root; type: sudo pfw {options.command}")
                return REFUSED
            return _run(command, options)

        return run

    return wrap


def _run(command: Command, options: Namespace) -> int:
    try:
        return command(options)
    except PolicyError as error:
        tell_faults(error.faults)
        return BAD_INPUT
    except rules.NoPolicyError as error:
        tell(str(error))
        return BAD_INPUT
    except LockoutError as error:
        tell(f"refused: {error}; --force does it anyway")
        return NO
    except PendingError as error:
        tell(str(error))
        return NO
    except RefusedError as error:
        tell(error.what)
        return REFUSED
    except WireError as error:
        tell(f"what the kernel answered is not understood: {error}")
        return REFUSED
    except BrokenPipeError:
        raise
    except OSError as error:
        tell(f"{error.filename or 'pfw'}: {error.strerror or error}")
        return REFUSED


def faults_of(error: PlanError | CannotError, path: str, content: bytes) -> PolicyError:
    """What cannot be done, as faults of the policy file with their places."""
    from pfw.policy.locate import Path as Steps
    from pfw.policy.locate import Positions
    from pfw.policy.report import path_text

    cannot = error.faults if isinstance(error, PlanError) else [error]
    paths: list[Steps] = [() if each.index is None else ("rules", each.index, each.field or "name") for each in cannot]
    positions = Positions(content.decode(errors="replace"), {steps[:depth] for steps in paths for depth in range(4)})
    faults = []
    for each, steps in zip(cannot, paths, strict=True):
        line, column = positions.value(steps)
        faults.append(Fault(line, column, path_text(steps), each.what, path))
    return PolicyError(sorted(faults))


def loaded(named: str | None) -> Loaded:
    """The policy that is meant, its path made absolute. Raises PolicyError, NoPolicyError and RefusedError; SystemExit
    for a file that cannot be read."""
    path = Path(os.path.abspath(rules.find(named)))
    try:
        _check_owner(path, named)
        content = rules.read(path)
    except OSError as error:
        tell(f"{path}: {error.strerror or error}")
        sys.exit(BAD_INPUT)
    return Loaded(path, content, rules.parse(content, path))
