"""Surroundings in which every machine is the same: fixed names, a fixed clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pfw.enforce.conditions import Plan
from pfw.enforce.owners import Group, Owners
from pfw.enforce.plan import Surroundings, make_plan
from pfw.enforce.schedules import Clock
from pfw.model.address import AddressSet
from pfw.policy.load import load

NOW = 1_795_600_000.0
"""2026-11-25 09:46:40 UTC, a Wednesday."""
USERS = {"root": 0, "alice": 1001, "bob": 1002}
GROUPS = {"wheel": Group(10, frozenset({1001, 1002})), "empty": Group(77, frozenset())}
UNITS = {"web.service": "system.slice/web.service", "odd.service": 'system.slice/odd"name'}


@pytest.fixture
def owners() -> Owners:
    return Owners(
        lambda name: int(name) if name.isdecimal() else USERS.get(name),
        lambda name: Group(int(name), frozenset()) if name.isdecimal() else GROUPS.get(name),
        UNITS.get,
    )


@pytest.fixture
def around(owners: Owners) -> Surroundings:
    return Surroundings(owners, Clock(NOW, lambda _: 3600))


@pytest.fixture
def planned(around: Surroundings) -> Callable[..., Plan]:
    """The plan of a policy file in its full form. Without base rules unless they are asked for."""

    def make(*rules: dict[str, Any], lists: Mapping[str, AddressSet] | None = None, **fields: Any) -> Plan:
        named = [{"name": f"rule {at}", "action": "allow", **rule} for at, rule in enumerate(rules)]
        base = dict.fromkeys(("loopback", "neighbour_discovery", "dhcp_client"), False)
        document = {"version": 2, "base": base, "rules": named, **fields}
        return make_plan(load(json.dumps(document)), around, lists or {})

    return make
