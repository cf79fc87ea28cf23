"""A chain of rules as each class of programs sees it.

Rules for programs stand among rules for everybody, and the first match wins. Held against all of them in order, a
connection would pay for each program that is named. So a class has a chain of its own, in which the rules for it stand
in their place, and what is between them is shared: of the stretches of rules for everybody, every 2^n neighbours that
begin at a multiple of 2^n are one chain. So any run of them is a few jumps, and all chains hold no more than n log n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pfw.enforce.conditions import UNKNOWN, OfProgram, Step, UnderLimit


class Stretch(Struct, frozen=True):
    """The rules for everybody from stretch `first` up to `end`, which is not in it."""

    first: int
    end: int


class Ladder:
    """The rules of a place in which some are for programs: `head` comes before any of those."""

    def __init__(self, steps: Sequence[Step]) -> None:
        first = next((at for at, step in enumerate(steps) if owner_of(step) is not None), len(steps))
        self.head = tuple(steps[:first])
        self._rest = tuple(steps[first:])
        self._stretches: list[list[Step]] = []
        self._owned: list[tuple[int, OfProgram, Step]] = []
        fresh = True
        for step in self._rest:
            owner = owner_of(step)
            if owner is not None:
                # Behind as many stretches as there are so far.
                self._owned.append((len(self._stretches), owner, without_owner(step)))
                fresh = True
                continue
            if fresh:
                self._stretches.append([])
                fresh = False
            self._stretches[-1].append(step)

    @property
    def steps_behind_head(self) -> tuple[Step, ...]:
        return self._rest

    @property
    def asks(self) -> bool:
        """Whether any rule is for programs."""
        return bool(self._owned)

    def nobody(self) -> tuple[Step, ...]:
        """The rules behind the head for packets that no program sent, or would receive."""
        return tuple(step for step in self._rest if owner_of(step) is None)

    def unknown(self) -> tuple[Step, ...]:
        """The rules behind the head where the program is not known: the first for programs that would fit is asked."""
        return tuple(step if owner_of(step) is None else _asked(step) for step in self._rest)

    def of_class(self, number: int) -> tuple[Step | Stretch, ...]:
        """The rules behind the head for a class, in order."""
        found: list[Step | Stretch] = []
        done = 0
        for behind, owner, step in self._owned:
            if number in owner.classes:
                if behind > done:
                    found.append(Stretch(done, behind))
                    done = behind
                found.append(step)
        if done < len(self._stretches):
            found.append(Stretch(done, len(self._stretches)))
        return tuple(found)

    def steps(self, stretch: Stretch) -> tuple[Step, ...]:
        return tuple(step for each in self._stretches[stretch.first : stretch.end] for step in each)


def pieces(stretch: Stretch) -> Iterator[Stretch]:
    """The same as stretches of 2^n that begin at multiples of 2^n, as few as can be."""
    first = stretch.first
    while first < stretch.end:
        size = first & -first or 1 << stretch.end.bit_length()
        while first + size > stretch.end:
            size >>= 1
        yield Stretch(first, first + size)
        first += size


def owner_of(step: Step) -> OfProgram | None:
    return next((each for each in step.conditions if isinstance(each, OfProgram)), None)


def without_owner(step: Step) -> Step:
    return replace(step, conditions=tuple(each for each in step.conditions if not isinstance(each, OfProgram)))


def _asked(step: Step) -> Step:
    # It is asked whose it is, before a token is taken for it.
    conditions = tuple(each for each in step.conditions if not isinstance(each, OfProgram | UnderLimit))
    return Step(conditions, UNKNOWN)
