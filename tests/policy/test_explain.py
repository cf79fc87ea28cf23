from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import to_builtins

from pfw.model.flow import Direction, Moment
from pfw.model.packet import ICMP, UDP
from pfw.model.policy import Base
from pfw.model.rule import App, Expiry, Limit, Schedule
from pfw.model.verdict import Action, Verdict
from pfw.policy.explain import Explanation, Mismatch, Passed, explain, render
from pfw.policy.match import decide_slowly

MONDAY_9 = datetime(2026, 11, 23, 9, 30, tzinfo=UTC).timestamp()
NOW = Moment(MONDAY_9)
HASHED, HASHED_TEXT = App("/bin/a", "a" * 64), f"/bin/a (sha256 {'a' * 16}…)"
PING = {"protocol": ICMP, "source_port": None, "port": None, "icmp_type": 8}


def test_the_verdict_and_what_kept_the_rules_before_from_deciding(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="web", ports=((80, 80), (443, 443)), source="10.0.0.0/8"),
        make_rule(name="ssh", ports=((22, 22),), log=True),
        make_rule(name="behind"),
        base=Base(neighbour_discovery=False, dhcp_client=False),
    )
    explanation = explain(policy, make_flow(), NOW, lambda index: 10 + index)
    assert explanation == Explanation(
        verdict=Verdict(action=Action.ALLOW, rule="ssh", index=1, log=True, reason='rule "ssh"'),
        line=11,
        passed=(
            Passed(name="base loopback", answer="no", mismatches=(Mismatch("interface", "lo", "eth0"),)),
            Passed(
                name="web",
                answer="no",
                mismatches=(Mismatch("from", "10.0.0.0/8", "203.0.113.9"), Mismatch("port", "80, 443", "22")),
                index=0,
                line=10,
            ),
        ),
    )
    assert render(explanation) == [
        'allow: rule "ssh", line 11',
        "  no match   base loopback: interface wants lo, is eth0",
        '  no match   rule "web", line 10: from wants 10.0.0.0/8, is 203.0.113.9; port wants 80, 443, is 22',
    ]


def test_the_default_has_no_line(make_rule, make_flow, make_policy):
    explanation = explain(make_policy(make_rule(enabled=False)), make_flow(), NOW, lambda index: 7)
    assert explanation.line is None
    assert render(explanation) == [
        "block: default in",
        '  no match   rule "the rule", line 7: enabled wants true, is false',
    ]


def test_without_a_file_there_are_no_lines(make_rule, make_flow, make_policy):
    explanation = explain(make_policy(make_rule()), make_flow(), NOW)
    assert (explanation.line, render(explanation)) == (None, ['allow: rule "the rule"'])


def test_what_is_not_known_is_told_up_to_the_certain_end(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="browser", apps=("/usr/bin/firefox",), users=("alice",)),
        make_rule(name="mail", action=Action.REJECT, units=("mail.service",)),
        make_rule(name="end", action=Action.BLOCK),
        make_rule(name="behind"),
    )
    assert render(explain(policy, make_flow(), NOW, lambda index: index + 1)) == [
        "unknown: allow if the program is /usr/bin/firefox and the user is alice "
        '(rule "browser"), 1 more rule may match, otherwise block (rule "end"), line 1',
        '  may match  rule "browser", line 1: app wants /usr/bin/firefox, is unknown; user wants alice, is unknown',
        '  may match  rule "mail", line 2: unit wants mail.service, is unknown',
    ]


@pytest.mark.parametrize(
    ("wanted", "given", "mismatch"),
    [
        ({"enabled": False}, {}, ("enabled", "true", "false")),
        (
            {"expires": Expiry(MONDAY_9 - 60, True, "2026-11-23T09:29:00")},
            {},
            ("expires", "before 2026-11-23T09:29:00", "2026-11-23T09:30:00"),
        ),
        (
            {"schedule": Schedule(((0, 540), (1020, 1440)), "mon 17:00-09:00")},
            {},
            ("schedule", "mon 17:00-09:00", "mon 09:30"),
        ),
        ({"directions": frozenset((Direction.OUT, Direction.FORWARD))}, {}, ("direction", "forward, out", "in")),
        ({"source": "10.0.0.1 10.0.0.3"}, {}, ("from", "10.0.0.1, 10.0.0.3", "203.0.113.9")),
        ({"destination": "2001:db8::/32"}, {}, ("to", "2001:db8::/32", "192.168.1.5")),
        ({"remote": "10.0.0.1-10.0.0.3"}, {}, ("remote", "10.0.0.1-10.0.0.3", "203.0.113.9")),
        ({"remote": "10.0.0.1"}, {"direction": Direction.OUT}, ("remote", "10.0.0.1", "192.168.1.5")),
        (
            {"remote": "10.0.0.1", "directions": frozenset(Direction)},
            {"direction": Direction.FORWARD},
            ("remote", "10.0.0.1", "a forwarded connection"),
        ),
        ({"protocols": frozenset((17, 58))}, {}, ("protocol", "UDP, ICMPv6", "TCP")),
        ({"source_ports": ((1, 1023),)}, {}, ("from_port", "1-1023", "50000")),
        ({"source_ports": ((1, 1023),)}, {"source_port": None}, ("from_port", "1-1023", "unknown")),
        ({"ports": ((80, 80),)}, PING, ("port", "80", "ICMP, which has no port")),
        ({"icmp_types": frozenset(((1, 0), (58, 129)))}, PING, ("icmp_type", "ICMP 0, ICMPv6 129", "ICMP 8")),
        ({"icmp_types": frozenset(((1, 0),))}, {}, ("icmp_type", "ICMP 0", "TCP, which has no ICMP type")),
        ({"icmp_types": frozenset(((1, 0),))}, {**PING, "icmp_type": None}, ("icmp_type", "ICMP 0", "ICMP unknown")),
        ({"interfaces": ("wlan*", "tun0")}, {}, ("interface", "wlan*, tun0", "eth0")),
        ({"interfaces": ("wlan*", "tun0")}, {"interface": None}, ("interface", "wlan*, tun0", "unknown, but not lo")),
        ({"apps": ("/bin/a",)}, {"app": "/bin/b"}, ("app", "/bin/a", "/bin/b")),
        ({"apps": ("/bin/a",)}, {"app": "/bin/b", "app_sha256": "b" * 64}, ("app", "/bin/a", "/bin/b")),
        ({"apps": ("/bin/a",)}, {"app": ""}, ("app", "/bin/a", "none that has a path")),
        ({"apps": (HASHED,)}, {"app": "/bin/a"}, ("app", HASHED_TEXT, "/bin/a (sha256 unknown)")),
        (
            {"apps": (HASHED,)},
            {"app": "/bin/a", "app_sha256": "b" * 64},
            ("app", HASHED_TEXT, f"/bin/a (sha256 {'b' * 16}…)"),
        ),
        ({"apps": ("/p",), "scripts": ("/s",)}, {"app": "/p", "script": "/t"}, ("script", "/s", "/t")),
        ({"apps": ("/p",), "scripts": ("/s",)}, {"app": "/p", "script": ""}, ("script", "/s", "none")),
        ({"apps": ("/p",), "scripts": ("/s", "/t")}, {"app": "/p"}, ("script", "/s, /t", "unknown")),
        (
            {"apps": ("/bin/a",), "directions": frozenset(Direction)},
            {"direction": Direction.FORWARD},
            ("app", "/bin/a", "a forwarded connection"),
        ),
        ({"users": ("alice",)}, {"users": frozenset(("bob", "1001"))}, ("user", "alice", "1001, bob")),
        ({"users": ("alice",)}, {"users": frozenset()}, ("user", "alice", "nothing")),
        ({"units": ("a.service",)}, {}, ("unit", "a.service", "unknown")),
    ],
)
def test_words_for_each_field(make_rule, make_flow, make_policy, wanted, given, mismatch):
    explanation = explain(make_policy(make_rule(**wanted)), make_flow(**given), NOW)
    assert explanation.passed[0].mismatches == (Mismatch(*mismatch),)


def test_long_lists_are_told_in_short(make_rule, make_flow, make_policy):
    many = " ".join(f"10.{number >> 8}.{number & 255}.0/25" for number in range(5000))
    rule = make_rule(
        source=many,
        ports=tuple((port, port) for port in range(1000, 9000, 2)),
        interfaces=tuple(f"tap{number}" for number in range(1000)),
    )
    explanation = explain(make_policy(rule), make_flow(), NOW)
    assert [each.wants for each in explanation.passed[0].mismatches] == [
        "10.0.0.0/25, 10.0.1.0/25, 10.0.2.0/25, 4997 more",
        "1000, 1002, 1004, 3997 more",
        "tap0, tap1, tap2, 997 more",
    ]
    assert len(render(explanation)[1]) < 300


def test_lines_leave_out_what_follows_from_the_rest(make_rule, make_flow, make_policy):
    policy = make_policy(
        make_rule(name="a", directions=frozenset((Direction.OUT,)), source="10.0.0.1", ports=((80, 80),)),
        make_rule(name="b", protocols=frozenset((UDP,)), source="10.0.0.1", ports=((80, 80),)),
    )
    explanation = explain(policy, make_flow(), NOW)
    assert [len(each.mismatches) for each in explanation.passed] == [3, 3]
    assert render(explanation)[1:] == [
        '  no match   rule "a": direction wants out, is in',
        '  no match   rule "b": from wants 10.0.0.1, is 203.0.113.9; protocol wants UDP, is TCP',
    ]


def test_a_time_beyond_the_calendar_is_still_told(make_rule, make_flow, make_policy):
    rule = make_rule(expires=Expiry(0.0, False, "1970-01-01T00:00:00Z"))
    explanation = explain(make_policy(rule), make_flow(), Moment(1e15))
    assert explanation.passed[0].mismatches[0].has == "1000000000000000.0 s"


def test_it_agrees_with_the_matcher_and_can_be_serialised(make_rule, make_flow, make_policy):
    policy = make_policy(make_rule(limit=Limit(6, 60, 5), protocols=frozenset((UDP, 6))), base=Base())
    for flow in (make_flow(), make_flow(protocol=UDP, port=68, source_port=None), make_flow(protocol=47)):
        explanation = explain(policy, flow, NOW)
        assert explanation.verdict == decide_slowly(policy, flow, NOW)
        assert to_builtins(explanation)["verdict"]["action"] == explanation.verdict.action.value
