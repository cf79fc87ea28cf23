"""Bars on a terminal: what passed and what was stopped, side by side in one bar. Pure.

With colours both parts are blocks, in eighths of a column (U+2588 to U+258F); without, the second is shaded; where the
terminal cannot show blocks, the parts are `#` and `x`. What is not nothing is never drawn as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from pfw.cli.table import clip, columns, pad

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_FULL, _SHADE = "█", "▒"
_GREEN, _RED, _GREEN_ON_RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[32;41m", "\x1b[0m"
_GAP = 2
_BAR_LEAST, _TITLE_MOST = 8, 40


class Style(Enum):
    """What a terminal can show."""

    COLOUR = "blocks and colours"
    SHADES = "blocks"
    ASCII = "ascii"


class Bar(NamedTuple):
    title: str
    passed: int
    stopped: int
    value: str


def legend(style: Style) -> str:
    """What is what."""
    if style is Style.COLOUR:
        return f"{_GREEN}{_FULL}{_PLAIN} allowed  {_RED}{_FULL}{_PLAIN} blocked"
    return f"{_FULL} allowed  {_SHADE} blocked" if style is Style.SHADES else "# allowed  x blocked"


def chart(bars: Sequence[Bar], width: int, style: Style) -> list[str]:
    """A line a bar, the longest as long as there is room for; titles to the left, values to the right."""
    if not bars:
        return []
    title_width = min(_TITLE_MOST, max(columns(bar.title) for bar in bars))
    value_width = max(columns(bar.value) for bar in bars)
    room = max(_BAR_LEAST, width - title_width - value_width - 2 * _GAP)
    most = max(max(bar.passed + bar.stopped for bar in bars), 1)
    lines = []
    for bar in bars:
        drawn, used = _drawn(bar, most, room, style)
        gap = " " * (room - used + _GAP + value_width - columns(bar.value))
        lines.append(f"{pad(clip(bar.title, title_width), title_width)}{' ' * _GAP}{drawn}{gap}{bar.value}")
    return lines


def _drawn(bar: Bar, most: int, room: int, style: Style) -> tuple[str, int]:
    """A bar, and how many columns it takes."""
    passed = _part(bar.passed, most, room * 8)
    whole = _part(bar.passed + bar.stopped, most, room * 8)
    if style is Style.COLOUR:
        red = 1 if bar.stopped else 0
        whole = min(max(whole, passed + red), room * 8)
        return _coloured(min(passed, whole - red), whole)
    # A shade has no eighths: it gets whole columns, at least one, and leaves one.
    shades = min(room - min(bar.passed, 1), max(1, round((whole - passed) / 8))) if bar.stopped else 0
    if style is Style.ASCII:
        marks = min(room - shades, max(1, round(passed / 8))) if bar.passed else 0
        return "#" * marks + "x" * shades, marks + shades
    eighths = min(passed, (room - shades) * 8)
    text = _FULL * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return text + _SHADE * shades, len(text) + shades


def _part(count: int, most: int, eighths: int) -> int:
    return max(1, round(count / most * eighths)) if count else 0


def _coloured(passed: int, whole: int) -> tuple[str, int]:
    """Green to `passed`, red from there to `whole`, in eighths; in a column that both share green is drawn on red."""
    full, rest = divmod(passed, 8)
    text = f"{_GREEN}{_FULL * full}" if full else ""
    if rest:
        text += f"{_GREEN_ON_RED if whole > passed else _GREEN}{_EIGHTHS[rest]}"
    used = full + (rest > 0)
    if whole > used * 8:
        full, rest = divmod(whole - used * 8, 8)
        text += f"{_PLAIN}{_RED}{_FULL * full}{_EIGHTHS[rest] if rest else ''}"
        used += full + (rest > 0)
    return (text + _PLAIN if text else "", used)
