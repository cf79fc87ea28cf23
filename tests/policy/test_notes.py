from __future__ import annotations

import json

from pfw.policy.load import load
from pfw.policy.notes import Note, notes

SCRIPT = {"action": "allow", "direction": "out", "app": "/usr/bin/python3", "script": "/usr/local/bin/backup.py"}
WHAT = "is decided by the daemon, for each connection anew, and not by the kernel"


def notes_of(*rules: dict[str, object]) -> tuple[Note, ...]:
    named = [{"name": f"r{index}", **rule} for index, rule in enumerate(rules)]
    return notes(load(json.dumps({"version": 2, "rules": named})))


def test_a_rule_for_a_script_is_the_daemons() -> None:
    found = notes_of({"action": "block", "app": "/usr/bin/x"}, SCRIPT, {**SCRIPT, "action": "ask"})
    assert found == (Note(1, "r1", "script", WHAT), Note(2, "r2", "script", WHAT))
    assert str(found[0]) == f'rule "r1": "script" {WHAT}'


def test_of_other_rules_and_of_those_that_are_off_there_is_nothing_to_say() -> None:
    hashed = {"action": "allow", "app": {"path": "/usr/bin/curl", "sha256": "0" * 64}, "user": "bob", "port": 443}
    assert notes_of({"action": "ask"}, hashed, {**SCRIPT, "enabled": False}) == ()


def test_a_policy_of_lists() -> None:
    assert notes(load('{"block": {"ip": ["198.51.100.7"]}}')) == ()
