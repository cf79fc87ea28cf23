"""The traffic of the past summed up: the page, its tables, the chart."""

from __future__ import annotations

import re
import time

import pytest

from pfw.cli import stats
from pfw.cli.charts import Style
from pfw.cli.stats import Page, bars, by_country, page_facts, page_lines, row_facts, summed, table_lines
from pfw.model.address import parse_address
from pfw.model.history import By, Total, Traffic

HOUR = 1795399200
"""2026-11-23 02:00 UTC."""
SERVICES = {443: "https"}.get
EVIL = "/tmp/\x1b]0;owned\x07\x1b[2J\nA\u202egro"
RAW = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def total(key, count=10, blocked=2, size=1000, at=float(HOUR)) -> Total:
    return Total(key, count, blocked, Traffic(size, 1, 10 * size, 2), at, at + 60)


HOURS = [total(HOUR), total(HOUR + 2 * 3600, 1200, 0, 1_000_000, HOUR + 7200.5)]
TABLES = {
    By.PROGRAM: [total("/usr/bin/curl", 1200, 0), total(None)],
    By.REMOTE: [total(parse_address("192.0.2.1")), total(b"", 3, 3, 0)],
    By.RULE: [total(None), total("web")],
}
PAGE = Page(since=float(HOUR), until=HOUR + 3 * 3600.0, hours=HOURS, tables=TABLES)


def test_golden():
    assert page_lines(PAGE, None, Style.ASCII, SERVICES) == [
        "2026-11-23 02:00:00 to 2026-11-23 05:00:00 (3 h)",
        "1,210 connections: 1,208 allowed, 2 blocked (0.2%); 1.0 MB sent, 10.0 MB received",
        "",
        "program        connections  blocked    sent  received  last",
        "/usr/bin/curl        1,200        0  1.0 kB   10.0 kB  2026-11-23 02:01:00",
        "-                       10        2  1.0 kB   10.0 kB  2026-11-23 02:01:00",
        "",
        "remote     connections  blocked    sent  received  last",
        "192.0.2.1           10        2  1.0 kB   10.0 kB  2026-11-23 02:01:00",
        "many                 3        3     0 B       0 B  2026-11-23 02:01:00",
        "",
        "rule       connections  blocked    sent  received  last",
        "(default)           10        2  1.0 kB   10.0 kB  2026-11-23 02:01:00",
        "web                 10        2  1.0 kB   10.0 kB  2026-11-23 02:01:00",
        "",
        "# allowed  x blocked",
        "2026-11-23 02:00  #x                                                          10",
        "2026-11-23 03:00                                                               0",
        "2026-11-23 04:00  #######################################################  1,200",
    ]


def test_nothing():
    page = Page(since=0.0, until=float(HOUR), hours=[], tables={By.PROGRAM: []})
    assert page_lines(page, 80, Style.ASCII, SERVICES)[1:] == ["no connection that is like this"]
    facts = page_facts(page)
    assert (facts["connections"], facts["first"], facts["programs"], facts["hours"]) == (0, None, [], [])


def test_facts():
    facts = page_facts(PAGE)
    assert {key: value for key, value in facts.items() if not isinstance(value, list)} == {
        "since": "2026-11-23T02:00:00.000000Z", "until": "2026-11-23T05:00:00.000000Z", "connections": 1210,
        "blocked": 2, "sent_bytes": 1001000, "sent_packets": 2, "received_bytes": 10010000, "received_packets": 4,
        "first": "2026-11-23T02:00:00.000000Z", "last": "2026-11-23T04:01:00.500000Z",
    }  # fmt: skip
    assert [row["hour"] for row in facts["hours"]] == ["2026-11-23T02:00:00.000000Z", "2026-11-23T04:00:00.000000Z"]
    assert [row["remote"] for row in facts["remotes"]] == ["192.0.2.1", None]
    assert [row["rule"] for row in facts["rules"]] == [None, "web"]
    assert row_facts("port", total(443))["port"] == 443


def test_ports_have_their_names():
    lines = table_lines("port", [total(443), total(4711), total(None)], None, SERVICES)
    assert [line.split("  ")[0] for line in lines] == ["port", "443 (https)", "4711", "-"]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_whatever_programs_are_called(columns):
    tables = {By.PROGRAM: [total(EVIL), total("x" * 10_000)], By.RULE: [total("例" * 500)]}
    page = Page(since=0.0, until=HOUR + 3600.0, hours=HOURS[:1], tables=tables)
    lines = page_lines(page, columns, Style.SHADES, SERVICES)
    assert not RAW.search("".join(lines))
    assert max(len(line) + line.count("例") for line in lines[2:]) <= columns
    assert not RAW.search(str(page_facts(page)))


class TestBars:
    def test_hours_without_any_have_a_place(self):
        found = bars(HOURS, HOUR + 5 * 3600)
        assert [(bar.title[-5:], bar.passed, bar.stopped) for bar in found] == [
            ("02:00", 8, 2), ("03:00", 0, 0), ("04:00", 1200, 0), ("05:00", 0, 0), ("06:00", 0, 0),
        ]  # fmt: skip

    def test_days_and_weeks(self):
        days = bars([total(HOUR), total(HOUR + 3600), total(HOUR + 3 * 86400)], HOUR + 5 * 86400)
        assert [(bar.title, bar.passed) for bar in days] == [
            ("2026-11-23", 16), ("2026-11-24", 0), ("2026-11-25", 0), ("2026-11-26", 8), ("2026-11-27", 0),
            ("2026-11-28", 0),
        ]  # fmt: skip
        weeks = bars([total(HOUR), total(HOUR + 8 * 86400)], HOUR + 70 * 86400)
        assert [bar.title for bar in weeks[:2]] == ["week of 2026-11-23", "week of 2026-11-30"]
        assert len(weeks) == 11
        assert [bar.passed for bar in weeks[:3]] == [8, 8, 0]

    def test_a_day_of_25_hours(self, monkeypatch):
        monkeypatch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        midnight = 1792792800  # 2026-10-24 00:00 there
        found = bars([total(midnight), total(midnight + 2 * 86400)], midnight + 4 * 86400)
        assert [bar.title for bar in found] == ["2026-10-24", "2026-10-25", "2026-10-26", "2026-10-27"]

    @pytest.mark.parametrize("key", [0, -1, 1 << 62, HOUR + 200 * 365 * 86400])
    def test_a_clock_that_was_wrong(self, key):
        found = bars([total(key), total(HOUR)], HOUR + 3600)
        assert [(bar.title, bar.passed) for bar in found] == [("2026-11-23 02:00", 8)]

    def test_at_most_two_years(self):
        found = bars([total(HOUR - number * 86400) for number in range(3000)], HOUR)
        assert 100 <= len(found) <= 106


def test_sums():
    assert summed([]) is None
    assert summed(HOURS) == Total(None, 1210, 2, Traffic(1_001_000, 2, 10_010_000, 4), HOUR, HOUR + 7260.5)


def test_by_country():
    one, two, three, four = (parse_address(text) for text in ("192.0.2.1", "192.0.2.2", "198.51.100.1", "10.0.0.1"))
    remotes = [total(one, 5, 1), total(two, 6, 1), total(three, 20, 0), total(four, 2, 0), total(b"", 1, 0)]
    found = by_country(remotes, {one: "DE", two: "DE", three: None, four: stats.LOCAL}, 10)
    assert [(each.key, each.count, each.blocked) for each in found] == [
        (None, 21, 0), ("DE", 11, 2), ("local", 2, 0),
    ]  # fmt: skip
    assert by_country(remotes, {}, 1)[0].count == 34
    assert table_lines("country", found, None, SERVICES)[1].startswith("- ")


@pytest.mark.parametrize(
    ("text", "is_nobodys"),
    [("192.168.1.1", True), ("127.0.0.1", True), ("fe80::1", True), ("239.1.1.1", True), ("100.64.0.1", True),
     ("255.255.255.255", True), ("192.0.2.1", False), ("2001:db8::1", False), ("8.8.8.8", False)],
)  # fmt: skip
def test_addresses_in_no_country(text, is_nobodys):
    assert (parse_address(text) in stats.nobodys()) is is_nobodys
