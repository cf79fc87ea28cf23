"""Bans: addresses that are dropped for a time, whatever the policy says.

`bans.json` has the truth and the kernel the enforcement: a ban survives a change of the policy because the sets are
not touched by it, and a boot or a crash because it is written down, with the moment at which it ends.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from pfw.daemon import machine
from pfw.daemon.backend import Backend
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.enforce.bans import protected
from pfw.enforce.nft_table import BANS_MAX, Ban
from pfw.model.address import IPV4_LAST, IPV6_FIRST, AddressSet, Range, format_range, parse_range, parse_ranges

FILE = "bans.json"
DEFAULT_S = 86_400.0


class Record(Struct, frozen=True):
    """A ban as it is written down; times in s since 1970, `until` None for good."""

    what: str
    since: float
    until: float | None
    why: str = ""


class Result(Struct, frozen=True):
    """What became of what was asked for: how many are banned or lifted, and why others are not."""

    done: int
    refused: tuple[str, ...] = ()


def records(state: State, now: float) -> dict[Range, Record]:
    """The bans that have not run out."""
    content = state.files.read(FILE)
    if content is None:
        return {}
    try:
        found = msgspec.json.decode(content, type=list[Record])
        ranges = parse_ranges([each.what for each in found])
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        state.trouble.append(f"{state.files.path / FILE}: {error}; taken as not there")
        return {}
    alive = zip(ranges, found, strict=True)
    return {pair: each for pair, each in alive if each.until is None or each.until > now}


def active(state: State, now: float) -> list[Ban]:
    """The bans that have not run out, as the kernel is told of them."""
    return [_left(pair, record, now) for pair, record in records(state, now).items()]


def _left(pair: Range, record: Record, now: float) -> Ban:
    return Ban(pair, None if record.until is None else max(1, int(record.until - now)))


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
        _write(state, everything)
        bans = [_left(pair, record, now) for pair, record in fresh.items()]
        backend.ban(bans, again, [_left(pair, record, now) for pair, record in everything.items()])
        _keep_for_boot(state, backend, now)
    return Result(len(fresh), tuple(refused))


def remove(state: State, backend: Backend | None, ranges: Sequence[Range]) -> Result:
    """Lift bans; a ban is lifted by its own name only. Raises RefusedError and OSError."""
    now = clock.now()
    with state.files.locked():
        known = records(state, now)
        gone = [pair for pair in dict.fromkeys(ranges) if pair in known]
        refused = [_not_banned(pair, known) for pair in dict.fromkeys(ranges) if pair not in known]
        left = {pair: record for pair, record in known.items() if pair not in set(gone)}
        _write(state, left)
        if backend is not None and gone:
            backend.ban([], gone, [_left(pair, record, now) for pair, record in left.items()])
            _keep_for_boot(state, backend, now)
    return Result(len(gone), tuple(refused))


def reload(state: State, backend: Backend) -> int:
    """Make the kernel's bans what is written down: after a boot, their times as well."""
    now = clock.now()
    with state.files.locked():
        bans = active(state, now)
        stale = sorted(backend.bans())
        backend.ban(bans, stale, bans)
        _keep_for_boot(state, backend, now)
    return len(bans)


def _not_banned(pair: Range, known: Iterable[Range]) -> str:
    inside = next((other for other in known if other[0] <= pair[0] and pair[1] <= other[1]), None)
    more = f"; the ban on {format_range(*inside)} holds it" if inside is not None else ""
    return f"{format_range(*pair)} is not banned{more}"


def _sorted_out(ranges: Sequence[Range]) -> tuple[list[Range], list[str]]:
    """Those that may be banned, and why the others may not."""
    kept = machine.protected()
    everything = AddressSet().union(*(addresses for _, addresses in kept))
    accepted, refused = [], []
    for pair in ranges:
        at = bisect_right(everything.firsts, pair[1]) - 1
        reason = protected(pair, kept) if at >= 0 and everything.lasts[at] >= pair[0] else None
        if reason is None:
            accepted.append(pair)
        else:
            what = "" if pair[0] == pair[1] else f"{format_range(*pair)}: "
            refused.append(f"{what}{reason} and is not banned (--force bans it)")
    return accepted, refused


def _write(state: State, found: dict[Range, Record]) -> None:
    state.files.write(FILE, msgspec.json.encode(list(found.values())))


def _keep_for_boot(state: State, backend: Backend, now: float) -> None:
    """The bans for the next boot, where one will bring the policy back."""
    if any(name.startswith("boot") for name in state.files.names(".")):
        for name, text in backend.boot_bans(active(state, now)).items():
            state.files.write(name, text.encode())
