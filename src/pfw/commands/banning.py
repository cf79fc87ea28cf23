"""`pfw ban`, and the two functions that other programs may call: `block_ip`, `unblock_ip`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Collection, Iterator
from math import inf

from msgspec import Struct

from pfw.cli import bans
from pfw.cli import enforcement as screen
from pfw.cli.screen import encode
from pfw.commands.answer import BAD_INPUT, NO, OK, state, tell, told
from pfw.daemon import backends, banning, enforcing, offending, sparing
from pfw.daemon.backend import Backend
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.programs import RefusedError
from pfw.engine.respond import Offence, counting
from pfw.model.address import Range, format_range, parse_range
from pfw.model.text import counted

_LINES_MAX = 1_000_000
_LINE_BYTES_MAX = 4096
_TOLD_MAX = 20


@told()
def ban(options: Namespace) -> int:
    """`pfw ban`."""
    if options.what == "list":
        return _list(options)
    if options.what == "show":
        return _show(options)
    if options.what == "reload":
        number = _reload()
        print(encode({"bans": number}) if options.json else f"{counted(number, 'ban')} in force")
        return OK
    if not options.addresses:
        tell("name the addresses, or - to read them from standard input")
        return BAD_INPUT
    texts = list(_lines()) if options.addresses == ["-"] else options.addresses
    ranges, faults = banning.parse(texts)
    _tell_some(faults)
    result = _add(options, ranges) if options.what == "add" else _remove(ranges)
    _tell_some(result.refused)
    _tell_some(result.still)
    if options.json:
        print(encode({"banned" if options.what == "add" else "lifted": result.done,
                      "refused": list(result.refused), "held_still": list(result.still),
                      "faults": faults}))  # fmt: skip
    elif options.what == "add" or not result.done:
        print(f"{result.done:,} {'banned' if options.what == 'add' else 'no longer banned'}")
    else:
        until = screen.moment_text(clock.now() + sparing.FORGIVEN_S)
        print(f"{result.done:,} no longer banned, and not by any alert until {until}")
    if faults:
        return BAD_INPUT
    return NO if result.refused else OK


def _add(options: Namespace, ranges: list[Range]) -> banning.Result:
    remembered = state()
    seconds = banning.DEFAULT_S if options.for_ is None else options.for_ or None
    # One lock for both: whoever puts a policy in force meanwhile must not be undone by a place for bans.
    with remembered.files.locked():
        backend = enforcing.make_room_for_bans(remembered, tell)
        return banning.add(remembered, backend, ranges, seconds, why=options.why, force=options.force)


def _remove(ranges: list[Range]) -> banning.Result:
    remembered = state()
    return banning.remove(remembered, _filtering(remembered), ranges)


def _reload() -> int:
    remembered = state()
    with remembered.files.locked():
        if banning.records(remembered, clock.now()):
            return banning.reload(remembered, enforcing.make_room_for_bans(remembered, tell))
        backend = _filtering(remembered)
        return 0 if backend is None else banning.reload(remembered, backend)


def _filtering(remembered: State) -> Backend | None:
    """The backend in whose kernel something of ours is; None where nothing is."""
    known = backends.in_force(remembered)
    backend = known[0] if known is not None else backends.any_active()
    return backend if backend is not None and backend.generation() is not None else None


def _tell_if_off(remembered: State, bans_there: Collection[object]) -> None:
    if bans_there and _filtering(remembered) is None:
        tell("nothing of pfw is in the kernel, so nobody who is banned is dropped: pfw ban reload, or pfw up")


def _list(options: Namespace) -> int:
    now = clock.now()
    remembered = state()
    found = [
        screen.BanStatus(each.what, each.since, each.until, each.why)
        for each in banning.records(remembered, now).values()
    ]
    _tell_if_off(remembered, found)
    if options.json:
        print(encode([screen.ban_facts(each) for each in found]))
    else:
        print("\n".join(screen.ban_lines(found, now, len(found))[1:]) or "nothing is banned")
    return OK


def _show(options: Namespace) -> int:
    now, remembered = clock.now(), state()
    bans_there = banning.records(remembered, now)
    ranges, faults = banning.parse(options.addresses)
    _tell_some(faults)
    known = _Known(now, bans_there, sparing.forgiven(remembered, now), offending.times(remembered))
    found = [known.about(pair) for pair in (ranges if options.addresses else bans_there)]
    _tell_if_off(remembered, [each for each in found if each.ban is not None])
    if options.json:
        print(encode([bans.facts(each) for each in found]))
    elif found or not options.addresses:
        print("\n".join(bans.lines(found, now)) or "nothing is banned")
    if faults:
        return BAD_INPUT
    return OK if all(each.ban is not None for each in found) else NO


class _Known(Struct):
    """What is remembered of bans, `now`."""

    now: float
    banned: dict[Range, banning.Record]
    forgiven: dict[Range, float]
    offences: dict[Range, Offence]

    def about(self, pair: Range) -> bans.Banned:
        holding = (each for each in self.banned if _holds(each, pair))
        held = max(holding, key=lambda each: (_end(self.banned[each]), each == pair), default=None)
        forgiven = max((until for each, until in self.forgiven.items() if _holds(each, pair)), default=None)
        offence = self.offences.get(held or pair)
        name = format_range(*pair)
        if held is None:
            before, last = (counting(offence, self.now), offence.until) if offence is not None else (0, None)
            return bans.Banned(what=name, before=before, last=last, forgiven=forgiven)
        ban = self.banned[held]
        return bans.Banned(
            what=name,
            ban=ban.what,
            since=ban.since,
            until=ban.until,
            why=ban.why,
            by=None if ban.by == banning.BY_HAND else ban.by,
            evidence=ban.evidence,
            before=ban.count - 1,
            forgiven=forgiven,
        )


def _end(ban: banning.Record) -> float:
    return inf if ban.until is None else ban.until


def _holds(outer: Range, inner: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _lines() -> Iterator[str]:
    """What standard input names: the first word of each line; comments and empty lines are none."""
    for _ in range(_LINES_MAX):
        raw = sys.stdin.buffer.readline(_LINE_BYTES_MAX)
        if not raw:
            return
        rest = raw
        while len(rest) == _LINE_BYTES_MAX and not rest.endswith(b"\n"):
            rest = sys.stdin.buffer.readline(_LINE_BYTES_MAX)  # of a line that is too long for an address
        words = raw.decode(errors="replace").partition("#")[0].split()
        if words:
            yield words[0]
    tell(f"only the first {_LINES_MAX:,} lines were read")


def _tell_some(lines: list[str] | tuple[str, ...]) -> None:
    for line in lines[:_TOLD_MAX]:
        tell(line)
    if len(lines) > _TOLD_MAX:
        tell(f"… and {len(lines) - _TOLD_MAX:,} more")


def block_ip(address: str, for_s: float | None = None, *, why: str = "", force: bool = False) -> None:
    """Ban an address, a prefix or a range, for so many seconds, or for good.

    Raises ValueError for what is no address, PermissionError for what must not be banned (this machine's own
    addresses, its gateway, resolvers, whoever is logged in remotely; `force` bans them), RuntimeError where the
    system refuses.
    """
    found = _range(address)
    remembered = state()
    try:
        with remembered.files.locked():
            backend = enforcing.make_room_for_bans(remembered, lambda _: None)
            result = banning.add(remembered, backend, [found], for_s, why=why, force=force)
    except RefusedError as error:
        raise RuntimeError(error.what) from None
    if result.refused:
        raise PermissionError(result.refused[0])


def unblock_ip(address: str) -> bool:
    """Lift a ban; whether there was one. Raises ValueError, and RuntimeError where the system refuses."""
    found = _range(address)
    try:
        return _remove([found]).done > 0
    except RefusedError as error:
        raise RuntimeError(error.what) from None


def _range(address: str) -> Range:
    try:
        return banning.plain(parse_range(address))
    except ValueError as error:
        raise ValueError(f"{address!r} {error}") from None
