"""What is done about alerts: the object `respond` of a policy file, the same in both forms of it.

The first entry of `when` that fits an alert decides. A new field of an entry is added to `REACTION_FIELDS`, to
`Reaction` and to `schema.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pfw.model.address import AddressSet, format_range
from pfw.model.observation import Kind
from pfw.model.policy import Doing, Reaction, Respond, public_webhook
from pfw.policy import values
from pfw.policy.blocklists import URL_SHAPE
from pfw.policy.locate import Path
from pfw.policy.names import Names
from pfw.policy.report import MisfitError, Report, describe, shown, wrong_type

KEYS: tuple[str, ...] = ("when", "never", "command", "webhook")
ALL = "all"
MAX_REACTIONS = 100
MAX_WORDS = 64
"""Of a command, the program with them."""
MAX_SCORE = 100

UNITS_S: dict[str, int] = {"s": 1, "m": 60, "h": 3600, "d": 86400}
TIME_SHAPE = f"([0-9]{{1,6}})([{''.join(UNITS_S)}])"
DEFAULT_TIME = "10m"
SHORTEST_TIME, LONGEST_TIME = "10s", "7d"
"""What is shorter ends before anybody could see it; a first ban for longer than a week is a person's to give."""

_SAME_DOING = {
    "ban": ("block", "drop", "deny"),
    "limit": ("throttle", "rate-limit"),
    "alert": ("log", "tell", "notify"),
    "nothing": ("ignore", "none", "allow", "pass"),
}
_RANGES_SHOWN = 50
_TIMED = (Doing.BAN, Doing.LIMIT)
_OBJECT = ", ".join(f'"{key}"' for key in KEYS[:-1])


def read_respond(names: Names, path: Path, value: object) -> Respond:
    """What the object says; of what is not in it, or has a fault, the usual: alerts are told, and no more."""
    report = names.report
    if not isinstance(value, dict):
        report.fault(path, f'must be an object with {_OBJECT} and "{KEYS[-1]}", not {describe(value)}')
        return Respond()
    for key in value:
        if key not in KEYS:
            report.unknown_key((*path, key), "a field of this object", KEYS)
    never = value.get("never", [])
    return Respond(
        reactions=_read_reactions(report, (*path, "when"), value.get("when", [])),
        never=AddressSet() if never == [] else names.read_addresses((*path, "never"), never) or AddressSet(),
        command=_read_command(report, (*path, "command"), value["command"]) if "command" in value else (),
        webhook=report.read((*path, "webhook"), value["webhook"], read_webhook) or "" if "webhook" in value else "",
    )


def _read_reactions(report: Report, path: Path, value: object) -> tuple[Reaction, ...]:
    if not isinstance(value, list):
        report.fault(path, f"must be a list of objects, not {describe(value)}")
        return ()
    if len(value) > MAX_REACTIONS:
        report.fault(path, f"has {len(value):,} entries, and there can be {MAX_REACTIONS}")
        return ()
    found = (_read_reaction(report, (*path, index), item) for index, item in enumerate(value))
    return tuple(each for each in found if each is not None)


def _read_reaction(report: Report, path: Path, value: object) -> Reaction | None:
    faults = report.count
    if not isinstance(value, dict):
        report.fault(path, f'must be an object with "alert" and "do", not {describe(value)}')
        return None
    for key in value:
        if key not in REACTION_KEYS:
            report.unknown_key((*path, key), "a field of such an entry", REACTION_KEYS)
    for key in REQUIRED:
        if key not in value:
            report.fault(path, f'has no "{key}"')
    kinds = report.read_each((*path, "alert"), value["alert"], read_kind) if "alert" in value else None
    read: dict[str, Any] = {
        key: report.read((*path, key), value[key], reader) for key, reader in REACTION_FIELDS.items() if key in value
    }
    do = read.get("do")
    if "time" in value and do is not None and do not in _TIMED:
        report.fault_at_key((*path, "time"), f'is of no use where what is done is "{do}"; leave it out')
    if report.count > faults or kinds is None or do is None:
        return None
    named = frozenset[Kind]().union(*kinds)
    return Reaction(
        kinds=None if named == frozenset(Kind) else named,
        do=do,
        score=read.get("score", 0),
        for_s=read.get("time", read_time(DEFAULT_TIME)),
    )


def read_kind(value: object) -> frozenset[Kind]:
    word = values.read_word(value, [*Kind, ALL], "a kind of alert", {})
    return frozenset(Kind) if word == ALL else frozenset((Kind(word),))


def read_doing(value: object) -> Doing:
    return Doing(values.read_word(value, list(Doing), "what is done about an alert", _SAME_DOING))


def read_score(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(f"a whole number from 0 to {MAX_SCORE}", value)
    if not 0 <= value <= MAX_SCORE:
        raise MisfitError(f"{shown(value)} is not a score (0-{MAX_SCORE})")
    return value


def read_time(value: object) -> float:
    """Seconds."""
    if not isinstance(value, str):
        raise wrong_type('a text such as "10m"', value)
    match = re.fullmatch(TIME_SHAPE, value)
    if match is None:
        raise MisfitError(f'{shown(value)} is not a time; write a number and s, m, h or d, as in "10m"')
    seconds = int(match[1]) * UNITS_S[match[2]]
    if not _plain_seconds(SHORTEST_TIME) <= seconds <= _plain_seconds(LONGEST_TIME):
        raise MisfitError(f"{shown(value)} is not from {SHORTEST_TIME} to {LONGEST_TIME}")
    return float(seconds)


def _plain_seconds(text: str) -> int:
    return int(text[:-1]) * UNITS_S[text[-1]]


def _read_command(report: Report, path: Path, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        what = f"must be a list of the program and its arguments, not {describe(value)}; no shell reads it"
        report.fault(path, what)
        return ()
    if not 0 < len(value) <= MAX_WORDS:
        report.fault(path, f"has {len(value):,} words; the first is the program, and there can be {MAX_WORDS}")
        return ()
    program = report.read((*path, 0), value[0], read_program)
    words = [report.read((*path, index), item, values.read_text) for index, item in enumerate(value[1:], 1)]
    plain = tuple(word for word in words if word is not None)
    return () if program is None or len(plain) < len(words) else (program, *plain)


def read_program(value: object) -> str:
    """The path of what is started. Whose file it is, is looked at when it is."""
    path = values.read_filled_text(value)
    if not path.startswith("/"):
        raise MisfitError(f"{shown(path)} is not an absolute path; write it in full, as in /usr/local/bin/on-alert")
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise MisfitError(f"{shown(path)} is not the plain path of a file; take out //, . and .., and / at its end")
    return path


def read_webhook(value: object) -> str:
    """A URL as it is written. It is never shown: it may hold a key."""
    url = values.read_filled_text(value)
    match = re.fullmatch(URL_SHAPE, url)
    if match is None or (match[1] is not None and not 0 < int(match[1]) < 65536):
        what = "is not a URL; behind https:// or http:// come the name of a host and what is asked of it, in ASCII"
        raise MisfitError(what)
    return url


def respond_texts(respond: Respond) -> dict[str, str]:
    """What it says, field by field, for people; of a webhook only what may be shown."""
    return {
        "when": "; ".join(map(_reaction_text, respond.reactions)) or "none",
        "never": ", ".join(format_range(*pair) for pair in respond.never.ranges[:_RANGES_SHOWN]) or "none",
        "command": " ".join(respond.command) or "none",
        "webhook": public_webhook(respond.webhook) if respond.webhook else "none",
    }


def _reaction_text(reaction: Reaction) -> str:
    kinds = ALL if reaction.kinds is None else ", ".join(sorted(reaction.kinds))
    score = f" from score {reaction.score}" if reaction.score else ""
    return f"{reaction.do} {kinds}{score}{f' for {time_text(reaction.for_s)}' if reaction.do in _TIMED else ''}"


def time_text(seconds: float) -> str:
    """As a file writes it: `90s`, `10m`."""
    unit = max((unit for unit, size_s in UNITS_S.items() if seconds % size_s == 0), key=UNITS_S.__getitem__)
    return f"{seconds / UNITS_S[unit]:.0f}{unit}"


REACTION_FIELDS: dict[str, Callable[[object], object]] = {"score": read_score, "do": read_doing, "time": read_time}
REACTION_KEYS: tuple[str, ...] = ("alert", *REACTION_FIELDS)
REQUIRED: tuple[str, ...] = ("alert", "do")
