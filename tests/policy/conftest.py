"""Short ways to say a rule, a connection and a policy, for the tests of the deciding half."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pfw.model.address import AddressSet, parse_address, parse_range
from pfw.model.flow import Direction, Flow
from pfw.model.policy import Base, Policy
from pfw.model.rule import App, Rule
from pfw.model.verdict import Action

NO_BASE = Base(loopback=False, neighbour_discovery=False, dhcp_client=False, icmp_errors=False)


@pytest.fixture
def make_rule() -> Callable[..., Rule]:
    """A rule that allows in and out unless told otherwise; addresses are given as texts, programs may be."""

    def make(**fields: Any) -> Rule:
        for field in ("source", "destination", "remote"):
            if field in fields:
                fields[field] = AddressSet([parse_range(text) for text in fields[field].split()])
        if "apps" in fields:
            fields["apps"] = tuple(App(app) if isinstance(app, str) else app for app in fields["apps"])
        return Rule(
            name=fields.pop("name", "the rule"),
            action=fields.pop("action", Action.ALLOW),
            directions=fields.pop("directions", frozenset((Direction.IN, Direction.OUT))),
            **fields,
        )

    return make


@pytest.fixture
def make_flow() -> Callable[..., Flow]:
    """An inbound TCP connection to port 22 unless told otherwise; addresses are given as texts."""

    def make(**fields: Any) -> Flow:
        defaults = {
            "direction": Direction.IN,
            "protocol": 6,
            "source": "203.0.113.9",
            "destination": "192.168.1.5",
            "source_port": 50000,
            "port": 22,
            "interface": "eth0",
        }
        given = defaults | fields
        for field in ("source", "destination"):
            given[field] = parse_address(given[field])
        return Flow(**given)

    return make


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """A policy that blocks in and forward, allows out, and has no base rules unless told otherwise."""

    def make(*rules: Rule, base: Base = NO_BASE) -> Policy:
        defaults = {Direction.IN: Action.BLOCK, Direction.OUT: Action.ALLOW, Direction.FORWARD: Action.BLOCK}
        return Policy(rules=rules, defaults=defaults, base=base)

    return make
