"""Whom nobody bans but a person: what belongs to this machine or leads to it, whom the policy names, and whom a person
has forgiven.

`forgiven.json` has what was lifted by hand (`pfw ban remove`), and until when no ban comes by itself.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from pfw.daemon import machine
from pfw.daemon.state import State
from pfw.model.address import AddressSet, Range, format_range, parse_range
from pfw.model.policy import PolicyError
from pfw.policy.load import load

FILE = "forgiven.json"
FORGIVEN_S = 30 * 86_400.0
FORGIVEN_MAX = 16_384
"""When there are more, what was forgiven first counts no longer."""
NO_HOSTS = AddressSet(
    [
        parse_range(text)
        for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::", "::1", "fe80::/10", "ff00::/8")
    ]
)
"""What no host has for its own: unspecified, loopback, link-local, multicast, broadcast."""

Kept = list[tuple[str, AddressSet]]
"""Addresses by whose they are, as `enforce/bans.py: protected` wants them."""


class Forgiven(Struct, frozen=True):
    what: str
    until: float


def spared(state: State, now: float, never: AddressSet) -> Kept:
    """Who is not banned by itself; `never` are those that the policy names."""
    return [
        ("no host's own", NO_HOSTS),
        *machine.protected(),
        ("never to be banned, says the policy", never),
        ("forgiven by a person", AddressSet(list(forgiven(state, now)))),
    ]


def never_of(state: State) -> AddressSet:
    """Those that the policy in force names."""
    current = state.current()
    content = state.rules_of(current) if current is not None else None
    if content is None:
        return AddressSet()
    try:
        return load(content).respond.never
    except PolicyError:
        return AddressSet()


def forgiven(state: State, now: float) -> dict[Range, float]:
    """What was lifted by hand, and until when that counts; the oldest first."""
    return {pair: each.until for pair, each in state.by_range(FILE, list[Forgiven]) if each.until > now}


def version(state: State) -> object:
    """Another one as soon as somebody has forgiven."""
    try:
        found = os.stat(state.files.path / FILE)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def forgive(state: State, ranges: Iterable[Range], now: float) -> None:
    """A person has lifted the bans of these. Raises OSError."""
    known = forgiven(state, now)
    for pair in ranges:
        known.pop(pair, None)
        known[pair] = now + FORGIVEN_S
    _write(state, known)


def forget(state: State, ranges: Iterable[Range], now: float) -> None:
    """A person bans these again: they, and what lies in them, are forgiven no longer. Raises OSError."""
    known = forgiven(state, now)
    banned = AddressSet(list(ranges))
    left = {pair: until for pair, until in known.items() if not _lies_in(pair, banned)}
    if len(left) < len(known):
        _write(state, left)


def _lies_in(pair: Range, addresses: AddressSet) -> bool:
    at = bisect_right(addresses.firsts, pair[0]) - 1
    return at >= 0 and addresses.lasts[at] >= pair[1]


def _write(state: State, known: dict[Range, float]) -> None:
    kept = list(known.items())[-FORGIVEN_MAX:]
    state.files.write(FILE, msgspec.json.encode([Forgiven(format_range(*pair), until) for pair, until in kept]))
