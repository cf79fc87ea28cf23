"""Tables: whatever stands in them, they are as wide as they may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.cli.table import Column, clip, columns, table
from pfw.model.text import printable

HEADS = [Column("name", 4), Column("size", right=True), Column("note", 3)]
TEXTS = st.text(max_size=50).map(printable)


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("例え", 4), ("e\u0301", 1), ("\u200bx", 2), ("é", 1), ("☺\ufe0f", 2)]
)
def test_columns(text, width):
    assert columns(text) == width


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", None, "abcdef"),
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("abcdef", 1, "…"),
        ("abcdef", 0, ""),
        ("例え例え", 8, "例え例え"),
        ("例え例え", 6, "例え…"),
        ("例え例え", 5, "例え…"),
    ],
)
def test_clip(text, width, shown):
    assert clip(text, width) == shown


def test_a_tower_of_accents_is_cut_as_well():
    assert len(clip("e" + "\u0301" * 1000, 10)) <= 41


@given(TEXTS, st.integers(0, 60))
def test_what_is_cut_fits(text, width):
    assert columns(clip(text, width)) <= width


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5), st.integers(1, 80))
def test_no_line_is_wider_than_the_terminal(rows, width):
    lines = table(HEADS, rows, width)
    assert len(lines) == len(rows) + 1
    assert max(map(columns, lines)) <= width


def test_the_widest_is_cut_first():
    rows = [("a" * 30, "1,000", "b" * 12), ("x", "7", "y")]
    assert table(HEADS, rows, 35) == [
        "name             size  note",
        "aaaaaaaaaaaaa…  1,000  bbbbbbbbbbbb",
        "x                   7  y",
    ]


def test_without_a_terminal_nothing_is_cut_and_nothing_pushed_away():
    rows = [("a" * 3000, "1", "b"), ("例", "2", "c")]
    head, first, second = table(HEADS, rows, None)
    assert first == "a" * 3000 + "     1  b"
    assert second == "例" + " " * 60 + "   2  c"
    assert head == "name" + " " * 58 + "size  note"
