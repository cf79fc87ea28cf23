"""What is meant by the words of `pfw log`, as a query of the history."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from pfw.cli.parser import build_parser
from pfw.cli.recall import read_query, takes_alert, unfit_for_alerts
from pfw.model.address import parse_address, parse_range
from pfw.model.flow import Direction
from pfw.model.history import Noticed, Query
from pfw.model.observation import Kind

NOW = 1795399500.25
"""2026-11-23 02:05:00.25 UTC."""
MIDNIGHT = 1795392000.0
HOUR_S, DAY_S = 3600, 86400


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def query(*words: str) -> Query:
    return read_query(build_parser().parse_args(["log", *words]), NOW)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), Query()),
        (("--since", "2h"), Query(since=NOW - 7200)),
        (("--since", "2h", "--until", "5m"), Query(since=NOW - 7200, until=NOW - 300)),
        (("--since", "ever"), Query(since=0.0)),
        (("--app", "curl"), Query(program="curl")),
        (("--app", "/opt/*/bin/x"), Query(program="/opt/*/bin/x")),
        (("--remote", "192.0.2.1"), Query(remotes=(parse_range("192.0.2.1"),))),
        (("--remote", "2001:db8::/32"), Query(remotes=(parse_range("2001:db8::/32"),))),
        (("--remote", "192.0.2.1-192.0.2.9"), Query(remotes=(parse_range("192.0.2.1-192.0.2.9"),))),
        (("--remote", "Example.NET"), Query(name="example.net")),
        (("--remote", "*.example.net."), Query(name="example.net")),
        (("--remote", "localhost"), Query(name="localhost")),
        (("--remote", "_dmarc.a-b.example"), Query(name="_dmarc.a-b.example")),
        (("--remote", "bücher.example"), Query(name="xn--bcher-kva.example")),
        (("--port", "443", "--protocol", "UDP"), Query(port=443, protocol=17)),
        (("--in",), Query(direction=Direction.IN)),
        (("--out", "--user", "alice"), Query(direction=Direction.OUT, user="alice")),
        (("--forward",), Query(direction=Direction.FORWARD)),
        (("--blocked", "--rule", "no mail"), Query(blocked=True, rule="no mail")),
        (("--allowed",), Query(blocked=False)),
    ],
)
def test_words(words, expected):
    assert query(*words) == expected


@pytest.mark.parametrize(
    ("since", "until", "began", "ended"),
    [
        ("1:00", "3:00", MIDNIGHT + HOUR_S, MIDNIGHT + 3 * HOUR_S),
        ("2:05", "2:06:30", MIDNIGHT + 7500, MIDNIGHT + 7590),
        ("1:00Z", "3:00Z", MIDNIGHT + HOUR_S, MIDNIGHT + 3 * HOUR_S),
        ("23:00", "1:00", MIDNIGHT - HOUR_S, MIDNIGHT + HOUR_S),
        ("23:00", "22:00", MIDNIGHT - HOUR_S, MIDNIGHT + 22 * HOUR_S),
        ("2h", "3:00", NOW - 2 * HOUR_S, MIDNIGHT + 3 * HOUR_S),
        ("7d", "1:00", NOW - 7 * DAY_S, MIDNIGHT + HOUR_S),
        ("yesterday", "1:00", MIDNIGHT - DAY_S, MIDNIGHT + HOUR_S),
    ],
)
def test_a_time_of_day_ends_what_began_before_it(since, until, began, ended):
    """The last one that has been, or where that is before --since the first one behind it."""
    assert query("--since", since, "--until", until) == Query(since=began, until=ended)


@pytest.mark.parametrize(
    ("words", "since", "until"),
    [
        ((), NOW - DAY_S, None),
        (("--since", "2h"), NOW - 2 * HOUR_S, None),
        (("--until", "yesterday"), MIDNIGHT - 2 * DAY_S, MIDNIGHT - DAY_S),
        (("--until", "1:00"), MIDNIGHT - 23 * HOUR_S, MIDNIGHT + HOUR_S),
        (("--until", "2027-01-01"), NOW - DAY_S, 1798761600.0),
        (("--until", "ever"), -DAY_S, 0.0),
        (("--since", "yesterday", "--until", "today"), MIDNIGHT - DAY_S, MIDNIGHT),
    ],
)
def test_sums_are_of_a_day_where_nobody_says_since_when(words, since, until):
    options = build_parser().parse_args(["stats", *words])
    assert read_query(options, NOW, without_since_s=DAY_S) == Query(since=since, until=until)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--since", "soon"), "--since 'soon' is not a time, as in"),
        (("--until", "2026-02-30"), "--until '2026-02-30' is not a time that there is"),
        (
            ("--since", "1h", "--until", "2h"),
            "--since '1h' (2026-11-23 01:05:00) is not before --until '2h' (2026-11-23 00:05:00)",
        ),
        (("--since", "1:00", "--until", "1:00"), "--since '1:00' (2026-11-23 01:00:00) is not before --until '1:00'"),
        (("--since", "today", "--until", "2026-11-22 14:00"), "is not before --until '2026-11-22 14:00'"),
        (("--remote", "192.0.2.256"), "--remote '192.0.2.256' is not an address"),
        (("--remote", "192.0.2.0/33"), "has a prefix length that is not 0-32"),
        (("--remote", "2001:db8::zz"), "is not an address"),
        (("--remote", "a b"), "is not an address"),
        (("--remote", "."), "is not an address"),
        (("--remote", "ü" * 400), "is not an address"),
        (("--remote", "x" * 254), "is not an address"),
        (("--remote", "\x1b[2J"), "is not an address"),
        (("--protocol", "tpc"), "--protocol 'tpc' is not a protocol"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, says):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        query(*words)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


ALERT = Noticed(
    time=NOW, kind=Kind.BEACON, source=parse_address("192.168.1.5"), target=parse_address("203.0.113.9"),
    first=NOW - 60, last=NOW, score=70, evidence="every 60 s", program="/usr/bin/curl",
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        (Query(), True),
        (Query(since=NOW), True),
        (Query(since=NOW + 1), False),
        (Query(until=NOW), False),
        (Query(until=NOW + 1), True),
        (Query(program="curl"), True),
        (Query(program="/usr/*/curl"), True),
        (Query(program="/usr/bin/cur[l]"), False),
        (Query(program="wget"), False),
        (Query(remotes=(parse_range("203.0.113.0/24"),)), True),
        (Query(remotes=(parse_range("192.168.1.5"),)), True),
        (Query(remotes=(parse_range("192.0.2.0/24"),)), False),
        (Query(port=443), False),
        (Query(name="example.net"), False),
        (Query(blocked=False), False),
    ],
)
def test_alerts_that_are_among_them(asked, taken):
    assert takes_alert(asked, ALERT) is taken


def test_alerts_without_program_or_addresses():
    bare = replace(ALERT, program=None, source=None, target=b"\x02\0\0\0\0\x01")
    assert takes_alert(Query(), bare)
    assert not takes_alert(Query(program="curl"), bare)
    assert not takes_alert(Query(remotes=(parse_range("0.0.0.0/0"),)), bare)


def test_what_no_alert_has():
    assert unfit_for_alerts(Query(since=1.0, until=2.0, program="x", remotes=((1, 2),))) is None
    assert unfit_for_alerts(Query(blocked=False)) == "blocked"
    assert unfit_for_alerts(Query(rule="x", port=1)) == "port"
