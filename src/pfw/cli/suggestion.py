"""What people see of suggested rules: a diff of the policy file, and beside it how often each rule was needed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pfw.cli.screen import utc_time
from pfw.model.text import counted, printable

if TYPE_CHECKING:
    from pfw.policy.suggest import Suggested


def diff_lines(before: str, after: str, file: str) -> Iterator[str]:
    """A unified diff. Tabs stay: files are indented with them."""
    from difflib import unified_diff

    for line in unified_diff(_lines(before), _lines(after), printable(file), printable(file)):
        yield "\t".join(printable(part) for part in line.rstrip("\r\n").split("\t"))
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


def facts(found: Suggested, diff: list[str], file: str, since: float, output: str | None) -> dict[str, object]:
    """The same as JSON, the whole new policy with it."""
    from msgspec import json

    return {
        "file": printable(file),
        "since": utc_time(since),
        "accepted": found.accepted,
        "covered": found.covered,
        "rules": [{"name": line.name, "connections": line.count, "rule": line.rule} for line in found.lines],
        "left_out": found.left_out,
        "unmet": found.unmet,
        "output": None if output is None else printable(output),
        "diff": diff,
        "policy": json.decode(found.text),
    }
