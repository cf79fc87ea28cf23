"""The commands that only ask: check, explain, schema, convert, completion. No root, nothing changed."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pfw.cli import rules
from pfw.model.text import counted, printable

if TYPE_CHECKING:
    from pfw.model.flow import Flow, Moment
    from pfw.model.policy import Fault, Policy
    from pfw.model.verdict import Verdict
    from pfw.policy.explain import Explanation
    from pfw.policy.question import Question

OK, BAD_INPUT, REFUSED = 0, 2, 3
"""Exit status of every command."""

_QUESTION_BYTES_MAX = 10_000


def tell(text: str) -> None:
    """A line for the person, on standard error."""
    print(f"pfw: {printable(text)}", file=sys.stderr)


class Loaded(NamedTuple):
    """A policy with the file that it is from, and its bytes then."""

    path: Path
    content: bytes
    policy: Policy


def loaded(named: str | None) -> Loaded | int:
    """The policy; or, with what is wrong told, the exit status."""
    from pfw.model.policy import PolicyError

    try:
        path = rules.find(named)
        content = rules.read(path)
        return Loaded(path, content, rules.parse(content, path))
    except rules.NoPolicyError as error:
        tell(str(error))
    except PolicyError as error:
        tell_faults(error.faults)
    except OSError as error:
        tell(f"{error.filename or named or 'rules.json'}: {error.strerror or error}")
    return BAD_INPUT


def tell_faults(faults: Iterable[Fault]) -> None:
    for fault in faults:
        print(printable(str(fault)), file=sys.stderr)


def check(arguments: Namespace, failing: Callable[[Policy, bytes, str], Iterable[Fault]]) -> int:
    """`pfw check`. `failing` gives the tests of a policy that do not hold, as faults of its file."""
    from pfw.model.policy import Fault, PolicyError
    from pfw.policy.notes import notes

    policy, faults = None, list[Fault]()
    named = arguments.file or arguments.rules
    path = Path(named or "rules.json")
    try:
        path = rules.find(named)
        content = rules.read(path)
        policy = rules.parse(content, path)
        faults = list(failing(policy, content, str(path)))
    except rules.NoPolicyError as error:
        tell(str(error))
        return BAD_INPUT
    except PolicyError as error:
        faults = error.faults
    except OSError as error:
        faults = [Fault(1, 1, "", error.strerror or str(error), str(path))]
    if arguments.json:
        _print_check(path, policy, faults)
    elif policy is None or faults:
        tell_faults(faults)
    else:
        form = "lists" if policy.simple else "rules"
        held = f", {counted(len(policy.tests), 'test')} passed" if policy.tests else ""
        print(f"{printable(str(path))}: valid, {counted(len(policy.rules), 'rule')} ({form} form){held}")
        for note in notes(policy):
            tell(str(note))
    return BAD_INPUT if faults else OK


def _print_check(path: Path, policy: Policy | None, faults: list[Fault]) -> None:
    from msgspec import json, to_builtins

    from pfw.policy.notes import notes

    facts = {
        "file": printable(str(path)),
        "valid": policy is not None and not faults,
        "form": None if policy is None else "simple" if policy.simple else "full",
        "rules": None if policy is None else len(policy.rules),
        "tests": None if policy is None else len(policy.tests),
        "faults": [
            {name: printable(value) if isinstance(value, str) else value for name, value in to_builtins(fault).items()}
            for fault in faults
        ],
        "notes": [] if policy is None else [printable(str(note)) for note in notes(policy)],
    }
    print(json.encode(facts).decode())


class Machine(NamedTuple):
    """What a machine knows that answers: `complete` adds to a policy what is on its block lists, `tell_more` says
    what is known of a connection besides, `names_of` gives all names of a user."""

    complete: Callable[[Policy], Policy]
    tell_more: Callable[[Flow], None]
    names_of: Callable[[str], frozenset[str]]


def explain(arguments: Namespace, machine: Machine) -> int:
    """`pfw explain`, one question or many."""
    rules_file = loaded(arguments.rules)
    if isinstance(rules_file, int):
        return rules_file
    rules_file = rules_file._replace(policy=machine.complete(rules_file.policy))
    policy = rules_file.policy
    options = [
        word
        for name in ("app", "sha256", "script", "user", "unit", "interface", "time")
        for value in getattr(arguments, name) or ()
        for word in (f"--{name}", value)
    ]
    if arguments.question == ["-"]:
        if options:
            tell(f"{options[0]} and - do not go together; write it into each line")
            return BAD_INPUT
        return _explain_many(rules_file, machine, arguments.json)
    from pfw.policy import explain as explaining
    from pfw.policy.question import parse_words

    words = [*arguments.question, *options]
    try:
        question = parse_words(words).known_as(machine.names_of)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    machine.tell_more(question.flow)
    explanation = explaining.explain(policy, question.flow, _moment(question), _line_of(rules_file.content))
    if arguments.json:
        _print_explanation(explanation)
    else:
        for line in explaining.render(explanation):
            print(printable(line))
    return OK


def _explain_many(rules_file: Loaded, machine: Machine, as_json: bool) -> int:
    from pfw.cli.screen import decided_by, encode
    from pfw.policy.decide import Decider
    from pfw.policy.question import parse_question

    decider = Decider(rules_file.policy)
    line_of = _line_of(rules_file.content)
    status = OK
    for number, raw in enumerate(_lines(sys.stdin.buffer), 1):
        text = raw.decode(errors="replace").strip()
        if not text or text.startswith("#"):
            continue
        try:
            if len(raw) >= _QUESTION_BYTES_MAX:
                raise ValueError(f"is longer than a question can be ({_QUESTION_BYTES_MAX} bytes)")
            question = parse_question(text).known_as(machine.names_of)
        except ValueError as error:
            status = BAD_INPUT
            tell(f"line {number}: {error}")
            if as_json:
                print(encode({"error": printable(str(error)), "input_line": number}))
            continue
        verdict = decider.decide(question.flow, _moment(question), None)
        line = None if verdict.index is None else line_of(verdict.index)
        if as_json:
            print(encode(_verdict_facts(verdict, line)))
        else:
            place = f" (line {line})" if line is not None else ""
            print(f"{verdict.action:<7} {decided_by(verdict)}{place}")
    return status


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines, of which no more is held than a question can be long."""
    while piece := stream.readline(_QUESTION_BYTES_MAX):
        yield piece
        while piece and not piece.endswith(b"\n"):
            piece = stream.readline(_QUESTION_BYTES_MAX)


def _verdict_facts(verdict: Verdict, line: int | None) -> dict[str, object]:
    from pfw.cli.screen import verdict_facts

    return {**verdict_facts(verdict), "line": line}


def _print_explanation(explanation: Explanation) -> None:
    from pfw.cli.screen import encode

    passed = [
        {
            "name": printable(each.name),
            "line": each.line,
            "answer": each.answer,
            "fields": [
                {"field": miss.field, "wants": printable(miss.wants), "has": printable(miss.has)}
                for miss in each.mismatches
            ],
        }
        for each in explanation.passed
    ]
    print(encode({**_verdict_facts(explanation.verdict, explanation.line), "passed": passed}))


def _line_of(content: bytes) -> Callable[[int], int]:
    """The line of a rule by its index; the file's content is only searched when the first is asked for."""
    from pfw.policy.locate import rule_lines

    lines: list[int] = []

    def line(index: int) -> int:
        if not lines:
            lines.extend(rule_lines(content.decode(errors="replace")))
        return lines[index]

    return line


def _moment(question: Question) -> Moment:
    """The moment that is asked about, with the local clock's distance from UTC then."""
    from pfw.model.flow import Moment

    at = time.time() if question.time is None else question.time
    return question.moment(Moment(at, time.localtime(at).tm_gmtoff))


def schema(_: Namespace) -> int:
    """`pfw schema`."""
    import json

    from pfw.policy.schema import schema as published

    print(json.dumps(published(), indent=2))
    return OK


def convert(arguments: Namespace) -> int:
    """`pfw convert`."""
    from pfw.model.policy import PolicyError
    from pfw.policy.convert import to_full

    try:
        path = rules.find(arguments.file or arguments.rules)
        converted = to_full(rules.read(path), str(path), rules.services)
    except PolicyError as error:
        tell_faults(error.faults)
    except rules.NoPolicyError as error:
        tell(str(error))
    except OSError as error:
        tell(f"{error.filename or 'rules.json'}: {error.strerror or error}")
    else:
        print(converted, end="")
        return OK
    return BAD_INPUT


def completion(arguments: Namespace) -> int:
    """`pfw completion`."""
    from pfw.cli.pages import completion as script
    from pfw.cli.parser import build_parser

    print(script(build_parser(), arguments.shell), end="")
    return OK
