"""How the objects of a policy file are laid out, and a rule written in the way of its neighbours.

The whitespace of a neighbour is copied, with one line break where there are several. Nothing here knows
where the rule goes; that is `edit.py`.
"""

from __future__ import annotations

import json
import re
from itertools import chain

from msgspec import Struct

from pfw.policy.locate import STRING, members

WIDTH = 120
"""Columns that a line may have where a rule is broken into lines only when it is long."""

_FIRST_KEY = rf"(?s)({{\s*){STRING}(\s*:\s*)"
_NEXT_KEY = rf"(?s)(\s*,\s*){STRING}\s*:"


class Layout(Struct, frozen=True):
    """What stands around the members of an object: behind `{`, between key and value, between members, before `}`.

    `line_break` stands between members where the line is full; None where lines may be of any length.
    """

    opening: str = "{"
    colon: str = ": "
    comma: str = ", "
    closing: str = "}"
    line_break: str | None = None

    @property
    def member_a_line(self) -> bool:
        return "\n" in self.comma

    @property
    def compact(self) -> bool:
        return self.colon == ":"


def newline_of(text: str) -> str:
    """How lines end in a text."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def indent_at(text: str, offset: int) -> str:
    """The whitespace at the begin of a line, up to the offset."""
    before = text[text.rfind("\n", 0, offset) + 1 : offset]
    return before[: len(before) - len(before.lstrip(" \t"))]


def starts_line(text: str, offset: int) -> bool:
    return not text[text.rfind("\n", 0, offset) + 1 : offset].strip(" \t")


def squeeze(gap: str) -> str:
    """The gap without blank lines."""
    return re.sub(r"\s+", _last_break, gap) if gap.count("\n") > 1 else gap


def _last_break(space: re.Match[str]) -> str:
    run = space[0]
    if run.count("\n") < 2:
        return run
    at = run.rfind("\n")
    return run[at - 1 :] if run[at - 1] == "\r" else run[at:]


def layout_of(text: str, begin: int) -> Layout:
    """The layout of the object that begins at the offset; the usual one for what is no object or is empty."""
    first = re.compile(_FIRST_KEY).match(text, begin)
    if first is None:
        return Layout()
    ends = [end for _, _, end in members(text, begin)]
    closing_at = text.index("}", ends[-1])
    next_key = re.compile(_NEXT_KEY)
    gaps = [squeeze(gap[1]) for end in ends[:-1] if (gap := next_key.match(text, end))]
    opening, colon = squeeze(first[1]), squeeze(first[2])
    flat = [gap for gap in gaps if "\n" not in gap]
    alone = "," + opening[1:] if "\n" in opening else "," if colon == ":" else ", "
    comma = next(chain(flat, gaps), alone)
    broken = [gap for gap in gaps if "\n" in gap] if flat else []
    return Layout(
        opening=opening,
        colon=colon,
        comma=comma,
        closing=squeeze(text[ends[-1] : closing_at]) + "}",
        line_break=broken[0] if broken else _line_break(text, begin, opening),
    )


def _line_break(text: str, begin: int, opening: str) -> str | None:
    """Below the first key, if the object has a line of its own."""
    if not starts_line(text, begin):
        return None
    indent = opening.rpartition("\n")[2] if "\n" in opening else indent_at(text, begin) + " " * len(opening)
    return f",{newline_of(text)}{indent}"


def write_object(value: dict[str, object], layout: Layout, column: int) -> str:
    """An object that begins in a column, counted from 0. Its values stand on one line each."""
    separators = (",", ":") if layout.compact else (", ", ": ")
    written = layout.opening
    column = _column_behind(column, written)
    for number, (key, item) in enumerate(value.items()):
        between = layout.comma if number else ""
        member = json.dumps(key) + layout.colon + json.dumps(item, ensure_ascii=False, separators=separators)
        is_full = column + len(between) + len(member) >= WIDTH
        if number and is_full and layout.line_break is not None and not layout.member_a_line:
            between = layout.line_break
        column = _column_behind(column, between + member)
        written += between + member
    return written + layout.closing


def _column_behind(column: int, piece: str) -> int:
    last_break = piece.rfind("\n")
    return column + len(piece) if last_break < 0 else len(piece) - last_break - 1
