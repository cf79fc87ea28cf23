"""Ports as a policy writes them: numbers, ranges, and why something is none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pfw.model.rule import PortRange
from pfw.policy.report import MisfitError, shown, wrong_type

LAST_PORT = 65535

_WHAT = "a port, a range first-last, a service name or an alias"
_NUMBER = r"[0-9]+"
_RANGE = r"([0-9]+) ?- ?([0-9]+)"


def is_port_text(text: str) -> bool:
    """Whether a text is meant as a port number or a range of them."""
    return bool(re.fullmatch(_NUMBER, text) or re.fullmatch(_RANGE, text))


def read_number(item: object) -> PortRange | None:
    """The range of a port or a range of ports, None for a text that is neither. Raises MisfitError."""
    if isinstance(item, str):
        if re.fullmatch(_NUMBER, item):
            number = _port(item)
            return number, number
        ends = re.fullmatch(_RANGE, item)
        if ends is None:
            return None
        first, last = _port(ends[1]), _port(ends[2])
        if first > last:
            raise MisfitError(f"{shown(item)} ends before it begins")
        return first, last
    if isinstance(item, bool) or not isinstance(item, int | float):
        raise wrong_type(_WHAT, item)
    if not isinstance(item, int) or not 0 <= item <= LAST_PORT:
        raise MisfitError(f"{shown(item)} is not a port (0-{LAST_PORT})")
    return item, item


def _port(digits: str) -> int:
    if len(digits) > 5 or int(digits) > LAST_PORT:
        raise MisfitError(f"{shown(digits)[1:-1]} is not a port (0-{LAST_PORT})")
    return int(digits)


def merge(ranges: list[PortRange]) -> tuple[PortRange, ...]:
    """Sorted ranges that neither touch nor overlap."""
    merged: list[PortRange] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def explain(text: str, known: Iterable[str]) -> MisfitError:
    """Why a text is no port."""
    if not text:
        return MisfitError(f"must be {_WHAT}, not an empty text")
    if text != text.strip():
        return MisfitError(f"{shown(text)} begins or ends with a space")
    if text.startswith("!"):
        return MisfitError('"!" excludes addresses only; write the ranges of ports that are left')
    if re.fullmatch(r"\d+\s*:\s*\d+", text):
        return MisfitError(f'{shown(text)} is not a port; a range is written with a dash, as in "1000-2000"')
    if re.fullmatch(r"[\w-]+(\s*[,;]\s*[\w-]+)+", text):
        return MisfitError(f"{shown(text)} is not a port; several are written as a list, as in [80, 443]")
    if re.fullmatch(r"\w+/\w+", text):
        return MisfitError(f'{shown(text)} is not a port; its protocol belongs into the field "protocol"')
    if text.lower() in ("any", "all", "*"):
        return MisfitError(f"{shown(text)} is not needed; leave the field out to match every port")
    return MisfitError(f"{shown(text)} is not {_WHAT}", text, known)
