"""Suggested rules: what each kind of history gives, and the three promises at the top of `suggest.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.history import Group, Traffic
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.policy import suggest as suggesting
from pfw.policy.load import load
from pfw.policy.needs import written
from pfw.policy.rehearsal import Rehearsal
from pfw.policy.suggest import Suggested, suggest

from . import histories
from .histories import ADDRESSES, make_group, world

IN, OUT, FORWARD = Direction.IN, Direction.OUT, Direction.FORWARD
OPEN = {"in": "allow", "out": "allow", "forward": "allow"}


def file(*rules: dict, **more: Any) -> str:
    named = [{"name": f"rule {number}", **rule} for number, rule in enumerate(rules)]
    return json.dumps({"version": 2, "default": OPEN, "rules": named} | more, indent=1)


def run(*groups: Group, content: str = file()) -> Suggested:
    return suggest(content, "rules.json", lambda: groups, world())


def rules(found: Suggested) -> list[dict[str, Any]]:
    """The new rules, without what is the same in all."""
    made = [dict(line.rule) for line in found.lines]
    for rule in made:
        assert rule.pop("action") == "allow"
        rule.pop("note")
    return made


def closed(text: str) -> Rehearsal:
    """The policy with every default at `block`, to be asked."""
    policy = load(text)
    return Rehearsal(replace(policy, defaults=dict.fromkeys(policy.defaults, Action.BLOCK)), world())


class TestRules:
    def test_one_for_a_program_with_its_ports(self):
        groups = [make_group(remote, port=port, name="example.com") for remote in ADDRESSES[:4] for port in (80, 443)]
        found = run(*groups, make_group("8.8.8.8", protocol=17, program="/usr/bin/dnsd", port=53, count=5))
        assert rules(found) == [
            {"name": "firefox: web", "direction": "out",
             "protocol": "tcp", "port": [80, 443], "app": "/usr/bin/firefox"},
            {"name": "dnsd: dns", "direction": "out", "to": "8.8.8.8",
             "protocol": "udp", "port": 53, "app": "/usr/bin/dnsd"},
        ]  # fmt: skip
        assert [line.count for line in found.lines] == [8, 5]
        assert found.lines[0].rule["note"] == "seen 8 times"
        assert (found.accepted, found.covered, found.left_out, found.unmet) == (13, 0, {}, 0)

    def test_tcp_and_udp_to_the_same_ports_are_one(self):
        found = run(make_group(), make_group("8.8.8.8", protocol=17))
        assert rules(found)[0]["protocol"] == ["tcp", "udp"]
        assert rules(found)[0]["to"] == ["8.8.8.8", "203.0.113.9"]

    @pytest.mark.parametrize(("ports", "said"), [
        (range(8000, 8008), "8000-8007"), (range(8000, 8009), None), ([1, 2, 9], [1, 2, 9]), ([1, 2, 3, 9], ["1-3", 9]),
    ])  # fmt: skip
    def test_more_than_eight_ports_are_all(self, ports, said):
        (rule,) = rules(run(*(make_group(port=port) for port in ports)))
        assert rule.get("port") == said

    def test_without_a_program_ports_are_always_named(self):
        groups = [make_group(direction=IN, program=None, certainty=None, port=port) for port in range(100, 130, 2)]
        (rule,) = rules(run(*groups))
        assert rule["port"] == list(range(100, 130, 2))
        assert "app" not in rule

    @pytest.mark.parametrize(
        ("remotes", "name", "to"),
        [
            (ADDRESSES[:3], None, ["198.51.100.1", "198.51.100.2", "203.0.113.9"]),
            (ADDRESSES[:4], None, None),
            (ADDRESSES[:1], "example.com", None),
            ([f"192.168.1.{last}" for last in range(1, 9)], "nas.lan", "192.168.1.0/24"),
            ([f"192.168.{third}.1" for third in range(8)], None, "private"),
            (["192.168.1.1", "192.168.1.2", "192.168.1.3", "8.8.8.8"], None, None),
        ],
    )
    def test_other_ends_are_named_where_they_are_few_or_near(self, remotes, name, to):
        (rule,) = rules(run(*(make_group(remote, name=name) for remote in remotes)))
        assert rule.get("to") == to

    def test_an_alias_of_the_file_is_not_taken_for_the_one_that_is_built_in(self):
        content = file(aliases={"private": ["8.8.8.8"]})
        (rule,) = rules(run(*(make_group(f"192.168.{third}.1") for third in range(8)), content=content))
        assert rule["to"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]

    def test_other_protocols(self):
        found = run(
            make_group(protocol=1, port=None, icmp_type=8, program="/bin/ping"),
            make_group(protocol=47, port=None, program=None, certainty=None),
            make_group("10.0.0.9", direction=FORWARD, local="192.168.7.2"),
        )
        assert {rule["name"]: rule for rule in rules(found)} == {
            "ping: echo-request": {"name": "ping: echo-request", "direction": "out", "to": "203.0.113.9",
                                   "protocol": "icmp", "icmp_type": "echo-request", "app": "/bin/ping"},
            "any program: gre": {"name": "any program: gre", "direction": "out", "to": "203.0.113.9",
                                 "protocol": "gre"},
            "web forwarded": {"name": "web forwarded", "direction": "forward", "from": "192.168.7.2", "to": "10.0.0.9",
                              "protocol": "tcp", "port": 443},
        }  # fmt: skip

    def test_names_are_told_apart_whatever_programs_are_called(self):
        programs = ["/usr/bin/firefox", "/opt/firefox", "/opt/Base x", "/opt/default", f"/opt/{'x' * 300}"]
        found = run(*(make_group(program=program) for program in programs))
        assert len({rule.name for rule in load(found.text).rules}) == len(programs)
        assert found.left_out == {}


class TestLeftOut:
    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({"certainty": Certainty.GUESS}, suggesting.GUESSED),
            ({"program": "/opt/odd*"}, suggesting.NO_PATH),
            ({"program": "/opt/a\x1b[2J"}, suggesting.NO_PATH),
            ({"program": "/x//y"}, suggesting.NO_PATH),
            ({"port": None}, suggesting.NO_PORT),
        ],
    )
    def test_what_no_rule_can_name(self, fields, why):
        found = run(make_group(count=3, **fields))
        assert (found.lines, found.left_out, found.text) == ((), {why: 3}, file())

    @pytest.mark.parametrize(
        ("traffic", "protocol", "count", "is_left_out"),
        [
            (Traffic(0, 0, 60, 1), 6, 9, True),
            (Traffic(40, 1, 60, 1), 6, 1, True),
            (Traffic(60, 1, 60, 1), 6, 1, False),
            (Traffic(0, 0, 0, 0), 6, 1, False),
            (Traffic(0, 0, 60, 1), 17, 1, True),
            (Traffic(0, 0, 60, 2), 17, 2, False),
        ],
    )
    def test_what_nobody_here_answered(self, traffic, protocol, count, is_left_out):
        found = run(make_group(direction=IN, port=23, protocol=protocol, traffic=traffic, count=count))
        assert (found.left_out == {suggesting.UNANSWERED: count}) is is_left_out
        assert bool(found.lines) is not is_left_out

    def test_a_port_without_a_program_that_known_programs_use(self):
        found = run(make_group(), make_group(program=None, certainty=None, count=2),
                    make_group(program=None, certainty=None, port=123))  # fmt: skip
        assert [rule["name"] for rule in rules(found)] == ["any program: ntp", "firefox: web"]
        assert found.left_out == {suggesting.NOT_KNOWN: 2}
        assert found.unmet == 0

    def test_it_is_left_out_still_where_a_rule_allows_those_programs(self):
        groups = make_group(), make_group(program=None, certainty=None, count=2)
        found = run(*groups, content=run(*groups).text)
        assert (found.lines, found.covered, found.left_out) == ((), 1, {suggesting.NOT_KNOWN: 2})

    def test_more_rules_than_anybody_reads(self, monkeypatch):
        monkeypatch.setattr(suggesting, "RULES_MAX", 2)
        found = run(*(make_group(program=f"/bin/{name}", count=ord(name)) for name in "abcd"))
        assert [line.count for line in found.lines] == [ord("d"), ord("c")]
        assert found.left_out == {suggesting.TOO_MANY: ord("a") + ord("b")}
        assert found.unmet == 0

    def test_what_was_not_allowed_is_nobodys_need(self):
        assert run(make_group(action=Action.BLOCK)).accepted == 0


class TestAmongOtherRules:
    def test_what_a_rule_allows_is_covered(self):
        found = run(make_group(), content=file({"action": "allow", "direction": "out", "app": "/usr/bin/firefox"}))
        assert (found.lines, found.covered) == ((), 1)

    def test_what_a_rule_with_a_limit_allows_is_counted(self):
        slow = {"action": "allow", "direction": "out", "limit": "6/minute"}
        content = file(
            {**slow, "port": 443, "protocol": "tcp", "schedule": {"from": "08:00", "until": "12:00"}},
            {**slow, "port": [443, 22], "protocol": "tcp"},
            {**slow, "port": 25, "protocol": "tcp"},
            {"action": "allow", "direction": "out", "protocol": "udp"},
        )
        day = {"first": histories.MONDAY, "last": histories.MONDAY + 86400}
        found = run(make_group(count=100), make_group(count=30, **day), make_group(port=22, count=5),
                    make_group(protocol=17, count=7), make_group(port=80), content=content)  # fmt: skip
        assert found.covered == 142
        assert found.limited == {"rule 0": 130, "rule 1": 35}
        assert run(make_group()).limited == {}

    def test_what_a_rule_stops_is_stopped(self):
        found = run(make_group(), content=file({"action": "block", "direction": "out", "protocol": "tcp", "port": 443}))
        assert (found.lines, found.left_out) == ((), {suggesting.STOPPED: 1})

    def test_new_rules_go_before_the_one_that_asks_in_their_order(self):
        content = file({"action": "block", "protocol": "tcp", "port": 25}, {"action": "ask", "direction": "out"})
        found = run(make_group(count=2), make_group(program="/bin/b", port=22), content=content)
        names = [rule.name for rule in load(found.text).rules]
        assert names == ["rule 0", "firefox: web", "b: ssh", "rule 1"]

    def test_not_where_a_later_rule_stops_some_of_it(self):
        content = file({"action": "ask", "direction": "out"}, {"action": "block", "protocol": "tcp", "port": 443})
        found = run(make_group(), make_group(port=22, program="/bin/b"), content=content)
        assert [rule.name for rule in load(found.text).rules] == ["b: ssh", "rule 0", "rule 1"]
        assert found.left_out == {suggesting.BEHIND: 1}

    def test_a_later_rule_for_another_program_is_nothing_to_it(self):
        content = file({"action": "ask", "direction": "out"}, {"action": "block", "app": "/bin/*"})
        found = run(make_group(), make_group(program="/bin/b"), content=content)
        assert [rule["name"] for rule in rules(found)] == ["firefox: web"]
        assert found.left_out == {suggesting.BEHIND: 1}

    def test_the_rest_of_the_file_stays_byte_for_byte(self):
        content = (
            '{\n\t"version": 2, "rules": [\n\t\t{"name": "a", "action": "block", "port": 25, "note": "stays"}\n\t]\n}\n'
        )
        found = run(make_group(), content=content)
        head, tail = content.split('"stays"}')
        assert found.text.startswith(head)
        assert found.text.endswith(tail)


@settings(max_examples=150, deadline=None)
@given(histories.policies(), st.lists(histories.groups(), max_size=16))
def test_the_promises_hold(policy, groups):
    content = json.dumps(policy)
    before = load(content)
    found = suggest(content, "rules.json", lambda: groups, world())
    after = load(found.text)
    old, new, shut = Rehearsal(before, world()), Rehearsal(after, world()), closed(found.text)

    # 1: the old rules are there, in their order, the new ones allow, the defaults are the same.
    made = {line.name for line in found.lines}
    assert [rule for rule in after.rules if rule.name not in made] == list(before.rules)
    assert all(rule.action is Action.ALLOW for rule in after.rules if rule.name in made)
    assert after.defaults == before.defaults

    allowed = 0
    for group in groups:
        # 2: whatever a rule stops, it stops still, and so does what was not allowed at the time.
        for was, now in zip(old.verdicts(group), new.verdicts(group), strict=True):
            assert not (was.stops and was.rule is not None) or now.action is was.action
            assert was.action is not Action.ALLOW or now.action is Action.ALLOW
        if group.subject.action is Action.ALLOW:
            verdicts = shut.verdicts(group)
            allowed += group.count if verdicts and all(each.action is Action.ALLOW for each in verdicts) else 0

    # 3: all of it is accounted for, and is allowed whatever the defaults.
    accepted = sum(group.count for group in groups if group.subject.action is Action.ALLOW)
    needed = sum(line.count for line in found.lines)
    assert found.accepted == accepted == found.covered + needed + sum(found.left_out.values())
    assert found.unmet == 0
    assert allowed >= found.covered + needed


@settings(max_examples=60, deadline=None)
@given(histories.policies(), st.lists(histories.groups(), max_size=12), st.lists(histories.groups(), min_size=1))
def test_what_a_rule_stops_is_stopped_for_connections_that_were_never_seen(policy, seen, others):
    content = json.dumps(policy)
    found = suggest(content, "rules.json", lambda: seen, world())
    old, new = Rehearsal(load(content), world()), Rehearsal(load(found.text), world())
    for group in others:
        for was, now in zip(old.verdicts(group), new.verdicts(group), strict=True):
            assert not (was.stops and was.rule is not None) or now.action is was.action


@settings(max_examples=60, deadline=None)
@given(st.lists(histories.groups(), max_size=25))
def test_it_is_the_same_whatever_the_order_and_asks_for_nothing_twice(groups):
    once = suggest(file(), "rules.json", lambda: groups, world())
    other = suggest(file(), "rules.json", lambda: list(reversed(groups)), world())
    assert once.text == other.text
    again = suggest(once.text, "rules.json", lambda: groups, world())
    assert again.lines == ()


def test_nothing_is_needed_where_nothing_was():
    assert written([], lambda port: None, ()) == []
