"""What is remembered between commands: which policy is in force, the policies before, what waits for a word.

Everything is in the folder of `drivers/store.py`:

    current             the number of the generation in force; none when the firewall is off
    generations/N.json  what was applied (`Applied`), and N.rules, the policy's text then
    history/N.json      a policy that was in force or in the file (`Entry`), and N.rules, its text
    pending.json        a policy that waits to be confirmed (`Pending`)
    bans.json           `banning.py`;   lists/   `listing.py`;   boot.*   `boot.py`

Files of an unknown shape (an older version, a broken disk) are told once and taken as not there.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from pfw.drivers.store import Store
from pfw.model.address import Range, parse_ranges

T = TypeVar("T")


class Ranged(Protocol):
    """What is written down of a range of addresses, `what` as people write it."""

    @property
    def what(self) -> str: ...


R = TypeVar("R", bound=Ranged)

CURRENT = "current"
PENDING = "pending.json"
GUARD_REPORT = "guard.report"
HISTORY_MAX = 20
GENERATIONS_MAX = 3
"""The one in force, the one before, and one that is being made."""


class Named(Struct, frozen=True):
    """A verdict of a generation: how packets, counters and hits of it are called in the kernel."""

    name: str
    action: str
    counter: str
    index: int | None = None
    log: bool = False


class Applied(Struct, frozen=True, kw_only=True):
    """A generation. `digest` is the same for what would be the same ruleset; `fingerprint` what the kernel held right
    after. `verdicts` are in the order of their numbers."""

    generation: int
    backend: str
    path: str
    sha256: str
    digest: str
    time: float
    verdicts: list[Named]
    fingerprint: str = ""
    open: list[str] = []
    """The places where what nothing decides passes."""
    created: list[str] = []
    """Tables of others that were not there before us."""
    tell_all: bool = False
    notes: list[str] = []
    lasting: bool = False
    """Whether all that follows is done, too: older generations are swept away, and the next boot brings this one."""


class Pending(Struct, frozen=True):
    """A generation that is taken back at `until` (s since 1970), to `before` or to nothing."""

    generation: int
    before: int | None
    until: float


class Entry(Struct, frozen=True):
    """A policy of the past."""

    number: int
    time: float
    path: str
    sha256: str
    why: str
    undone: bool = False


class State:
    """What is remembered, in one folder. Raises OSError for what the disk refuses."""

    def __init__(self, files: Store) -> None:
        self.files = files
        self.trouble: list[str] = []
        """Lines for the person: what could not be read."""

    def current(self) -> int | None:
        """The generation that shall be in force."""
        text = (self.files.read(CURRENT) or b"").strip()
        return int(text) if text.isdigit() and len(text) < 10 else None

    def set_current(self, generation: int | None) -> None:
        if generation is None:
            self.files.remove(CURRENT)
        else:
            self.files.write(CURRENT, b"%d\n" % generation)

    def applied(self, generation: int | None) -> Applied | None:
        return None if generation is None else self._decoded(f"generations/{generation}.json", Applied)

    def rules_of(self, generation: int) -> bytes | None:
        """The policy's text of a generation."""
        return self.files.read(f"generations/{generation}.rules")

    def next_generation(self, live: int | None) -> int:
        """A number that neither the disk nor the kernel knows."""
        return max([0, *self._numbers("generations", ".json"), live or 0, self.current() or 0]) + 1

    def keep(self, applied: Applied, rules: bytes) -> None:
        """Remember a generation before it comes into force; the oldest are forgotten."""
        self.files.write(f"generations/{applied.generation}.rules", rules)
        self.files.write(f"generations/{applied.generation}.json", msgspec.json.encode(applied))
        for number in self._numbers("generations", ".json")[:-GENERATIONS_MAX]:
            if number != self.current():
                self.files.remove(f"generations/{number}.json")
                self.files.remove(f"generations/{number}.rules")

    def pending(self) -> Pending | None:
        return self._decoded(PENDING, Pending)

    def set_pending(self, pending: Pending) -> None:
        self.files.write(PENDING, msgspec.json.encode(pending))

    def take_pending(self) -> Pending | None:
        """Take the pending change away from the guard: it is confirmed, or given up. None where it is too late."""
        pending = self.pending()
        if pending is None:
            return None
        try:
            (self.files.path / PENDING).unlink()
        except FileNotFoundError:
            return None
        return pending

    def history(self) -> list[Entry]:
        """The policies of the past, the oldest first."""
        found = (self._decoded(f"history/{number}.json", Entry) for number in self._numbers("history", ".json"))
        return [entry for entry in found if entry is not None]

    def remembered_text(self, entry: Entry) -> bytes | None:
        return self.files.read(f"history/{entry.number}.rules")

    def remember(self, *, time: float, path: str, text: bytes, sha256: str, why: str) -> None:
        """Add a policy to the history, unless it is the last one there already."""
        entries = self.history()
        live = [entry for entry in entries if not entry.undone and entry.path == path]
        if live and live[-1].sha256 == sha256:
            return
        number = entries[-1].number + 1 if entries else 1
        self.files.write(f"history/{number}.rules", text)
        self._write_entry(Entry(number, time, path, sha256, why))
        for entry in entries[: max(0, len(entries) + 1 - HISTORY_MAX)]:
            self.files.remove(f"history/{entry.number}.json")
            self.files.remove(f"history/{entry.number}.rules")

    def mark_undone(self, entry: Entry) -> None:
        self._write_entry(msgspec.structs.replace(entry, undone=True))

    def mark_done(self, entry: Entry) -> None:
        self._write_entry(msgspec.structs.replace(entry, undone=False))

    def by_range(self, name: str, kind: type[list[R]]) -> list[tuple[Range, R]]:
        """What a file says of ranges of addresses, each with what it names, in the order of the file."""
        found = self._decoded(name, kind) or []
        try:
            ranges = parse_ranges([each.what for each in found])
        except ValueError as error:
            self._not_there(name, error)
            return []
        return list(zip(ranges, found, strict=True))

    def _write_entry(self, entry: Entry) -> None:
        self.files.write(f"history/{entry.number}.json", msgspec.json.encode(entry))

    def _numbers(self, folder: str, ending: str) -> list[int]:
        names = (name.removesuffix(ending) for name in self.files.names(folder) if name.endswith(ending))
        return sorted(int(name) for name in names if name.isdecimal())

    def _decoded(self, name: str, kind: type[T]) -> T | None:
        content = self.files.read(name)
        if content is None:
            return None
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            self._not_there(name, error)
            return None

    def _not_there(self, name: str, error: Exception) -> None:
        self.trouble.append(f"{self.files.path / name}: {error}; taken as not there")
