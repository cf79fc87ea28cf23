"""How the action `ask` asks: the object `ask` of a policy file.

Who is asked, and how, is no affair of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pfw.model.policy import Ask
from pfw.model.verdict import Action
from pfw.policy import values
from pfw.policy.report import MisfitError, Report, describe, shown, wrong_type

UNITS_S: dict[str, int] = {"s": 1, "m": 60, "h": 3600}
TIMEOUT_SHAPE = f"([0-9]{{1,4}})([{''.join(UNITS_S)}])"
SHORTEST_TIMEOUT_S, LONGEST_TIMEOUT_S = 1, 3600
"""A connection waits as long as a person is asked, and what holds it back holds a bounded number of them."""

UNATTENDED: tuple[Action, ...] = (Action.BLOCK, Action.ALLOW)


def read_ask(report: Report, value: object) -> Ask:
    """What the object says; of what is not in it, or has a fault, the usual."""
    if not isinstance(value, dict):
        report.fault(("ask",), f'must be an object with "timeout" and "unattended", not {describe(value)}')
        return Ask()
    for key in value:
        if key not in ASK_FIELDS:
            report.unknown_key(("ask", key), "a field of this object", ASK_FIELDS)
    read = {key: report.read(("ask", key), value[key], reader) for key, reader in ASK_FIELDS.items() if key in value}
    timeout_s, unattended = read.get("timeout"), read.get("unattended")
    return Ask(
        timeout_s=timeout_s if isinstance(timeout_s, float) else Ask().timeout_s,
        unattended=unattended if isinstance(unattended, Action) else Ask().unattended,
    )


def read_timeout(value: object) -> float:
    """Seconds."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong_type('a number of seconds or a text such as "90s"', value)
    seconds = _text_s(value) if isinstance(value, str) else value
    if not SHORTEST_TIMEOUT_S <= seconds <= LONGEST_TIMEOUT_S:
        raise MisfitError(f"{shown(value)} is not from 1 second to 1 hour")
    return float(seconds)


def _text_s(text: str) -> int:
    match = re.fullmatch(TIMEOUT_SHAPE, text)
    if match is None:
        raise MisfitError(f'{shown(text)} is not a time; write a number and s, m or h, as in "90s"')
    return int(match[1]) * UNITS_S[match[2]]


def read_unattended(value: object) -> Action:
    words = [action.value for action in UNATTENDED]
    return Action(values.read_word(value, words, "what is done without an answer", values.SAME_ACTION))


ASK_FIELDS: dict[str, Callable[[object], object]] = {"timeout": read_timeout, "unattended": read_unattended}
