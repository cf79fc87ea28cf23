"""Answers that hold always: a rule in the policy file, before the one that asked, put in force at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pfw.daemon import backends, enforcing, testing
from pfw.daemon.state import State
from pfw.model.address import format_address
from pfw.model.flow import Direction
from pfw.model.packet import PORT_PROTOCOLS, protocol_name
from pfw.model.prompt import Answer, Prompt, Scope
from pfw.policy.edit import insert_rule
from pfw.policy.load import load

_FILE_BYTES_MAX = 64 << 20


def rule_of(prompt: Prompt, answer: Answer) -> dict[str, object]:
    """The rule that an answer is, as it stands in a policy file."""
    subject, program = prompt.subject, prompt.program
    assert program is not None
    assert program.path is not None
    word = "allow" if answer.allow else "block"
    remote = format_address(subject.remote)
    where = {
        Scope.EXACT: f"{remote}{'' if subject.port is None else f' port {subject.port}'}",
        Scope.ADDRESS: remote,
        Scope.PORT: f"port {subject.port}",
        Scope.ANYWHERE: "anywhere",
    }[answer.scope]
    rule: dict[str, object] = {
        "name": f"{word} {os.path.basename(program.path)} {subject.direction} {where}",
        "action": word,
        "direction": str(subject.direction),
        "app": program.path,
    }
    if answer.scope in (Scope.EXACT, Scope.ADDRESS):
        rule["from" if subject.direction is Direction.IN else "to"] = remote
    if answer.scope in (Scope.EXACT, Scope.PORT):
        name = protocol_name(subject.protocol)
        rule["protocol"] = name.lower() if name.isalnum() and not name.isdecimal() else subject.protocol
        if subject.port is not None and subject.protocol in PORT_PROTOCOLS:
            rule["port"] = subject.port
    return rule


def add_rule(state: State, prompt: Prompt, answer: Answer, tell: Callable[[str], None]) -> str:
    """Write an answer into the policy file and put that in force; the name of the rule.

    Raises what `enforcing.up` does, OSError, and ValueError for a file that has changed since it was put in force; then
    the file is as it was.
    """
    with state.files.locked():
        known = backends.in_force(state)
        if known is None:
            raise ValueError("no policy is in force that the answer could become a rule of")
        path = Path(os.path.realpath(known[1].path))
        with open(path, "rb") as file:
            before = file.read(_FILE_BYTES_MAX)
        if before != state.rules_of(known[1].generation):
            raise ValueError(f"{path} has changed since it was put in force; pfw up first, then answer again")
        written = load(before, str(path))
        index = next((at for at, rule in enumerate(written.rules) if rule.name == prompt.rule), None)
        edited = insert_rule(before, rule_of(prompt, answer), index, str(path))
        content = edited.text.encode()
        policy = load(content, str(path))
        failing = testing.failing(policy, content, str(path), state.files.path / "lists")
        if failing:
            raise ValueError(f"a test of the policy would fail: {failing[0]}")
        wanted = enforcing.Wanted(
            policy=policy, path=known[1].path, content=content, backend=known[0].name,
            force=True, why=edited.name,
        )  # fmt: skip
        try:
            with enforcing.written(path, before, content):
                enforcing.up(state, wanted, tell)
        except enforcing.UnfinishedError as error:
            tell(str(error))
        return edited.name
