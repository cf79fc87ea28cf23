from __future__ import annotations

import json

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.model.flow import Moment
from pfw.policy.blocking import with_lists
from pfw.policy.load import load
from pfw.policy.locate import rule_lines
from pfw.policy.trials import MOST_PASSED, faults, told, try_all, why

NOON = 1795435200.0
"""A Monday, 12:00 UTC."""
RULES = [
    {"name": "ssh", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22, "from": "192.168.0.0/16"},
    {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": 25},
    {"name": "browser", "action": "ask", "direction": "out", "app": "/usr/bin/firefox", "port": 443},
    {"name": "day", "action": "allow", "direction": "in", "port": 80, "schedule": {"from": "08:00", "until": "18:00"}},
    {"name": "hers", "action": "allow", "direction": "in", "port": 81, "user": "group:staff"},
]


def text_of(*tests: dict[str, object], **more: object) -> str:
    return json.dumps({"version": 2, "rules": RULES, "tests": list(tests), **more}, indent=1)


def moment_at(time: float | None) -> Moment:
    return Moment(NOON if time is None else time, 3600)


def names_of(user: str) -> frozenset[str]:
    return frozenset((user, "group:staff")) if user == "alice" else frozenset((user,))


def run(text: str) -> list[bool]:
    return [trial.holds for trial in try_all(load(text), moment_at, names_of)]


@pytest.mark.parametrize(
    ("test", "holds"),
    [
        ({"expect": "allow", "in": "tcp 192.168.1.9 -> :22"}, True),
        ({"expect": "block", "in": "tcp 192.168.1.9 -> :22"}, False),
        ({"expect": "block", "in": "tcp 203.0.113.9 -> :22"}, True),
        # Whoever it is: some may, some may not.
        ({"expect": "allow", "in": "tcp -> :22"}, False),
        ({"expect": "block", "in": "tcp -> :22"}, False),
        ({"expect": "block", "in": "tcp -> :23"}, True),
        # Whatever port: one is open to some.
        ({"expect": "block", "in": "tcp 192.168.1.9 ->"}, False),
        ({"expect": "block", "in": "sctp 192.168.1.9 ->"}, True),
        # What refuses is not what drops.
        ({"expect": "reject", "out": "tcp -> 203.0.113.5:25"}, True),
        ({"expect": "block", "out": "tcp -> 203.0.113.5:25"}, False),
        ({"expect": "reject", "out": "tcp -> 203.0.113.5:25", "app": "/usr/bin/curl"}, True),
        # Whose it is matters, and is not said.
        ({"expect": "allow", "out": "tcp -> 203.0.113.5:443"}, False),
        ({"expect": "ask", "out": "tcp -> 203.0.113.5:443"}, False),
        ({"expect": "ask", "out": "tcp -> 203.0.113.5:443", "app": "/usr/bin/firefox"}, True),
        ({"expect": "allow", "out": "tcp -> 203.0.113.5:443", "app": "/usr/bin/curl"}, True),
        # By the local clock, an hour before UTC.
        ({"expect": "allow", "in": "tcp -> :80"}, True),
        ({"expect": "allow", "in": "tcp -> :80", "at": "2026-11-23T17:59"}, True),
        ({"expect": "block", "in": "tcp -> :80", "at": "2026-11-23T18:00"}, True),
        ({"expect": "block", "in": "tcp -> :80", "at": "2026-11-23T17:00Z"}, True),
        ({"expect": "allow", "in": "tcp -> :81", "user": "alice"}, True),
        ({"expect": "block", "in": "tcp -> :81", "user": "bob"}, True),
        ({"expect": "allow", "in": "tcp 127.0.0.1 -> :9", "rule": "base loopback"}, True),
        ({"expect": "block", "forward": "tcp 10.0.0.1 -> 10.0.0.2:22", "rule": "default forward"}, True),
        ({"expect": "allow", "in": "tcp 192.168.1.9 -> :22", "rule": "ssh"}, True),
        ({"expect": "allow", "in": "tcp 192.168.1.9 -> :22", "rule": "day"}, False),
        ({"expect": "block", "in": "tcp -> :23", "rule": "default out"}, False),
    ],
)
def test_whether_they_hold(test, holds):
    assert run(text_of(test)) == [holds]


def test_block_lists_count_where_they_are_known():
    text = text_of(
        {"expect": "block", "in": "tcp 192.168.1.9 -> :22", "rule": "base block list bad"},
        {"expect": "block", "in": "tcp -> :80"},
        blocklists=[{"name": "bad", "source": "/b"}],
    )
    policy = load(text)
    known = with_lists(policy, {"bad": AddressSet([parse_range("192.168.1.0/24")])})
    assert run(text) == [False, False]
    # Of the second nothing is certain: whoever is on the list is blocked, all others may.
    assert [trial.verdict.action for trial in try_all(known, moment_at, names_of)] == ["block", "unknown"]


def test_each_that_fails_is_a_fault_with_its_place():
    text = text_of(
        {"expect": "allow", "in": "tcp 192.168.1.9 -> :22"},
        {"expect": "allow", "in": "tcp 203.0.113.9 -> :22", "rule": "ssh"},
        {"expect": "block", "out": "tcp -> 203.0.113.5:25"},
    )
    found = faults(try_all(load(text), moment_at, names_of), text, "f.json")
    lines = text.splitlines()
    assert [each.where for each in found] == ["tests[1]", "tests[2]"]
    assert all(lines[each.line - 1][each.column - 1] == "{" for each in found)
    assert [each.what for each in found] == [
        'in tcp 203.0.113.9 -> :22: must be allow by "ssh", is block: default in',
        f'out tcp -> 203.0.113.5:25: must be block, is reject: rule "no mail", line {rule_lines(text)[1]}',
    ]
    assert not faults(try_all(load(text_of()), moment_at, names_of), text, "f.json")


def test_why_tells_of_the_rules_that_would_have_made_it_hold():
    text = text_of({"expect": "allow", "in": "tcp 203.0.113.9 -> :22"})
    policy = load(text)
    (trial,) = try_all(policy, moment_at, names_of)
    assert why(policy, trial, [1, 2, 3, 4, 5].__getitem__) == [
        "block: default in",
        '  no match   rule "ssh", line 1: from wants 192.168.0.0/16, is 203.0.113.9',
        '  no match   rule "day", line 4: port wants 80, is 22',
        '  no match   rule "hers", line 5: port wants 81, is 22',
    ]


def test_why_is_bounded():
    rules = [{"name": f"r{number}", "action": "allow", "port": number} for number in range(1, 50)]
    policy = load(json.dumps({"version": 2, "rules": rules, "tests": [{"expect": "allow", "in": "tcp -> :99"}]}))
    (trial,) = try_all(policy, moment_at, names_of)
    lines = why(policy, trial, lambda index: index)
    assert len(lines) == MOST_PASSED + 2
    assert lines[-1] == "  … and 44 more"


def test_a_test_says_what_is_not_known():
    (trial,) = try_all(load(text_of({"expect": "allow", "in": "tcp -> :22"})), moment_at, names_of)
    assert told(trial, [7]) == (
        'in tcp -> :22: must be allow, is unknown: allow if the source is 192.168.0.0/16 (rule "ssh"), '
        "otherwise block (default in), line 7"
    )
