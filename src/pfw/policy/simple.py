"""The simple form of a policy file: what to block and what to allow, as lists.

It becomes six ordered rules, the more exact list first, and everything else is allowed. Names and order
of the rules are `LISTS`.
"""

from __future__ import annotations

from pfw.model.flow import Direction
from pfw.model.packet import TCP, UDP
from pfw.model.policy import Policy
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy.fields import read_protocols
from pfw.policy.locate import Path
from pfw.policy.names import Names
from pfw.policy.report import describe
from pfw.policy.values import DIRECTIONS

ACTION_KEYS: tuple[str, ...] = ("block", "allow")
LIST_KEYS: tuple[str, ...] = ("ip", "port", "protocol")

LISTS: tuple[tuple[str, str], ...] = tuple((action, key) for key in LIST_KEYS for action in ACTION_KEYS)
"""block ip, allow ip, block port, allow port, block protocol, allow protocol."""

DEFAULTS: dict[Direction, Action] = dict.fromkeys(Direction, Action.ALLOW)


def read_simple(names: Names, document: dict[str, object]) -> Policy | None:
    """The policy of the lists, or None and faults. Lists that are empty or missing are no rules."""
    report = names.report
    faults = report.count
    for action in ACTION_KEYS:
        lists = document.get(action, {})
        if not isinstance(lists, dict):
            what = f'must be an object with the lists "ip", "port" and "protocol", not {describe(lists)}'
            report.fault((action,), what)
            continue
        for key in lists:
            if key not in LIST_KEYS:
                report.unknown_key((action, key), f'a list of "{action}"', LIST_KEYS)
    if report.count > faults:
        return None
    rules = [_read_list(names, (action, key), content) for action, key, content in filled_lists(document)]
    return Policy(rules=tuple(filter(None, rules)), defaults=dict(DEFAULTS), simple=True)


def filled_lists(document: dict[str, object]) -> list[tuple[str, str, object]]:
    """Action, key and content of each list that becomes a rule, in the order of the rules."""
    found: list[tuple[str, str, object]] = []
    for action, key in LISTS:
        lists = document.get(action)
        if isinstance(lists, dict) and key in lists and lists[key] != []:
            found.append((action, key, lists[key]))
    return found


def _read_list(names: Names, path: Path, content: object) -> Rule | None:
    action, key = (str(step) for step in path)
    faults = names.report.count
    remote = names.read_addresses(path, content) if key == "ip" else None
    ports = names.read_ports(path, content) if key == "port" else None
    protocols = read_protocols(names, path, content) if key == "protocol" else None
    if names.report.count > faults:
        return None
    return Rule(
        name=f"{action} {key}",
        action=Action(action),
        directions=DIRECTIONS["both"],
        remote=remote,
        ports=ports,
        protocols=frozenset({TCP, UDP}) if ports is not None else protocols,
    )
