"""The policy in force, as the daemon needs it: to tell the class of a program, and to decide what the kernel cannot.

The generation in force is what the state says; whoever changes it, it is read anew before it matters.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from pfw.daemon import machine
from pfw.daemon.attribution import Found
from pfw.daemon.describing import Describer
from pfw.daemon.programs import LabelBook, Programs, real_path, resolved, routing_marks
from pfw.daemon.state import CURRENT, Applied, State
from pfw.drivers import netfilter
from pfw.drivers.labels import Labels
from pfw.enforce import nft_answers
from pfw.enforce.conditions import CannotError, Classes, ProgramClass
from pfw.enforce.nft_table import TABLE
from pfw.enforce.plan import find_classes
from pfw.enforce.programs import MASK, gather, spread
from pfw.engine.limits import Buckets
from pfw.model.flow import Flow, Moment
from pfw.model.policy import Policy, PolicyError
from pfw.model.program import Program
from pfw.model.rule import Rule
from pfw.model.verdict import Action, Verdict
from pfw.policy.decide import Decider
from pfw.policy.load import load
from pfw.policy.match import OverLimit
from pfw.wire.error import WireError


class Force:
    """What is in force. `changed` is called behind each change of it."""

    def __init__(
        self, state: State, pinned: Labels | None, mask: int = MASK, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._state = state
        self._changed = changed
        self._current = str(state.files.path / CURRENT)
        self._stamp: object = ()
        self.mask = mask
        self.programs: Programs | None = None
        self._pinned = pinned
        self.generation: int | None = None
        self.applied: Applied | None = None
        self.policy: Policy | None = None
        self.classes: Classes | None = None
        self.own: dict[str, int] = {}
        """Labels of programs that were answered for, by path and bits of the user."""
        self.describer: Describer | None = None
        self.trouble = ""
        self._decider: Decider | None = None
        self._buckets: dict[int, Buckets] = {}
        self._paths: dict[str, str] = {}
        self._recalled = False
        self.routes = routing_marks(mask)
        """The marks by which others route, with the bits that count."""

    @property
    def is_asking(self) -> bool:
        """Whether the policy in force needs somebody who knows programs."""
        return self.classes is not None

    def refresh(self) -> bool:
        """Read what is in force, if that is something else than before; whether it was."""
        stamp = self._current_stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._load(self._state.current())
        self._changed()
        return True

    def _current_stamp(self) -> object:
        with suppress(OSError):
            found = os.stat(self._current)
            return found.st_mtime_ns, found.st_ino
        return None

    def _load(self, generation: int | None) -> None:
        self.generation, self.applied = generation, self._state.applied(generation)
        self.policy = self.classes = self._decider = self.describer = None
        self._paths = {}
        self._buckets.clear()
        content = self._state.rules_of(generation) if generation is not None else None
        if content is None:
            return
        try:
            written = load(content, "rules.json")
            self.policy = resolved(written)
            named = [*(app.path for rule in written.rules for app in rule.apps or ())]
            self._paths = {path: real_path(path) for path in named}
            book = self.book()
            self.classes = find_classes(self.policy, machine.surroundings(book.labelling()))
            book.keep()
            self._recall_own(book)
        except (PolicyError, CannotError) as error:
            self.trouble = str(error)
            return
        self._decider = Decider(self.policy)
        if self.classes is not None and self._pinned is not None:
            if self.programs is None:
                self.programs = Programs(self._pinned, self.classes)
            self.programs.use(self.classes)
        hashed = self.classes.hashed if self.classes is not None else frozenset[str]()
        self.describer = Describer(self.policy, hashed, self.programs)
        self._place_own()

    def forget(self) -> None:
        """Read what is in force anew at the next occasion, though nothing seems to have changed."""
        self._stamp = ()

    def is_stale(self) -> bool:
        """Whether a path of the policy in force leads to another file by now."""
        return self._paths != {path: real_path(path) for path in self._paths}

    def mark_of_process(self, program: Program) -> int | None:
        """The label of a process' sockets; None where its program has none."""
        return self.label(Found.of_process(program))

    def look_at_routes(self) -> bool:
        """Read anew by which marks others route; whether that has changed."""
        before, self.routes = self.routes, routing_marks(self.mask)
        return before != self.routes

    def book(self) -> LabelBook:
        """The numbers of labels as they stand in the state now."""
        return LabelBook(self._state, self.mask, self.routes)

    def class_of(self, owner: Found) -> ProgramClass | None:
        """The class of whoever owns a connection; None where that is not certain, or nothing asks for it."""
        if self.classes is None or not owner.is_sure:
            return None
        path, sha256 = self.path_of(owner), None
        if path in self.classes.hashed:
            sha256 = self.describer.sha256(owner) if self.describer is not None else None
        return self.classes.of(path, sha256, owner.uid, owner.gid)

    def label(self, owner: Found) -> int | None:
        """The label of whoever owns a connection, as the ruleset in force knows it; None where that is not certain."""
        found = self.class_of(owner)
        if found is None:
            return None
        programs = self.programs
        if programs is not None and owner.file is not None and owner.file not in programs.known and owner.program:
            # From now on the kernel knows it by itself. To ask how it calls a file takes longer than all else here.
            with suppress(OSError):
                programs.add_process(owner.program.pid, owner.program.path, owner.file)
        own = self.own.get(self.own_key(self.path_of(owner) or "", found.bits))
        if own is None:
            return found.mark
        if programs is not None and owner.file in programs.known and owner.file not in programs.own and not found.bits:
            programs.put_own(owner.file, own)  # another file at the same path, or another daemon gave the answer
        return own

    def described(self, flow: Flow, owner: Found) -> Flow:
        """A connection with what is known of its owner; nothing where that is not certain."""
        return flow if self.describer is None else self.describer.flow(flow, owner)

    def path_of(self, owner: Found) -> str | None:
        """The path of the executable; that by which the kernel was told of the file where that is known."""
        return self.describer.path_of(owner) if self.describer is not None else None

    def decide(self, flow: Flow, moment: Moment, *, is_sure: bool = True, again: bool = False) -> Verdict:
        """What the policy says of a connection that the kernel handed over; `again`, of one that was held against the
        limits before."""
        if self._decider is None:
            return Verdict(Action.BLOCK, reason="no policy is in force")
        assert self.policy is not None
        over = over_before(self.policy) if again else lambda index: self._is_over(index, flow, moment.time)
        return judge(self._decider, flow, moment, over, is_sure=is_sure)

    def rule_of(self, verdict: Verdict) -> Rule | None:
        """The rule that decided; None for a default."""
        return self.policy.rules[verdict.index] if self.policy is not None and verdict.index is not None else None

    def _is_over(self, index: int, flow: Flow, now: float) -> bool:
        """Whether a limit is used up. Tokens of rules that ask were taken in the kernel, those of scripts are taken
        here; any other rule was held against the packet before it came here, or stands behind one for scripts."""
        assert self.policy is not None
        rule = self.policy.rules[index]
        if rule.action is Action.ASK and rule.scripts is None:
            return False
        if rule.scripts is None or rule.limit is None:
            return True
        return self._buckets.setdefault(index, Buckets(rule.limit)).over(flow.source, now)

    def own_key(self, path: str, bits: int) -> str:
        """The key of a label for one program alone, whatever class it is in. No path holds what is put behind it."""
        return f"{path}\0u{bits}" if bits else path

    def own_label(self, owner: Found) -> int | None:
        """A label for this program alone, so that an answer about it is about no other; None where it is a guess."""
        found, path = self.class_of(owner), self.path_of(owner)
        if found is None or path is None or self.classes is None:
            return None
        if found.is_one:
            return found.mark
        key = self.own_key(path, found.bits)
        if key not in self.own:
            book = self.book()
            book.hold((*(each.mark for each in self.classes.all), *self.own.values()))
            try:
                self.own[key] = spread(book.number(key), self.mask)
            except CannotError:
                return None
            book.keep()
            self._place(self.own[key], found)
            if owner.file is not None and self.programs is not None and not found.bits:
                self.programs.put_own(owner.file, self.own[key])
        return self.own[key]

    def _recall_own(self, book: LabelBook) -> None:
        """The labels of single programs of which answers in the kernel speak: a daemon before this one gave them."""
        if self._recalled or self.classes is None:
            return
        self._recalled = True
        for mark in _answered_marks():
            key = book.keys().get(gather(mark, self.mask), "")
            if key.startswith("/"):
                self.own.setdefault(key, mark)

    def _place(self, mark: int, found: ProgramClass) -> None:
        """Let the ruleset treat a label as that of a class."""
        assert self.classes is not None
        number = self.classes.all.index(found)
        element = netfilter.SetElement(mark.to_bytes(4, sys.byteorder))
        # A ruleset without rules for programs has no such set: it looks at the label for answers alone.
        with suppress(FileExistsError, FileNotFoundError):
            netfilter.change_set(TABLE, [netfilter.SetChange(f"g{self.generation}_k{number}", "add", [element])])

    def _place_own(self) -> None:
        """Tell a new ruleset of the labels of single programs."""
        if self.classes is None:
            return
        for key, mark in list(self.own.items()):
            path, _, bits = key.partition("\0u")
            found = next(
                each for each in self.classes.all if each.bits == int(bits or 0) and each.holds(path, None)
            )  # fmt: skip
            if found.is_one:
                del self.own[key]
                continue
            with suppress(OSError):
                self._place(mark, found)


def judge(decider: Decider, flow: Flow, moment: Moment, over: OverLimit, *, is_sure: bool) -> Verdict:
    """The verdict on a connection. A person may decide about one of which nobody knows the program."""
    verdict = decider.decide(flow, moment, over)
    if verdict.action is Action.UNKNOWN and not is_sure:
        asked = decider.decide(replace(flow, app="", script=""), moment, over)
        if asked.action is Action.ASK:
            return asked
    return verdict


def over_before(policy: Policy) -> OverLimit:
    """Of a connection that is asked about: every limit was used up when its first packet came, but that of what asks,
    of which it took its token."""
    return lambda index: policy.rules[index].action is not Action.ASK


def _answered_marks() -> set[int]:
    """The labels of which answers in the kernel speak."""
    with suppress(OSError, WireError):
        there = netfilter.read_set_names(TABLE) & nft_answers.SETS
        keys = [each.key for name in there for each in netfilter.read_elements(TABLE, name)]
        return {int.from_bytes(key[:4], sys.byteorder) for key in keys}
    return set()
