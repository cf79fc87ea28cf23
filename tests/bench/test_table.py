from __future__ import annotations

import pytest

from table import Section, ratios, render, replace_between_marks, spread


def test_renders_sections_as_markdown():
    section = Section("Speed", ("", "packets/s"))
    section.row("a|b", "1")
    section.note("one run")
    assert render([section], "A machine") == (
        "A machine\n\n**Speed**\n\n|  | packets/s |\n| --- | ---: |\n| a\\|b | 1 |\n\n- one run\n"
    )


def test_a_row_must_fit_the_columns():
    with pytest.raises(ValueError, match="3 cells for 2 columns"):
        Section("Speed", ("", "packets/s")).row("a", "1", "2")


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [
        ([], 0, "-"),
        ([1234.4], 0, "1,234"),
        ([3, 1, 2], 0, "2 (1-3)"),
        ([0.5, 1.0], 2, "0.75 (0.50-1.00)"),
    ],
)
def test_spread(values, digits, text):
    assert spread(values, digits) == text


def test_ratios_are_of_pairs_and_not_of_medians():
    assert ratios([10, 100, 1000], [1, 100, 500]) == "2.00 (1.00-10.00) times"
    assert ratios([100, 200, 300], [1, 2]) == "100 (100-100) times"
    assert ratios([1.0], []) == "-"


def test_replaces_what_stands_between_the_marks():
    text = "# pfw\n<!-- bench -->\nold\n<!-- /bench -->\nmore\n"
    once = replace_between_marks(text, "new\n")
    assert once == "# pfw\n<!-- bench -->\nnew\n<!-- /bench -->\nmore\n"
    assert replace_between_marks(once, "new\n") == once


@pytest.mark.parametrize("text", ["", "<!-- bench -->", "<!-- /bench --><!-- bench -->"])
def test_without_marks_there_is_nothing_to_replace(text):
    with pytest.raises(ValueError, match="followed by"):
        replace_between_marks(text, "new\n")
