"""The policy in force, as the daemon needs it: to tell the class of a program, and to decide what the kernel cannot.

The generation in force is what the state says; whoever changes it, it is read anew before it matters.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from pfw.daemon import machine
from pfw.daemon.attribution import Found
from pfw.daemon.programs import LabelBook, Programs, content_sha256, foreign_marks, real_path, resolved
from pfw.daemon.state import CURRENT, Applied, State
from pfw.drivers import netfilter, procfs
from pfw.drivers.labels import Labels
from pfw.enforce.conditions import CannotError, Classes, ProgramClass
from pfw.enforce.nft_table import TABLE
from pfw.enforce.plan import find_classes
from pfw.enforce.programs import MASK, spread
from pfw.engine.limits import Buckets
from pfw.model.flow import Flow, Moment
from pfw.model.policy import Policy, PolicyError
from pfw.model.program import Certainty, Program
from pfw.model.verdict import Action, Verdict
from pfw.policy.decide import Decider
from pfw.policy.load import load

HASHES_MAX = 256


class Force:
    """What is in force. `changed` is called behind each change of it."""

    def __init__(
        self, state: State, pinned: Labels | None, mask: int = MASK, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._state = state
        self._changed = changed
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
        self.trouble = ""
        self._decider: Decider | None = None
        self._buckets: dict[int, Buckets] = {}
        self._units: list[tuple[str, str]] = []
        self._paths: dict[str, str] = {}
        self._hashes: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()

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
            found = os.stat(self._state.files.path / CURRENT)
            return found.st_mtime_ns, found.st_ino
        return None

    def _load(self, generation: int | None) -> None:
        self.generation, self.applied = generation, self._state.applied(generation)
        self.policy = self.classes = self._decider = None
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
        except (PolicyError, CannotError) as error:
            self.trouble = str(error)
            return
        self._decider = Decider(self.policy)
        names = {unit for rule in self.policy.rules for unit in rule.units or ()}
        self._units = [(name, path) for name in sorted(names) if (path := procfs.unit_path(name)) is not None]
        if self.classes is not None and self._pinned is not None:
            if self.programs is None:
                self.programs = Programs(self._pinned, self.classes)
            self.programs.use(self.classes)
        self._place_own()

    def forget(self) -> None:
        """Read what is in force anew at the next occasion, though nothing seems to have changed."""
        self._stamp = ()

    def is_stale(self) -> bool:
        """Whether a path of the policy in force leads to another file by now."""
        return self._paths != {path: real_path(path) for path in self._paths}

    def mark_of_process(self, program: Program) -> int | None:
        """The label of a process' sockets; None where its program has none."""
        owner = Found(program=program, certainty=Certainty.PROC, uid=program.uid, gid=program.gid)
        found = self.class_of(owner)
        if found is None:
            return None
        return self.own.get(self.own_key(program.path or "", found.bits), found.mark)

    def book(self) -> LabelBook:
        """The numbers of labels as they stand in the state now."""
        return LabelBook(self._state, self.mask, foreign_marks(self.mask))

    def class_of(self, owner: Found) -> ProgramClass | None:
        """The class of whoever owns a connection; None where that is not certain, or nothing asks for it."""
        if self.classes is None or not owner.is_sure:
            return None
        path, sha256 = self.path_of(owner), None
        if path in self.classes.hashed:
            sha256 = self._sha256(owner)
        return self.classes.of(path, sha256, owner.uid, owner.gid)

    def label(self, owner: Found) -> int | None:
        """The label of whoever owns a connection, as the ruleset in force knows it; None where that is not certain."""
        found = self.class_of(owner)
        if found is None:
            return None
        if self.programs is not None and owner.file is not None and owner.program is not None:
            # From now on the kernel knows it by itself.
            self.programs.add_process(owner.program.pid, owner.program.path, owner.file)
        return self.own.get(self.own_key(self.path_of(owner) or "", found.bits), found.mark)

    def path_of(self, owner: Found) -> str | None:
        """The path of the executable; that by which the kernel was told of the file where that is known."""
        if owner.file is not None and self.programs is not None:
            known = self.programs.known.get(owner.file)
            if known is not None:
                return known.path or None
        return owner.program.path if owner.program is not None else None

    def described(self, flow: Flow, owner: Found) -> Flow:
        """A connection with what is known of its owner; nothing where that is not certain."""
        if not owner.is_sure:
            return flow
        program = owner.program
        path = self.path_of(owner)
        hashed = self.classes is not None and path in self.classes.hashed
        return replace(
            flow,
            app=path or "",
            app_sha256=self._sha256(owner) if hashed else None,
            script=(program.script or "") if program is not None else None,
            users=self._users(owner),
            unit=self._unit(program),
        )

    def decide(self, flow: Flow, moment: Moment) -> Verdict:
        """What the policy says of a connection that the kernel handed over."""
        if self._decider is None:
            return Verdict(Action.BLOCK, reason="no policy is in force")
        return self._decider.decide(flow, moment, lambda index: self._is_over(index, flow, moment.time))

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

    def _users(self, owner: Found) -> frozenset[str]:
        program = owner.program
        found = {str(owner.uid), f"group:{owner.gid}"}
        if program is not None and program.uid == owner.uid:
            found |= {program.user} if program.user else set()
        found |= {name for name, uids in self._named_users().items() if owner.uid in uids}
        return frozenset(found)

    def _named_users(self) -> dict[str, frozenset[int]]:
        """The users and groups that the policy names, as numbers."""
        found: dict[str, frozenset[int]] = {}
        owners = machine.surroundings().owners
        for rule in self.policy.rules if self.policy is not None else ():
            for name in rule.users or ():
                group = owners.group(name.removeprefix("group:")) if name.startswith("group:") else None
                uid = None if name.startswith("group:") else owners.user(name)
                found[name] = frozenset() if uid is None else frozenset({uid})
                if group is not None:
                    found[name] = group.members
        return found

    def _unit(self, program: Program | None) -> str | None:
        if program is None or program.unit is None:
            return None
        own = program.unit.strip("/")
        for name, path in self._units:
            if own == path or own.startswith(f"{path}/"):
                return name
        return own

    def _sha256(self, owner: Found) -> str | None:
        """What the program's file holds; remembered as long as the file is as it was."""
        if owner.file is not None and self.programs is not None and owner.file in self.programs.known:
            return self.programs.known[owner.file].sha256
        if owner.program is None:
            return None
        with suppress(OSError):
            descriptor = os.open(f"/proc/{owner.program.pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                key = (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)
                if key not in self._hashes:
                    self._hashes[key] = content_sha256(descriptor)
                    while len(self._hashes) > HASHES_MAX:
                        self._hashes.popitem(last=False)
                return self._hashes[key]
            finally:
                os.close(descriptor)
        return None

    def own_key(self, path: str, bits: int) -> str:
        """The key of a label for one program alone, whatever class it is in."""
        return f"{path} own u{bits}" if bits else path

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
            self.own[key] = spread(book.number(key), self.mask)
            book.keep()
            self._place(self.own[key], found)
            if owner.file is not None and self.programs is not None and not found.bits:
                self.programs.put_own(owner.file, self.own[key])
        return self.own[key]

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
            path, _, bits = key.partition(" own u")
            found = next(
                each for each in self.classes.all if each.bits == int(bits or 0) and each.holds(path, None)
            )  # fmt: skip
            if found.is_one:
                del self.own[key]
                continue
            with suppress(OSError):
                self._place(mark, found)
