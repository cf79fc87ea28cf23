from __future__ import annotations

import json

import pytest

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.policy import Expectation, PolicyError
from pfw.model.verdict import Action
from pfw.policy.convert import to_full
from pfw.policy.edit import delete_rule, insert_rule
from pfw.policy.expectations import MAX_TESTS
from pfw.policy.load import load

RULE = {"name": "ssh", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22}


def full(*tests: object, **more: object) -> str:
    return json.dumps({"version": 2, "rules": [RULE], "tests": list(tests), **more})


def faults(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    return [f"{each.where}: {each.what}" for each in caught.value.faults]


def test_a_test_is_a_connection_and_its_verdict():
    policy = load(full({"expect": "allow", "in": "tcp 192.168.1.9:5 -> 192.168.1.2:22"}))
    flow = Flow(
        direction=Direction.IN, protocol=6, source=parse_address("192.168.1.9"), source_port=5,
        destination=parse_address("192.168.1.2"), port=22,
    )  # fmt: skip
    assert policy.tests == (Expectation(expect=Action.ALLOW, flow=flow, text="in tcp 192.168.1.9:5 -> 192.168.1.2:22"),)


def test_all_fields():
    test = {
        "expect": "reject", "out": "tcp  ->  203.0.113.5:25", "app": "/opt/My App/run", "script": "/s", "user": 1000,
        "unit": "a.service", "interface": "eth0", "at": "2026-11-23T10:00", "rule": "ssh", "note": "why",
    }  # fmt: skip
    (found,) = load(full(test)).tests
    assert found.flow == Flow(
        direction=Direction.OUT, protocol=6, source=b"", destination=parse_address("203.0.113.5"), port=25,
        interface="eth0", app="/opt/My App/run", script="/s", users=frozenset(("1000",)), unit="a.service",
    )  # fmt: skip
    assert (found.expect, found.rule, found.note, found.local) == (Action.REJECT, "ssh", "why", True)
    assert found.time == 1795428000.0
    assert found.text.startswith('out tcp -> 203.0.113.5:25 --app "/opt/My App/run" --script /s')


def test_options_may_stand_in_the_question():
    (found,) = load(full({"expect": "block", "in": "tcp -> :80 --user alice", "at": "2026-11-23T10:00Z"})).tests
    assert (found.flow.users, found.time, found.local) == (frozenset(("alice",)), 1795428000.0, False)


@pytest.mark.parametrize("name", ["ssh", "base loopback", "base block list bad", "default in", "default forward"])
def test_names_that_may_decide(name):
    text = full({"expect": "allow", "in": "tcp -> :22", "rule": name}, blocklists=[{"name": "bad", "source": "/b"}])
    assert load(text).tests[0].rule == name


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (3, "tests[0]: must be an object, not a number"),
        ({"in": "tcp -> :22"}, 'tests[0]: has no "expect"'),
        ({"expect": "allow"}, 'tests[0]: has no question: "in", "out" or "forward"'),
        ({"expect": "allow", "in": "tcp -> :1", "out": "tcp -> :1"},
         'tests[0].out: stands beside "in"; a test asks one question'),
        ({"expect": "drop", "in": "tcp -> :22"}, 'tests[0].expect: "drop" is not an action; write "block"'),
        ({"expect": "alow", "in": "tcp -> :22"}, 'tests[0].expect: "alow" is not an action ("allow", "block", "reject" '
         'or "ask"); did you mean "allow"?'),
        ({"expect": "unknown", "in": "tcp -> :22"}, 'tests[0].expect: "unknown" is not an action ("allow", "block", '
         '"reject" or "ask")'),
        ({"expect": "ask", "forward": "tcp ->"}, "tests[0].expect: nobody can be asked about forwarded connections: "
         "no program of this machine owns them"),
        ({"expect": "allow", "in": "tcp -> :22", "nite": ""},
         'tests[0].nite: is not a field of a test; did you mean "unit" or "note"?'),
        ({"expect": "allow", "in": "tpc -> :22"}, 'tests[0].in: "tpc" is not a protocol; did you mean "tcp"?'),
        ({"expect": "allow", "in": "tcp 192.168.1 -> :22"}, 'tests[0].in: "192.168.1" is not an address'),
        ({"expect": "allow", "in": ""}, "tests[0].in: must not be empty"),
        ({"expect": "allow", "in": 22}, "tests[0].in: must be a text, not a number"),
        ({"expect": "allow", "in": "tcp -> :22 'x"}, "tests[0].in: a quote is opened and not closed"),
        ({"expect": "allow", "in": "tcp -> :22 --user a", "script": "/s", "unit": "u", "app": "/a", "at": "noon"},
         'tests[0].at: "noon" is not a time, as in 2026-11-23T10:00'),
        ({"expect": "allow", "in": "tcp -> :22 --app /a", "app": "/b"}, "tests[0].in: --app is given twice"),
        ({"expect": "allow", "in": "tcp -> :22", "app": "/usr/*"},
         'tests[0].app: "/usr/*" is a pattern; a test is about one connection, so write it in full'),
        ({"expect": "allow", "in": "tcp -> :22", "interface": "eth*"},
         'tests[0].interface: "eth*" is a pattern; a test is about one connection, so write it in full'),
        ({"expect": "allow", "in": "tcp -> :22", "user": -1},
         "tests[0].user: -1 is not a user or group id (0-4294967294)"),
        ({"expect": "allow", "in": "tcp -> :22", "rule": "shs"},
         'tests[0].rule: "shs" is the name of no rule; did you mean "ssh"?'),
    ],
)  # fmt: skip
def test_faults(test, told):
    assert faults(full(test)) == [told]


def test_the_place_of_a_fault_is_that_of_the_value():
    text = '{"version": 2,\n "tests": [\n  {"expect": "block",\n   "in": "tpc -> :22"}]}'
    with pytest.raises(PolicyError) as caught:
        load(text)
    assert [(each.line, each.column) for each in caught.value.faults] == [(4, 10)]


def test_no_list():
    assert faults('{"tests": {}}') == ["tests: must be a list of tests, not an object"]


def test_too_many():
    test = {"expect": "allow", "in": "tcp -> :22"}
    assert len(load(full(*[test] * MAX_TESTS)).tests) == MAX_TESTS
    assert faults(full(*[test] * (MAX_TESTS + 1))) == ["tests: has 10,001 tests, and 10,000 are the most"]


def test_beside_a_rule_with_a_fault_no_name_is_missed():
    text = json.dumps({"version": 2, "rules": [{**RULE, "port": 70000}],
                       "tests": [{"expect": "allow", "in": "tcp -> :22", "rule": "ssh"}]})  # fmt: skip
    assert faults(text) == ["rules[0].port: 70000 is not a port (0-65535)"]


class TestTheyStay:
    LISTS = '{"allow": {"port": [22]},\n "tests": [{"expect": "allow", "in": "tcp -> :22", "rule": "allow port"}]}\n'

    def test_in_the_lists_form(self):
        policy = load(self.LISTS)
        assert policy.simple
        assert [test.rule for test in policy.tests] == ["allow port"]

    def test_when_lists_become_rules(self):
        assert load(to_full(self.LISTS)).tests == load(self.LISTS).tests

    @pytest.mark.parametrize("place", [0, None])
    def test_when_rules_come_and_go(self, place):
        text = '{\n  "version": 2,\n  "tests": [\n    {"expect": "allow", "in": "tcp -> :22"}\n  ],\n  "rules": []\n}\n'
        first = insert_rule(text, RULE, place)
        second = insert_rule(first.text, {**RULE, "name": "two"}, place)
        assert load(second.text).tests == load(text).tests
        assert '  "tests": [\n    {"expect": "allow", "in": "tcp -> :22"}\n  ],\n' in second.text
        assert delete_rule(delete_rule(second.text, "two").text, "ssh").text == text

    def test_where_there_were_no_rules(self):
        text = '{"version": 2, "tests": [{"expect": "allow", "in": "tcp -> :22"}]}'
        assert load(insert_rule(text, RULE, None).text).tests == load(text).tests
