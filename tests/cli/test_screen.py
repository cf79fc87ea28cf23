"""Lines for people and for programs, from commands made by hand; colours on a real terminal."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.cli.screen import SUSPICIONS_SHOWN_MAX, JsonScreen, NoScreen, TextScreen, local_time, utc_time
from pfw.model.address import parse_address
from pfw.model.command import Ended, Frame, Judged, Notice, Seen, Suspicious
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ICMPV6, TCP
from pfw.model.verdict import Action, Verdict

NOON = 1795399500.123456
BLOCKED = Verdict(Action.BLOCK, rule="block ip", index=0, reason='rule "block ip"')
COLOUR = re.compile(r"\x1b\[(?:3[1-6]|0)m")


def flow(source="192.168.1.100", destination="192.168.1.5", **more):
    fields = {"source_port": 51514, "port": 80, "interface": "eth0", "protocol": TCP, "direction": Direction.IN} | more
    return Flow(source=parse_address(source), destination=parse_address(destination), **fields)


def judged(of=None, verdict=BLOCKED, **more):
    return Judged(NOON, 1, of or flow(), verdict, **more)


def suspicious(event="tcp.flags.null", text="TCP without any flag", of=None, **more):
    return Suspicious(NOON, event, text, Frame(1, b"", 0), of, **more)


@pytest.fixture
def zone(monkeypatch):
    def set_to(name):
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


class TestText:
    screen = TextScreen(colour=False, verbose=False)

    def test_the_line(self):
        assert self.screen.lines([judged()]) == [
            '[BLOCKED] 192.168.1.100:51514 (TCP) -> 192.168.1.5:80  rule "block ip"'
        ]

    def test_ipv6_stands_in_brackets(self):
        line = self.screen.lines([judged(flow("2001:db8::1", "2001:db8::2", port=443))])[0]
        assert line.startswith("[BLOCKED] [2001:db8::1]:51514 (TCP) -> [2001:db8::2]:443  ")

    def test_without_ports(self):
        of = flow("fe80::1", "fe80::2", protocol=ICMPV6, source_port=None, port=None, icmp_type=128)
        assert self.screen.lines([judged(of)])[0].startswith("[BLOCKED] fe80::1 (ICMPv6) -> fe80::2  ")

    @pytest.mark.parametrize(
        ("verdict", "label", "why"),
        [
            (Verdict(Action.ALLOW, reason="default out"), "ALLOWED", "default out"),
            (Verdict(Action.REJECT, rule="no", index=3, reason='rule "no"'), "REJECTED", 'rule "no"'),
            (Verdict(Action.ALLOW, rule="base loopback", base=True, reason="x"), "ALLOWED", "base loopback"),
            (Verdict(Action.ASK, rule="game", index=1, reason="x"), "ASK", 'rule "game"'),
            (Verdict(Action.UNKNOWN, rule="app", index=1, reason="allow if …"), "UNKNOWN", "allow if …"),
        ],
    )
    def test_who_decided(self, verdict, label, why):
        line = self.screen.lines([judged(verdict=verdict)])[0]
        assert line.startswith(f"[{label}] ")
        assert line.endswith(f"  {why}")

    def test_again(self):
        assert self.screen.lines([judged(again=True)])[0].endswith('rule "block ip"  (the policy changed)')

    def test_verbose(self, zone):
        screen = TextScreen(colour=False, verbose=True)
        for name, hour in (("UTC", "02"), ("Asia/Tokyo", "11")):
            zone(name)
            assert screen.lines([judged()])[0].startswith(f"{hour}:05:00.123 in      eth0 [BLOCKED] ")
        assert " out     - [" in screen.lines([judged(flow(interface=None, direction=Direction.OUT))])[0]

    def test_a_line_a_packet(self):
        screen = TextScreen(colour=False, verbose=False, every_packet=True)
        shown = screen.lines(
            [judged(), Seen(NOON, 1, flow(), BLOCKED, 60), Seen(NOON, 1, flow(), BLOCKED, 40, reply=True)]
        )
        assert shown == [
            '[BLOCKED] 192.168.1.100:51514 (TCP) -> 192.168.1.5:80  rule "block ip"  60 bytes',
            '[BLOCKED] 192.168.1.5:80 (TCP) -> 192.168.1.100:51514  rule "block ip"  40 bytes',
        ]
        assert "(the policy changed)" in screen.lines([judged(again=True)])[0]

    def test_what_is_suspicious_is_shown_once(self):
        screen = TextScreen(colour=False, verbose=False)
        assert screen.lines([suspicious(of=flow())] * 3) == [
            "[SUSPICIOUS] 192.168.1.100:51514 (TCP) -> 192.168.1.5:80  TCP without any flag"
        ]
        assert len(screen.lines([suspicious(of=flow("192.168.1.101"))])) == 1

    def test_and_not_without_end(self):
        screen = TextScreen(colour=False, verbose=False)
        many = [suspicious(of=flow(f"10.{at >> 8}.{at & 255}.1")) for at in range(SUSPICIONS_SHOWN_MAX + 100)]
        assert len(screen.lines(many)) == SUSPICIONS_SHOWN_MAX

    def test_what_is_not_for_the_screen(self):
        ended = Ended(NOON, 1, flow(), BLOCKED, NOON, NOON, 1, 0, 60, 0, "timeout", "new")
        assert self.screen.lines([ended, Notice(NOON, "full")]) == []
        assert NoScreen().lines([judged()]) == []

    def test_colour(self):
        line = TextScreen(colour=True, verbose=False).lines([judged()])[0]
        assert line.startswith("\x1b[31m[BLOCKED]\x1b[0m ")
        assert COLOUR.sub("", line) == self.screen.lines([judged()])[0]


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
@settings(deadline=None)
def test_nothing_raw_is_shown(rule, interface, text):
    """Whatever a name or a packet holds, a line is a line of printable characters."""
    of = flow(interface=interface)
    verdicts = [
        Verdict(Action.BLOCK, rule=rule, index=0, reason=text),
        Verdict(Action.UNKNOWN, rule=rule, index=0, reason=text),
        Verdict(Action.ALLOW, rule=rule, base=True),
    ]
    commands = [
        *(judged(of, verdict) for verdict in verdicts),
        suspicious(text, text, of),
        suspicious("x" + text, "", None),
    ]
    commands += [Seen(NOON, 1, of, verdict, 60) for verdict in verdicts]
    unsafe = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")
    for screen in (TextScreen(colour=False, verbose=True), JsonScreen()):
        lines = screen.lines(commands)
        assert len(lines) == len(commands) or isinstance(screen, TextScreen)
        assert not unsafe.search("".join(lines))


class TestJson:
    def test_a_connection(self):
        shown = json.loads(JsonScreen().lines([judged()])[0])
        assert shown == {
            "event": "connection",
            "time": "2026-11-23T02:05:00.123456Z",
            "connection": 1,
            "verdict": "block",
            "rule": "block ip",
            "reason": 'rule "block ip"',
            "direction": "in",
            "interface": "eth0",
            "protocol": "TCP",
            "source": "192.168.1.100",
            "source_port": 51514,
            "destination": "192.168.1.5",
            "destination_port": 80,
            "icmp_type": None,
            "again": False,
        }

    def test_rule_is_null_where_the_default_decided(self):
        shown = json.loads(JsonScreen().lines([judged(verdict=Verdict(Action.BLOCK, reason="default in"))])[0])
        assert (shown["rule"], shown["reason"]) == (None, "default in")

    def test_a_packet_and_a_suspicion(self):
        packet, odd = map(
            json.loads, JsonScreen().lines([Seen(NOON, 1, flow(), BLOCKED, 60, reply=True), suspicious()])
        )
        assert (packet["event"], packet["bytes"], packet["reply"]) == ("packet", 60, True)
        assert (odd["event"], odd["kind"], odd["text"]) == ("suspicious", "tcp.flags.null", "TCP without any flag")
        assert "source" not in odd


@pytest.mark.parametrize("at", [float("nan"), float("inf"), -1e300, 1e300])
def test_times_that_are_none(at):
    assert local_time(at) == str(at)
    assert utc_time(at) == str(at)


@pytest.mark.parametrize("at", [0.0, -1.5, 4294967295.0, NOON])
def test_times_of_any_capture(at):
    assert re.fullmatch(r"\d\d:\d\d:\d\d", local_time(at))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", utc_time(at))


class TestOnATerminal:
    WORDS = ("monitor", "--no-log", "--read", "capture.pcap", "--local", "192.168.1.5")

    def test_in_colour(self, kit, rules, capture, tmp_path):
        shown = kit.on_a_terminal(tmp_path, *self.WORDS).decode()
        for painted in ("\x1b[32m[ALLOWED]\x1b[0m", "\x1b[31m[BLOCKED]\x1b[0m", "\x1b[33m[UNKNOWN]\x1b[0m"):
            assert painted in shown
        assert not kit.raw_controls.search(COLOUR.sub("", shown).replace("\r\n", "\n"))

    def test_no_color(self, kit, rules, capture, tmp_path):
        shown = kit.on_a_terminal(tmp_path, *self.WORDS, NO_COLOR="1")
        assert b"[BLOCKED]" in shown
        assert b"\x1b" not in shown
        # Empty is as if it were not there (no-color.org).
        assert b"\x1b[31m" in kit.on_a_terminal(tmp_path, *self.WORDS, NO_COLOR="")

    def test_no_colour_in_json_or_where_the_terminal_is_dumb(self, kit, rules, capture, tmp_path):
        assert b"\x1b" not in kit.on_a_terminal(tmp_path, *self.WORDS, "--json")
        assert b"\x1b" not in kit.on_a_terminal(tmp_path, *self.WORDS, TERM="dumb")

    def test_no_colour_in_a_pipe(self, pfw, rules, capture):
        assert "[BLOCKED]" in pfw(*self.WORDS, more={"TERM": os.environ.get("TERM", "xterm")}).stdout
