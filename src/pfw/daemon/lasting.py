"""Answers that hold always: a rule in the policy file, before the one that asks, put in force at once.

It is the rule that asks, as it is written, narrowed to whom and what was answered: what another rule behind it forbids
is not allowed by an answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pfw.daemon import backends, enforcing, testing
from pfw.daemon.force import judge, over_before
from pfw.daemon.programs import resolved
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.model.address import format_address
from pfw.model.flow import Direction
from pfw.model.packet import PORT_PROTOCOLS, protocol_name
from pfw.model.policy import Policy
from pfw.model.program import Certainty
from pfw.model.prompt import Answer, Prompt, Scope, wants_content
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy.decide import Decider
from pfw.policy.edit import insert_rule
from pfw.policy.load import load
from pfw.policy.syntax import read_document

_FILE_BYTES_MAX = 64 << 20


_CARRIED = ("from", "to", "remote", "protocol", "port", "from_port", "icmp_type", "interface", "schedule", "limit",
            "burst", "expires", "log")  # fmt: skip
"""The fields of the rule that asks that go into the answer's as they are written, unless its scope says otherwise."""
_SAID_ANEW = ("name", "action", "direction", "app", "script", "user", "unit", "enabled", "note")


def rule_of(
    prompt: Prompt, answer: Answer, asking: Rule | None = None, written: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The rule that an answer is, as it stands in a policy file: no wider than the rule that asks, which is `written`
    so, None for a default. Raises ValueError for one that cannot be narrowed so."""
    subject, program, written = prompt.subject, prompt.program, written or {}
    assert program is not None
    assert program.path is not None
    strange = next((field for field in written if field not in (*_CARRIED, *_SAID_ANEW)), None)
    if strange is not None:
        raise ValueError(f'the rule that asks has "{strange}", which an answer for always cannot keep')
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
        **_who(prompt, program.path, asking),
        **{field: written[field] for field in _CARRIED if field in written},
    }
    if answer.scope in (Scope.EXACT, Scope.ADDRESS):
        rule.pop("remote", None)
        rule["from" if subject.direction is Direction.IN else "to"] = remote
    if answer.scope in (Scope.EXACT, Scope.PORT) and "icmp_type" not in rule:
        name = protocol_name(subject.protocol)
        rule["protocol"] = name.lower() if name.isalnum() and not name.isdecimal() else subject.protocol
        if subject.port is not None and subject.protocol in PORT_PROTOCOLS:
            rule["port"] = subject.port
    return rule


def _who(prompt: Prompt, path: str, asking: Rule | None) -> dict[str, object]:
    """The fields that say whose a connection is: this very one, where the rule that asks wants to know it."""
    flow, program = prompt.flow, prompt.program
    if asking is None or program is None:
        return {"app": path}
    who: dict[str, object] = {"app": path}
    if wants_content(asking):
        who["app"] = {"path": path, "sha256": flow.app_sha256}
    if asking.scripts is not None:
        who["script"] = flow.script
    if asking.users is not None:
        who["user"] = program.user if program.user and program.uid == prompt.uid else str(prompt.uid)
    if asking.units is not None:
        who["unit"] = flow.unit
    return who


def _asking(policy: Policy, prompt: Prompt) -> tuple[int | None, Rule | None]:
    """The rule of a policy that asks what was answered, and its place; None for a default. Raises ValueError."""
    policy = resolved(policy)
    is_sure = prompt.certainty is not Certainty.GUESS
    verdict = judge(Decider(policy), prompt.flow, clock.moment(), over_before(policy), is_sure=is_sure)
    if verdict.action is not Action.ASK:
        raise ValueError("the policy does not ask about this any more")
    return verdict.index, policy.rules[verdict.index] if verdict.index is not None else None


def _written(content: bytes, index: int | None, file: str) -> Mapping[str, object]:
    """A rule as the file has it."""
    document = read_document(content, file).value
    rules = document.get("rules") if isinstance(document, dict) else None
    found = rules[index] if index is not None and isinstance(rules, list) else {}
    return found if isinstance(found, dict) else {}


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
        index, asking = _asking(load(before, str(path)), prompt)
        rule = rule_of(prompt, answer, asking, _written(before, index, str(path)))
        edited = insert_rule(before, rule, index, str(path))
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
