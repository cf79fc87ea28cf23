"""The screen of a rehearsal: its sentence, what is cut, what is noted."""

from __future__ import annotations

from msgspec.structs import replace

from pfw.cli import rehearsal as screen
from pfw.cli.times import moment_text
from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.verdict import Action
from pfw.policy.rehearsed import Outcome, Rehearsed, Row, Sum

ROW = Row(
    outcome=Outcome.BLOCKED,
    direction=Direction.OUT,
    protocol=6,
    port=443,
    icmp_type=None,
    program="/usr/bin/curl",
    is_guess=False,
    old_action=Action.ALLOW,
    old_rule="web",
    new_action=Action.BLOCK,
    new_rule=None,
    why="",
    remote=parse_address("2001:db8::1"),
    name="example.com",
    count=3,
    first=1.0,
    last=2.0,
)


def rehearsed(*rows: Row, **more) -> Rehearsed:
    counts = {outcome: sum(row.count for row in rows if row.outcome is outcome) for outcome in Outcome}
    given = {"left_out": 0, "limited": {}, "expired": (), "before": 0} | more
    sums = tuple(Sum(row, 1) for row in rows)
    return Rehearsed(connections=sum(counts.values()), counts=counts, rows=rows, sums=sums, **given)


def test_the_sentence_names_what_there_is():
    rows = [replace(ROW, outcome=outcome, count=1000) for outcome in Outcome]
    said = screen.sentence(rehearsed(*rows), 0.0)
    for part in (
        "Of 7,000 connections since ",
        "1,000 would be blocked that were not",
        "1,000 would be asked about",
        "1,000 would be stopped in another way",
        "1,000 would end by the time of day",
        "of 1,000 it cannot be told",
    ):
        assert part in said


def test_a_row_says_who_with_whom_and_why():
    lines = "\n".join(screen.lines(rehearsed(ROW), 0.0, None))
    for part in ("/usr/bin/curl", "->", "example.com (2001:db8::1)", "tcp 443", 'allow by "web" -> block by default'):
        assert part in lines


def test_what_is_not_known_is_told_by_its_reason():
    row = replace(ROW, outcome=Outcome.UNKNOWN, why="which script", is_guess=True)
    lines = "\n".join(screen.lines(rehearsed(row), 0.0, None))
    assert 'allow by "web" -> which script' in lines
    assert "/usr/bin/curl (a guess)" in lines


def test_long_tables_are_cut_and_lines_fit_the_terminal():
    rows = [replace(ROW, port=port, count=2) for port in range(30)]
    lines = list(screen.lines(rehearsed(*rows), 0.0, 80))
    assert lines[-1] == "… 10 more rows, 20 connections (--json has them)"
    assert sum("tcp" in line for line in lines) == screen.ROWS_SHOWN
    assert max(map(len, lines[3:-1])) <= 80


def test_what_decides_is_readable_in_80_columns():
    rows = [
        replace(ROW, program=f"/usr/lib/{'p' * 40}/{'q' * 40}", name="n" * 60, new_rule="no web at night"),
        replace(ROW, port=25, old_rule="o" * 30, new_rule="w" * 40),
    ]
    lines = list(screen.lines(rehearsed(*rows), 0.0, 80))
    assert max(map(len, lines[3:])) <= 80
    assert lines[3].split() == ["program", "remote", "service", "connections"]
    assert lines[5] == f'    allow by "web" -> block by "no web at night", last {moment_text(2.0)}'
    assert lines[7:] == [f'    allow by "{"o" * 30}", last {moment_text(2.0)}', f'    -> block by "{"w" * 40}"']


def test_what_decides_stands_beside_where_there_is_room():
    rows = [replace(ROW, program=f"/usr/lib/{'p' * 90}", name="n" * 90, new_rule="no web at night")]
    decided = 'allow by "web" -> block by "no web at night"'
    for width in (screen._BESIDE + len(decided), 200):
        *_, row = screen.lines(rehearsed(*rows), 0.0, width)
        assert row.endswith(f"{moment_text(2.0)}  {decided}")
        assert len(row) == width
    *_, beneath = screen.lines(rehearsed(*rows), 0.0, screen._BESIDE + len(decided) - 1)
    assert beneath.strip().startswith(decided)


def test_protocols_are_called_as_in_the_log():
    facts = screen.facts(rehearsed(ROW, replace(ROW, protocol=17)), "f", 0.0)
    assert [row["protocol"] for row in facts["rows"]] == ["tcp", "udp"]


def test_what_limits_it_is_noted():
    found = rehearsed(ROW, left_out=5, limited={"a\x1b": 1}, expired=("b",), before=2)
    lines = list(screen.lines(found, 0.0, None))[-4:]
    assert lines == [
        'rule "a\\x1b" has a limit, which is taken as never reached: 1 connection',
        'rule "b" has expired, and is left out',
        "2 connections stopped by bans or as invalid, before a policy is asked",
        "5 connections with so many remote ends that not all are listed",
    ]


def test_addresses_that_are_none_are_shown_all_the_same():
    assert "-" in "\n".join(screen.lines(rehearsed(replace(ROW, remote=b"", name=None)), 0.0, None))
    facts = screen.facts(rehearsed(replace(ROW, remote=b"\1\2\3")), "f", 0.0)
    assert facts["rows"][0]["remote"] == "010203"
