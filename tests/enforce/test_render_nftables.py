"""Rulesets for nftables: chains that lead where they should, and what stays from one generation to the next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

import pytest

from pfw.enforce import nft_table
from pfw.enforce.conditions import CannotError, Plan
from pfw.enforce.nft_table import Ban, Names, Ruleset
from pfw.enforce.plan import only_bans
from pfw.enforce.render_nftables import render
from pfw.model.address import AddressSet, parse_range

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


def test_what_is_loaded_hangs_on_nothing(planned) -> None:
    ruleset = render(planned({"port": 22}), 7)
    assert "hook" not in ruleset.load
    assert set(chains(ruleset.load)) == set(ruleset.rules)
    assert {name: len(lines) for name, lines in chains(ruleset.load).items()} == ruleset.rules
    assert all(name.startswith("g7_") for name in ruleset.rules | dict.fromkeys(ruleset.sets))


def test_the_switch_turns_every_base_chain(planned) -> None:
    ruleset = render(planned(default={"in": "block", "out": "allow", "forward": "block"}), 7)
    bases = ("early_in", "early_out", "lists_in", "lists_out", "input", "output", "forward")
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
    text = render(planned({"action": "reject", "port": 1}, {"action": "allow", "port": 2, "log": True},
                          {"action": "allow", "port": 3}), 1).whole  # fmt: skip
    found = chains(text)
    assert found["g1_v2"][-1].endswith("goto g1_reject")
    assert found["g1_reject"][-1] == "reject with icmpx admin-prohibited"
    assert re.search(r'limit rate .* log prefix "pfw 1 3" group 7846 .* accept comment "rule 1"', found["g1_v3"][0])
    assert re.fullmatch(r"counter name o_\w+ accept", found["g1_v3"][1])
    quiet = next(line for line in found["g1_in"] if '"rule 2"' in line)
    assert re.search(r'log prefix "pfw 1 4" group 7847 .* accept comment "rule 2"', quiet)


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


def with_list(planned, direction: str) -> Plan:
    lists = [{"name": "x", "source": "/x", "direction": direction}]
    return planned(blocklists=lists, lists={"x": LISTED})  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("both", {"early_in": ["ip saddr", "ip6 saddr"], "early_out": ["ip daddr", "ip6 daddr"],
                  "forward": ["ip daddr", "ip6 daddr"]}),
        ("in", {"lists_in": ["ct direction original ip saddr", "ct direction original ip6 saddr"]}),
        ("out", {"lists_out": ["ct direction original ip daddr", "ct direction original ip6 daddr"],
                 "forward": ["ct direction original ip daddr", "ct direction original ip6 daddr"]}),
    ],
)  # fmt: skip
def test_block_lists_stand_where_their_direction_wants(planned, direction, expected) -> None:
    found = {
        name.removeprefix("g1_"): [line.split(" @l")[0] for line in lines if " @l" in line]
        for name, lines in chains(render(with_list(planned, direction), 1).load).items()
    }
    assert {name: lines for name, lines in found.items() if lines} == expected


def test_loopback_is_neither_banned_nor_listed(planned) -> None:
    found = chains(render(with_list(planned, "in"), 1).whole)
    for name in ("early_in", "lists_in"):
        assert found[f"g1_{name}"][0] == 'iifname "lo" accept'
    for name in ("early_out", "lists_out"):
        assert found[f"g1_{name}"][0] == 'oifname "lo" accept'


def test_a_list_that_the_kernel_has_is_not_loaded_again(planned) -> None:
    plan = with_list(planned, "both")
    first = render(plan, 1)
    assert len(first.list_sets) == 2
    again = render(plan, 2, first.list_sets)
    assert again.list_sets == first.list_sets
    assert not any(f"set {name}" in again.load for name in first.list_sets)
    assert all(f"set {name}" in again.whole for name in first.list_sets)


def _names(ruleset: Ruleset, plan: Plan) -> Names:
    counters = {name for each in plan.verdicts for name in (each.counter, nft_table.over_counter(each.counter))}
    bases = {name for name, _, _ in nft_table.base_chains(plan.open, 0)}
    shared = {nft_table.HITS, *(name for pair in nft_table.BAN_SETS.values() for name in pair)}
    return Names(frozenset(ruleset.rules) | bases, ruleset.sets | ruleset.list_sets | shared, frozenset(counters))


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
    assert sum("@ban" in line for line in found["g1_early_in"]) == 4


def test_bans_for_a_boot() -> None:
    hosts = [Ban(parse_range("192.0.2.1"), 60), Ban(parse_range("2001:db8::1"), None)]
    text = nft_table.bans_file(hosts, [Ban(parse_range("203.0.113.0/24"), 0)])
    assert "elements = { 192.0.2.1 timeout 60s };" in text
    assert "elements = { 2001:db8::1 };" in text
    assert "elements = { 203.0.113.0/24 timeout 1s };" in text
    assert "table inet pfw {" in text
