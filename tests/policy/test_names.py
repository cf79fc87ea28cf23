"""Aliases: lists that name each other, in any order."""

from __future__ import annotations

import json

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.model.policy import PolicyError
from pfw.policy.load import load


def rule_with(aliases: dict[str, object], **fields: object):
    rule = {"name": "r", "action": "allow", **fields}
    return load(json.dumps({"version": 2, "aliases": aliases, "rules": [rule]})).rules[0]


def faults(aliases: dict[str, object], **fields: object) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        rule_with(aliases, **fields)
    return [f"{fault.where}: {fault.what}" for fault in caught.value.faults]


def test_an_alias_may_name_others_before_and_behind_it() -> None:
    aliases = {"home": ["lan", "vpn"], "lan": "192.168.0.0/16", "vpn": ["10.8.0.0/24", "!10.8.0.1"]}
    expected = AddressSet([parse_range(text) for text in ("192.168.0.0/16", "10.8.0.0", "10.8.0.2-10.8.0.255")])
    assert rule_with(aliases, remote="home").remote == expected


def test_an_alias_of_ports() -> None:
    aliases = {"web": ["http", 443], "all-web": ["web", "8080-8090"], "one": 5}
    assert rule_with(aliases, port=["all-web", "one"]).ports == ((5, 5), (80, 80), (443, 443), (8080, 8090))


def test_an_alias_of_the_file_stands_before_a_service_and_a_built_in_one() -> None:
    aliases = {"ssh": [22, 2222], "private": ["10.0.0.0/8"]}
    rule = rule_with(aliases, port="ssh", remote="private")
    assert rule.ports == ((22, 22), (2222, 2222))
    assert rule.remote == AddressSet([parse_range("10.0.0.0/8")])


def test_a_chain_of_aliases_costs_no_stack() -> None:
    aliases: dict[str, object] = {f"a{n}": [f"a{n + 1}"] for n in range(5000)}
    aliases["a5000"] = ["10.0.0.1"]
    assert rule_with(aliases, remote="a0").remote == AddressSet([parse_range("10.0.0.1")])


def test_a_circle_is_reported_once_and_what_depends_on_it_is_not() -> None:
    aliases = {"a": ["b"], "b": ["c", "10.0.0.1"], "c": ["a"], "d": ["a"], "self": "self"}
    assert faults(aliases, remote="d") == [
        "aliases.a: names itself: a -> b -> c -> a",
        "aliases.self: names itself: self -> self",
    ]


def test_a_fault_in_an_alias_is_reported_where_it_is_written_and_not_where_it_is_used() -> None:
    assert faults({"lan": ["10.0.0.0/99"]}, remote="lan") == [
        'aliases.lan[0]: "10.0.0.0/99" has a prefix length that is not 0-32'
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            [80, "10.0.0.1"],
            'aliases.x[1]: "10.0.0.1" does not go with the ports before it; an alias holds addresses or ports',
        ),
        (
            ["10.0.0.1", "ssh"],
            'aliases.x[1]: "ssh" does not go with the addresses before it; an alias holds addresses or ports',
        ),
        (
            "htpp",
            'aliases.x: "htpp" is neither an address nor a port, a service name or an alias; '
            'did you mean "http" or "https"?',
        ),
        ([], "aliases.x: is an empty list, which nothing can match; give a value or leave the field out"),
        ({}, "aliases.x: must be an address, a prefix, a range first-last or an alias, not an object"),
        ([80, "!90"], 'aliases.x[1]: "!" excludes addresses only; write the ranges of ports that are left'),
    ],
)
def test_an_alias_that_does_not_fit(content, fault) -> None:
    assert faults({"x": content}) == [fault]


@pytest.mark.parametrize("name", ["", "1", "10.0.0.1", "a b", "a.b", "!a", "-a", "::1", "x" * 65])
def test_a_name_that_could_be_something_else_is_refused(name) -> None:
    found = faults({name: ["10.0.0.2"]})
    assert len(found) == 1
    assert "is no name for an alias" in found[0]
