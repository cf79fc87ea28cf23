"""Names of owners in the numbers that a kernel knows, and what no kernel can tell."""

from __future__ import annotations

import pytest

from pfw.enforce.conditions import CannotError, OfGroup, OfUnit, OfUser, Place
from pfw.enforce.owners import owner_conditions
from pfw.model.flow import Direction
from pfw.model.rule import Rule
from pfw.model.verdict import Action


def rule(users: tuple[str, ...] | None = None, units: tuple[str, ...] | None = None, action=Action.ALLOW) -> Rule:
    return Rule(name="x", action=action, directions=frozenset((Direction.OUT,)), users=users, units=units)


def conditions(owners, *given, **fields):
    return list(owner_conditions(rule(*given, **fields), Place.OUT, 3, owners))


def test_a_rule_for_everybody_asks_nothing(owners) -> None:
    for place in Place:
        assert list(owner_conditions(rule(), place, 0, owners)) == [()]


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        (("alice",), [(OfUser((1001,)),)]),
        (("bob", "root", "1005"), [(OfUser((0, 1002, 1005)),)]),
        # Who is in a group is meant however his process was started; and whose process has the group.
        (("group:wheel",), [(OfUser((1001, 1002)),), (OfGroup((10,)),)]),
        (("group:empty",), [(OfGroup((77,)),)]),
        (("group:5",), [(OfGroup((5,)),)]),
        (("root", "group:wheel", "group:empty"), [(OfUser((0, 1001, 1002)),), (OfGroup((10, 77)),)]),
    ],
)
def test_users_and_groups(owners, users, expected) -> None:
    assert conditions(owners, users) == expected


def test_units(owners) -> None:
    assert conditions(owners, None, ("web.service",)) == [(OfUnit("system.slice/web.service", 2),)]


def test_users_of_units(owners) -> None:
    unit = OfUnit("system.slice/web.service", 2)
    expected = [(OfUser((1001, 1002)), unit), (OfGroup((10,)), unit)]
    assert conditions(owners, ("group:wheel",), ("web.service",)) == expected


@pytest.mark.parametrize(
    ("users", "units", "action", "field", "says"),
    [
        (("carol",), None, Action.ALLOW, "user", '"carol": there is no such user'),
        (("group:none",), None, Action.ALLOW, "user", '"group:none": there is no such group'),
        (None, ("off.service",), Action.ALLOW, "unit", '"off.service" has no control group'),
        (None, ("web.service",), Action.BLOCK, "unit", "would no longer be blocked"),
        (None, ("web.service",), Action.REJECT, "unit", "would no longer be blocked"),
    ],
)
def test_what_cannot_be_told(owners, users, units, action, field, says) -> None:
    with pytest.raises(CannotError, match=says) as caught:
        conditions(owners, users, units, action=action)
    assert (caught.value.index, caught.value.field) == (3, field)


def test_who_would_receive_is_not_known(owners) -> None:
    with pytest.raises(CannotError, match='write "direction": "out"'):
        list(owner_conditions(rule(("alice",)), Place.IN, 0, owners))
