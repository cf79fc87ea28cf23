"""The tests of a policy, `tests` in its file: questions, and the verdict that each must have.

A question is written as for `pfw explain` behind its direction, `"in": "tcp 192.168.1.9 -> :22"`; who asks, where and
when are fields of their own. Whether they hold is asked by `trials.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pfw.model.flow import Direction
from pfw.model.policy import Expectation, Policy
from pfw.model.verdict import Action
from pfw.policy import values
from pfw.policy.base import rules_in_order
from pfw.policy.blocking import LIST_NAME
from pfw.policy.locate import Path
from pfw.policy.question import Question, parse_time, parse_words, split_words
from pfw.policy.report import MisfitError, Report, alternatives, describe, shown

MAX_TESTS = 10_000
QUESTIONS: tuple[str, ...] = tuple(Direction)


def _whole(reader: Callable[[object], str]) -> Callable[[object], str]:
    """A value of a connection: no pattern, as a rule may have."""

    def read(value: object) -> str:
        text = reader(value)
        if text.endswith("*"):
            raise MisfitError(f"{shown(text)} is a pattern; a test is about one connection, so write it in full")
        return text

    return read


def _read_at(value: object) -> str:
    text = values.read_filled_text(value)
    _no_misfit(lambda: parse_time(text))
    return text


def _no_misfit(read: Callable[[], Question | object]) -> object:
    try:
        return read()
    except ValueError as error:
        raise MisfitError(str(error)) from None


OPTIONS: dict[str, str] = {"app": "--app", "script": "--script", "user": "--user", "unit": "--unit",
                           "interface": "--interface", "at": "--time"}  # fmt: skip
"""Fields that are options of a question."""

TEST_FIELDS: dict[str, Callable[[object], object]] = {
    "expect": values.read_action,
    **dict.fromkeys(QUESTIONS, values.read_filled_text),
    "app": _whole(values.read_app),
    "script": values.read_script,
    "user": values.read_user,
    "unit": values.read_unit,
    "interface": _whole(values.read_interface),
    "at": _read_at,
    "rule": values.read_filled_text,
    "note": values.read_text,
}


def read_tests(report: Report, path: Path, value: object) -> list[Expectation | None]:
    """The tests of a file, None for each that has a fault."""
    if not isinstance(value, list):
        report.fault(path, f"must be a list of tests, not {describe(value)}")
        return []
    if len(value) > MAX_TESTS:
        report.fault(path, f"has {len(value):,} tests, and {MAX_TESTS:,} are the most")
        return []
    return [_read_test(report, (*path, index), item) for index, item in enumerate(value)]


def _read_test(report: Report, path: Path, value: object) -> Expectation | None:
    faults = report.count
    if not isinstance(value, dict):
        report.fault(path, f"must be an object, not {describe(value)}")
        return None
    read: dict[str, object] = {}
    for key, item in value.items():
        reader = TEST_FIELDS.get(key)
        if reader is None:
            report.unknown_key((*path, key), "a field of a test", TEST_FIELDS)
        elif (found := report.read((*path, key), item, reader)) is not None:
            read[key] = found
    if "expect" not in value:
        report.fault(path, 'has no "expect"')
    asked = [key for key in QUESTIONS if key in value]
    if not asked:
        report.fault(path, f"has no question: {alternatives(QUESTIONS)}")
    for key in asked[1:]:
        report.fault_at_key((*path, key), f'stands beside "{asked[0]}"; a test asks one question')
    if report.count > faults:
        return None
    if read["expect"] is Action.ASK and asked[0] == Direction.FORWARD:
        report.fault((*path, "expect"), values.NOBODY_TO_ASK)
        return None
    return report.read((*path, asked[0]), read, lambda _: _expectation(asked[0], read))


def _expectation(direction: str, read: dict[str, object]) -> Expectation:
    """The test that the fields are. Raises MisfitError for a question that is none."""
    said = {option: str(read[key]) for key, option in OPTIONS.items() if key in read}

    def ask() -> Question:
        options = (word for pair in said.items() for word in pair)
        return parse_words([direction, *split_words(str(read[direction])), *options])

    question = _no_misfit(ask)
    assert isinstance(question, Question)
    rule = read.get("rule")
    shown_options = (f'{option} "{text}"' if " " in text else f"{option} {text}" for option, text in said.items())
    return Expectation(
        expect=Action(str(read["expect"])),
        flow=question.flow,
        time=question.time,
        local=question.local,
        text=" ".join([direction, " ".join(str(read[direction]).split()), *shown_options]),
        rule=None if rule is None else str(rule),
        note=str(read.get("note", "")),
    )


def check_names(report: Report, path: Path, tests: Sequence[Expectation | None], policy: Policy) -> None:
    """Report each test that names a rule which is not there."""
    known = dict.fromkeys(rule.name for _, rule in rules_in_order(policy))
    known |= dict.fromkeys(LIST_NAME.format(each.name) for each in policy.blocklists)
    known |= dict.fromkeys(f"default {direction}" for direction in Direction)
    for index, test in enumerate(tests):
        if test is not None and test.rule is not None and test.rule not in known:
            what = f"{shown(test.rule)} is the name of no rule"
            report.misfit((*path, index, "rule"), MisfitError(what, test.rule, known))
