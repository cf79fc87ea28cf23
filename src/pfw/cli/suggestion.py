"""What people see of suggested rules: a diff of the policy file, and beside it how often each rule was needed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pfw.cli.rehearsal import limit_remarks
from pfw.cli.screen import utc_time
from pfw.model.text import counted, printable

if TYPE_CHECKING:
    from pfw.model.policy import Fault
    from pfw.policy.suggest import Suggested


def diff_lines(before: str, after: str, file: str) -> Iterator[str]:
    """A unified diff as patch(1) takes it: tabs stay, and whatever ends a line."""
    from difflib import unified_diff

    # A name ends at the first space, unless a tab ends it.
    name = f"{printable(file)}\t" if " " in file else printable(file)
    for line in unified_diff(_lines(before), _lines(after), name, name):
        text = line.removesuffix("\n")
        end = "\r" if text.endswith("\r") else ""
        yield "\t".join(printable(part) for part in text.removesuffix("\r").split("\t")) + end
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _lines(text: str) -> list[str]:
    """Each with its end. Lines of a file end at "\\n" alone; splitlines() knows more of them."""
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def remarks(found: Suggested) -> Iterator[str]:
    """What was needed how often, what is left out and why."""
    for line in found.lines:
        yield f'{line.count:>9,}  rule "{printable(line.name)}"'
    for why, count in found.left_out.items():
        yield f"{count:>9,}  left out: {why}"
    yield (
        f"allowed then: {counted(found.accepted, 'connection')}, {found.covered:,} by rules that are there, "
        f"{sum(line.count for line in found.lines):,} by {counted(len(found.lines), 'new rule')}, "
        f"{sum(found.left_out.values()):,} left out"
    )
    if found.unmet:
        yield f"{counted(found.unmet, 'connection')} would still not be allowed by a rule: look at them with pfw log"
    elif found.lines:
        yield 'with these rules "default" may be "block" for both ways, and what was needed goes on working'
    yield from limit_remarks(found.limited)


def facts(
    found: Suggested, failing: list[Fault], diff: list[str], file: str, since: float, output: str | None
) -> dict[str, object]:
    """The same as JSON, the whole new policy with it. `failing` are the tests of the file that would not hold."""
    from msgspec import json

    return {
        "file": printable(file),
        "since": utc_time(since),
        "accepted": found.accepted,
        "covered": found.covered,
        "limited": {printable(name): count for name, count in found.limited.items()},
        "rules": [{"name": line.name, "connections": line.count, "rule": line.rule} for line in found.lines],
        "left_out": found.left_out,
        "unmet": found.unmet,
        "failing_tests": [
            {"line": each.line, "column": each.column, "where": each.where, "what": printable(each.what)}
            for each in failing
        ],
        "output": None if output is None else printable(output),
        "diff": diff,
        "policy": json.decode(found.text),
    }
