"""`pfw doctor`: what was found, for people and for programs. Everything that is shown is escaped here."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pfw.cli import rules
from pfw.cli.screen import encode
from pfw.commands.answer import NO, OK, state, told
from pfw.daemon import doctor as examination
from pfw.enforce.neighbours import Area, Finding, Level
from pfw.model.text import counted, printable

_MARKS = {Level.OK: "ok", Level.NOTE: "note", Level.WARNING: "!", Level.FAULT: "!!"}
_COLOURS = {Level.OK: "\x1b[32m", Level.NOTE: "\x1b[36m", Level.WARNING: "\x1b[33m", Level.FAULT: "\x1b[31m"}
_PLAIN = "\x1b[0m"
_TITLES = {
    Area.KERNEL: "kernel",
    Area.BACKEND: "what can filter here",
    Area.STATE: "the policy in force",
    Area.BOOT: "the next boot",
    Area.PROGRAMS: "rules for programs",
    Area.NEIGHBOURS: "who else filters here",
    Area.BYPASS: "what passes the rules",
    Area.OBSTACLE: "what stops what is allowed",
    Area.LIMITS: "limits",
}
_WIDTH = max(map(len, _MARKS.values()))


@told()
def doctor(options: Namespace) -> int:
    """`pfw doctor`."""
    findings = examination.examine(state(), lambda content, path: rules.parse(content, Path(path)))
    worst = examination.worst(findings)
    if options.json:
        print(encode(facts(findings, worst)))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print("\n".join(lines(findings, colour=colour)))
    return NO if worst in (Level.WARNING, Level.FAULT) else OK


def facts(findings: Sequence[Finding], worst: Level) -> dict[str, object]:
    """As JSON."""
    return {
        "findings": [
            {"area": each.area, "level": each.level, "what": printable(each.what), "advice": printable(each.advice)}
            for each in findings
        ],
        "worst": worst,
    }


def lines(findings: Sequence[Finding], *, colour: bool) -> list[str]:
    """For a person, by area, and the sum of it."""
    shown = []
    for area in Area:
        here = [each for each in findings if each.area is area]
        if here:
            shown.append(_TITLES[area])
        for each in here:
            mark = f"{_MARKS[each.level]:<{_WIDTH}}"
            mark = f"{_COLOURS[each.level]}{mark}{_PLAIN}" if colour else mark
            shown.append(f"  {mark}  {printable(each.what)}")
            if each.advice:
                shown.append(f"  {'':<{_WIDTH}}  -> {printable(each.advice)}")
    bad = [counted(number, noun) for noun, level in (("fault", Level.FAULT), ("warning", Level.WARNING))
           if (number := sum(each.level is level for each in findings))]  # fmt: skip
    return [*shown, "", ", ".join(bad) if bad else "nothing is to be done"]
