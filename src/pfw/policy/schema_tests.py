"""The part of the JSON Schema about tests: the list `tests` and its entries. See `schema.py`."""

from __future__ import annotations

from pfw.policy import expectations, values

Schema = dict[str, object]

_DESCRIPTIONS: dict[str, str] = {
    "expect": "The verdict that the connection must have, whatever is not known of it.",
    "in": "A connection to this machine: PROTOCOL [SOURCE][:PORT] -> [DESTINATION][:PORT], as pfw explain takes it.",
    "out": "A connection of this machine, written as in in.",
    "forward": "A connection through this machine, written as in in.",
    "app": "Path of the program at this end.",
    "script": "Path of the script that it runs.",
    "user": 'Its user, or "group:" and a group.',
    "unit": "Its systemd unit or control group.",
    "interface": "The interface it comes in by or leaves by.",
    "at": "When it begins, as 2026-11-23T10:00 by the local clock; without it, whenever the test is run.",
    "rule": "The name of the rule that must decide it.",
    "note": "For people.",
}


def tests(test: Schema) -> Schema:
    """Of the list; given is the schema of an entry."""
    return {
        "type": "array",
        "items": test,
        "maxItems": expectations.MAX_TESTS,
        "description": "What must hold: pfw test runs them, and pfw up refuses a policy that fails one.",
    }


def test(user: Schema) -> Schema:
    """Of an entry; given is the schema of a user."""
    path: Schema = {"type": "string", "pattern": "^/[^*]*[^*/]$", "maxLength": values.MAX_TEXT}
    question: Schema = {"type": "string", "minLength": 1, "maxLength": values.MAX_TEXT}
    fields: dict[str, Schema] = {
        "expect": {"enum": [action.value for action in values.ACTIONS]},
        "in": {**question, "examples": ["tcp 192.168.1.9 -> :22"]},
        "out": {**question, "examples": ["tcp -> 203.0.113.5:25"]},
        "forward": question,
        "app": path,
        "script": path,
        "user": user,
        "unit": {"type": "string", "minLength": 1, "maxLength": values.MAX_TEXT},
        "interface": {"type": "string", "pattern": r"^[^*\s/]+$", "maxLength": values.MAX_INTERFACE},
        "at": {"type": "string", "examples": ["2026-11-23T10:00", "2026-11-23T10:00Z"]},
        "rule": {"type": "string", "minLength": 1, "maxLength": values.MAX_TEXT},
        "note": {"type": "string", "maxLength": values.MAX_TEXT},
    }
    return {
        "type": "object",
        "description": "A connection, and what the policy must say to it.",
        "properties": {key: {**field, "description": _DESCRIPTIONS[key]} for key, field in fields.items()},
        "required": ["expect"],
        "additionalProperties": False,
        "oneOf": [{"required": [key]} for key in expectations.QUESTIONS],
    }
