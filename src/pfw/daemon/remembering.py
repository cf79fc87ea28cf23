"""What people answered: elements in the kernel's sets for a time, or a rule of the policy for good.

The table in user space (`engine/answers.py`) is the twin of those sets, for connections that come here all the same. An
answer that holds as long as a process runs is renewed in the kernel while it does: nobody of ours need live to end it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from pfw.daemon.attribution import Found
from pfw.daemon.force import Force
from pfw.drivers import clock, netfilter, processes
from pfw.enforce.conditions import Place
from pfw.enforce.nft_answers import answer_key
from pfw.enforce.nft_table import TABLE
from pfw.engine.answers import Answers
from pfw.model.flow import Direction
from pfw.model.prompt import Answer, Lasting, Prompt, Subject, reach

RENEWED_S = 600
"""How long the kernel keeps an answer that holds as long as a process runs, unless it is renewed."""
_PLACES = {Direction.IN: Place.IN, Direction.OUT: Place.OUT}

Always = Callable[[Prompt, Answer], None]


class _Held(Struct):
    """An answer's element in the kernel. `process` is the one whose end it lasts to; None for one with a time."""

    set_name: str
    key: bytes
    process: tuple[int, int] | None


class Remembering:
    """The answers. `always` makes a rule of one. `watch` is called with a descriptor that becomes readable when a
    process has ended, and `unwatch` when it is of no use any more."""

    def __init__(
        self, force: Force, always: Always, watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:  # fmt: skip
        self.answers = Answers()
        self._force = force
        self._always = always
        self._watch = watch
        self._unwatch = unwatch
        self._held: dict[tuple[object, ...], _Held] = {}
        self._processes: dict[tuple[int, int], int] = {}
        self._renewed = clock.now()
        self.trouble: list[str] = []

    def add(self, prompt: Prompt, answer: Answer) -> None:
        """Remember an answer for as long as it lasts."""
        if answer.lasting is Lasting.ALWAYS:
            self._always(prompt, answer)
            return
        program = prompt.program
        if program is None or answer.lasting is Lasting.ONCE:
            return
        if answer.lasting is Lasting.PROGRAM and not self._follow(program.pid, program.started):
            return  # it has ended, and the answer with it
        with suppress(ValueError):
            self.answers.add(prompt.subject, answer, clock.now(), pid=program.pid, started=program.started)
            self._put(prompt, answer)

    def tick(self, now: float) -> None:
        """Forget what is over, and renew what is not."""
        for over in self.answers.tick(now):
            self._forget(over.subject, over.answer)
        if now - self._renewed > RENEWED_S / 3 or now < self._renewed:
            self._renewed = now
            for held in list(self._held.values()):
                if held.process in self._processes:
                    self._write(held, RENEWED_S * 1000)

    def put_again(self, now: float) -> None:
        """Give the kernel all answers anew, each with the time that it has left: its sets were taken away."""
        until = {reach(each.subject, each.answer.scope): each.until for each in self.answers.all}
        for covered, held in self._held.items():
            left_s = RENEWED_S if held.process is not None else until.get(covered, now) - now
            if left_s > 0:
                self._write(held, max(1, int(left_s * 1000)))

    def _put(self, prompt: Prompt, answer: Answer) -> None:
        """Let the kernel decide it from now on, where it can tell this program from others."""
        program = prompt.program
        if program is None or program.path is None or prompt.subject.facts:
            return  # of users, scripts and the like its sets know nothing
        owner = Found(
            program=program, certainty=prompt.certainty, file=program.file, uid=program.uid, gid=program.gid
        )  # fmt: skip
        mark = self._force.own_label(owner)
        if mark is None:
            return
        subject = prompt.subject
        place = _PLACES[subject.direction]
        name, key = answer_key(
            place, answer.allow, answer.scope, mark, subject.remote, subject.protocol, subject.port
        )  # fmt: skip
        process = (program.pid, program.started) if answer.lasting is Lasting.PROGRAM else None
        held = _Held(name, key, process)
        self._drop(reach(subject, answer.scope))
        self._held[reach(subject, answer.scope)] = held
        self._write(held, (answer.seconds or RENEWED_S) * 1000)

    def _write(self, held: _Held, left_ms: int) -> None:
        element = netfilter.SetElement(held.key, left_ms)
        try:
            with suppress(FileNotFoundError):
                _delete(held)
            netfilter.change_set(TABLE, [netfilter.SetChange(held.set_name, "add", [element])])
        except OSError as error:
            # The table in user space knows it: it is decided there.
            self.trouble.append(f"an answer could not be given to the kernel: {error}")

    def _forget(self, subject: Subject, answer: Answer) -> None:
        self._drop(reach(subject, answer.scope))

    def _drop(self, covered: tuple[object, ...]) -> None:
        held = self._held.pop(covered, None)
        if held is not None:
            with suppress(OSError):
                _delete(held)

    def _follow(self, pid: int, started: int) -> bool:
        """Hear of the end of a process; False where it has ended."""
        if (pid, started) in self._processes:
            return True
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        if abs((processes.started(pid) or 0) - started) > 1:
            os.close(descriptor)
            return False
        self._processes[pid, started] = descriptor
        self._watch(descriptor, lambda: self._ended(pid, started))
        return True

    def _ended(self, pid: int, started: int) -> None:
        descriptor = self._processes.pop((pid, started))
        self._unwatch(descriptor)
        os.close(descriptor)
        for over in self.answers.ended(pid, started):
            self._forget(over.subject, over.answer)


def _delete(held: _Held) -> None:
    """Take an answer out of the kernel's set. Raises OSError, FileNotFoundError where it is not there any more."""
    netfilter.change_set(TABLE, [netfilter.SetChange(held.set_name, "delete", [netfilter.SetElement(held.key)])])
