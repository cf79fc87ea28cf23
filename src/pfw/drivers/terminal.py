"""The terminal: its keys one by one, its width, and waiting for several things at once.

Whoever reads keys has switched the echo off. It is on again before anything ends or stops the process: an exception, a
signal, Ctrl-Z; and off again when the process goes on.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType

_READ_BYTES = 256
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~]|[^\[O])")
"""What a key sends that is no character: ECMA-48, 5.4 (CSI), and SS3. An arrow ends in A, and F1 in P."""
_BEGUN = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,64}|O)?$")


def width(descriptor: int = 1) -> int | None:
    """How many columns a terminal has, None for what is no terminal."""
    with suppress(OSError):
        return os.get_terminal_size(descriptor).columns or 80
    return None


def height(descriptor: int = 1) -> int:
    with suppress(OSError):
        return os.get_terminal_size(descriptor).lines or 24
    return 24


def wait(readable: Iterable[int], timeout_s: float | None) -> set[int]:
    """Those with something to read, or at their end. Raises BrokenPipeError where nobody reads our output any more."""
    poll = select.poll()
    for descriptor in readable:
        poll.register(descriptor, select.POLLIN)
    output = _output()
    if output is not None and output not in readable:
        poll.register(output, 0)
    found = dict(poll.poll(None if timeout_s is None else timeout_s * 1000))
    if output is not None and found.pop(output, 0) & (select.POLLERR | select.POLLHUP):
        raise BrokenPipeError
    return set(found)


def _output() -> int | None:
    try:
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return None


class Keys:
    """The keys of a terminal, while it is entered. `resumed` is set when the process was stopped and goes on: then the
    screen is not as we left it."""

    def __init__(self, descriptor: int) -> None:
        self.resumed = False
        self._descriptor = descriptor
        self._saved: list[int | list[bytes | int]] = []
        self._handlers: dict[signal.Signals, object] = {}
        self._begun = ""

    def __enter__(self) -> Keys:
        self._saved = termios.tcgetattr(self._descriptor)
        try:
            for number in (*_ENDING, signal.SIGTSTP):
                # What is ignored (nohup) stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    taker = self._stop if number is signal.SIGTSTP else self._end
                    self._handlers[number] = signal.signal(number, taker)
            self._begin()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> str | None:
        """The characters that were typed, which may be none; None at the terminal's end. Waits for something."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except OSError:
            return None
        if not data:
            return None
        text = _SEQUENCE.sub("", self._begun + data.decode(errors="replace"))
        begun = _BEGUN.search(text)
        self._begun = "" if begun is None else begun[0]
        return text[: len(text) - len(self._begun)]

    def discard(self) -> None:
        """Forget what was typed and not read yet."""
        self._begun = ""
        with suppress(termios.error):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def _begin(self) -> None:
        # What was typed before is thrown away: it was not meant for us.
        tty.setcbreak(self._descriptor, termios.TCSAFLUSH)

    def _restore(self) -> None:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)

    def _leave(self) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers.clear()

    def _end(self, number: int, _: FrameType | None) -> None:
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here it goes on.
        signal.signal(number, self._stop)
        with suppress(termios.error):
            self._begin()
        self.resumed = True
