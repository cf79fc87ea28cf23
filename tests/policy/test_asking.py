"""The object `ask` of a policy file: what it loads to, and every fault of it with its place."""

from __future__ import annotations

import json

import pytest

from pfw.model.policy import Ask, PolicyError
from pfw.model.verdict import Action
from pfw.policy.load import load


def asking(value: object) -> Ask:
    return load(json.dumps({"version": 2, "ask": value})).ask


def test_what_holds_where_nothing_is_said() -> None:
    assert load('{"version": 2}').ask == load("{}").ask == asking({}) == Ask(60, Action.BLOCK)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [(1, 1), (60, 60), (2.5, 2.5), (3600, 3600), ("1s", 1), ("90s", 90), ("5m", 300), ("1h", 3600), ("3600s", 3600)],
)
def test_timeouts(written, seconds) -> None:
    assert asking({"timeout": written}) == Ask(seconds)
    assert isinstance(asking({"timeout": written}).timeout_s, float)


@pytest.mark.parametrize("word", ["block", "allow"])
def test_unattended(word) -> None:
    assert asking({"unattended": word}) == Ask(unattended=Action(word))


WORDS = '("block" or "allow")'


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([], 'ask: must be an object with "timeout" and "unattended", not a list'),
        ({"timeuot": 5}, 'ask.timeuot: is not a field of this object; did you mean "timeout"?'),
        ({"timeout": 0}, "ask.timeout: 0 is not from 1 second to 1 hour"),
        ({"timeout": 0.99}, "ask.timeout: 0.99 is not from 1 second to 1 hour"),
        ({"timeout": 3601}, "ask.timeout: 3601 is not from 1 second to 1 hour"),
        ({"timeout": -(10**400)}, "ask.timeout: a number of more than 77 digits is not from 1 second to 1 hour"),
        ({"timeout": "0s"}, 'ask.timeout: "0s" is not from 1 second to 1 hour'),
        ({"timeout": "61m"}, 'ask.timeout: "61m" is not from 1 second to 1 hour'),
        ({"timeout": "60"}, 'ask.timeout: "60" is not a time; write a number and s, m or h, as in "90s"'),
        ({"timeout": "1 m"}, 'ask.timeout: "1 m" is not a time; write a number and s, m or h, as in "90s"'),
        ({"timeout": "1d"}, 'ask.timeout: "1d" is not a time; write a number and s, m or h, as in "90s"'),
        ({"timeout": True}, 'ask.timeout: must be a number of seconds or a text such as "90s", not true'),
        ({"timeout": None}, 'ask.timeout: must be a number of seconds or a text such as "90s", not null'),
        ({"unattended": "drop"}, 'ask.unattended: "drop" is not what is done without an answer; write "block"'),
        ({"unattended": "refuse"}, f'ask.unattended: "refuse" is not what is done without an answer {WORDS}'),
        ({"unattended": "ask"}, f'ask.unattended: "ask" is not what is done without an answer {WORDS}'),
        ({"unattended": "blok"},
         f'ask.unattended: "blok" is not what is done without an answer {WORDS}; did you mean "block"?'),
        ({"unattended": False}, 'ask.unattended: must be "block" or "allow", not false'),
    ],
)  # fmt: skip
def test_each_fault(value, fault) -> None:
    with pytest.raises(PolicyError) as caught:
        asking(value)
    assert [str(each).split(": ", 1)[1] for each in caught.value.faults] == [fault]


def test_infinity_is_no_time() -> None:
    with pytest.raises(PolicyError, match="is not from 1 second to 1 hour"):
        load('{"version": 2, "ask": {"timeout": 1e999}}')
