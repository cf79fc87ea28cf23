"""How long commands take that look back on a history, as whole commands from start to end."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from per_program import Rule, policy
from policies import full, many_rules
from processes import Running, run, say
from setting import Setting
from table import NOTHING, Section, plural_rounds, spread

CONNECTIONS, QUICK_CONNECTIONS = 1_000_000, 50_000
HOURS = 28
PROGRAMS = 20
"""Of the 40 that the history has: those that the rehearsed policy names."""
MANY_RULES = 1_000
DONE, NO = 0, 1


class Looking:
    """A command, and what its runs gave, in seconds: until its first line, until its end, and of processor time."""

    def __init__(self, name: str, *words: str) -> None:
        self.name = name
        self.first_s: list[float] = []
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self.lines = 0
        self._words = words

    def run(self, setting: Setting, environment: dict[str, str]) -> None:
        running = Running((*setting.pfw, *self._words), environment=environment)
        finished = running.wait()
        if finished.status not in (DONE, NO):
            raise running.fail(finished)
        self.wall_s.append(finished.wall_s)
        self.cpu_s.append(finished.cpu_s)
        self.lines = finished.output.count("\n")
        self.first_s.append(first_line_s((*setting.pfw, *self._words), environment))

    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            spread(self.first_s, 2),
            spread(self.wall_s, 2),
            spread(self.cpu_s, 2),
            f"{self.lines:,}" if self.lines else NOTHING,
        )


def measure(setting: Setting) -> list[Section]:
    count = QUICK_CONNECTIONS if setting.quick else CONNECTIONS
    title = f"Commands that look back on {count:,} connections of {HOURS} hours, s"
    section = Section(title, ("", "first line", "end", "CPU", "lines"))
    folder = setting.folder / "recalling"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size_mb = _write_history(setting, folder / "history.db", count)
    environment = setting.environment | {"PFW_STATE_DIR": str(folder)}
    everyone = looks(folder)
    for turn in range(setting.rounds):
        for each in everyone:
            say(f"bench: recalling, round {turn + 1} of {setting.rounds}: {each.name}")
            each.run(setting, environment)
    for each in everyone:
        section.row(*each.cells())
    section.note(
        f"{plural_rounds(setting.rounds)}; whole commands with the start of Python, to a pipe or a file. The history "
        f"has 40 programs and 3,000 remote ends, and takes {size_mb:.0f} MB; every connection is in it whole, and "
        "nobody writes to it meanwhile"
    )
    return [section]


def _write_history(setting: Setting, path: Path, count: int) -> float:
    """Its size in MB (1,000,000 bytes)."""
    say(f"bench: writing a history of {count:,} connections")
    program = str(Path(__file__).with_name("history_data.py"))
    run((setting.python, program, str(path), "--count", str(count), "--hours", str(HOURS)))
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*")) / 1e6


def looks(folder: Path) -> list[Looking]:
    ports: list[Rule] = [
        {
            "name": f"program {at}",
            "action": "allow",
            "direction": "out",
            "app": f"/usr/bin/program-{at:02}",
            "port": 443,
        }
        for at in range(PROGRAMS)
    ]
    files = {
        f"{PROGRAMS} rules for programs": policy(ports),
        f"{MANY_RULES:,} rules": json.dumps(full(many_rules(MANY_RULES))),
    }
    found = []
    for number, (name, text) in enumerate(files.items()):
        path = folder / f"rules-{number}.json"
        path.write_text(text)
        found.append(Looking(f"pfw rehearse --since ever, {name}", "rehearse", str(path), "--since", "ever"))
    return [
        *found,
        Looking("pfw log --since 1h", "log", "--since", "1h"),
        Looking("pfw log", "log"),
        Looking("pfw log --since 1h --app program-07", "log", "--since", "1h", "--app", "program-07"),
        Looking("pfw log --since 1h --json", "log", "--since", "1h", "--json"),
        Looking("pfw stats", "stats"),
        Looking("pfw stats --since ever --by program", "stats", "--since", "ever", "--by", "program"),
        Looking("pfw first-seen", "first-seen"),
    ]


def first_line_s(words: tuple[str, ...], environment: dict[str, str]) -> float:
    """How long it is until the first line is there, in seconds; the rest is read and dropped."""
    began = time.perf_counter()
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        took = time.perf_counter() - began
        while process.stdout.read(1 << 16):
            pass
    return took
