"""Runs the Markdown files beside it: the policy language, specified by policies and what they answer.

A `json` block is a policy. It is asked by the blocks that follow it, up to the next policy:

    explain    lines `QUESTION => VERDICT WHO`, a question as `pfw explain` takes it, and who decided as
               screens show it (`rule "NAME"`, `base NAME`, `default in`; for `unknown` what it depends on)
    faults     the file is refused, with exactly these lines
    tests      its own tests fail with exactly these lines, or `all hold`

The word `explain` may be followed by `at TIME`, which sets the clock (an ISO time whose zone is that of the
machine, else Monday 2026-11-23 12:00 UTC), or by `over the limit`, where every limit is used up.
Lines in `explain` that begin with `#` are remarks. Every answer is that of the slow and of the fast matcher;
for a policy of lists also that of the full form which `pfw convert` makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from pfw.cli.screen import decided_by
from pfw.model.flow import Moment
from pfw.model.policy import Policy, PolicyError
from pfw.policy.convert import to_full
from pfw.policy.decide import Decider
from pfw.policy.load import load
from pfw.policy.match import decide_slowly
from pfw.policy.question import parse_question
from pfw.policy.trials import faults as trial_faults
from pfw.policy.trials import try_all

HERE = Path(__file__).parent
CLOCK = "2026-11-23T12:00+00:00"
OVER_THE_LIMIT = "over the limit"


@dataclass(frozen=True)
class Block:
    """A fenced block: the words behind the fence, the lines, and where it stands. `policy` is the one that it asks."""

    file: str
    line: int
    section: str
    words: str
    text: str
    policy: Block | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def read_blocks(name: str, text: str) -> Iterator[Block]:
    """The blocks of a Markdown file, with the last heading before each."""
    section, begin = "", 0
    words: str | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```") and words is None:
            words, lines, begin = line[3:].strip(), [], number
        elif line.startswith("```"):
            yield Block(name, begin, section, words or "", "".join(f"{each}\n" for each in lines))
            words = None
        elif words is not None:
            lines.append(line)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    if words is not None:
        raise ValueError(f"{name}:{begin}: the block is not closed")


def read_examples(name: str, text: str) -> list[Block]:
    """The blocks that ask a policy. Raises ValueError for what would not be checked."""
    examples: list[Block] = []
    policy = None
    for block in read_blocks(name, text):
        if block.words == "json":
            if policy is not None and (not examples or examples[-1].policy is not policy):
                raise ValueError(f"{policy.place}: nothing is asked of this policy")
            policy = block
        elif re.fullmatch(rf"faults|tests|explain( at \S+| {OVER_THE_LIMIT})?", block.words):
            if policy is None:
                raise ValueError(f"{block.place}: there is no policy before it")
            if not block.text.strip():
                raise ValueError(f"{block.place}: is empty")
            examples.append(Block(name, block.line, block.section, block.words, block.text, policy))
        elif block.words != "text":
            raise ValueError(f"{block.place}: {block.words!r} is no kind of block")
    if policy is not None and (not examples or examples[-1].policy is not policy):
        raise ValueError(f"{policy.place}: nothing is asked of this policy")
    return examples


def clock_of(words: str) -> Moment:
    _, _, written = words.partition(" at ")
    now = datetime.fromisoformat(written or CLOCK)
    offset = now.utcoffset()
    assert offset is not None, f"{written} has no zone"
    return Moment(now.timestamp(), int(offset.total_seconds()))


def answers(policies: list[Policy], question_text: str, words: str) -> set[str]:
    """What each matcher says of each policy: they ought to be one."""
    question = parse_question(question_text)
    moment = question.moment(clock_of(words))
    over_limit = (lambda _: True) if OVER_THE_LIMIT in words else None
    verdicts = []
    for policy in policies:
        verdicts.append(decide_slowly(policy, question.flow, moment, over_limit))
        verdicts.append(Decider(policy).decide(question.flow, moment, over_limit))
    return {f"{verdict.action} {decided_by(verdict)}" for verdict in verdicts}


def check_answers(block: Block, policy: Policy, policy_text: str) -> None:
    policies = [policy]
    if policy.simple:
        policies.append(load(to_full(policy_text)))
    wrong = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if not line.strip() or line.startswith("#"):
            continue
        question_text, arrow, rest = line.partition("=>")
        assert arrow, f"{block.file}:{number}: has no =>"
        expected = " ".join(rest.split())
        found = answers(policies, question_text, block.words)
        if found != {expected}:
            wrong.append(f"{block.file}:{number}: {question_text.strip()} => {' and '.join(sorted(found))}")
    assert not wrong, "\n" + "\n".join(wrong)


EXAMPLES = [
    example
    for path in sorted(HERE.glob("*.md"))
    for example in read_examples(path.name, path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{block.place} {block.section}")
def test_specification(block: Block) -> None:
    assert block.policy is not None
    text = block.policy.text
    try:
        policy = load(text)
    except PolicyError as error:
        found = [str(fault) for fault in error.faults]
        expected = block.text.splitlines() if block.words == "faults" else []
        assert found == expected, block.policy.place
        return
    assert block.words != "faults", f"{block.policy.place}: no fault is found"
    if block.words == "tests":
        assert (failed_tests(policy, text) or ["all hold"]) == block.text.splitlines(), block.policy.place
    else:
        check_answers(block, policy, text)


def failed_tests(policy: Policy, text: str) -> list[str]:
    trials = try_all(
        policy, lambda time: Moment(clock_of("").time if time is None else time), lambda user: frozenset((user,))
    )
    assert [trial.verdict for trial in trials] == [decide_slowly(policy, trial.flow, trial.moment) for trial in trials]
    return [str(fault) for fault in trial_faults(trials, text, "rules.json")]


class TestRunner:
    """The runner notices what is wrong."""

    POLICY = '```json\n{"allow": {"port": [22]}}\n```\n'

    def ask(self, text: str) -> None:
        for block in read_examples("it.md", text):
            test_specification(block)

    def test_right(self) -> None:
        self.ask(self.POLICY + '```explain\nin tcp 192.0.2.1:1 192.0.2.2:22 => allow   rule "allow port"\n```\n')

    @pytest.mark.parametrize("wrong", ["all hold", "rules.json:1:1: tests[0]: something else"])
    def test_tests_that_fail(self, wrong: str) -> None:
        policy = self.POLICY.replace("[22]}", '[22]}, "tests": [{"expect": "block", "in": "tcp -> :22"}]')
        with pytest.raises(AssertionError):
            self.ask(policy + f"```tests\n{wrong}\n```\n")

    @pytest.mark.parametrize(
        "wrong", ['block rule "allow port"', 'allow rule "allow ip"', "allow default in", 'allow rule "allow port" ?']
    )
    def test_wrong_answer(self, wrong: str) -> None:
        with pytest.raises(AssertionError, match=r"it\.md:5: in tcp .* => allow rule \"allow port\""):
            self.ask(self.POLICY + f"```explain\nin tcp 192.0.2.1:1 192.0.2.2:22 => {wrong}\n```\n")

    def test_faults_where_there_are_none(self) -> None:
        with pytest.raises(AssertionError, match=r"it\.md:1: no fault is found"):
            self.ask(self.POLICY + "```faults\nrules.json:1:1: is empty\n```\n")

    def test_a_refused_policy_answers_nothing(self) -> None:
        with pytest.raises(AssertionError):
            self.ask("```json\n{}}\n```\n```explain\n# nothing\n```\n")

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            (POLICY, "nothing is asked of this policy"),
            (POLICY + POLICY + "```explain\n# x\n```\n", "it.md:1: nothing is asked of this policy"),
            ("```explain\n# x\n```\n", "there is no policy before it"),
            ("```jsn\n{}\n```\n", "is no kind of block"),
            ("```json\n{}\n", "is not closed"),
            (POLICY + "```faults\n```\n", "is empty"),
        ],
    )
    def test_what_would_not_be_checked(self, text: str, what: str) -> None:
        with pytest.raises(ValueError, match=what):
            read_examples("it.md", text)
