"""Policies as steps: the order of a chain, what each direction asks, and what no kernel can do."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from pfw.enforce import conditions as c
from pfw.enforce.conditions import IPV4, IPV6, HasAddress, HasPort, OfProtocol, Place, State, Step
from pfw.enforce.plan import BAN_NAME, INVALID_NAME, PlanError, Surroundings, counter_name, make_plan, only_bans
from pfw.enforce.schedules import Clock
from pfw.model.address import AddressSet, parse_range
from pfw.model.verdict import Action
from pfw.policy.load import load


def asked(plan: c.Plan, place: Place) -> list[tuple[str, tuple[c.Condition, ...]]]:
    """The rules of a place: whose step it is, and what it asks."""
    return [(plan.verdicts[step.verdict or 0].name, step.conditions) for step in plan.chains[place].rules]


def ranges(*texts: str) -> tuple[tuple[int, int], ...]:
    return tuple(parse_range(text) for text in texts)


def test_connections_come_before_rules_and_the_default_ends(planned) -> None:
    plan = planned({"name": "web", "port": 80}, default={"in": "block", "out": "allow", "forward": "reject"})
    names = [verdict.name for verdict in plan.verdicts]
    assert names == [INVALID_NAME, BAN_NAME, "web", "default in", "default out", "default forward"]
    chain = plan.chains[Place.IN]
    assert chain.connections == (
        Step((c.InState(State.ESTABLISHED),), None),
        Step((c.InState(State.RELATED),), None),
        Step((c.InState(State.INVALID),), c.INVALID),
        Step((c.Stray(),), c.INVALID),
    )
    assert chain.end == Step((), names.index("default in"))
    assert plan.chains[Place.PUBLISHED].end == plan.chains[Place.FORWARD].end == Step((), 5)
    assert plan.open == {Place.OUT}


def test_both_published_and_plain_forwarding_are_open_where_the_default_allows(planned) -> None:
    plan = planned(default={"in": "reject", "out": "block", "forward": "allow"})
    assert plan.open == {Place.FORWARD, Place.PUBLISHED}


def test_loopback_is_asked_before_all_else(planned) -> None:
    plan = planned(base={})
    for place, leaving in ((Place.IN, False), (Place.OUT, True)):
        first = plan.chains[place].connections[0]
        assert first.conditions == (c.OnInterface(("lo",), leaving),)
        assert first.verdict is not None
        assert plan.verdicts[first.verdict].quiet
    assert all(type(step.conditions[0]) is not c.OnInterface for step in plan.chains[Place.FORWARD].connections)


def test_without_icmp_errors_only_what_leaves_may_be_related(planned) -> None:
    off = dict.fromkeys(("loopback", "neighbour_discovery", "dhcp_client", "icmp_errors"), False)
    plan = planned(base=off)
    related = {
        place for place in Place if Step((c.InState(State.RELATED),), None) in plan.chains[place].connections
    }  # fmt: skip
    assert related == {Place.OUT}


def test_each_direction_asks_for_its_own_end(planned) -> None:
    plan = planned({"remote": "192.0.2.1", "direction": "both"})
    one = ranges("192.0.2.1")
    assert asked(plan, Place.IN) == [("rule 0", (HasAddress(IPV4, one, destination=False),))]
    assert asked(plan, Place.OUT) == [("rule 0", (HasAddress(IPV4, one, destination=True),))]
    assert asked(plan, Place.FORWARD) == asked(plan, Place.PUBLISHED) == []


def test_a_family_that_only_one_end_has_is_never_met(planned) -> None:
    plan = planned(
        {"from": ["192.0.2.1", "2001:db8::1"], "to": ["192.0.2.2", "192.0.2.4"], "direction": "in"},
        {"from": "192.0.2.1", "to": "2001:db8::1", "direction": "in"},
    )
    source, destination = ranges("192.0.2.1"), ranges("192.0.2.2", "192.0.2.4")
    ends = (HasAddress(IPV4, source, destination=False), HasAddress(IPV4, destination, destination=True))
    assert asked(plan, Place.IN) == [("rule 0", ends)]


def test_all_but_some_is_asked_of_both_families(planned) -> None:
    plan = planned({"from": "!192.0.2.0/24", "direction": "in"})
    families = [step.conditions[0].family for step in plan.chains[Place.IN].rules]
    assert families == [IPV4, IPV6]


def test_icmp_types_are_steps_of_their_protocol(planned) -> None:
    plan = planned({"icmp_type": "echo-request", "direction": "in"}, {"icmp_type": 8, "protocol": 1, "from": "::/0",
                                                                     "direction": "in"})  # fmt: skip
    assert asked(plan, Place.IN) == [("rule 0", (c.IcmpType(1, (8,)),)), ("rule 0", (c.IcmpType(58, (128,)),))]


def test_published_ports_are_those_that_were_sent_one_protocol_at_a_time(planned) -> None:
    plan = planned({"direction": "forward", "port": 80, "to": "192.0.2.1"})
    to = ranges("192.0.2.1")
    assert asked(plan, Place.FORWARD) == [
        ("rule 0", (OfProtocol((6, 17)), HasPort(((80, 80),), True), HasAddress(IPV4, to, True)))
    ]
    assert asked(plan, Place.PUBLISHED) == [
        (
            "rule 0",
            (OfProtocol((number,)), HasPort(((80, 80),), True, sent=True), HasAddress(IPV4, to, True, sent=True)),
        )
        for number in (6, 17)
    ]


def test_interfaces_are_where_it_came_in_but_for_what_leaves(planned) -> None:
    plan = planned({"interface": ["eth0", "w*"], "direction": "both"}, {"interface": "eth0", "direction": "forward"})
    found = {place: [each for _, (each,) in asked(plan, place)] for place in Place}
    patterns = ("eth0", "w*")
    assert found[Place.IN] == [c.OnInterface(patterns, leaving=False)]
    assert found[Place.OUT] == [c.OnInterface(patterns, leaving=True)]
    assert found[Place.FORWARD] == found[Place.PUBLISHED] == [c.OnInterface(("eth0",), leaving=False)]


def test_steps_of_a_rule_share_its_bucket_which_is_asked_last(planned) -> None:
    plan = planned({"user": "group:wheel", "direction": "out", "limit": "6/minute", "expires": "2027-01-01"},
                   {"direction": "out", "limit": "6/minute"})  # fmt: skip
    kinds = [[type(each) for each in conditions] for _, conditions in asked(plan, Place.OUT)]
    assert kinds == [[c.OfUser, c.BeforeTime, c.UnderLimit], [c.OfGroup, c.BeforeTime, c.UnderLimit], [c.UnderLimit]]
    buckets = [conditions[-1].bucket for _, conditions in asked(plan, Place.OUT)]
    assert buckets[0] == buckets[1] != buckets[2]


def test_what_is_off_or_over_has_a_counter_and_no_steps(planned) -> None:
    plan = planned({"name": "off", "enabled": False}, {"name": "over", "expires": "2020-01-01"})
    assert all(not plan.chains[place].rules for place in Place)
    assert {"off", "over"} <= {verdict.name for verdict in plan.verdicts}
    assert plan.notes == ('rule "over" has expired',)


def test_a_rule_for_owners_is_never_about_what_is_forwarded(planned) -> None:
    plan = planned({"user": "alice", "direction": "forward"}, {"app": "/bin/a", "direction": "forward"})
    assert all(not plan.chains[place].rules for place in Place)


def test_everything_that_cannot_be_done_is_told_at_once(planned) -> None:
    with pytest.raises(PlanError) as caught:
        planned(
            {"action": "ask"},
            {"app": "/bin/a", "direction": "out"},
            {"user": "alice"},
            {"user": "nobody-here", "direction": "out"},
            {"unit": "web.service", "direction": "out", "action": "block"},
            {"enabled": False, "action": "ask"},
            default={"in": "ask"},
        )
    found = [(fault.index, fault.field) for fault in caught.value.faults]
    assert sorted(found, key=repr) == sorted(
        [(0, "action"), (1, "app"), (2, "user"), (3, "user"), (4, "unit"), (None, None)], key=repr
    )


def test_block_lists_that_are_on_and_known(around) -> None:
    names = {"a": "both", "b": "in", "c": "out", "off": "both", "unknown": "both"}
    document = {
        "version": 2,
        "blocklists": [
            {"name": name, "source": "/x", "direction": direction, "enabled": name != "off"}
            for name, direction in names.items()
        ],
    }
    addresses = AddressSet([parse_range("203.0.113.0/24"), parse_range("2001:db8::1")])
    known = {name: addresses for name in names if name != "unknown"}
    plan = make_plan(load(json.dumps(document)), around, known)
    both = ((IPV4, ranges("203.0.113.0/24")), (IPV6, ranges("2001:db8::1")))
    source, destination = ([(HasAddress(family, part, end),) for family, part in both] for end in (False, True))

    def expected(**ends: list[tuple[c.Condition, ...]]) -> list[tuple[str, tuple[c.Condition, ...]]]:
        return [(f"base block list {name}", each) for name, parts in ends.items() for each in parts]

    listed = {place: [each for each in asked(plan, place) if each[0].startswith("base block")] for place in Place}
    assert listed == {
        Place.IN: expected(a=source, b=source),
        Place.OUT: expected(a=destination, c=destination),
        Place.FORWARD: expected(a=[*source, *destination], b=source, c=destination),
        # Who is reached, not the address that was asked for.
        Place.PUBLISHED: expected(a=[*source, *destination], b=source, c=destination),
    }
    names = [verdict.name for verdict in plan.verdicts]
    assert [name for name in names if name.startswith("base block")] == [f"base block list {name}" for name in "abc"]
    assert all(verdict.action is Action.BLOCK for verdict in plan.verdicts if verdict.name.startswith("base block"))


def test_block_lists_are_asked_behind_connections_and_before_all_rules(planned) -> None:
    both = {"direction": "both", "remote": "203.0.113.7"}
    plan = planned({"name": "friend", **both}, {"name": "transit", "direction": "forward"}, base={}, blocklists=[
        {"name": "x", "source": "/x"}], lists={"x": AddressSet([parse_range("203.0.113.0/24")])})  # fmt: skip
    for place in Place:
        names = [name for name, _ in asked(plan, place)]
        count = 2 if place in (Place.FORWARD, Place.PUBLISHED) else 1
        assert names[:count] == ["base block list x"] * count
        assert "base block list x" not in names[count:]
        assert names[count:][-1] == ("transit" if count == 2 else "friend")
        told = [step.verdict for step in plan.chains[place].connections]
        assert names.count("base loopback") == 0
        assert {plan.verdicts[number].name for number in told if number is not None} <= {
            "base loopback", INVALID_NAME,
        }  # fmt: skip
    loopback = plan.chains[Place.IN].connections[0]
    assert plan.verdicts[loopback.verdict or 0].name == "base loopback"


def test_both_directions_of_a_list_count_together(planned) -> None:
    def verdicts(direction: str, **addresses: str) -> list[c.Verdict]:
        lists = {name: AddressSet([parse_range(text)]) for name, text in addresses.items()}
        plan = planned(blocklists=[{"name": name, "source": "/x", "direction": direction} for name in lists],
                       lists=lists)  # fmt: skip
        return [each for each in plan.verdicts if each.name.startswith("base block")]

    both = verdicts("both", x="203.0.113.0/24", y="203.0.113.0/24")
    assert [each.name for each in both] == ["base block list x", "base block list y"]
    assert len({each.counter for each in both}) == 2
    # The counts of a list stay when there is something else on it, or another direction.
    assert verdicts("in", x="198.51.100.0/24")[0].counter == both[0].counter


def test_a_counter_stays_as_long_as_the_rule_says_the_same(planned) -> None:
    def counter(**fields: object) -> str:
        plan = planned({"name": "web", "port": 80, **fields})
        return next(verdict.counter for verdict in plan.verdicts if verdict.name == "web")

    assert counter() == counter() == counter(note="for everybody")
    assert len({counter(), counter(port=81), counter(action="block"), counter(remote="192.0.2.1"),
                counter(remote="192.0.2.2"), counter(log=True)}) == 6  # fmt: skip


def test_counters_are_named_so_that_nft_takes_them() -> None:
    names = [counter_name(name, b"x") for name in ("", "a", "a\udc80", "ü" * 200)]
    assert len(set(names)) == len(names)
    assert all(name.startswith("r_") and name[2:].isalnum() and len(name) == 18 for name in names)


def test_only_bans() -> None:
    plan = only_bans()
    assert plan.open == set(Place)
    assert not plan.chains
    assert [verdict.action for verdict in plan.verdicts] == [Action.BLOCK, Action.BLOCK]


def test_the_local_clock_is_asked_for_what_is_written_without_a_zone(around) -> None:
    document = {"version": 2, "rules": [{"name": "x", "action": "allow", "expires": "2026-11-25T10:30:00"}]}
    policy = load(json.dumps(document))
    assert make_plan(policy, around, {}).notes == ('rule "x" has expired',)  # an hour ahead of UTC
    utc = Surroundings(around.owners, Clock(around.clock.now, lambda _: 0))
    assert make_plan(policy, utc, {}).notes == ()
    assert make_plan(policy, replace(utc, clock=Clock(around.clock.now, lambda _: -3600)), {}).notes == ()
