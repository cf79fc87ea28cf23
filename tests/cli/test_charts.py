"""Bars: as long as what they stand for, whatever a terminal can show."""

from __future__ import annotations

import re

import pytest

from pfw.cli.charts import Bar, Style, chart, legend

BARS = [
    Bar("14:00", 100, 20, "120"),
    Bar("15:00", 0, 0, "0"),
    Bar("16:00", 1000, 1, "1,001"),
    Bar("17:00", 1, 1000, "1,001"),
    Bar("18:00", 500, 500, "1,000"),
    Bar("19:00", 1, 0, "1"),
    Bar("20:00", 0, 1, "1"),
]


def plain(line: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", line)


def test_golden():
    shown = {style: "\n".join(chart(BARS, 40, style)) for style in Style}
    assert shown[Style.ASCII] == (
        "14:00  ###x                          120\n"
        "15:00                                  0\n"
        "16:00  #########################x  1,001\n"
        "17:00  #xxxxxxxxxxxxxxxxxxxxxxxxx  1,001\n"
        "18:00  #############xxxxxxxxxxxxx  1,000\n"
        "19:00  #                               1\n"
        "20:00  x                               1"
    )
    assert shown[Style.SHADES] == (
        "14:00  ██▋▒                          120\n"
        "15:00                                  0\n"
        "16:00  █████████████████████████▒  1,001\n"
        "17:00  ▏▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒  1,001\n"
        "18:00  █████████████▒▒▒▒▒▒▒▒▒▒▒▒▒  1,000\n"
        "19:00  ▏                               1\n"
        "20:00  ▒                               1"
    )
    assert shown[Style.COLOUR].splitlines()[0] == (
        "14:00  \x1b[32m██\x1b[32;41m▋\x1b[0m\x1b[31m▏\x1b[0m                          120"
    )


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("width", [1, 30, 80, 200])
def test_it_is_as_wide_as_it_may_be(style, width):
    lines = [plain(line) for line in chart(BARS, width, style)]
    assert {len(line) for line in lines} == {max(width, 5 + 2 + 8 + 2 + 5)}


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize(("passed", "stopped"), [(1, 10**9), (10**9, 1), (1, 0), (0, 1), (1, 1)])
def test_what_is_not_nothing_is_seen(style, passed, stopped):
    whole = Bar("most", 10**9, 10**9, "")
    line = chart([whole, Bar("this", passed, stopped, "")], 60, style)[1]
    green, red = {
        Style.COLOUR: ("\x1b\\[32", "\x1b\\[(32;41|31)"),
        Style.SHADES: ("[▏▎▍▌▋▊▉█]", "▒"),
        Style.ASCII: ("#", "x"),
    }[style]
    assert bool(re.search(green, line)) == bool(passed)
    assert bool(re.search(red, line)) == bool(stopped)


@pytest.mark.parametrize("style", Style)
def test_a_longer_one_is_no_shorter(style):
    lines = chart([Bar("", count, 0, "") for count in range(200)], 20, style)
    lengths = [len(plain(line).rstrip()) for line in lines]
    assert lengths == sorted(lengths)


def test_without_bars_there_is_nothing():
    assert chart([], 80, Style.ASCII) == []


def test_a_title_does_not_push_the_bars_away():
    (line,) = chart([Bar("例" * 200, 1, 0, "1")], 80, Style.ASCII)
    assert line.count("例") == 19
    assert line.count("#") == 80 - 40 - 1 - 4


def test_legend_is_in_the_style():
    assert legend(Style.ASCII) == "# allowed  x blocked"
    assert "\x1b" not in legend(Style.SHADES)
    assert plain(legend(Style.COLOUR)) == "█ allowed  █ blocked"
