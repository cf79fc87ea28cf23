"""Times as people write and read them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from pfw.cli.times import brief_text, moment_text, read_moment


@pytest.fixture(autouse=True)
def berlin(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def utc(*numbers: int) -> float:
    return datetime(*numbers, tzinfo=UTC).timestamp()


NOW = utc(2026, 11, 24, 16, 30)
"""17:30 in Berlin."""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("30s", NOW - 30),
        ("5m", NOW - 300),
        ("2h", NOW - 7200),
        ("7d", NOW - 7 * 86400),
        ("1d12h", NOW - 36 * 3600),
        ("ever", 0.0),
        ("today", utc(2026, 11, 23, 23)),
        ("yesterday", utc(2026, 11, 22, 23)),
        ("yesterday 14:00", utc(2026, 11, 23, 13)),
        ("14:00", utc(2026, 11, 24, 13)),
        ("17:30", NOW),
        ("17:30:01", NOW - 86399),
        ("22:00", utc(2026, 11, 23, 21)),
        ("9:05", utc(2026, 11, 24, 8, 5)),
        ("2026-11-20", utc(2026, 11, 19, 23)),
        ("2026-11-20 14:00", utc(2026, 11, 20, 13)),
        ("2026-11-20T14:00:07", utc(2026, 11, 20, 13, 0, 7)),
        ("2026-07-01 14:00", utc(2026, 7, 1, 12)),
        ("2026-11-20T14:00:07.250000Z", utc(2026, 11, 20, 14, 0, 7) + 0.25),
        ("2026-11-20T14:00:07.5Z", utc(2026, 11, 20, 14, 0, 7) + 0.5),
        ("14:00Z", utc(2026, 11, 24, 14)),
    ],
)
def test_what_is_meant(text, meant):
    assert read_moment(text, NOW) == pytest.approx(meant, abs=1e-6)


def test_what_json_shows_is_read_back():
    from pfw.cli.screen import utc_time

    assert read_moment(utc_time(NOW + 0.123456), NOW) == pytest.approx(NOW + 0.123456, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "x", "2", "2y", "-2h", "tomorrow", "Z", "2026-11", "20-11-2026", "14", "14:0", "٣h", "2h\n",
     "2026-11-20 14:00+01:00", "today yesterday", "14:00.5", "\x1b[2J", "9" * 1000],
)  # fmt: skip
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="is not a time"):
        read_moment(text, NOW)


@pytest.mark.parametrize("text", ["24:00", "14:60", "2026-02-30", "2026-13-01", "0000-01-01", "14:00:60", "0001-01-01"])
def test_times_that_there_are_not(text):
    with pytest.raises(ValueError, match="is not a time that there is"):
        read_moment(text, NOW)


def test_the_day_on_which_the_clock_is_changed():
    now = utc(2026, 3, 29, 10)
    assert read_moment("today", now) == utc(2026, 3, 28, 23)
    assert read_moment("2026-03-29 03:30", now) == utc(2026, 3, 29, 1, 30)
    assert read_moment("yesterday 12:00", now) == utc(2026, 3, 28, 11)


def test_shown():
    assert moment_text(NOW) == "2026-11-24 17:30:00"
    assert moment_text(1e30) == f"{1e30:.0f}"
    assert [brief_text(each) for each in (-1, 0.0123, 0.9999, 1.25, 9.99, 10, 3700)] == [
        "0 ms", "12 ms", "1000 ms", "1.2 s", "10.0 s", "10 s", "1 h 1 min",
    ]  # fmt: skip
