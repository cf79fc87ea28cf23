from __future__ import annotations

import json
from random import Random
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.policy import Policy, public_source
from pfw.policy.difference import Difference, difference, facts, lines, summary
from pfw.policy.load import load


def policy_of(*rules: dict[str, object], **top: object) -> Policy:
    return load(json.dumps({"version": 2, "rules": [{"action": "allow", **rule} for rule in rules], **top}))


SSH = {"name": "ssh", "direction": "in", "protocol": "tcp", "port": 22, "from": "10.0.0.0/8"}
WEB = {"name": "web", "direction": "out", "protocol": "tcp", "port": [80, 443]}


def test_equal_policies() -> None:
    same = difference(policy_of(SSH, WEB), policy_of(SSH, WEB))
    assert same == Difference()
    assert same.empty
    assert lines(same) == []


def test_what_came_and_went() -> None:
    found = difference(policy_of(SSH), policy_of(WEB))
    assert not found.empty
    assert lines(found) == ['+ rule "web": allow out tcp 80, 443', '- rule "ssh"']
    assert facts(found)["added"] == [{"name": "web", "summary": "allow out tcp 80, 443"}]
    assert facts(found)["removed"] == [{"name": "ssh", "summary": "allow in tcp 22 from 10.0.0.0/8"}]


def test_from_no_policy_everything_is_new() -> None:
    found = difference(None, policy_of(SSH, base={"dhcp_client": False}))
    assert lines(found) == [
        "+ default in: block",
        "+ default out: allow",
        "+ default forward: block",
        "~ base dhcp_client: on -> off",
        '+ rule "ssh": allow in tcp 22 from 10.0.0.0/8',
    ]
    assert facts(found)["defaults"]["in"] == [None, "block"]


def test_defaults_and_base_rules() -> None:
    found = difference(policy_of(default={"in": "allow"}), policy_of(default={"in": "block"}, base={"loopback": False}))
    assert lines(found) == ["~ default in: allow -> block", "~ base loopback: on -> off"]
    assert facts(found)["defaults"] == {"in": ["allow", "block"]}
    assert facts(found)["base"] == {"loopback": ["on", "off"]}


def test_what_is_done_about_alerts() -> None:
    before = policy_of(respond={"webhook": "https://h.example/one", "never": ["10.0.0.1"]})
    now = policy_of(respond={"webhook": "https://h.example/two", "when": [{"alert": "all", "do": "ban"}]})
    assert lines(difference(before, now)) == [
        "~ respond when: none -> ban all for 10m",
        "~ respond never: 10.0.0.1 -> none",
        "~ respond webhook: https://h.example/… -> https://h.example/… (another address or key)",
    ]
    assert facts(difference(before, now))["respond"]["never"] == ["10.0.0.1", "none"]
    assert difference(before, before).empty


def test_how_is_asked() -> None:
    found = difference(policy_of(), policy_of(ask={"timeout": "5m", "unattended": "allow"}))
    assert lines(found) == ["~ ask timeout: 60 s -> 300 s", "~ ask unattended: block -> allow"]
    assert facts(found)["ask"] == {"timeout": ["60 s", "300 s"], "unattended": ["block", "allow"]}
    assert difference(policy_of(ask={"timeout": 60}), policy_of(ask={"timeout": "1m", "unattended": "block"})).empty
    assert lines(difference(None, policy_of(ask={"timeout": 2.5})))[3:] == ["~ ask timeout: 60 s -> 2.5 s"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"port": [22, 2222]}, "port 22 -> 22, 2222"),
        ({"action": "block"}, "action allow -> block"),
        ({"direction": "both"}, "direction in -> both"),
        ({"protocol": "udp"}, "protocol tcp -> udp"),
        ({"protocol": ["tcp", "udp"]}, "protocol tcp -> tcp/udp"),
        ({"from": "10.0.0.0/8", "to": "10.0.0.1"}, "to none -> 10.0.0.1"),
        ({"from": ["10.0.0.0/8", "::1", "1.1.1.1", "2.2.2.2"]}, "from 10.0.0.0/8 -> 4 ranges (+3, -0)"),
        ({"limit": "6/minute"}, "limit none -> 6/minute"),
        ({"log": True, "note": "x"}, 'log false -> true; note none -> "x"'),
        ({"enabled": False}, "enabled true -> false"),
        ({"expires": "2030-01-01"}, "expires none -> 2030-01-01"),
        ({"schedule": {"days": "mon"}}, "schedule none -> mon 00:00-24:00"),
        ({"interface": "eth*", "app": "/usr/bin/x"}, "interface none -> eth*; app none -> /usr/bin/x"),
        ({"user": ["a", "b", "c", "d"]}, "user none -> 4 users"),
    ],
)
def test_what_changed_in_a_rule(fields, told) -> None:
    found = difference(policy_of(SSH), policy_of({**SSH, **fields}))
    assert lines(found) == [f'~ rule "ssh": {told}']


def test_a_change_as_facts() -> None:
    limited = {**SSH, "limit": "6/minute"}
    found = difference(policy_of(SSH | {"limit": "6/minute burst 3"}), policy_of(limited, WEB))
    assert facts(found)["changed"] == [{"name": "ssh", "fields": {"burst": ["3", "5"]}}]
    json.dumps(facts(found))


def test_long_lists_are_counted() -> None:
    addresses = [f"10.{number // 200}.{number % 200}.1" for number in range(2000)]
    new = [*addresses[1:], *(f"192.0.2.{number}" for number in (1, 3, 5, 7, 9))]
    found = difference(policy_of({"name": "a", "from": addresses}), policy_of({"name": "a", "from": new}))
    assert lines(found) == ['~ rule "a": from 2,000 ranges -> 2,004 ranges (+5, -1)']


BLOCK = {"name": "block", "action": "block", "direction": "in", "protocol": "tcp"}


@pytest.mark.parametrize(
    ("first", "second", "matters"),
    [
        (SSH, BLOCK, True),
        (SSH, {**BLOCK, "action": "allow"}, False),
        (SSH, {**BLOCK, "protocol": "udp"}, False),
        (SSH, {**BLOCK, "direction": "out"}, False),
        (SSH, {**BLOCK, "port": [23, 80]}, False),
        (SSH, {**BLOCK, "port": "1-30"}, True),
        (SSH, {**BLOCK, "from": "192.168.0.0/16"}, False),
        (SSH, {**BLOCK, "remote": "10.1.0.0/16"}, True),
        (SSH, {**BLOCK, "enabled": False}, False),
        (SSH, {**BLOCK, "action": "allow", "limit": "1/day"}, True),
        (SSH, {**BLOCK, "action": "allow", "log": True}, True),
    ],
)
def test_only_an_order_that_matters_is_told(first, second, matters) -> None:
    found = difference(policy_of(first, second), policy_of(second, first))
    assert found.empty is not matters
    if matters:
        assert lines(found) == ['~ rule "block": place 2 -> 1']
        assert facts(found)["moved"] == [{"name": "block", "place": [1, 0]}]


def test_the_fewest_rules_are_moved() -> None:
    rules = [{"name": str(number), "action": ("allow", "block")[number % 2]} for number in range(9)]
    found = difference(policy_of(*rules), policy_of(*rules[:2], *rules[3:], rules[2]))
    assert [(each.name, each.old, each.new) for each in found.moved] == [("2", 2, 8)]


def test_rules_that_come_and_go_move_nobody() -> None:
    rules = [{"name": str(number), "action": ("allow", "block")[number % 2]} for number in range(9)]
    found = difference(policy_of(*rules), policy_of({"name": "new"}, *rules[3:6], {"name": "x"}, *rules[7:]))
    assert found.moved == ()
    assert (len(found.added), len(found.removed)) == (2, 4)


@settings(deadline=None)
@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_what_stays_when_the_moved_are_left_out_is_in_one_order(order, gone) -> None:
    rules = [{"name": str(number), "action": ("allow", "block")[number % 2]} for number in range(8)]
    new = [number for number in order if number not in gone]
    moved = {int(each.name) for each in difference(policy_of(*rules), policy_of(*(rules[at] for at in new))).moved}
    left = [number for number in new if number not in moved]
    # Rules of one action may pass each other; no others do.
    for action in (0, 1):
        for at, number in enumerate(left):
            assert all(later > number for later in left[at + 1 :] if later % 2 != action == number % 2)


def test_block_lists() -> None:
    drop = {"name": "drop", "source": "https://a.example/drop.txt", "note": "x"}
    old = [drop, {"name": "gone", "source": "/etc/x"}, {"name": "same", "source": "/etc/z"}]
    new = [
        {"name": "same", "source": "/etc/z"},
        {**drop, "source": "https://b.example/drop.txt", "refresh": "90m", "direction": "in", "enabled": False},
        {"name": "come", "source": "https://c.example/?key=secret"},
    ]
    found = difference(policy_of(blocklists=old), policy_of(blocklists=new))
    assert lines(found) == [
        f'+ blocklist "come": {public_source("https://c.example/?key=secret")}',
        '- blocklist "gone"',
        '~ blocklist "drop": source https://a.example/drop.txt -> https://b.example/drop.txt; refresh 1d -> 90m; '
        "direction both -> in; enabled true -> false",
    ]
    assert facts(found)["blocklists"]["changed"][0]["fields"]["refresh"] == ["1d", "90m"]
    assert facts(found)["blocklists"]["removed"] == [{"name": "gone", "source": "/etc/x"}]
    assert "secret" not in json.dumps(facts(found))


def test_the_secret_of_a_source_is_not_told() -> None:
    old, new = ([{"name": "a", "source": f"https://c.example/?key=secret{each}"}] for each in (1, 2))
    (told,) = lines(difference(policy_of(blocklists=old), policy_of(blocklists=new)))
    assert "secret" not in told
    assert told.endswith("(another password or query)")


def test_of_many_lines_the_rest_is_counted() -> None:
    found = difference(policy_of(), policy_of(*({"name": str(number)} for number in range(1234))))
    told = lines(found)
    assert len(told) == 51
    assert told[-1] == "and 1,184 more"
    assert len(facts(found)["added"]) == 1234


def test_ten_thousand_rules_take_no_time() -> None:
    rules = [
        {"name": f"r{at}", "action": ("allow", "block")[at % 2], "from": f"10.{at // 250}.{at % 250}.0/24", "port": at}
        for at in range(10_000)
    ]
    mostly = list(rules)
    random = Random(1)
    for _ in range(20):
        mostly.insert(random.randrange(9000), mostly.pop(random.randrange(9000)))
    mostly[77] = {**mostly[77], "port": 1}
    old = policy_of(*rules)
    for new in (policy_of(*rules), policy_of(*mostly)):
        took = []
        for _ in range(5):
            begin = perf_counter()
            difference(old, new)
            took.append(perf_counter() - begin)
        assert min(took) < 3  # a thirtieth of it on a quiet machine: its square would take minutes
    begin = perf_counter()
    assert len(lines(difference(old, policy_of(*reversed(rules))))) == 51
    assert perf_counter() - begin < 5


def test_the_summary_is_here_too() -> None:
    assert summary(policy_of(SSH).rules[0]) == "allow in tcp 22 from 10.0.0.0/8"
