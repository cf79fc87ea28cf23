"""What people see of the past: connections and alerts as text, JSON and CSV, whatever programs and hosts are called."""

from __future__ import annotations

import csv
import json
import re
import time

import pytest
from msgspec.structs import replace

from pfw.cli.history import (
    ALERT_KEYS,
    ENTRY_KEYS,
    CsvLog,
    JsonLog,
    TextLog,
    address_text,
    first_seen_facts,
    first_seen_lines,
    protocol_number,
    protocol_text,
)
from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.history import Entry, FirstSeen, New, Noticed, Subject, Traffic
from pfw.model.observation import Kind
from pfw.model.program import Certainty
from pfw.model.verdict import Action

AT = 1795399500.25
EVIL = "/tmp/\x1b]0;owned\x07\x1b[2J\nA\u202egro"
RAW = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def subject(**more) -> Subject:
    settings = {
        "direction": Direction.OUT, "protocol": 6, "local": parse_address("192.168.1.5"), "port": 443,
        "interface": "eth0", "program": "/usr/bin/curl", "uid": 1000, "user": "alice", "unit": "user.slice",
        "certainty": Certainty.LABEL, "action": Action.ALLOW, "rule": "web",
    }  # fmt: skip
    return Subject(**settings | more)


def entry(about: Subject | None = None, **more) -> Entry:
    settings = {
        "id": 1795399500250000, "subject": about or subject(), "remote": parse_address("192.0.2.1"), "start": AT,
        "end": AT + 1.5, "from_port": 40000, "name": "example.net", "traffic": Traffic(1500, 12, 2_000_000, 1400),
    }  # fmt: skip
    return Entry(**settings | more)


BLOCKED = {"action": Action.BLOCK, "direction": Direction.IN, "port": 22, "program": None, "user": None, "uid": None,
           "certainty": None, "rule": None}  # fmt: skip
PING = {"protocol": 1, "port": None, "icmp_type": 8}
NOTHING = {"traffic": Traffic(), "end": None, "name": None}

ALERT = Noticed(
    time=AT + 2, kind=Kind.PORT_SCAN, source=parse_address("203.0.113.9"), target=parse_address("192.168.1.5"),
    first=AT, last=AT + 2, score=80, evidence="24 ports in 2.0 s", program=None, response="banned for 1 h",
)  # fmt: skip

SERVICES = {443: "https", 22: "ssh"}.get

SHOWN = [
    (entry(),
     '2026-11-23 02:05:00 [ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  '
     '1.5 kB out, 2.0 MB in, 1.5 s  rule "web"'),
    (entry(end=None, traffic=Traffic()),
     '2026-11-23 02:05:00 [ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  '
     'open  rule "web"'),
    (entry(end=None),
     '2026-11-23 02:05:00 [ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  '
     '1.5 kB out, 2.0 MB in, open  rule "web"'),
    (entry(traffic=Traffic()),
     '2026-11-23 02:05:00 [ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  '
     '0 B out, 0 B in, 1.5 s  rule "web"'),
    (entry(subject(**BLOCKED), **NOTHING),
     "2026-11-23 02:05:00 [BLOCKED]  <- -                     192.0.2.1                     22/tcp (ssh)  default in"),
    (entry(subject(**BLOCKED), **NOTHING, count=3),
     "2026-11-23 02:05:00 [BLOCKED]  <- -                     192.0.2.1                     22/tcp (ssh)  "
     "3 packets  default in"),
    (entry(subject(**BLOCKED | {"action": Action.REJECT, "rule": "base loopback", "port": 2222}), **NOTHING),
     "2026-11-23 02:05:00 [REJECTED] <- -                     192.0.2.1                     2222/tcp  base loopback"),
    (entry(subject(program="(kworker)", user=None, uid=0, certainty=Certainty.GUESS, **PING)),
     "2026-11-23 02:05:00 [ALLOWED]  -> (kworker) ? (0)       example.net (192.0.2.1)       icmp echo-request  "
     '1.5 kB out, 2.0 MB in, 1.5 s  rule "web"'),
    (entry(subject(program=None, protocol=47, port=None)),
     '2026-11-23 02:05:00 [ALLOWED]  -> - (alice)             example.net (192.0.2.1)       gre  '
     '1.5 kB out, 2.0 MB in, 1.5 s  rule "web"'),
    (entry(subject(direction=Direction.FORWARD, program=None, protocol=200, port=None, icmp_type=None)),
     '2026-11-23 02:05:00 [ALLOWED]  => 192.168.1.5           example.net (192.0.2.1)       200  '
     '1.5 kB out, 2.0 MB in, 1.5 s  rule "web"'),
    (entry(id=0, from_port=None, end=None, start=AT - 300.25, count=1204, period_s=3600),
     '2026-11-23 02:00:00 [ALLOWED]  -> curl (alice)          example.net (192.0.2.1)       443/tcp (https)  '
     '1,204 connections within an hour, 1.5 kB out, 2.0 MB in  rule "web"'),
    (entry(subject(**BLOCKED), **NOTHING | {"id": 0, "remote": b""}, count=70000, period_s=86400),
     "2026-11-23 02:05:00 [BLOCKED]  <- -                     many                          22/tcp (ssh)  "
     "70,000 connections within a day  default in"),
    (ALERT,
     "2026-11-23 02:05:02 [ALERT]    port-scan  203.0.113.9 -> 192.168.1.5  24 ports in 2.0 s (score 80)  "
     "banned for 1 h"),
    (replace(ALERT, source=None, target=bytes(6), program="/usr/bin/nc", response=""),
     "2026-11-23 02:05:02 [ALERT]    port-scan  many -> 00:00:00:00:00:00  24 ports in 2.0 s (score 80)  nc"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "line"), SHOWN, ids=[str(at) for at in range(len(SHOWN))])
def test_text(event, line):
    assert TextLog(SERVICES, colour=False).line(event) == line


@pytest.mark.parametrize(
    ("event", "begins"),
    [
        (entry(), "2026-11-23 02:05:00 \x1b[32m[ALLOWED]\x1b[0m  -> curl"),
        (entry(subject(**BLOCKED)), "2026-11-23 02:05:00 \x1b[31m[BLOCKED]\x1b[0m  <- -"),
        (entry(subject(action=Action.REJECT)), "2026-11-23 02:05:00 \x1b[31m[REJECTED]\x1b[0m -> curl"),
        (ALERT, "2026-11-23 02:05:02 \x1b[35m[ALERT]\x1b[0m    port-scan"),
    ],
)
def test_colours_are_those_of_other_screens(event, begins):
    assert TextLog(SERVICES, colour=True).line(event).startswith(begins)


def test_many_subjects_are_not_all_remembered():
    log = TextLog(SERVICES, colour=False)
    for number in range(10_000):
        assert f'rule "{number}"' in log.line(entry(subject(rule=str(number))))
    assert len(log._subjects) < 5000


class TestJson:
    def test_connection(self):
        facts = json.loads(JsonLog().line(entry()))
        assert tuple(facts) == ENTRY_KEYS
        assert facts == {
            "event": "connection", "id": 1795399500250000, "time": "2026-11-23T02:05:00.250000Z",
            "end": "2026-11-23T02:05:01.750000Z", "duration_s": 1.5, "verdict": "allow", "rule": "web",
            "direction": "out", "protocol": "tcp", "local": "192.168.1.5", "remote": "192.0.2.1", "name": "example.net",
            "port": 443, "from_port": 40000, "icmp_type": None, "interface": "eth0", "program": "/usr/bin/curl",
            "user": "alice", "uid": 1000, "unit": "user.slice", "certainty": "label", "sent_bytes": 1500,
            "sent_packets": 12, "received_bytes": 2000000, "received_packets": 1400, "count": 1, "period_s": 0,
        }  # fmt: skip

    def test_what_is_not_known_is_null(self):
        about = Subject(direction=Direction.IN, protocol=6, local=b"", action=Action.BLOCK)
        facts = json.loads(JsonLog().line(Entry(id=0, subject=about, remote=b"", start=AT, end=None)))
        nothing = {"rule", "end", "duration_s", "local", "remote", "name", "port", "from_port", "icmp_type",
                   "interface", "program", "user", "uid", "unit", "certainty"}  # fmt: skip
        assert {key for key, value in facts.items() if value is None} == nothing

    def test_alert(self):
        facts = json.loads(JsonLog().line(ALERT))
        assert tuple(facts) == ALERT_KEYS
        assert (facts["event"], facts["kind"], facts["source"]) == ("alert", "port-scan", "203.0.113.9")
        assert (facts["time"], facts["last"]) == ("2026-11-23T02:05:02.250000Z", "2026-11-23T02:05:02.250000Z")

    def test_is_documented(self):
        from pathlib import Path

        text = (Path(__file__).resolve().parents[2] / "docs" / "history.md").read_text()
        assert [key for key in (*ENTRY_KEYS, *ALERT_KEYS) if f"`{key}`" not in text] == []


class TestCsv:
    def test_is_read_back(self):
        log = CsvLog(ENTRY_KEYS)
        found = list(csv.DictReader([*log.head(), log.line(entry(subject(rule='a, "b"')))]))
        assert tuple(found[0]) == ENTRY_KEYS
        assert (found[0]["rule"], found[0]["sent_bytes"], found[0]["icmp_type"]) == ('a, "b"', "1500", "")
        assert found[0]["time"] == "2026-11-23T02:05:00.250000Z"

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "=cmd|' /C calc'!A0"])
    def test_spreadsheets_run_nothing(self, text):
        log = CsvLog(ENTRY_KEYS)
        (row,) = csv.DictReader([*log.head(), log.line(entry(subject(rule=text, program=text), name=text))])
        assert (row["rule"], row["program"], row["name"]) == (f"'{text}",) * 3

    def test_a_tab_and_a_return_do_not_hide_a_formula(self):
        log = CsvLog(("rule",))
        assert log.line(entry(subject(rule="\t=1"))) == "\\x09=1"

    def test_alerts(self):
        log = CsvLog(ALERT_KEYS)
        (row,) = csv.DictReader([*log.head(), log.line(replace(ALERT, evidence="-1 port"))])
        assert (row["evidence"], row["score"]) == ("'-1 port", "80")


@pytest.mark.parametrize(
    "name", [EVIL, "/x/" + EVIL, "\u200f\u2067\u05d0\u05d1", "x" * 100_000, "/" * 5000, "", "例" * 9000]
)
@pytest.mark.parametrize(
    "log", [TextLog(SERVICES, colour=False), JsonLog(), CsvLog(ENTRY_KEYS)], ids=lambda log: type(log).__name__
)
def test_whatever_it_is_called(log, name):
    about = subject(program=name, rule=name, user=name, unit=name, interface=name)
    line = log.line(entry(about, name=name))
    assert not RAW.search(line)
    line.encode()
    if isinstance(log, TextLog):
        assert len(line) < 600


@pytest.mark.parametrize("name", [EVIL, "x" * 100_000, "\ud800"])
@pytest.mark.parametrize(
    "log", [TextLog(SERVICES, colour=False), JsonLog(), CsvLog(ALERT_KEYS)], ids=lambda log: type(log).__name__
)
def test_whatever_an_alert_says(log, name):
    line = log.line(replace(ALERT, evidence=name, program=name, response=name))
    assert not RAW.search(line)
    line.encode()
    if isinstance(log, TextLog):
        assert len(line) < 1200


class TestFirstSeen:
    FOUND = (
        FirstSeen(AT, New.PROGRAM, "/usr/bin/curl"),
        FirstSeen(AT + 60, New.REMOTE, "example.net", "/usr/bin/curl"),
        FirstSeen(AT + 3600, New.LISTENER, "tcp [::]:22", "/usr/sbin/sshd"),
    )

    def test_golden(self):
        assert first_seen_lines(self.FOUND, None) == [
            "first seen           new       what           by",
            "2026-11-23 02:05:00  program   /usr/bin/curl  -",
            "2026-11-23 02:06:00  remote    example.net    /usr/bin/curl",
            "2026-11-23 03:05:00  listener  tcp [::]:22    /usr/sbin/sshd",
        ]

    def test_nothing(self):
        assert first_seen_lines([], 80) == ["nothing was seen for the first time"]

    def test_facts(self):
        assert first_seen_facts(self.FOUND[1]) == {
            "time": "2026-11-23T02:06:00.250000Z", "new": "remote", "what": "example.net", "by": "/usr/bin/curl",
        }  # fmt: skip

    @pytest.mark.parametrize("columns", [40, 80])
    def test_hostile(self, columns):
        lines = first_seen_lines(
            [FirstSeen(AT, New.PROGRAM, EVIL, EVIL), FirstSeen(AT, New.REMOTE, "例" * 500)], columns
        )
        assert not RAW.search("".join(lines))
        assert max(len(line) + line.count("例") for line in lines) <= columns


@pytest.mark.parametrize(
    ("packed", "text"),
    [(b"", "many"), (bytes(4), "0.0.0.0"), (bytes(16), "::"), (bytes(6), "00:00:00:00:00:00"), (b"\x01\x02", "0102")],
)
def test_addresses(packed, text):
    assert address_text(packed) == text


class TestProtocols:
    @pytest.mark.parametrize("text", ["tcp", "UDP", "icmp", "icmpv6", "gre", "47", "0", "255"])
    def test_read_back(self, text):
        assert protocol_number(protocol_text(protocol_number(text))) == protocol_number(text)

    @pytest.mark.parametrize("text", ["", "256", "-1", "٣", "tpc", "\x1b", "9999999999"])
    def test_none(self, text):
        with pytest.raises(ValueError, match="is not a protocol"):
            protocol_number(text)
