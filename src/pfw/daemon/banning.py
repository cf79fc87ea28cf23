"""Bans: addresses that are dropped for a time, whatever the policy says.

`bans.json` has the truth and the kernel the enforcement: a ban survives a change of the policy because the sets are
not touched by it, and a boot or a crash because it is written down, with the moment at which it ends. Bans that
alerts lead to are in the kernel first (`ban_batch.py`), and are not loaded where they would hit somebody who is spared
(`sparing.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from pfw.daemon import machine, sparing
from pfw.daemon.backend import Backend
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.enforce.bans import protected
from pfw.enforce.nft_table import BANS_MAX, Ban
from pfw.model.address import IPV4_LAST, IPV6_FIRST, AddressSet, Range, format_range, parse_range, parse_ranges

FILE = "bans.json"
DEFAULT_S = 86_400.0
BY_HAND = "hand"


class Record(Struct, frozen=True, omit_defaults=True):
    """A ban as it is written down; times in s since 1970, `until` None for good. `by` is the kind of alert that led to
    it, or BY_HAND, `evidence` what was seen, and `count` how many bans of this source there were, with this one."""

    what: str
    since: float
    until: float | None
    why: str = ""
    by: str = BY_HAND
    evidence: str = ""
    count: int = 1


class Result(Struct, frozen=True):
    """What became of what was asked for: how many are banned or lifted, why others are not, and what else holds some
    that were lifted."""

    done: int
    refused: tuple[str, ...] = ()
    still: tuple[str, ...] = ()


def records(state: State, now: float) -> dict[Range, Record]:
    """The bans that have not run out."""
    found = state.by_range(FILE, list[Record])
    return {pair: each for pair, each in found if each.until is None or each.until > now}


def active(state: State, now: float, never: AddressSet | None = None) -> list[Ban]:
    """The bans that have not run out, as the kernel is told of them: without those of alerts that hit who is spared.
    `never` are those that the policy names, if it is not the one in force."""
    found = records(state, now)
    for pair in _hitting(state, found, now, never):
        del found[pair]
    return [left(pair, record, now) for pair, record in found.items()]


def _hitting(
    state: State, found: dict[Range, Record], now: float, never: AddressSet | None = None
) -> dict[Range, str]:  # fmt: skip
    """The bans of alerts that hit somebody who is spared, and whom."""
    automatic = [pair for pair, record in found.items() if record.by != BY_HAND]
    if not automatic:
        return {}
    return dict(hits(automatic, sparing.spared(state, now, sparing.never_of(state) if never is None else never)))


def left(pair: Range, record: Record, now: float) -> Ban:
    """A ban with the time that it has left: never more than it had, since the clock may have been set back."""
    if record.until is None:
        return Ban(pair, None)
    return Ban(pair, max(1, int(min(record.until - now, record.until - record.since))))


_MAPPED: Range = (IPV6_FIRST | 0xFFFF << 32, IPV6_FIRST | 0xFFFF << 32 | IPV4_LAST)
"""IPv4 addresses as some programs write them (`::ffff:192.0.2.1`); no packet carries them."""


def plain(pair: Range) -> Range:
    """A range of mapped addresses as the IPv4 addresses that they are."""
    if _MAPPED[0] <= pair[0] and pair[1] <= _MAPPED[1]:
        return pair[0] - _MAPPED[0], pair[1] - _MAPPED[0]
    return pair


def parse(texts: Sequence[str]) -> tuple[list[Range], list[str]]:
    """What texts name, and a line for each that names nothing."""
    try:
        return [plain(pair) for pair in parse_ranges(list(texts))], []
    except ValueError:
        pass
    ranges, faults = [], []
    for text in texts:
        try:
            ranges.append(plain(parse_range(text)))
        except ValueError as error:
            faults.append(f"{text!r} {error}")
    return ranges, faults


def add(
    state: State, backend: Backend, ranges: Sequence[Range], for_s: float | None, *, why: str = "", force: bool = False
) -> Result:
    """Ban for so many seconds, None for good. What must not be banned is left out, unless forced.

    Raises RefusedError and OSError.
    """
    now = clock.now()
    with state.files.locked():
        known = records(state, now)
        sparing.forget(state, ranges, now)
        accepted, refused = (list(ranges), []) if force else _sorted_out(ranges)
        room = BANS_MAX - len(known)
        if len(accepted) > room:
            refused.append(f"{len(accepted) - room} more than {BANS_MAX:,} bans there can be")
            accepted = accepted[:room]
        until = None if for_s is None else now + for_s
        fresh = {pair: Record(format_range(*pair), now, until, why) for pair in accepted}
        # One that was there already gets the new time: the kernel is told to drop the old one first.
        again = [pair for pair in fresh if pair in known]
        everything = {**known, **fresh}
        write(state, everything)
        bans = [left(pair, record, now) for pair, record in fresh.items()]
        all_bans = [left(pair, record, now) for pair, record in everything.items()]
        backend.ban(bans, again, all_bans)
        keep_for_boot(state, backend, all_bans)
    return Result(len(fresh), tuple(refused))


def remove(state: State, backend: Backend | None, ranges: Sequence[Range]) -> Result:
    """Lift bans by hand; a ban is lifted by its own name only, and forgiven. What another ban holds still is said.
    Raises RefusedError and OSError."""
    now = clock.now()
    with state.files.locked():
        known = records(state, now)
        unknown = [pair for pair in dict.fromkeys(ranges) if pair not in known]
        # What the kernel has all the same: the clock of its timers stands while the machine sleeps.
        stray = set(unknown) & backend.bans() if backend is not None and unknown else set[Range]()
        gone = [pair for pair in dict.fromkeys(ranges) if pair in known or pair in stray]
        refused = [_not_banned(pair, known) for pair in unknown if pair not in stray]
        staying = [pair for pair in known if pair not in set(gone)]
        still = tuple(filter(None, (_held_still(pair, staying) for pair in gone)))
        sparing.forgive(state, gone, now)
        _lift(state, backend, known, gone, now)
    return Result(len(gone), tuple(refused), still)


def _lift(state: State, backend: Backend | None, known: dict[Range, Record], gone: Sequence[Range], now: float) -> None:
    lifted = set(gone)
    staying = {pair: record for pair, record in known.items() if pair not in lifted}
    write(state, staying)
    if backend is not None and gone:
        bans = [left(pair, record, now) for pair, record in staying.items()]
        backend.ban([], gone, bans)
        keep_for_boot(state, backend, bans)


def spare(state: State, backend: Backend, never: AddressSet | None = None) -> dict[Range, str]:
    """Lift the bans of alerts that hit somebody who is spared by now, and say whom. Raises RefusedError and OSError."""
    now = clock.now()
    with state.files.locked():
        known = records(state, now)
        gone = _hitting(state, known, now, never)
        if gone:
            _lift(state, backend, known, list(gone), now)
    return gone


def reload(state: State, backend: Backend) -> int:
    """Make the kernel's bans what is written down: after a boot, their times as well."""
    now = clock.now()
    with state.files.locked():
        known = records(state, now)
        gone = _hitting(state, known, now)
        if gone:
            known = {pair: record for pair, record in known.items() if pair not in gone}
            write(state, known)
        bans = [left(pair, record, now) for pair, record in known.items()]
        stale = sorted(backend.bans())
        backend.ban(bans, stale, bans)
        keep_for_boot(state, backend, bans)
    return len(bans)


def _not_banned(pair: Range, known: Iterable[Range]) -> str:
    outer = _outer(pair, known)
    return f"{format_range(*pair)} is not banned{f'; the ban on {outer} holds it' if outer else ''}"


def _held_still(pair: Range, staying: Iterable[Range]) -> str | None:
    outer = _outer(pair, staying)
    return f"{format_range(*pair)} is dropped still: the ban on {outer} holds it" if outer else None


def _outer(pair: Range, known: Iterable[Range]) -> str | None:
    inside = next((other for other in known if other[0] <= pair[0] and pair[1] <= other[1]), None)
    return None if inside is None else format_range(*inside)


def _sorted_out(ranges: Sequence[Range]) -> tuple[list[Range], list[str]]:
    """Those that may be banned, and why the others may not."""
    reasons = dict(hits(ranges, machine.protected()))
    refused = []
    for pair, reason in reasons.items():
        what = "" if pair[0] == pair[1] else f"{format_range(*pair)}: "
        refused.append(f"{what}{reason} and is not banned (--force bans it)")
    return [pair for pair in ranges if pair not in reasons], refused


def hits(ranges: Iterable[Range], kept: sparing.Kept) -> Iterator[tuple[Range, str]]:
    """Those in which there is somebody who is kept from bans, and who."""
    everything = AddressSet().union(*(addresses for _, addresses in kept))
    for pair in ranges:
        at = bisect_right(everything.firsts, pair[1]) - 1
        reason = protected(pair, kept) if at >= 0 and everything.lasts[at] >= pair[0] else None
        if reason is not None:
            yield pair, reason


def write(state: State, found: dict[Range, Record]) -> None:
    """Write down that these are all bans there are. Raises OSError."""
    state.files.write(FILE, msgspec.json.encode(list(found.values())))


def keep_for_boot(state: State, backend: Backend, bans: Sequence[Ban]) -> None:
    """The bans for the next boot, where one will bring the policy back. Raises OSError."""
    if any(name.startswith("boot") for name in state.files.names(".")):
        for name, text in backend.boot_bans(bans).items():
            state.files.write(name, text.encode())
