"""`pfw allow`, `block`, `reject`, `delete`, `undo`, `history`: the policy file rewritten, and put in force in one go.

The file is written first and the policy applied then; where that fails, the file becomes what it was.
"""

from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from pfw.cli import enforcement as screen
from pfw.cli import rules
from pfw.cli.ask import tell_faults
from pfw.cli.screen import encode, utc_time
from pfw.commands.answer import BAD_INPUT, NO, OK, Loaded, loaded, state, tell, told
from pfw.commands.enforcing import apply, outcome_lines
from pfw.daemon import backends, enforcing, testing
from pfw.daemon.state import Entry, State
from pfw.drivers import clock
from pfw.model.flow import Moment
from pfw.model.text import printable
from pfw.policy.convert import to_full
from pfw.policy.edit import Edited, NoRuleError, delete_rule, insert_rule
from pfw.policy.placing import default_place, shadowed_by
from pfw.policy.request import Options, rule_from_words


@told()
def allow(options: Namespace) -> int:
    """`pfw allow`."""
    return _locked(lambda remembered: _add("allow", remembered, options))


@told()
def block(options: Namespace) -> int:
    """`pfw block`."""
    return _locked(lambda remembered: _add("block", remembered, options))


@told()
def reject(options: Namespace) -> int:
    """`pfw reject`."""
    return _locked(lambda remembered: _add("reject", remembered, options))


def _locked(edit: Callable[[State], int]) -> int:
    """From reading the file until it is in force nobody else edits it."""
    remembered = state()
    with remembered.files.locked():
        return edit(remembered)


def _add(action: str, remembered: State, options: Namespace) -> int:
    found = loaded(_file(remembered, options))
    moment = _now()
    names = set(Options.__struct_fields__)
    given = Options(**{name: value for name, value in vars(options).items() if name in names})
    try:
        rule = rule_from_words(action, options.words, given, moment, rules.services)
        content = found.content
        if found.policy.simple:
            content = to_full(content, str(found.path), rules.services).encode()
            tell(f"{found.path} was of the lists form; it is rules now that mean the same")
        edited = insert_rule(content, rule, _place(options, found, action), str(found.path))
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    policy = rules.parse(edited.text.encode(), found.path)
    hidden = shadowed_by(policy, edited.index, moment)
    if hidden is not None:
        tell(f'rule "{hidden}" comes before and decides all of it; --first or --before puts yours in front')
    return _finish(remembered, found, edited, options, f"{action} rule", wrote=True)


def _place(options: Namespace, found: Loaded, action: str) -> int | None:
    if options.first:
        return 0
    if options.last:
        return None
    if options.before is None:
        return default_place(found.policy, action)
    names = [rule.name for rule in found.policy.rules]
    if options.before not in names:
        raise ValueError(f"--before: there is no rule {options.before!r}")
    return names.index(options.before)


@told()
def delete(options: Namespace) -> int:
    """`pfw delete`."""
    return _locked(lambda remembered: _delete(remembered, options))


def _delete(remembered: State, options: Namespace) -> int:
    found = loaded(_file(remembered, options))
    try:
        edited = delete_rule(found.content, options.name, str(found.path))
    except NoRuleError as error:
        tell(str(error))
        return NO
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    return _finish(remembered, found, edited, options, f'delete "{options.name}"', wrote=False)


def _finish(remembered: State, found: Loaded, edited: Edited, options: Namespace, why: str, *, wrote: bool) -> int:
    """Write, put in force, say what was done."""
    content = edited.text.encode()
    rules.parse(content, found.path)
    said = _take_up(remembered, found.path, found.content, content, options, why)
    if options.json:
        facts = {"file": printable(str(found.path)), "line": edited.line, "name": printable(edited.name),
                 "rule": printable(edited.rule_text), "written": wrote, "in_force": bool(said)}  # fmt: skip
        print(encode(facts))
        return OK
    mark = "+" if wrote else "-"
    text = "\n".join(f"{mark} {printable(line)}" for line in edited.rule_text.splitlines())
    print(f"{printable(str(found.path))}:{edited.line}:\n{text}")
    print("\n".join(said[-1:]) if said else "the firewall is off; pfw up puts it in force")
    return OK


def _take_up(remembered: State, path: Path, before: bytes, after: bytes, options: Namespace, why: str) -> list[str]:
    """Write the file and put it in force, where the firewall is on with this file; what was done."""
    known = backends.in_force(remembered)
    if known is not None and (known[1].path != str(path) or known[0].live() is None):
        known = None
    policy, lists = rules.parse(after, path), remembered.files.path / "lists"
    if known is not None:
        testing.check(policy, after, str(path), lists)
    else:
        # Nothing comes into force; what does not hold yet the next `pfw up` refuses.
        tell_faults(testing.failing(policy, after, str(path), lists))
    _remember(remembered, path, before, "as it was")
    with enforcing.written(path, rules.read(path), after):
        said: list[str] = []
        if known is not None:
            wanted = enforcing.Wanted(
                policy=policy,
                path=str(path),
                content=after,
                backend=known[0].name,
                force=options.force,
                why=why,
            )
            said = outcome_lines(apply(remembered, wanted), wanted)
        _remember(remembered, path, after, why)
    return said


def _remember(remembered: State, path: Path, content: bytes, why: str) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    remembered.files.make()
    remembered.remember(time=clock.now(), path=str(path), text=content, sha256=sha256, why=why)


def _file(remembered: State, options: Namespace) -> str | None:
    """The policy file that is edited: the one that was named, else the one in force, else the usual one."""
    if options.rules is not None:
        return str(options.rules)
    known = backends.in_force(remembered)
    return None if known is None else known[1].path


def _now() -> Moment:
    return clock.moment()


@told()
def undo(options: Namespace) -> int:
    """`pfw undo`."""
    return _locked(lambda remembered: _undo(remembered, options))


def _undo(remembered: State, options: Namespace) -> int:
    path = Path(os.path.abspath(rules.find(_file(remembered, options))))
    content = rules.read(path)
    sha256 = hashlib.sha256(content).hexdigest()
    entries = [entry for entry in remembered.history() if not entry.undone and entry.path == str(path)]
    if entries and entries[-1].sha256 != sha256:
        # Somebody edited the file by hand: that is the last change.
        _remember(remembered, path, content, "edited")
        entries = [entry for entry in remembered.history() if not entry.undone and entry.path == str(path)]
    older = entries[-2] if len(entries) > 1 else None
    text = remembered.remembered_text(older) if older is not None else None
    if older is None or text is None:
        tell(f"there is no earlier policy of {path}")
        return NO
    rules.parse(text, path)
    # The one that is left is the older one, so that the next undo goes further back.
    remembered.mark_undone(entries[-1])
    try:
        said = _restore(remembered, path, text, options)
    except BaseException:
        remembered.mark_done(entries[-1])
        raise
    if options.json:
        print(encode({"file": printable(str(path)), "undone": entry_facts(entries[-1]), "in_force": bool(said)}))
    else:
        print(f"undone: {printable(entries[-1].why)} ({screen.moment_text(entries[-1].time)})")
        print("\n".join(said) if said else "the firewall is off; pfw up puts it in force")
    return OK


def _restore(remembered: State, path: Path, text: bytes, options: Namespace) -> list[str]:
    known = backends.in_force(remembered)
    with enforcing.written(path, rules.read(path), text):
        if known is None or known[1].path != str(path) or known[0].live() is None:
            return []
        policy = rules.parse(text, path)
        # The way back is always open, also to what fails a test by now.
        tell_faults(testing.failing(policy, text, str(path), remembered.files.path / "lists"))
        wanted = enforcing.Wanted(
            policy=policy,
            path=str(path),
            content=text,
            backend=known[0].name,
            force=options.force,
            why="undo",
        )
        return outcome_lines(apply(remembered, wanted), wanted)


@told()
def history(options: Namespace) -> int:
    """`pfw history`."""
    entries = state().history()
    if options.json:
        print(encode([entry_facts(entry) for entry in entries]))
    else:
        for entry in reversed(entries):
            why = f"{printable(entry.why)}{'  (undone)' if entry.undone else ''}"
            print(f"{entry.number:>4}  {screen.moment_text(entry.time)}  {printable(entry.path)}  {why}")
        if not entries:
            print("no policy was put in force yet")
    return OK


def entry_facts(entry: Entry) -> dict[str, object]:
    return {
        "number": entry.number,
        "time": utc_time(entry.time),
        "file": printable(entry.path),
        "sha256": entry.sha256,
        "why": printable(entry.why),
        "undone": entry.undone,
    }
