"""The part of the JSON Schema about alerts: the object `respond` and its entries. See `schema.py`."""

from __future__ import annotations

from pfw.model.observation import Kind
from pfw.model.policy import Doing
from pfw.policy import responding, values

Schema = dict[str, object]

_DESCRIPTIONS: dict[str, str] = {
    "when": "In order: the first that fits an alert decides. What none fits is told.",
    "never": "Addresses that are never banned or limited by themselves, written as in remote.",
    "command": "A program, and its arguments, that gets each alert as JSON; no shell is used.",
    "webhook": "A URL to which each alert is sent as JSON.",
}
_REACTION_DESCRIPTIONS: dict[str, str] = {
    "alert": "A kind of alert, a list of them, or all.",
    "score": "Only alerts that score so much or more, of 100.",
    "do": "ban: drop all from and to the source; limit: let few new connections of it through; alert: tell of it; "
    "nothing: do not even tell.",
    "time": "How long a first ban, or a limit, lasts: a number and s, m, h or d. Bans of the same source double.",
}


def respond(address: Schema, reaction: Schema) -> Schema:
    """Of the object itself; given are the schemas of an address and of an entry."""
    program: Schema = {"type": "string", "pattern": "^/[^/]", "maxLength": values.MAX_TEXT}
    fields: dict[str, Schema] = {
        "when": {"type": "array", "items": reaction, "maxItems": responding.MAX_REACTIONS},
        "never": {"anyOf": [address, {"type": "array", "items": address}]},
        "command": {
            "type": "array",
            "prefixItems": [program],
            "items": {"type": "string", "maxLength": values.MAX_TEXT},
            "minItems": 1,
            "maxItems": responding.MAX_WORDS,
            "examples": [["/usr/local/bin/on-alert"]],
        },
        "webhook": {
            "type": "string",
            "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]",
            "maxLength": values.MAX_TEXT,
        },
    }
    return {
        "type": "object",
        "description": "What is done about alerts. Without it they are told, and no more.",
        "properties": _described(fields, _DESCRIPTIONS),
        "additionalProperties": False,
    }


def reaction() -> Schema:
    """Of an entry of `when`."""
    kind: Schema = {"enum": [*(kind.value for kind in Kind), responding.ALL]}
    fields: dict[str, Schema] = {
        "alert": {"anyOf": [kind, {"type": "array", "items": kind, "minItems": 1}]},
        "score": {"type": "integer", "minimum": 0, "maximum": responding.MAX_SCORE, "default": 0},
        "do": {"enum": [each.value for each in Doing]},
        "time": {
            "type": "string",
            "pattern": f"^{responding.TIME_SHAPE}$",
            "default": responding.DEFAULT_TIME,
            "examples": ["30s", "10m", "1h", "7d"],
        },
    }
    untimed: Schema = {"do": {"enum": [Doing.ALERT.value, Doing.NOTHING.value]}}
    return {
        "type": "object",
        "description": "What is done about some alerts.",
        "properties": _described(fields, _REACTION_DESCRIPTIONS),
        "required": list(responding.REQUIRED),
        "additionalProperties": False,
        "not": {"properties": untimed, "required": ["do", "time"]},
    }


def _described(fields: dict[str, Schema], descriptions: dict[str, str]) -> Schema:
    return {key: {**field, "description": descriptions[key]} for key, field in fields.items()}
