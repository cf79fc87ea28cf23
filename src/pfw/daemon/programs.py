"""Telling programs apart: the numbers of labels, the files behind the paths of a policy, what is known of each file.

A path in a policy means the file to which it leads now, links followed. What the kernel is told is that file, as it
calls it; its name may be anything. Files that are labelled are kept open, so that no other gets their number; those
that nobody names and no process runs are let go.
"""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pfw.daemon.state import State
from pfw.drivers import bpffs, labels, netlink, processes, store
from pfw.drivers.contents import Contents
from pfw.drivers.labels import Labels
from pfw.enforce.conditions import CannotError, Classes, OfUser, ProgramClass
from pfw.enforce.programs import Labelling, gather, labels_max, spread
from pfw.model.policy import Policy
from pfw.model.program import File
from pfw.model.rule import App, Rule
from pfw.wire.error import WireError

BOOK = "labels.json"
RUNNING = "daemon.json"
OFTEN_ROUTED = (0xCA6C, 0x6D6F6C65)
"""The marks of wg-quick (51820) and Mullvad, whose routing may come when labels have been given already."""
FILES_MAX = 16384
"""So many files are kept open, and never more than half of what this process may."""


class Running(Struct, frozen=True):
    """What the daemon that runs says of itself."""

    pid: int
    mask: int
    bpffs: str | None
    """Where its labels are pinned; None where there are none, and it looks programs up."""


class _Book(Struct):
    """Which number each label's key has. Those used last stand last."""

    numbers: dict[str, int] = {}


class LabelBook:
    """The numbers of labels in the state folder: what has one keeps it as long as there is room for others."""

    def __init__(self, state: State, mask: int, routes: Iterable[tuple[int, int]] = ()) -> None:
        self._state = state
        self._mask = mask
        self._routes = frozenset(routes)
        # A mark by which others route would be taken for a label with these bits.
        self._refused = {0, *(gather(mark, mask) for mark in (*OFTEN_ROUTED, *(mark for mark, _ in self._routes)))}
        self._book = _decoded(state.files.read(BOOK))
        self._given: set[int] = set()
        free = set(range(labels_max(mask))) - set(self._book.numbers.values())
        self._free = (number for number in sorted(free) if self._fits(number))

    def number(self, key: str) -> int:
        """The number of a key, where it has none a new one, or of all that are taken the one unused for longest. Raises
        CannotError where all are in use now."""
        found = self._book.numbers.pop(key, None)
        if found is None or not self._fits(found):
            found = next(self._free, None)
        if found is None:
            found = self._taken_away()
        self._given.add(found)
        self._book.numbers[key] = found
        return found

    def hold(self, marks: Iterable[int]) -> None:
        """These labels are in use: nobody else gets their numbers."""
        self._given |= {gather(mark, self._mask) for mark in marks}

    def _fits(self, number: int) -> bool:
        """Whether it can be a label, and packets that carry it go where they would go without."""
        in_range = number < labels_max(self._mask) and number not in self._refused
        return in_range and not reroutes(self._routes, 0, spread(number, self._mask))

    def _taken_away(self) -> int:
        for key, number in list(self._book.numbers.items()):
            if number not in self._given:
                del self._book.numbers[key]
                if self._fits(number):
                    return number
        raise CannotError(f"labels for so many programs do not fit into the mask {self._mask:#x}: pfw daemon --mask")

    def keys(self) -> dict[int, str]:
        """The key of each number."""
        return {number: key for key, number in self._book.numbers.items()}

    def keep(self) -> None:
        """Write it down. Raises OSError."""
        self._state.files.write(BOOK, msgspec.json.encode(self._book))

    def labelling(self) -> Labelling:
        return Labelling(self._mask, self.number)


def _decoded(content: bytes | None) -> _Book:
    if content is not None:
        with suppress(msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(content, type=_Book)
    return _Book()


def running() -> Running | None:
    """The daemon of this network namespace; None where none runs."""
    path = store.run_folder() / RUNNING
    try:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return msgspec.json.decode(file.read(), type=Running)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        pass
    return None


def book(state: State) -> LabelBook | None:
    """The book, where somebody runs who tells programs apart."""
    daemon = running()
    return None if daemon is None else LabelBook(state, daemon.mask, routing_marks(daemon.mask))


def foreign_marks(mask: int) -> frozenset[int]:
    """Marks by which routing rules of others go where bits of ours count too: with a label they would no longer fit."""
    return frozenset(mark for mark, _ in routing_marks(mask))


def routing_marks(mask: int) -> frozenset[tuple[int, int]]:
    """These marks, each with the bits that count."""
    with suppress(OSError, WireError):
        return frozenset((mark, counts) for mark, counts in netlink.rule_marks() if counts & mask)
    return frozenset()


def reroutes(routes: Iterable[tuple[int, int]], before: int, after: int) -> bool:
    """Whether one mark in place of another makes a packet go another way."""
    return any(((before ^ mark) & counts == 0) != ((after ^ mark) & counts == 0) for mark, counts in routes)


def resolved(policy: Policy) -> Policy:
    """The policy with the paths of its programs as they lead to files now."""
    if all(rule.apps is None for rule in policy.rules):
        return policy
    return replace(policy, rules=tuple(map(_resolved_rule, policy.rules)))


def _resolved_rule(rule: Rule) -> Rule:
    if rule.apps is None:
        return rule
    apps = tuple(dict.fromkeys(App(real_path(app.path), app.sha256) for app in rule.apps))
    scripts = None if rule.scripts is None else tuple(dict.fromkeys(map(real_path, rule.scripts)))
    return replace(rule, apps=apps, scripts=scripts)


def real_path(path: str) -> str:
    """A path without links; of one with `*` at its end, that of the folder."""
    if not path.endswith("*"):
        return os.path.realpath(path)
    folder, _, rest = path.rpartition("/")
    return f"{os.path.realpath(folder or '/').rstrip('/')}/{rest}"


@cache
def _contents() -> Contents:
    return Contents()


def content_sha256(descriptor: int) -> str:
    """What a file holds, as 64 hex digits. Raises OSError where that is not proven, or not yet."""
    return _contents().sha256(descriptor)


class Known(Struct, frozen=True):
    """A file that has a label: the path by which it was found, and what it was like then. `sha256` is None where no
    rule asks for it, or it is not proven."""

    path: str
    sha256: str | None
    descriptor: int
    changed: tuple[int, int]


class Programs:
    """The files that the labels know, for one policy's classes. Raises OSError for what the kernel refuses."""

    def __init__(self, pinned: Labels, classes: Classes) -> None:
        self._labels = pinned
        self.classes = classes
        self.known: dict[File, Known] = {}
        self.own: dict[File, int] = {}
        self._idle: set[File] = set()

    def use(self, classes: Classes) -> None:
        """Labels as another policy has them; all paths that it names are looked up."""
        self.classes = classes
        self._put_users()
        files, self.known = self.known, {}
        self.add_paths(classes.paths)
        for file, known in files.items():
            if file in self.known:
                os.close(known.descriptor)
            else:
                self.known[file] = known
        stale = [file for file in self._labels.programs() if file not in self.known]
        self._labels.put_programs({file: self._mark(file) for file in self.known})
        self._labels.remove_programs(stale)

    def add_paths(self, paths: Iterable[str]) -> dict[File, str]:
        """Label the files at these paths; which were found."""
        opened: dict[int, str] = {}
        for path in paths:
            with suppress(OSError):
                opened[os.open(path, os.O_PATH | os.O_CLOEXEC)] = path
        return self._add(opened)

    def add_process(self, pid: int, path: str | None, file: File) -> bool:
        """Label the program of a process, whose executable the kernel calls `file`; whether it is that still."""
        try:
            descriptor = os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        return file in self._add({descriptor: path or ""}, only=file)

    def put_own(self, file: File, mark: int) -> None:
        """A label for this one program, which is in a class with others."""
        self.own[file] = mark
        self._labels.put_programs({file: mark})

    def class_of(self, file: File, uid: int = -1, gid: int = -1) -> ProgramClass:
        """The class of a file that is known, used by somebody."""
        known = self.known[file]
        return self.classes.of(known.path or None, known.sha256, uid, gid)

    def look_again(self) -> None:
        """Label what the paths of the policy lead to by now."""
        self._forget_changed()
        self._forget_idle()
        there = {known.path for known in self.known.values() if os.fstat(known.descriptor).st_nlink}
        self.add_paths(path for path in self.classes.paths if path not in there)

    def _forget_changed(self) -> None:
        """Take the label from files that were moved away, or of whose content a rule speaks and it changed, or was not
        proven."""
        gone = []
        for file, known in self.known.items():
            with suppress(OSError):
                now = os.fstat(known.descriptor)
                moved = known.path and now.st_nlink and not _leads_to(known.path, now)
                proven = known.sha256 is not None and known.changed == _changed(now)
                if moved or (known.path in self.classes.hashed and not proven):
                    gone.append(file)
        self._let_go(gone)

    def _forget_idle(self) -> None:
        """Let go of files that no process ran at two looks, and that have no name or none in the policy or an answer:
        they would keep memory, disk and mounts of whoever made them. A short program may come again at once."""
        named = frozenset(self.classes.paths)
        idle: dict[File, tuple[str, processes.Identity]] = {}
        for file, known in self.known.items():
            with suppress(OSError):
                now = os.fstat(known.descriptor)
                if not (now.st_nlink and (file in self.own or known.path in named)):
                    idle[file] = os.readlink(f"/proc/self/fd/{known.descriptor}"), (now.st_dev, now.st_ino)
        run = processes.running({shown for shown, _ in idle.values()}) if idle else set()
        before, self._idle = self._idle, {file for file, (_, identity) in idle.items() if identity not in run}
        self._let_go([file for file in self._idle if file in before])

    def _let_go(self, files: Sequence[File]) -> None:
        # In this order: once a file is closed, another one may get its number.
        self._labels.remove_programs(files)
        for file in files:
            os.close(self.known.pop(file).descriptor)
            self.own.pop(file, None)

    def _add(self, opened: Mapping[int, str], only: File | None = None) -> dict[File, str]:
        found: dict[File, str] = {}
        files = self._labels.identify(opened)
        for descriptor, path in opened.items():
            file = files.get(descriptor)
            if file is None or file in self.known or (only is not None and file != only):
                os.close(descriptor)
                if file is not None and file in self.known:
                    found[file] = path
                continue
            try:
                known = self._look_at(descriptor, path)
            except OSError:
                os.close(descriptor)
                continue
            self._make_room()
            self.known[file] = known
            found[file] = path
        self._labels.put_programs({file: self._mark(file) for file in found})
        return found

    def _look_at(self, descriptor: int, path: str) -> Known:
        changed = _changed(os.fstat(descriptor))  # before it is read, so that no change is overlooked
        sha256 = None
        if path in self.classes.hashed:
            with suppress(OSError):
                sha256 = content_sha256(descriptor)
        return Known(path, sha256, descriptor, changed)

    def _mark(self, file: File) -> int:
        found = self.class_of(file)
        return found.mark if found.is_one else self.own.get(file, found.mark)

    def _make_room(self) -> None:
        """Let go of the file that was labelled first, and that neither the policy names nor an answer is about."""
        if len(self.known) < min(FILES_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2):
            return
        for file in self.known:
            if file not in self.own and not self.class_of(file).is_one:
                self._let_go([file])
                return

    def _put_users(self) -> None:
        users: dict[int, int] = {}
        groups: dict[int, int] = {}
        for at, lists in enumerate(self.classes.users):
            for each in lists:
                table, numbers = (users, each.uids) if isinstance(each, OfUser) else (groups, each.gids)
                for number in numbers:
                    table[number] = table.get(number, 0) | 1 << at
        plain = {(each.path, each.sha256): each.mark for each in self.classes.all if not each.bits}
        marks = {(plain[each.path, each.sha256], each.bits): each.mark for each in self.classes.all if each.bits}
        self._labels.put_users(users, groups, marks)


def _leads_to(path: str, file: os.stat_result) -> bool:
    with suppress(OSError):
        there = os.stat(path)
        return (there.st_dev, there.st_ino) == (file.st_dev, file.st_ino)
    return False


def _changed(file: os.stat_result) -> tuple[int, int]:
    return file.st_ctime_ns, file.st_size


def take_labels_away() -> None:
    """No socket is labelled any more, unless somebody runs who needs it."""
    if running() is not None:
        return
    with suppress(OSError):
        place = bpffs.found(store.run_folder())
        if place is not None:
            labels.detach(place)
            bpffs.let_go(store.run_folder())


def prepare(classes: Classes | None) -> None:
    """Label the programs that a policy names before it comes into force: what is not done here is asked later."""
    daemon = running()
    if classes is None or daemon is None or daemon.bpffs is None:
        return
    pinned = labels.find(Path(daemon.bpffs))
    if pinned is None:
        return
    programs = Programs(pinned, classes)
    try:
        programs.add_paths(classes.paths)
    finally:
        for known in programs.known.values():
            os.close(known.descriptor)
        pinned.close()
