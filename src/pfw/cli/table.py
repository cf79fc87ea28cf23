"""Tables that fit a terminal: what a text takes of its columns, cutting, padding. Pure.

What comes in has been through `printable`; what is left can be wide (two columns) or no wider than nothing (accents).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_GAP = 2
_PADDED_MAX = 60
"""Without a terminal nothing is cut; one long text must not push all the others away."""
_CHARACTERS_A_COLUMN = 4
"""Of those that take no column: more would be one character with a tower of accents."""

_EMOJI_SIGN = "\ufe0f"
"""It makes the character before it wide, on terminals that know it. Where terminals differ, the wider one counts: what
is cut too early is seen, what is cut too late breaks the screen."""


class Column(NamedTuple):
    """`least` is to how little it may be cut where the terminal is narrow, 0: not at all."""

    title: str
    least: int = 0
    right: bool = False


def columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    from unicodedata import category, east_asian_width

    if category(character) in ("Mn", "Me") and character != _EMOJI_SIGN:
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def clip(text: str, width: int | None) -> str:
    """The text, or its beginning with a sign that it was cut."""
    if width is None or (len(text) <= width and text.isascii()):
        return text
    if columns(text) <= width and len(text) <= width * _CHARACTERS_A_COLUMN:
        return text
    room = width - 1
    kept = []
    for character in text[: width * _CHARACTERS_A_COLUMN]:
        room -= _columns_of(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def pad(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def table(heads: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """A line of titles, and one for each row. Where it does not fit, the columns that may be cut are, the widest first;
    where that is not enough, the last ones are off the edge: put first what matters most."""
    widths = [max(columns(each) for each in cells) for cells in zip([head.title for head in heads], *rows, strict=True)]
    limit = _PADDED_MAX if width is None else width
    widths = _narrowed(heads, [min(each, limit) for each in widths], width)
    return [_line(heads, cells, widths, width) for cells in ([head.title for head in heads], *rows)]


def _narrowed(heads: Sequence[Column], widths: list[int], width: int | None) -> list[int]:
    if width is None:
        return widths
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        able = [at for at, head in enumerate(heads) if head.least and widths[at] > head.least]
        if not able:
            break
        widths[max(able, key=lambda at: widths[at])] -= 1
    return widths


def _line(heads: Sequence[Column], cells: Sequence[str], widths: Sequence[int], width: int | None) -> str:
    shown = []
    for head, cell, size in zip(heads, cells, widths, strict=True):
        text = clip(cell, size) if width is not None else cell
        shown.append(" " * (size - columns(text)) + text if head.right else pad(text, size))
    return clip((" " * _GAP).join(shown).rstrip(), width)
