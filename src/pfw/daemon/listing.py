"""Block lists on the disk: fetched when they are due, kept when what came is no good, read back at every start.

In the folder that is given, for each list:

    NAME.txt    what may be blocked of it, one address, prefix or range a line, sorted
    NAME.json   where it came from and when, and what was left out (`Record`)

A list is replaced only by a better one. What cannot be fetched or read, has become empty or less than half of what
it was leaves the old one in force: a publisher's bad day does not open a door. One refresh at a time, please: whoever
calls holds the lock of the state.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pfw.daemon import machine
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.download import fetch, version_of
from pfw.drivers.store import Store
from pfw.enforce.lists import Removed, count, usable
from pfw.model.address import AddressSet, Range, as_int, format_range, parse_ranges
from pfw.model.policy import Blocklist, Policy, public_source
from pfw.model.text import counted
from pfw.policy.blocklists import NAME_SHAPE
from pfw.wire.blocklist import Parsed, parse, pieces
from pfw.wire.error import WireError

Outcome = Literal["fresh", "unchanged", "updated", "kept", "failed"]
"""Not due; the same as before; another; the old one stays; there is none."""

SHRINKS_FROM_ENTRIES = 20
"""Shorter lists come and go."""
SHRINKS_BELOW = 0.5

_TEXT, _RECORD = ".txt", ".json"
_TEXT_MODE = 0o644
_TEMPORARY = rf"\.{NAME_SHAPE}\.(?:txt|json)\.[0-9]+"


class Record(Struct, frozen=True, kw_only=True):
    """What is known of a list. `entries` are as its publisher counts them, `removed` are addresses. Times are in
    seconds since 1970; of `fetched_at` it is the last time that it came, whether it had changed or not."""

    source: str = ""
    fetched_at: float = 0.0
    changed_at: float = 0.0
    entries: int = 0
    addresses: int = 0
    skipped: int = 0
    removed: int = 0
    has_own: bool = False
    """Whether addresses of this machine were taken out, which will be others another day."""
    size_bytes: int = 0
    etag: str | None = None
    modified: str | None = None
    last_error: str | None = None
    last_error_at: float | None = None


class Stored(Struct, frozen=True):
    """A list as it is on the disk. `size_bytes` is that of its text."""

    name: str
    addresses: AddressSet
    record: Record
    size_bytes: int = 0


class Refreshed(Struct, frozen=True, kw_only=True):
    """How it went with a list, and a line that says so. The counts are those of what is in force now."""

    name: str
    outcome: Outcome
    line: str
    entries: int = 0
    addresses: int = 0
    skipped: int = 0
    removed: int = 0


def load(
    folder: Path,
    lists: Sequence[Blocklist],
    own: AddressSet | None = None,
    warnings: list[str] | None = None,
) -> dict[str, Stored]:
    """Those of the lists that are on the disk, by name. What cannot be read counts as not there and is told.

    `own` are addresses that are this machine's by now; they are left out, as in `refresh`.
    """
    found: dict[str, Stored] = {}
    for each in lists:
        stored = _stored(Store(folder), each.name, [] if warnings is None else warnings)
        if stored is not None:
            found[each.name] = stored if own is None else replace(stored, addresses=usable(stored.addresses, own)[0])
    return found


def of_policy(state: State, policy: Policy, tell: Callable[[str], None]) -> dict[str, AddressSet]:
    """What is on the block lists of a policy, as far as it is on this disk. What never was, what is to come from
    elsewhere now, and files are fetched first."""
    folder = state.files.path / "lists"
    wanted = [each for each in policy.blocklists if each.enabled]
    if not wanted:
        return {}
    own = AddressSet().union(*(addresses for _, addresses in machine.protected()))
    records = {each.name: record_of(folder, each) for each in wanted}
    fresh = [each for each in wanted if not _is_current(each, records[each.name])]
    if fresh:
        for result in refresh(
            folder, fresh, own, clock.now(), due_only=False, accept_shrunken=False,
            progress=lambda line: tell(line) if "://" in line else None,
        ):  # fmt: skip
            if result.outcome in ("kept", "failed"):
                tell(result.line)
    return {name: each.addresses for name, each in load(folder, wanted, own, state.trouble).items()}


def _is_current(each: Blocklist, record: Record) -> bool:
    """Whether what is on the disk is what the source had last, as far as that can be told without asking."""
    if record.source != each.source or not record.fetched_at or record.has_own:
        return False
    return not each.is_file or (record.last_error is None and record.modified == version_of(each.source))


def refresh(
    folder: Path,
    lists: Sequence[Blocklist],
    own: AddressSet,
    now: float,
    *,
    due_only: bool,
    accept_shrunken: bool,
    progress: Callable[[str], None],
) -> list[Refreshed]:
    """Fetch the lists that are on, or those of them that are due. `own` are this machine's addresses and those that
    it cannot do without: they are taken out. `progress` is told of each download before it begins."""
    refreshing = _Refreshing(Store(folder), own, now, accept_shrunken, progress)
    return [refreshing.fresh(each) or refreshing.fetch(each) if due_only else refreshing.fetch(each)
            for each in lists if each.enabled]  # fmt: skip


def is_due(folder: Path, each: Blocklist, now: float) -> bool:
    """Whether a list is to be fetched: it never was, its source is another, its time is over, or it is a file."""
    return _is_due(folder, each, record_of(folder, each), now)


def record_of(folder: Path, each: Blocklist) -> Record:
    """What is known of a list without reading it: also why one that never came did not come."""
    return _record(Store(folder), each.name, [])


def why(stored: dict[str, Stored], packed: bytes) -> list[tuple[str, str]]:
    """The lists that name an address, each with the range in which it is. (Entries that touch are one range.)"""
    value = as_int(packed)
    found: list[tuple[str, str]] = []
    for name, each in stored.items():
        addresses = each.addresses
        at = bisect_right(addresses.firsts, value) - 1
        if at >= 0 and value <= addresses.lasts[at]:
            found.append((name, format_range(addresses.firsts[at], addresses.lasts[at])))
    return found


def prune(folder: Path, lists: Sequence[Blocklist]) -> list[str]:
    """Remove the files of lists that are no longer in the policy; their names."""
    kept = {each.name for each in lists}
    gone: set[str] = set()
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(folder.iterdir()):
            name = entry.name.removesuffix(_TEXT) if entry.name.endswith(_TEXT) else entry.name.removesuffix(_RECORD)
            is_ours = name != entry.name and re.fullmatch(NAME_SHAPE, name) and name not in kept
            # A temporary file is what a crash left: nobody is writing now.
            if is_ours or re.fullmatch(_TEMPORARY, entry.name):
                entry.unlink(missing_ok=True)
                gone |= {name} if is_ours else set()
    return sorted(gone)


class _Refreshing:
    """One round of downloads."""

    def __init__(
        self, store: Store, own: AddressSet, now: float, accept_shrunken: bool, progress: Callable[[str], None]
    ) -> None:
        self._store = store
        self._own = own
        self._now = now
        self._accept_shrunken = accept_shrunken
        self._progress = progress

    def fresh(self, each: Blocklist) -> Refreshed | None:
        """A list that is not due."""
        record = _record(self._store, each.name, [])
        if _is_due(self._store.path, each, record, self._now):
            return None
        return _told(each, "fresh", f"not due yet, {_entries(record.entries)}", record)

    def fetch(self, each: Blocklist) -> Refreshed:
        old = _stored(self._store, each.name, [])
        same = old is not None and old.record.source == each.source
        known = old.record if old is not None and same and not old.record.has_own else Record()
        self._progress(f"{each.name}: fetching {public_source(each.source)}")
        try:
            fetched = fetch(each.source, etag=known.etag, modified=known.modified)
            if fetched.data is None:
                return self._unmodified(each, old)
            parsed = _parsed(each, fetched.data)
            addresses, removed = usable(parsed.ranges, self._own)
            refusal = self._refusal(parsed, addresses, old.record if old is not None and same else None)
            if refusal is not None:
                raise OSError(f"{public_source(each.source)}: {refusal}")
            record = Record(
                source=each.source,
                entries=len(parsed.ranges),
                skipped=parsed.skipped,
                removed=removed.addresses,
                has_own=removed.own_ranges > 0,
                etag=fetched.etag,
                modified=fetched.modified,
            )
            return self._take(each, old, addresses, record, _left_out(parsed, removed))
        except OSError as error:
            return self._keep(each, old, error.strerror or str(error))

    def _unmodified(self, each: Blocklist, old: Stored | None) -> Refreshed:
        """The server has nothing new; what this machine's addresses are may be."""
        if old is None:
            raise OSError(f"{public_source(each.source)}: the server says that nothing has changed")
        addresses, removed = usable(old.addresses, self._own)
        record = old.record
        if removed.ranges:
            record = replace(record, removed=record.removed + removed.addresses, has_own=True)
        return self._take(each, old, addresses, record, "")

    def _refusal(self, parsed: Parsed, addresses: AddressSet, before: Record | None) -> str | None:
        """Why a list is not taken. `before` is what is known of it from the same source."""
        if not parsed.ranges and (parsed.skipped or not self._accept_shrunken):
            sample = f', but lines such as "{parsed.samples[0]}"' if parsed.samples else ""
            return f"has no entry{sample}"
        if self._accept_shrunken:
            return None
        if not addresses:
            return "has nothing but private addresses and this machine's own"
        entries = len(parsed.ranges)
        if before is None or before.entries < SHRINKS_FROM_ENTRIES or entries >= before.entries * SHRINKS_BELOW:
            return None
        return f"has shrunk from {_entries(before.entries)} to {entries:,}, which looks like a mistake"

    def _take(
        self, each: Blocklist, old: Stored | None, addresses: AddressSet, record: Record, left_out: str
    ) -> Refreshed:
        changed = old is None or old.addresses != addresses
        size_bytes = 0 if old is None else old.size_bytes
        if changed:
            text = "".join(f"{format_range(*pair)}\n" for pair in addresses.ranges).encode()
            size_bytes = len(text)
            self._store.write(each.name + _TEXT, text, _TEXT_MODE)
        record = replace(
            record,
            fetched_at=self._now,
            changed_at=self._now if changed or old is None else old.record.changed_at,
            addresses=count(addresses.ranges),
            size_bytes=size_bytes,
            last_error=None,
            last_error_at=None,
        )
        _write_record(self._store, each.name, record)
        text_line = _entries(record.entries) if changed else f"unchanged, {_entries(record.entries)}"
        return _told(each, "updated" if changed else "unchanged", text_line + left_out, record)

    def _keep(self, each: Blocklist, old: Stored | None, reason: str) -> Refreshed:
        record = Record(source=each.source) if old is None else old.record
        record = replace(record, last_error=reason, last_error_at=self._now)
        with suppress(OSError):  # it is told all the same
            _write_record(self._store, each.name, record)
        if old is None:
            return _told(each, "failed", f"{reason}; it blocks nothing yet", record)
        age = f" of {_age(self._now - record.fetched_at)} ago" if record.fetched_at else ""
        return _told(each, "kept", f"{reason}; the list{age} stays ({_entries(record.entries)})", record)


def _is_due(folder: Path, each: Blocklist, record: Record, now: float) -> bool:
    if each.is_file or record.source != each.source:
        return True
    try:
        size_bytes = (folder / (each.name + _TEXT)).stat().st_size
    except OSError:
        return True
    # A clock that was set back must not stop the lists for years.
    return size_bytes != record.size_bytes or not now - each.refresh_s < record.fetched_at <= now


def _stored(store: Store, name: str, warnings: list[str]) -> Stored | None:
    data = _read(store, name, _TEXT, warnings)
    if data is None:
        return None
    ranges: list[Range] = []
    try:
        for lines in pieces(data):
            ranges += parse_ranges([line for line in lines if line])
    except ValueError:
        warnings.append(f"{store.path / (name + _TEXT)} is damaged and counts as not there")
        return None
    addresses = AddressSet(ranges)
    record = _record(store, name, warnings)
    if not record.source:
        record = replace(record, entries=len(ranges), addresses=count(addresses.ranges))
    return Stored(name, addresses, record, len(data))


def _record(store: Store, name: str, warnings: list[str]) -> Record:
    """What is known of a list; an empty record where that is nothing."""
    data = _read(store, name, _RECORD, warnings)
    try:
        return Record() if data is None else msgspec.json.decode(data, type=Record)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        warnings.append(f"{store.path / (name + _RECORD)} is damaged and counts as not there")
        return Record()


def _read(store: Store, name: str, ending: str, warnings: list[str]) -> bytes | None:
    if not re.fullmatch(NAME_SHAPE, name):
        raise ValueError(f"{name!r} is no name of a list")
    try:
        return store.read(name + ending)
    except OSError as error:
        warnings.append(f"{store.path / (name + ending)} cannot be read ({error.strerror}) and counts as not there")
        return None


def _write_record(store: Store, name: str, record: Record) -> None:
    # For its owner alone: a source may hold a password.
    store.write(name + _RECORD, msgspec.json.format(msgspec.json.encode(record)) + b"\n")


def _parsed(each: Blocklist, data: bytes) -> Parsed:
    try:
        return parse(data)
    except WireError as error:
        raise OSError(f"{public_source(each.source)}: {error}") from None


def _told(each: Blocklist, outcome: Outcome, text: str, record: Record) -> Refreshed:
    return Refreshed(
        name=each.name,
        outcome=outcome,
        line=f"{each.name}: {text}",
        entries=record.entries,
        addresses=record.addresses,
        skipped=record.skipped,
        removed=record.removed,
    )


def _left_out(parsed: Parsed, removed: Removed) -> str:
    text = ""
    if removed.ranges:
        text += f"; {counted(removed.ranges, 'range')} taken out, private or this machine's own"
    if parsed.skipped:
        text += f"; {counted(parsed.skipped, 'line')} left out that are no entry"
        text += f', such as "{parsed.samples[0]}"' if parsed.samples else ""
    return text


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number:,} entries"


def _age(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return counted(max(int(seconds), 0), "second")
