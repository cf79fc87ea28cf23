"""Answers: what people said about programs for a time, or for as long as a process runs.

The twin in user space of the sets that the kernel holds, for connections that the kernel cannot tell the program of.
Rule 1: what always holds is a rule of the policy, and never in here.
Rule 2: nothing here knows how certain a program is. Whoever asks lets nothing allow what is only a guess.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.prompt import Answer, Lasting, Scope, Subject, check_form, reach

ANSWERS_MAX = 4096
"""Less than 1 kB each, and more than a person would give in a month."""

Process = tuple[int, int]
"""Pid and start, as in `Program`."""


class Remembered(Struct, frozen=True):
    """An answer that holds. `until` is infinite for one that ends with its process alone."""

    subject: Subject
    answer: Answer
    until: float
    pid: int
    started: int


class Answers:
    """Answers that hold, at most ANSWERS_MAX: in a full table the one that would end soonest goes, and is counted.

    Times in seconds since 1970. Where the clock is set back, none holds for longer from then on than it was given for.
    """

    def __init__(self, capacity: int = ANSWERS_MAX) -> None:
        self.counts = {"forgotten": 0}
        self._capacity = capacity
        # By what they cover, the oldest first.
        self._held: dict[tuple[object, ...], Remembered] = {}
        self._processes: dict[Process, set[tuple[object, ...]]] = {}
        # No answer ends before this.
        self._due = inf
        self._latest = -inf

    def __len__(self) -> int:
        return len(self._held)

    @property
    def all(self) -> list[Remembered]:
        """In the order in which they were given; some may be over until the next `tick`."""
        return list(self._held.values())

    def add(self, subject: Subject, answer: Answer, now: float, *, pid: int, started: int) -> None:
        """Remember it in place of an earlier one about the very same. Raises ValueError for one that is not to be
        remembered here, or that names no program."""
        check_form(subject, answer)
        if answer.lasting not in (Lasting.PROGRAM, Lasting.TIME):
            raise ValueError(f'an answer that holds "{answer.lasting}" is not one that is remembered for a time')
        if subject.program == "":
            raise ValueError("an answer about an unknown program cannot be remembered")
        self.tick(now)
        key = reach(subject, answer.scope)
        self._forget(key)
        if len(self._held) >= self._capacity:
            self._forget(min(self._held, key=lambda other: self._held[other].until))
            self.counts["forgotten"] += 1
        until = inf if answer.seconds is None else now + answer.seconds
        self._held[key] = Remembered(subject, answer, until, pid, started)
        self._due = min(self._due, until)
        if answer.lasting is Lasting.PROGRAM:
            self._processes.setdefault((pid, started), set()).add(key)

    def find(self, subject: Subject, now: float) -> bool | None:
        """Whether the subject is allowed; None where no answer covers it. The most exact one decides, an address
        before a port."""
        if now < self._latest:
            self._set_back(now)
        if subject.program == "":
            return None
        for scope in Scope:
            remembered = self._held.get(reach(subject, scope))
            if remembered is not None and now < remembered.until:
                return remembered.answer.allow
        return None

    def tick(self, now: float) -> list[Remembered]:
        """Forget and return those whose time is over."""
        if now < self._latest:
            self._set_back(now)
        self._latest = now
        if now < self._due:
            return []
        over = [(key, remembered) for key, remembered in self._held.items() if remembered.until <= now]
        for key, _ in over:
            self._forget(key)
        self._due = min((remembered.until for remembered in self._held.values()), default=inf)
        return [remembered for _, remembered in over]

    def deadline(self) -> float | None:
        """When `tick` may have something to do next, never later than it has; None for not at all."""
        return None if self._due == inf else self._due

    def ended(self, pid: int, started: int) -> list[Remembered]:
        """A process ended: forget and return the answers that hold for as long as it runs."""
        keys = self._processes.get((pid, started), set())
        over = [self._held[key] for key in self._held if key in keys] if keys else []
        for remembered in over:
            self._forget(reach(remembered.subject, remembered.answer.scope))
        return over

    def _forget(self, key: tuple[object, ...]) -> None:
        remembered = self._held.pop(key, None)
        if remembered is None or remembered.answer.lasting is not Lasting.PROGRAM:
            return
        process = (remembered.pid, remembered.started)
        keys = self._processes[process]
        keys.discard(key)
        if not keys:
            del self._processes[process]

    def _set_back(self, now: float) -> None:
        self._latest = now
        for key, remembered in self._held.items():
            until = now + (remembered.answer.seconds or inf)
            if until < remembered.until:
                # The key is there already: the order stays.
                self._held[key] = replace(remembered, until=until)
                self._due = min(self._due, until)
