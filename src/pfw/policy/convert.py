"""Writes a policy file of the simple form as the equal file of the full form.

The values stay as the author wrote them: `ssh` stays `ssh`, an alias stays an alias.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from pfw.policy.load import SHARED_KEYS, VERSION, load
from pfw.policy.simple import DEFAULTS, filled_lists
from pfw.policy.syntax import read_document

WIDTH = 100
"""A list or an object that fits into so many columns stands on one line."""

_FIELDS = {"ip": "remote", "port": "port", "protocol": "protocol"}


def to_full(text: str | bytes, file: str = "rules.json", services: Callable[[], str] | None = None) -> str:
    """The full form of a file, and a file that is in the full form as it is. Raises PolicyError."""
    policy = load(text, file, services)
    document = read_document(text, file)
    if not policy.simple or not isinstance(document.value, dict):
        return document.text
    full: dict[str, object] = {key: document.value[key] for key in ("$schema",) if key in document.value}
    full["version"] = VERSION
    full.update((key, document.value[key]) for key in SHARED_KEYS if key in document.value)
    full["default"] = {direction.value: action.value for direction, action in DEFAULTS.items()}
    full["rules"] = [
        {"name": f"{action} {key}", "action": action, _FIELDS[key]: content}
        for action, key, content in filled_lists(document.value)
    ]
    return write_json(full) + "\n"


def write_json(value: object) -> str:
    """JSON with 2 spaces a level, in which what is short stands on one line."""
    return "".join(_pieces(value, 0, 0))


def _pieces(value: object, depth: int, used: int) -> Iterator[str]:
    """The text of a value in pieces. `used` columns of its line are taken. Policies nest 5 levels at most."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or (depth and used + len(flat) < WIDTH) or not value:
        yield flat
        return
    indent = "  " * (depth + 1)
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    members = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    between = opening
    for key, item in members:
        head = indent if key is None else f"{indent}{json.dumps(key, ensure_ascii=False)}: "
        yield f"{between}\n{head}"
        yield from _pieces(item, depth + 1, len(head))
        between = ","
    yield "\n" + "  " * depth + closing
