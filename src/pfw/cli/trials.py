"""Screens of `pfw test`: a line a test; behind one that does not hold what decided instead, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pfw.cli.screen import decided_by, encode, verdict_facts
from pfw.model.policy import Policy
from pfw.model.text import counted, printable
from pfw.policy.locate import Positions, rule_lines
from pfw.policy.trials import Trial, why

OK, FAILED = "ok    ", "FAILED"


def trial_lines(policy: Policy, text: str, file: str, trials: Sequence[Trial]) -> Iterator[str]:
    """For a person; `text` is that of the file."""
    place = _places(text, trials)
    lines = rule_lines(text)
    for trial in trials:
        test = trial.test
        if trial.holds:
            yield f"{OK}  {printable(test.text)}: {test.expect}, {decided_by(trial.verdict)}"
            continue
        line, column = place(trial)
        wanted = test.expect.value if test.rule is None else f'{test.expect.value} by "{test.rule}"'
        note = f" ({test.note})" if test.note else ""
        yield printable(f"{FAILED}  {test.text}: must be {wanted}{note}, {file}:{line}:{column}")
        yield from (f"        {printable(each)}" for each in why(policy, trial, lines.__getitem__))
    failed = sum(not trial.holds for trial in trials)
    if trials:
        yield f"{counted(len(trials), 'test')}, {f'{failed} failed' if failed else 'all hold'}"


def trials_json(policy: Policy, text: str, file: str, trials: Sequence[Trial]) -> str:
    """One object."""
    place = _places(text, trials)
    lines = rule_lines(text)
    tests = [
        {
            "test": printable(trial.test.text),
            "line": place(trial)[0],
            "column": place(trial)[1],
            "expect": trial.test.expect,
            "expect_rule": None if trial.test.rule is None else printable(trial.test.rule),
            "note": printable(trial.test.note),
            "holds": trial.holds,
            **verdict_facts(trial.verdict),
            "rule_line": None if trial.verdict.index is None else lines[trial.verdict.index],
            "why": [] if trial.holds else [printable(each) for each in why(policy, trial, lines.__getitem__)],
        }
        for trial in trials
    ]
    failed = sum(not trial.holds for trial in trials)
    return encode({"file": printable(file), "holds": not failed, "failed": failed, "tests": tests})


def _places(text: str, trials: Sequence[Trial]) -> Callable[[Trial], tuple[int, int]]:
    positions = Positions(text, [("tests",), *(("tests", trial.index) for trial in trials)])
    return lambda trial: positions.value(("tests", trial.index))
