#!/usr/bin/env python3
"""Measures pfw beside what else one could use, all in one run, and prints the results as Markdown.

    sudo python3 bench/run.py                       everything, about half an hour
    sudo python3 bench/run.py --quick               everything, coarsely
    python3 bench/run.py --only replay --runs 9     one part (no root: without live, memory and enforce)
    sudo python3 bench/run.py --only enforce        what filters: its cost, loading, bans, reloads
    sudo python3 bench/run.py --only programs       what tells programs apart: connections, daemons, labels
    sudo python3 bench/run.py --only history        what remembers and notices: connections, scans, captures, commands
    sudo python3 bench/run.py --write README.md     replaces what stands between the bench marks there (of a group
                                                    that --only names, between its own)

The standard library alone: pfw and the others run as processes of their own, in the checkout's `.venv` if there is one.
"""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import banning
import connecting
import cost
import daemons
import detecting
import labelling
import live
import loading
import matcher
import memory
import noticing
import recalling
import recording
import reloading
import replay
import start
from machine import describe_machine
from processes import BenchError, say
from setting import Setting
from table import Section, plural_rounds, render, replace_between_marks

PARTS = {
    "replay": replay.measure,
    "live": live.measure,
    "start": start.measure,
    "memory": memory.measure,
    "matcher": matcher.measure,
    "cost": cost.measure,
    "loading": loading.measure,
    "banning": banning.measure,
    "reloading": reloading.measure,
    "connecting": connecting.measure,
    "daemons": daemons.measure,
    "labelling": labelling.measure,
    "recording": recording.measure,
    "noticing": noticing.measure,
    "detecting": detecting.measure,
    "recalling": recalling.measure,
}
GROUPS = {
    "enforce": ("cost", "loading", "banning", "reloading"),
    "programs": ("connecting", "daemons", "labelling"),
    "history": ("recording", "noticing", "detecting", "recalling"),
}
"""Parts that go together, under one name. (ufw and firewalld take part where `apt-get install ufw firewalld
dbus-daemon` has been done.)"""


def main() -> int:
    parser = ArgumentParser(prog="bench/run.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    names = [*PARTS, *GROUPS]
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"one of {', '.join(names)}")
    parser.add_argument("--runs", metavar="N", type=int, default=None, help="rounds (default: 5, or 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and packets: about two minutes")
    parser.add_argument("--write", metavar="FILE", type=Path, help="put the results between the marks in this file")
    options = parser.parse_args()
    # Who ends it otherwise than with Ctrl-C does not want to keep its namespaces and processes either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    setting = Setting(rounds=options.runs or (1 if options.quick else 5), quick=options.quick)
    try:
        text = results(setting, chosen(options.only))
        print(text, end="")
        if options.write is not None:
            group = options.only[0] if options.only and options.only[0] in GROUPS else ""
            options.write.write_text(replace_between_marks(options.write.read_text(), text, group))
    except (BenchError, OSError, ValueError) as error:
        say(f"bench: {options.write or ''} {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def chosen(only: list[str] | None) -> list[str]:
    """The parts that are asked for, in their order; all of them where none is named."""
    wanted = {name for each in only or PARTS for name in GROUPS.get(each, (each,))}
    return [name for name in PARTS if name in wanted]


def results(setting: Setting, names: list[str]) -> str:
    machine = describe_machine(setting.python_version)
    sections: list[Section] = []
    for name in names:
        sections += PARTS[name](setting)
    rounds = f"{plural_rounds(setting.rounds)}, in each of which everyone has a turn"
    return render(sections, f"{machine}. Figures: median (least-most) of {rounds}, unless a table says otherwise.")


if __name__ == "__main__":
    sys.exit(main())
