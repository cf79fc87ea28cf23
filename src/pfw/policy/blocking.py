"""Block lists as rules: with the addresses that are on them, they stand before all others.

A policy file names a list and where it comes from; what is on it is known only to whoever keeps it. With that, the
lists decide in `explain`, in the monitor and in replays as they do in the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from pfw.model.address import AddressSet
from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.rule import Rule
from pfw.model.verdict import Action

LIST_NAME = "base block list {}"
"""What a block list is called where rules are listed."""


def with_lists(policy: Policy, known: Mapping[str, AddressSet]) -> Policy:
    """The policy with what is on its block lists, as far as that is known. A list is about who began a connection
    (`in`) or whom it was begun to (`out`); forwarded ones are about both."""
    rules: list[Rule] = []
    for each in policy.blocklists:
        addresses = known.get(each.name)
        if not each.enabled or not addresses:
            continue
        name = LIST_NAME.format(each.name)
        if Direction.IN in each.directions:
            directions = frozenset((Direction.IN, Direction.FORWARD))
            rules.append(Rule(name=name, action=Action.BLOCK, directions=directions, source=addresses))
        if Direction.OUT in each.directions:
            directions = frozenset((Direction.OUT, Direction.FORWARD))
            rules.append(Rule(name=name, action=Action.BLOCK, directions=directions, destination=addresses))
    return replace(policy, list_rules=tuple(rules))
