"""Whose socket it is, in the numbers that a kernel knows: users, groups, control groups.

A rule's `group:NAME` is about everybody who is in the group, however the process was started; the kernel knows a
socket's user and its one current group. So a group is its members as users, and the group itself beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from pfw.enforce.conditions import CannotError, Condition, OfGroup, OfUnit, OfUser, Place
from pfw.model.rule import Rule
from pfw.model.verdict import Action


class Group(Struct, frozen=True):
    """A group: its id, and the ids of its members, those whose first group it is with them."""

    gid: int
    members: frozenset[int]


class Owners(Struct, frozen=True):
    """How names of owners become numbers; each answers None to a name that nobody has."""

    user: Callable[[str], int | None]
    group: Callable[[str], Group | None]
    unit: Callable[[str], str | None]
    """The path of a unit's control group below the root of cgroup v2, where it exists."""
    unit_mount: str = ""
    """The way from /sys/fs/cgroup to that root, empty or with a slash at its end."""


def owner_conditions(rule: Rule, place: Place, index: int | None, owners: Owners) -> Iterator[tuple[Condition, ...]]:
    """What the rule's owners are at a place, one tuple for each way to be one of them. Raises CannotError."""
    if rule.users is None and rule.units is None:
        yield ()
        return
    if rule.users is not None and place is Place.IN:
        what = 'who would receive a packet is known to "pfw daemon" alone; start it, or write "direction": "out"'
        raise CannotError(what, index, "user")
    users: list[tuple[Condition, ...]] = [()]
    if rule.users is not None:
        users = [(each,) for each in user_list(rule, index, owners)]
    for unit in _units(rule, index, owners):
        for user in users:
            yield (*user, *unit)


def user_list(rule: Rule, index: int | None, owners: Owners) -> tuple[OfUser | OfGroup, ...]:
    """The users and groups of a rule, as numbers; any of them will do. Raises CannotError."""
    uids: set[int] = set()
    gids: set[int] = set()
    for name in rule.users or ():
        if name.startswith("group:"):
            group = owners.group(name.removeprefix("group:"))
            if group is None:
                raise CannotError(f'"{name}": there is no such group on this machine', index, "user")
            gids.add(group.gid)
            uids |= group.members
            continue
        uid = owners.user(name)
        if uid is None:
            raise CannotError(f'"{name}": there is no such user on this machine', index, "user")
        uids.add(uid)
    found: list[OfUser | OfGroup] = [OfUser(tuple(sorted(uids)))] if uids else []
    return (*found, OfGroup(tuple(sorted(gids)))) if gids else tuple(found)


def _units(rule: Rule, index: int | None, owners: Owners) -> Iterator[tuple[Condition, ...]]:
    if rule.units is None:
        yield ()
        return
    if rule.action is not Action.ALLOW:
        # A unit that starts again is in a new control group, of which the rule in the kernel knows nothing.
        what = 'a unit that is started anew would no longer be blocked; "unit" goes with "allow" alone'
        raise CannotError(what, index, "unit")
    for name in rule.units:
        path = owners.unit(name)
        if path is None:
            raise CannotError(
                f'"{name}" has no control group now; start it first, then apply the policy', index, "unit"
            )
        yield (OfUnit(path, path.count("/") + 1, owners.unit_mount),)
