"""Loads a policy file: its text becomes a Policy, or a list of everything that is wrong with it.

Both forms begin here; which one it is the keys at the top tell. Nothing is read but the text that is
given: who calls brings the file and /etc/services.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.policy import Base, Policy, PolicyError
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy import simple, values
from pfw.policy.asking import read_ask
from pfw.policy.blocklists import read_blocklists
from pfw.policy.expectations import check_names, read_tests
from pfw.policy.fields import read_rule
from pfw.policy.names import Names
from pfw.policy.report import Report, describe, shown
from pfw.policy.responding import read_respond
from pfw.policy.services import Services
from pfw.policy.syntax import read_document

VERSION = 2
FULL_KEYS: tuple[str, ...] = ("version", "default", "rules", "base", "ask")
SHARED_KEYS: tuple[str, ...] = ("$schema", "note", "aliases", "blocklists", "respond", "tests")
"""Of both forms."""

DEFAULT_ACTIONS: dict[Direction, Action] = {
    Direction.IN: Action.BLOCK,
    Direction.OUT: Action.ALLOW,
    Direction.FORWARD: Action.BLOCK,
}
"""What happens to a connection that no rule matches, where the file does not say."""

BASE_KEYS: tuple[str, ...] = Base.__struct_fields__


def load(text: str | bytes, file: str = "rules.json", services: Callable[[], str] | None = None) -> Policy:
    """The policy that the text of a file says.

    `file` is its name in messages. `services` gives the text of /etc/services and is called when the
    first service name is met; a table of common services stands behind it.
    Raises PolicyError with all faults in the order of the file (of more than 1000, their number).
    """
    document = read_document(text, file)
    report = Report()
    policy = _read_policy(Names(report, Services(services)), document.value)
    if report.count or document.duplicate_keys or policy is None:
        raise report.error(document.text, file)
    return policy


def _read_policy(names: Names, document: object) -> Policy | None:
    report = names.report
    if not isinstance(document, dict):
        report.fault((), f"must be an object in braces {{…}}, not {describe(document)}")
        return None
    is_full = any(key in document for key in FULL_KEYS)
    known = (*(FULL_KEYS if is_full else simple.ACTION_KEYS), *SHARED_KEYS)
    for key in document:
        if is_full and key in simple.ACTION_KEYS:
            _report_mixed(report, key, document)
        elif key not in known:
            everything = (*FULL_KEYS, *simple.ACTION_KEYS, *SHARED_KEYS)
            report.unknown_key((key,), "a part of a policy", known if is_full else everything)
    for key in ("$schema", "note"):
        if key in document:
            report.read((key,), document[key], values.read_text)
    if "aliases" in document:
        names.define_aliases(("aliases",), document["aliases"])
    lists = read_blocklists(report, ("blocklists",), document["blocklists"]) if "blocklists" in document else ()
    respond = read_respond(names, ("respond",), document.get("respond", {}))
    policy = _read_full(names, document) if is_full else simple.read_simple(names, document)
    tests = read_tests(report, ("tests",), document["tests"]) if "tests" in document else []
    if policy is None:
        return None
    policy = replace(policy, blocklists=lists, respond=respond, tests=tuple(filter(None, tests)))
    check_names(report, ("tests",), tests, policy)
    return policy


def _report_mixed(report: Report, key: str, document: dict[str, object]) -> None:
    beside = next(each for each in document if each in FULL_KEYS)
    what = f'is of the simple form and cannot stand beside "{beside}"; write it as rules, or leave "{beside}" out'
    report.fault_at_key((key,), what)


def _read_full(names: Names, document: dict[str, object]) -> Policy | None:
    report = names.report
    faults = report.count
    version = document.get("version")
    if "version" not in document:
        if not any(key in document for key in simple.ACTION_KEYS):
            first = next(key for key in document if key in FULL_KEYS)
            report.fault_at_key((first,), f'needs "version": {VERSION} beside it')
    elif isinstance(version, bool) or version != VERSION or not isinstance(version, int):
        report.fault(("version",), f"must be {VERSION}, the only version that there is, not {shown(version)}")
    defaults = _read_defaults(report, document.get("default", {}))
    base = _read_base(report, document.get("base", {}))
    ask = read_ask(report, document.get("ask", {}))
    rules = _read_rules(names, document.get("rules", []))
    if report.count > faults:
        return None
    return Policy(rules=tuple(rules), defaults=defaults, base=base, ask=ask)


def _read_defaults(report: Report, value: object) -> dict[Direction, Action]:
    defaults = dict(DEFAULT_ACTIONS)
    if not isinstance(value, dict):
        report.fault(("default",), f'must be an object with "in", "out" and "forward", not {describe(value)}')
        return defaults
    for key, word in value.items():
        if key not in list(Direction):
            report.unknown_key(("default", key), "a direction", list(Direction))
            continue
        action = report.read(("default", key), word, values.read_action)
        if action is Action.ASK and key == Direction.FORWARD:
            report.fault(("default", key), values.NOBODY_TO_ASK)
        elif action is not None:
            defaults[Direction(key)] = action
    return defaults


def _read_base(report: Report, value: object) -> Base:
    if not isinstance(value, dict):
        report.fault(("base",), f"must be an object of true and false, not {describe(value)}")
        return Base()
    switches: dict[str, bool] = {}
    for key, word in value.items():
        if key not in BASE_KEYS:
            report.unknown_key(("base", key), "a rule that is always there", BASE_KEYS)
            continue
        switch = report.read(("base", key), word, values.read_flag)
        if switch is not None:
            switches[key] = switch
    return Base(**switches)


def _read_rules(names: Names, value: object) -> list[Rule]:
    report = names.report
    if not isinstance(value, list):
        report.fault(("rules",), f"must be a list of rules, not {describe(value)}")
        return []
    rules: list[Rule] = []
    places: dict[str, int] = {}
    for index, item in enumerate(value):
        rule = read_rule(names, ("rules", index), item)
        if rule is not None:
            rules.append(rule)
        name = item.get("name") if isinstance(item, dict) else None
        if isinstance(name, str) and places.setdefault(name, index) != index:
            first = ("rules", places[name], "name")
            report.fault(("rules", index, "name"), f"{shown(name)} is the name of an earlier rule", see=first)
    return rules


__all__ = ["Policy", "PolicyError", "load"]
