"""Rulesets for nftables: chains that lead where they should, and what stays from one generation to the next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random

import pytest
from msgspec.structs import replace

from pfw.enforce import nft_table
from pfw.enforce.conditions import BANNED, CannotError, Plan, Verdict
from pfw.enforce.nft_table import LONG_SET, Ban, Names, Ruleset
from pfw.enforce.plan import make_plan, only_bans
from pfw.enforce.programs import MASK, Labelling
from pfw.enforce.render_nftables import render
from pfw.model.address import AddressSet, format_range, parse_range
from pfw.policy.load import load

_CHAIN = re.compile(r"chain (\S+) \{\n(.*?)\n?\t\}", re.DOTALL)
_TARGET = re.compile(r"(?:goto|jump) (\S+)")
_USED = re.compile(r"@(\S+?)(?= |$|\s)")
LISTED = AddressSet([parse_range("203.0.113.0/24"), parse_range("2001:db8::1")])


def chains(text: str) -> dict[str, list[str]]:
    return {name: [line.strip() for line in body.splitlines()] for name, body in _CHAIN.findall(text)}


def maps(text: str) -> dict[str, str]:
    return dict(re.findall(r"map (\S+) (\{.*\})", text))


def reachable(text: str, start: str) -> set[str]:
    """The chains to which a packet can come from this one."""
    lines, elements = chains(text), maps(text)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in lines[name]:
            waiting += _TARGET.findall(line)
            waiting += [target.rstrip(",") for used in _USED.findall(line) for target in
                        _TARGET.findall(elements.get(used, ""))]  # fmt: skip
    return found


def exact(count: int, **more: object) -> Iterator[dict[str, object]]:
    """Rules of one host and port each, so many that they become trees."""
    for number in range(count):
        yield {
            "remote": f"198.51.{number // 200}.{number % 200}",
            "protocol": "tcp",
            "port": 1000 + number % 40,
            **more,
        }


@pytest.mark.parametrize(
    ("more", "looks"),
    [
        ({}, True), ({"port": 443}, True), ({"app": "/usr/bin/curl"}, True),
        ({"user": "alice"}, False), ({"interface": "eth0"}, False),
        ({"app": {"path": "/usr/bin/curl", "sha256": "0" * 64}}, False),
    ],
)  # fmt: skip
def test_a_rule_that_asks_for_more_than_answers_know_looks_for_none(around, more, looks) -> None:
    """Its packets go to whoever knows users, units and the like."""
    around = replace(around, labelling=Labelling(MASK, lambda key: 1 + sum(key.encode())))
    rule = {"name": "who", "action": "ask", "direction": "out", **more}
    plan = make_plan(load(json.dumps({"version": 2, "rules": [rule]})), around, {})
    found = chains(render(plan, 1, ()).load)
    asking = [lines for name, lines in found.items() if any('"who"' in line and "jump ask" in line for line in lines)]
    assert len(asking) == 1
    assert ("jump answers_out" in asking[0]) is looks


def test_what_is_loaded_hangs_on_nothing(planned) -> None:
    ruleset = render(planned({"port": 22}), 7)
    assert "hook" not in ruleset.load
    assert set(chains(ruleset.load)) == set(ruleset.rules)
    assert {name: len(lines) for name, lines in chains(ruleset.load).items()} == ruleset.rules
    assert all(name.startswith("g7_") for name in ruleset.rules | dict.fromkeys(ruleset.sets))


def test_the_switch_turns_every_base_chain(planned) -> None:
    ruleset = render(planned(default={"in": "block", "out": "allow", "forward": "block"}), 7)
    bases = ("input", "output", "forward")
    for name in bases:
        assert f"flush chain inet pfw {name}\n" in ruleset.switch
    assert re.findall(r"add rule inet pfw (\S+) goto (\S+)", ruleset.switch) == [
        (name, f"g7_{ {'input': 'in', 'output': 'out'}.get(name, name) }") for name in bases
    ]
    policies = dict(re.findall(r"hook (input|output|forward) .* policy (\w+);", ruleset.switch))
    assert policies == {"input": "drop", "output": "accept", "forward": "drop"}


def test_every_target_and_set_is_there(planned) -> None:
    text = render(planned(*exact(60, direction="both"), {"limit": "6/minute", "action": "reject"}), 1).whole
    known = chains(text)
    for lines in known.values():
        assert all(target in known for line in lines for target in _TARGET.findall(line))
    named = set(re.findall(r"(?:set|map) (\S+) \{", text))
    assert all(used in named for lines in known.values() for line in lines for used in _USED.findall(line))


def nested(direction: str, random: Random) -> Iterator[dict[str, object]]:
    """Rules whose tree asks several questions, one behind the other."""
    for number in range(150):
        rule: dict[str, object] = {"direction": direction, "protocol": random.choice(["tcp", "udp", "sctp"])}
        if number % 3:
            rule["port"] = random.randrange(30)
        if number % 4:
            rule["from"] = f"198.51.100.{random.randrange(20)}"
        if number % 5:
            rule["to"] = f"192.0.2.{random.randrange(20)}"
        yield rule


@pytest.mark.parametrize("seed", range(6))
def test_no_place_leads_to_the_rules_of_another(planned, seed) -> None:
    """Trees of places that look alike are kept apart."""
    random = Random(seed)
    rules = [rule for direction in ("in", "out", "forward") for rule in nested(direction, random)]
    plan = planned(*rules, default={"in": "block", "out": "block", "forward": "reject"})
    text = render(plan, 1).whole
    ends = {verdict.name: f"g1_v{number}" for number, verdict in enumerate(plan.verdicts)}
    for place, end in (("in", "in"), ("out", "out"), ("published", "forward")):
        found = reachable(text, f"g1_{place}")
        assert {each for each in ends if each.startswith("default") and ends[each] in found} == {f"default {end}"}
        others = {"in", "out", "forward", "published"} - {place}
        assert not any(name.startswith(f"g1_{other}_") for name in found for other in others)


def test_ends_of_a_verdict(planned) -> None:
    plan = planned({"action": "reject", "port": 1}, {"action": "allow", "port": 2, "log": True},
                   {"action": "allow", "port": 3})  # fmt: skip
    found = chains(render(plan, 1, tell_all=True).whole)
    assert found["g1_v2"][-1].endswith("goto g1_reject")
    assert found["g1_reject"][-1] == "reject with icmpx admin-prohibited"
    assert re.search(r'limit rate .* log prefix "pfw 1 3" group 7846 .* accept comment "rule 1"', found["g1_v3"][0])
    assert re.fullmatch(r"counter name o_\w+ accept", found["g1_v3"][1])
    quiet = next(line for line in found["g1_in"] if '"rule 2"' in line)
    assert re.search(r'log prefix "pfw 1 4" group 7847 .* accept comment "rule 2"', quiet)
    assert found.keys() == chains(render(plan, 1).whole).keys()
    quiet = next(line for line in chains(render(plan, 1).whole)["g1_in"] if '"rule 2"' in line)
    assert re.fullmatch(r'.* counter name r_\w+ update @hits \{ [^}]* \} accept comment "rule 2"', quiet)
    assert "log" not in quiet


def test_who_wants_all_changes_only_what_is_told(planned) -> None:
    plan = planned(*exact(30), {"limit": "6/minute"}, base={})
    more = render(plan, 1, tell_all=True)
    assert "7847" in more.load
    assert re.sub(r' log prefix "pfw 1 \d+" group 7847 snaplen \d+', "", more.load) == render(plan, 1).load
    loopback = next(line for line in chains(more.load)["g1_in"] if "base loopback" in line)
    assert "log" not in loopback


def test_a_limit_has_buckets_for_each_family(planned) -> None:
    text = render(planned({"direction": "in", "limit": "6/minute"}), 1).whole
    lines = [line for line in chains(text)["g1_in"] if "limit rate" in line]
    assert ["ip saddr limit" in lines[0], "ip6 saddr limit" in lines[1], len(lines)] == [True, True, 2]
    assert set(re.findall(r"set (g1_b\S+)", text)) == {"g1_b0_4", "g1_b0_6"}


def test_a_limit_for_types_of_one_family_has_one(planned) -> None:
    text = render(planned({"direction": "in", "limit": "6/minute", "icmp_type": "echo-request"}), 1).whole
    lines = [line for line in chains(text)["g1_in"] if "limit rate" in line]
    assert [line.split(" limit")[0] for line in lines] == [
        "icmp type 8 update @g1_b0_4 { ip saddr", "icmpv6 type 128 update @g1_b0_6 { ip6 saddr",
    ]  # fmt: skip


def test_a_rule_that_cannot_be_is_named_by_its_place(planned) -> None:
    plan = planned({"port": 1}, {"limit": "1/day", "burst": 1_000_000})
    with pytest.raises(CannotError) as caught:
        render(plan, 1)
    assert (caught.value.index, caught.value.field) == (1, "burst")


LONG = AddressSet([parse_range(f"203.0.{number // 100}.{number % 100 * 2}") for number in range(LONG_SET)])


def with_list(planned, direction: str, listed: AddressSet = LISTED, **more: object) -> Plan:
    lists = [{"name": "x", "source": "/x", "direction": direction}]
    return planned({"port": 22}, blocklists=lists, lists={"x": listed}, **more)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("both", {"in": ["saddr"], "out": ["daddr"], "forward": ["saddr", "daddr"], "published": ["saddr", "daddr"]}),
        ("in", {"in": ["saddr"], "forward": ["saddr"], "published": ["saddr"]}),
        ("out", {"out": ["daddr"], "forward": ["daddr"], "published": ["daddr"]}),
    ],
)
def test_block_lists_stand_where_their_direction_wants(planned, direction, expected) -> None:
    found = {
        name.removeprefix("g1_"): [line.split(" goto")[0] for line in lines if '"base block list x"' in line]
        for name, lines in chains(render(with_list(planned, direction), 1).load).items()
        if not name.startswith("g1_v")
    }
    assert {name: lines for name, lines in found.items() if lines} == {
        name: [f"{words} {end} {value}" for end in ends
               for words, value in (("ip", "203.0.113.0/24"), ("ip6", "2001:db8::1"))]
        for name, ends in expected.items()
    }  # fmt: skip


def test_block_lists_come_behind_connections_and_before_rules(planned) -> None:
    found = chains(render(with_list(planned, "both", base={}), 1).load)
    ends = set()
    for name, state in (("g1_in", 'iifname "lo"'), ("g1_out", 'oifname "lo"'), ("g1_forward", "ct state established")):
        lines = found[name]
        listed = [at for at, line in enumerate(lines) if '"base block list x"' in line]
        assert lines[0].startswith(state)
        for before in ("ct state established", "ct state related", "ct state invalid", "meta l4proto tcp tcp flags"):
            assert next(at for at, line in enumerate(lines) if line.startswith(before)) < listed[0]
        assert listed == list(range(listed[0], listed[0] + len(listed)))
        for behind in ("base neighbour", "base dhcp", "rule 0"):
            assert all(at > listed[-1] for at, line in enumerate(lines) if behind in line)
        ends |= {lines[at].split("goto ")[1].split()[0] for at in listed}
    # One verdict for both directions.
    assert ends == {"g1_v2"}


@pytest.mark.parametrize("generation", [2, 10])
def test_a_long_set_that_the_kernel_has_is_not_loaded_again(planned, generation) -> None:
    plan = with_list(planned, "both", LONG)
    first = render(plan, 1)
    assert len(first.long_sets) == 1
    (name,) = first.long_sets
    assert f"set {name} {{" in first.load
    assert name not in first.sets
    again = render(plan, generation, first.long_sets | first.sets)
    assert again.long_sets == first.long_sets
    assert f"set {name}" not in again.load
    assert f"@{name}" in again.load
    assert f"set {name} {{" in again.whole
    assert name not in nft_table.drop_generation(again)


def test_a_long_set_is_named_by_what_is_in_it(planned) -> None:
    other = LONG.without(AddressSet([LONG.ranges[0]])).union(AddressSet([parse_range("198.51.100.1")]))
    names = [render(with_list(planned, direction, listed), generation).long_sets
             for direction, listed, generation in (("in", LONG, 1), ("out", LONG, 2), ("in", other, 1))]  # fmt: skip
    assert names[0] == names[1] != names[2]
    assert all(re.fullmatch(r"l_[0-9a-f]{16}", name) for each in names for name in each)
    assert render(with_list(planned, "in", AddressSet(list(LONG.ranges[1:]))), 1).long_sets == frozenset()
    rule = render(planned({"from": _hosts(LONG), "direction": "in"}), 1)
    assert rule.long_sets == names[0]


def _hosts(addresses: AddressSet) -> list[str]:
    return [format_range(*each) for each in addresses.ranges]


def test_trees_do_not_share_long_sets(planned) -> None:
    """What maps lead to belongs to a generation, however long they are."""
    ruleset = render(planned(*exact(3 * LONG_SET, direction="in")), 3)
    assert any(name.startswith("g3_m") for name in ruleset.sets)
    assert all(name.startswith("g3_") for name in ruleset.sets)
    assert not any("goto" in line for line in ruleset.load.splitlines() if line.strip().startswith("set l_"))


def _names(ruleset: Ruleset, plan: Plan) -> Names:
    counters = {name for each in plan.verdicts for name in (each.counter, nft_table.over_counter(each.counter))}
    bases = {name for name, _, _ in nft_table.base_chains(plan.open, 0)}
    shared = {nft_table.HITS, *(name for pair in nft_table.BAN_SETS.values() for name in pair)}
    return Names(frozenset(ruleset.rules) | bases, ruleset.sets | ruleset.long_sets | shared, frozenset(counters))


def test_sweeping_leaves_what_is_in_force_and_nothing_else(planned) -> None:
    old, new = planned({"port": 22}, *exact(30)), planned({"port": 23})
    before, now = render(old, 1), render(new, 2)
    there = Names(*(mine | its for mine, its in zip(
        (_names(before, old).chains, _names(before, old).sets, _names(before, old).counters),
        (_names(now, new).chains, _names(now, new).sets, _names(now, new).counters), strict=True)))  # fmt: skip
    swept = nft_table.sweep(there, new, [now])
    deleted = set(re.findall(r"delete (?:chain|set|map|counter) inet pfw (\S+)", swept))
    assert set(before.rules) | before.sets <= deleted
    assert deleted.isdisjoint({*now.rules, *now.sets, "input", "hits", "ban4", "ban6net"})
    assert re.findall(r"delete map inet pfw (\S+)", swept) == sorted(maps(before.load))
    assert nft_table.sweep(_names(now, new), new, [now]) == ""


def test_sweeping_leaves_bans_and_takes_long_sets_of_no_use(planned) -> None:
    listed, plain = with_list(planned, "in", LONG), planned({"port": 22})
    before, same, now = render(listed, 1), render(listed, 2), render(plain, 3)
    hung = Names(_names(before, listed).chains | set(nft_table.BAN_CHAINS), _names(before, listed).sets,
                 _names(before, listed).counters)  # fmt: skip
    (name,) = before.long_sets
    for kept, goes in ((same, False), (now, True)):
        swept = nft_table.sweep(hung, listed, [kept])
        assert (f"delete set inet pfw {name}\n" in swept) is goes
        assert not any(re.search(rf"\b{chain}\b", swept) for chain in nft_table.BAN_CHAINS)


def test_a_generation_that_is_not_in_force_can_be_dropped(planned) -> None:
    ruleset = render(planned(*exact(30)), 4)
    dropped = nft_table.drop_generation(ruleset)
    assert set(re.findall(r"delete chain inet pfw (\S+)", dropped)) == set(ruleset.rules)
    assert set(re.findall(r"delete (?:set|map) inet pfw (\S+)", dropped)) == ruleset.sets
    assert "counter" not in dropped


def test_only_bans_lets_everything_else_pass() -> None:
    found = chains(render(only_bans(), 1).whole)
    for name in ("g1_in", "g1_out", "g1_forward"):
        assert found[name][-1] == "accept"
    whole = render(only_bans(), 1).whole
    assert "goto g1_v" not in whole
    assert "chain ban" not in whole


def banned() -> Verdict:
    return only_bans().verdicts[BANNED]


def test_bans_for_a_boot() -> None:
    hosts = [Ban(parse_range("192.0.2.1"), 60), Ban(parse_range("2001:db8::1"), None)]
    text = nft_table.bans_file(hosts, [Ban(parse_range("203.0.113.0/24"), 0)], banned())
    assert "elements = { 192.0.2.1 timeout 60s };" in text
    assert "elements = { 2001:db8::1 };" in text
    assert "elements = { 203.0.113.0/24 timeout 1s };" in text
    assert "table inet pfw {" in text
    assert set(chains(text)) == set(nft_table.BAN_CHAINS)
    assert chains(text) == chains(nft_table.hang_bans(banned()))


def test_without_bans_a_boot_hangs_no_chains() -> None:
    text = nft_table.bans_file([], [], banned())
    assert chains(text) == {}
    assert "set ban4 {" in text


def test_chains_of_bans_stand_before_connections_are_looked_up() -> None:
    found = chains(nft_table.hang_bans(banned()))
    hooks = {name: lines[0] for name, lines in found.items() if "hook" in lines[0]}
    assert hooks == {
        name: f"type filter hook {hook} priority raw; policy accept;"
        for name, hook in (("ban_in", "prerouting"), ("ban_out", "output"), ("ban_forward", "forward"))
    }
    # Loopback is never banned.
    assert found["ban_in"][1] == 'iifname "lo" accept'
    assert found["ban_out"][1] == 'oifname "lo" accept'
    for name, skipped, end in (("ban_in", 2, "saddr"), ("ban_out", 2, "daddr"), ("ban_forward", 1, "daddr")):
        assert found[name][skipped:] == [
            f"{word} {end} @{bans} goto banned"
            for word, bans in (("ip", "ban4"), ("ip", "ban4net"), ("ip6", "ban6"), ("ip6", "ban6net"))
        ]


def test_what_is_banned_is_counted_told_of_and_dropped() -> None:
    told, untold = chains(nft_table.hang_bans(banned()))["banned"]
    counter = banned().counter
    assert told.startswith(f"counter name {counter} update @hits")
    # Of no generation.
    assert re.search(r'limit rate 10/second .* log prefix "pfw 0 1" group 7846 .* drop comment "base ban"', told)
    assert untold == f"counter name {nft_table.over_counter(counter)} drop"
    # What they name is there with every generation, whatever its policy.
    whole = render(only_bans(), 1).whole
    for what in (f"counter {counter}", f"counter {nft_table.over_counter(counter)}", "set hits", "set ban6net"):
        assert f"\t{what} {{" in whole


def test_chains_of_bans_are_taken_away_callers_first() -> None:
    lines = nft_table.unhang_bans().splitlines()
    assert lines[:4] == [f"flush chain inet pfw {name}" for name in nft_table.BAN_CHAINS]
    assert lines[4:] == [f"delete chain inet pfw {name}" for name in ("ban_in", "ban_out", "ban_forward", "banned")]


def test_no_generation_touches_the_chains_of_bans(planned) -> None:
    ruleset = render(with_list(planned, "both"), 5)
    for text in (ruleset.load, ruleset.switch, nft_table.drop_generation(ruleset), nft_table.switch(set(), 4)):
        assert not any(re.search(rf"\b{name}\b", text) for name in nft_table.BAN_CHAINS)
