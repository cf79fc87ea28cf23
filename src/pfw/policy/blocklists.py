"""The block lists of a policy file: what each is called, where it comes from and how often it is asked for.

The field is the same in both forms of the file. No list is opened here: that is `daemon/listing.py`. A new field
is added to `FIELDS`, to `Blocklist` and to `schema.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pfw.model.flow import Direction
from pfw.model.policy import Blocklist
from pfw.policy import values
from pfw.policy.locate import Path
from pfw.policy.report import MisfitError, Report, alternatives, describe, shown, wrong_type

MAX_LISTS = 64

MAX_NAME = 48
NAME_SHAPE = rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}"
"""A name is that of a file too, which must not leave its folder."""

UNITS_S: dict[str, int] = {"m": 60, "h": 3600, "d": 86400}
REFRESH_SHAPE = f"([0-9]{{1,6}})([{''.join(UNITS_S)}])"
DEFAULT_REFRESH = "24h"
SHORTEST_REFRESH, LONGEST_REFRESH = "10m", "90d"
"""Publishers of lists turn away whoever asks more often; a list that is older blocks the wrong people."""

DIRECTIONS: dict[str, frozenset[Direction]] = {word: values.DIRECTIONS[word] for word in ("in", "out", "both")}

URL_SHAPE = (
    r"(?i:https?)://(?:[!-.0->A-~]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?)"
    r"(?::([0-9]{1,5}))?(?:[/?#][!-~]*)?"
)
"""Its group is the port, which may be one that there is not."""
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://?.*"
_REFRESH_LIKE = r"([0-9]+) ?([A-Za-z]+)"


def read_blocklists(report: Report, path: Path, value: object) -> tuple[Blocklist, ...]:
    """The lists in the order of the file; those with faults are left out."""
    if not isinstance(value, list):
        report.fault(path, f"must be a list of block lists, not {describe(value)}")
        return ()
    if len(value) > MAX_LISTS:
        report.fault(path, f"has {len(value):,} lists, and there can be {MAX_LISTS}; put addresses together into one")
        return ()
    found: list[Blocklist] = []
    places: dict[str, int] = {}
    for index, item in enumerate(value):
        each = _read_blocklist(report, (*path, index), item)
        if each is not None:
            found.append(each)
        name = item.get("name") if isinstance(item, dict) else None
        if isinstance(name, str) and places.setdefault(name, index) != index:
            first = (*path, places[name], "name")
            report.fault((*path, index, "name"), f"{shown(name)} is the name of an earlier list", see=first)
    return tuple(found)


def _read_blocklist(report: Report, path: Path, value: object) -> Blocklist | None:
    faults = report.count
    if not isinstance(value, dict):
        report.fault(path, f"must be an object, not {describe(value)}")
        return None
    for key in value:
        if key not in FIELDS:
            report.unknown_key((*path, key), "a field of a block list", FIELDS)
    read: dict[str, Any] = {
        key: report.read((*path, key), value[key], reader) for key, reader in FIELDS.items() if key in value
    }
    for key in REQUIRED:
        if key not in value:
            report.fault(path, f'has no "{key}"')
    if report.count > faults:
        return None
    return Blocklist(
        name=read["name"],
        source=read["source"],
        refresh_s=read.get("refresh", read_refresh(DEFAULT_REFRESH)),
        directions=read.get("direction", DIRECTIONS["both"]),
        enabled=read.get("enabled", True),
        note=read.get("note", ""),
    )


def read_name(value: object) -> str:
    name = values.read_filled_text(value)
    if len(name) > MAX_NAME:
        raise MisfitError(f"{shown(name)} is longer than {MAX_NAME} characters")
    if not re.fullmatch(NAME_SHAPE, name):
        what = "begins with a letter or digit (a-z, 0-9) and has letters, digits, _ - and . only"
        raise MisfitError(f"{shown(name)} is no name for a block list; it {what}")
    return name


def read_source(value: object) -> str:
    """A path or a URL as it is written. What is no URL is not shown: it may hold a password."""
    source = values.read_filled_text(value)
    if source.startswith("/"):
        return _read_path(source)
    match = re.fullmatch(URL_SHAPE, source)
    if match is not None and (match[1] is None or 0 < int(match[1]) < 65536):
        return source
    scheme = re.fullmatch(_SCHEME, source)
    if scheme is None:
        raise MisfitError("is neither the absolute path of a file nor a URL; a URL begins with https:// or http://")
    word = scheme[1].lower()
    if word == "file":
        raise MisfitError("is a URL of a file; write its path alone, as in /etc/pfw/addresses.txt")
    if word in ("http", "https"):
        raise MisfitError(f"is not a URL; behind {word}:// come the name of a host and what is asked of it, in ASCII")
    raise MisfitError(f"begins with {shown(word + '://')}; lists are read from https://, http:// or a file")


def _read_path(path: str) -> str:
    if path.endswith("/"):
        raise MisfitError(f"{shown(path)} is a folder; a block list is one file")
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise MisfitError(f"{shown(path)} is not a plain path; take out //, . and ..")
    return path


def read_refresh(value: object) -> int:
    """Seconds."""
    if not isinstance(value, str):
        raise wrong_type('a text such as "12h"', value)
    match = re.fullmatch(REFRESH_SHAPE, value)
    if match is None:
        raise _no_refresh(value)
    seconds = int(match[1]) * UNITS_S[match[2]]
    if not _plain_seconds(SHORTEST_REFRESH) <= seconds <= _plain_seconds(LONGEST_REFRESH):
        raise MisfitError(f"{shown(value)} is not from {SHORTEST_REFRESH} to {LONGEST_REFRESH}")
    return seconds


def _plain_seconds(text: str) -> int:
    return int(text[:-1]) * UNITS_S[text[-1]]


def _no_refresh(value: str) -> MisfitError:
    near = re.fullmatch(_REFRESH_LIKE, value)
    unit = near[2][0].lower() if near is not None else ""
    if near is not None and len(near[1]) <= 6 and unit in UNITS_S:
        return MisfitError(f'{shown(value)} is not a time; write "{near[1]}{unit}"')
    return MisfitError(f'{shown(value)} is not a time; write a number and m, h or d, as in "12h"')


def read_direction(value: object) -> frozenset[Direction]:
    if not isinstance(value, str):
        raise wrong_type(alternatives(DIRECTIONS), value)
    if value in DIRECTIONS:
        return DIRECTIONS[value]
    what = f"{shown(value)} is not a direction of a block list ({alternatives(DIRECTIONS)})"
    try:
        values.read_direction(value)
    except MisfitError as misfit:
        # A word of other firewalls is explained there; what nobody knows has fewer words to be than in a rule.
        raise MisfitError(what, value, DIRECTIONS) if misfit.word else misfit from None
    raise MisfitError(f"{what}; what is forwarded is covered by each")


FIELDS: dict[str, Callable[[object], object]] = {
    "name": read_name,
    "source": read_source,
    "refresh": read_refresh,
    "direction": read_direction,
    "enabled": values.read_flag,
    "note": values.read_text,
}

REQUIRED = ("name", "source")
