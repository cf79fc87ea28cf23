"""Calls to the firewall's daemon: where it is, and what can go wrong, as a line and an exit status."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import TypeVar

from msgspec import Struct

from pfw.api.client import Client, Stream
from pfw.api.messages import ApiError, ProtocolError
from pfw.cli.ask import BAD_INPUT, OK, REFUSED, tell
from pfw.drivers.store import run_folder

NO = 1
"""The exit status of "the answer is no"."""
NOT_RUNNING = "pfw daemon is not running; start it: sudo pfw daemon"
WHO_MAY = "only root and the members of the group pfw may talk to the firewall's daemon"

__all__ = ["BAD_INPUT", "NO", "OK", "REFUSED", "called", "colour", "daemon", "fault", "taken", "tell", "told"]

Answer = TypeVar("Answer", bound=Struct)
Command = Callable[[Namespace], int]


class _AbsentError(Exception):
    """Nobody listens."""


def daemon() -> Client:
    """A connection to the daemon. Raises what `told` tells."""
    try:
        return Client(run_folder() / "pfw.sock")
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise _AbsentError from None


def called(method: str, parameters: Struct, answer: type[Answer]) -> Answer:
    """One call on a connection of its own. Raises ApiError, and what else `told` tells."""
    with daemon() as client:
        try:
            return client.call(method, parameters, answer)
        except BrokenPipeError:
            # Of the socket; that of standard output has another meaning.
            raise ConnectionResetError("the firewall's daemon has closed the connection") from None


def taken(stream: Stream[Answer]) -> Iterator[Answer]:
    """What has come of a stream that never waits. Raises ConnectionResetError where it has ended."""
    with suppress(TimeoutError):
        yield from stream
        raise ConnectionResetError("the firewall's daemon tells no more")


def told(command: Command) -> Command:
    """Tells what goes wrong, and makes the exit status of it."""

    @wraps(command)
    def run(options: Namespace) -> int:
        try:
            return command(options)
        except BrokenPipeError:
            raise
        except (_AbsentError, ApiError, ProtocolError, OSError) as error:
            line, status = fault(error)
            tell(line)
            return status

    return run


def fault(error: Exception) -> tuple[str, int]:
    """What went wrong with a call, and the exit status of it."""
    if isinstance(error, ApiError):
        return _answered(error)
    if isinstance(error, _AbsentError):
        return NOT_RUNNING, REFUSED
    if isinstance(error, PermissionError):
        return WHO_MAY if error.errno is not None else str(error), REFUSED
    if isinstance(error, TimeoutError):
        return "pfw daemon does not answer; look at its log, or start it anew", REFUSED
    if isinstance(error, ProtocolError):
        return f"pfw daemon answers what is not understood ({error}); is it of the same version?", REFUSED
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename or 'pfw daemon'}: {error.strerror}", REFUSED
    return str(error), REFUSED


def _answered(error: ApiError) -> tuple[str, int]:
    what = error.parameters
    match error.name.rpartition(".")[2]:
        case "NoSuchPrompt":
            return f"there is no prompt {what.get('id')} that waits: it was answered, or given up", NO
        case "NoSuchProgram":
            return "there is no such process or program", NO
        case "PermissionDenied":
            return WHO_MAY, REFUSED
        case "Refused":
            return f"refused: {what.get('says')}", REFUSED
        case "InvalidParameter":
            return f"pfw daemon does not take this {what.get('parameter')}", BAD_INPUT
    return f"pfw daemon answers: {error}", REFUSED


def colour() -> bool:
    """Whether standard output is to have colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
