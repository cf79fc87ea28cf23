"""The tests of a policy, run: which verdict each connection has, whether it is the one that must be, and why it is not.

An unknown verdict is never the one that must be: a test holds where the verdict is the same whatever is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from pfw.model.flow import Flow, Moment
from pfw.model.policy import Expectation, Fault, Policy
from pfw.model.verdict import Verdict
from pfw.policy.decide import Decider
from pfw.policy.explain import Explanation, Passed, explain, render
from pfw.policy.locate import Positions, rule_lines
from pfw.policy.match import Answer
from pfw.policy.question import Question
from pfw.policy.report import path_text

MOST_PASSED = 5
"""Rules of which it is told why they did not decide."""


class Trial(Struct, frozen=True):
    """A test that was run: its place among the tests, the connection as it was asked about, and what came of it."""

    index: int
    test: Expectation
    flow: Flow
    moment: Moment
    verdict: Verdict

    @property
    def holds(self) -> bool:
        return self.verdict.action is self.test.expect and self.test.rule in (None, _decider(self.verdict))


def try_all(
    policy: Policy, moment_at: Callable[[float | None], Moment], names_of: Callable[[str], frozenset[str]]
) -> list[Trial]:
    """Run all tests of a policy. `moment_at` gives a moment by its time, or now for None, with the distance of the
    local clock from UTC then; `names_of` all names of a user."""
    if not policy.tests:
        return []
    decider = Decider(policy)
    trials = []
    for index, test in enumerate(policy.tests):
        question = Question(test.flow, test.time, test.local).known_as(names_of)
        moment = question.moment(moment_at(question.time))
        trials.append(Trial(index, test, question.flow, moment, decider.decide(question.flow, moment)))
    return trials


def faults(trials: Sequence[Trial], text: str, file: str) -> list[Fault]:
    """Each test that does not hold as a fault of the file that has this text."""
    failed = [trial for trial in trials if not trial.holds]
    if not failed:
        return []
    paths = [("tests", trial.index) for trial in failed]
    positions, lines = Positions(text, [("tests",), *paths]), rule_lines(text)
    return [
        Fault(*positions.value(path), path_text(path), told(trial, lines), file)
        for trial, path in zip(failed, paths, strict=True)
    ]


def told(trial: Trial, lines: Sequence[int]) -> str:
    """What is wrong with one that does not hold, in a line; `lines` are those of the rules in the file."""
    test, verdict = trial.test, trial.verdict
    wanted = test.expect.value if test.rule is None else f'{test.expect.value} by "{test.rule}"'
    place = "" if verdict.index is None else f", line {lines[verdict.index]}"
    return f"{test.text}: must be {wanted}, is {verdict.action.value}: {verdict.reason}{place}"


def why(policy: Policy, trial: Trial, line_of: Callable[[int], int]) -> list[str]:
    """The explanation in lines, with those rules alone that would have made a test hold, or that may decide."""
    found = explain(policy, trial.flow, trial.moment, line_of)
    telling = tuple(each for each in found.passed if _would_hold(policy, trial, each))
    lines = render(Explanation(found.verdict, found.line, telling[:MOST_PASSED]))
    left = len(telling) - MOST_PASSED
    return [*lines, *([f"  … and {left} more"] if left > 0 else [])]


def _would_hold(policy: Policy, trial: Trial, passed: Passed) -> bool:
    test = trial.test
    if passed.answer == Answer.UNKNOWN.value:
        return True
    if passed.index is None:
        return passed.name == test.rule
    rule = policy.rules[passed.index]
    if trial.flow.direction not in rule.directions and rule.name != test.rule:
        return False
    return rule.name == test.rule if test.rule is not None else rule.action is test.expect


def _decider(verdict: Verdict) -> str:
    """Who decided, by the name that a test may give: a rule's, or `default in`, which is the whole reason."""
    return verdict.reason if verdict.rule is None else verdict.rule
