"""How long short commands take, as whole processes from start to end, beside what Python itself takes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from policies import write_policies
from processes import run, say
from setting import ROOT, Setting
from table import Section, plural_rounds, spread
from traffic import Mix, generate, write_capture

ROUNDS, QUICK_ROUNDS = 20, 3
LINES = 10_000
QUESTION = ("in", "tcp", "203.0.113.9:50000", "192.168.1.5:22")


class Command:
    """A command, and how long each of its runs took, in milliseconds."""

    def __init__(self, name: str, words: Sequence[str], standard_input: Path | None = None) -> None:
        self.name = name
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self._words = tuple(words)
        self._input = standard_input

    def run(self, setting: Setting) -> None:
        finished = run(
            self._words,
            environment=setting.environment,
            folder=setting.folder,
            standard_input=self._input,
            keep_output=False,
        )
        self.wall_ms.append(finished.wall_s * 1e3)
        self.cpu_ms.append(finished.cpu_s * 1e3)


def measure(setting: Setting) -> list[Section]:
    section = Section("Short commands, ms", ("", "wall", "CPU"))
    policies = write_policies(setting.folder)
    everyone = commands(setting, policies)
    rounds = QUICK_ROUNDS if setting.quick else ROUNDS
    say(f"bench: start, {rounds} rounds of {len(everyone)} commands")
    for _ in range(rounds):
        for command in everyone:
            command.run(setting)
    many = [_questions(setting, policies[name], words) for name, words in (("10", "10 rules"), ("1000", "1,000 rules"))]
    for _ in range(min(3, setting.rounds)):
        for command in many:
            say(f"bench: start, {command.name}")
            command.run(setting)
    for command in (*everyone, *many):
        section.row(command.name, spread(command.wall_ms), spread(command.cpu_ms))
    section.note(f"{plural_rounds(rounds)}, {min(3, setting.rounds)} of the last rows")
    if not setting.is_installed:
        section.note("firewall.py was not measured: the checkout has no .venv")
    return [section]


def commands(setting: Setting, policies: dict[str, Path]) -> list[Command]:
    python, pfw = setting.python, setting.pfw
    ten = ("--rules", str(policies["10"]))
    tiny = setting.folder / "tiny.pcap"
    write_capture(tiny, generate(Mix(200, 10)))
    version = (str(Path(python).with_name("pfw")),) if setting.is_installed else pfw
    found = [
        Command("python3 -c pass", (python, "-I", "-c", "pass")),
        Command("pfw --version", (*version, "--version")),
        Command("pfw check, 10 rules", (*pfw, "check", str(policies["10"]))),
        Command("pfw check, 10,000 rules", (*pfw, "check", str(policies["10000"]))),
        Command("pfw check, 100,000 prefixes", (*pfw, "check", str(policies["prefixes"]))),
        Command("pfw explain, 10 rules", (*pfw, "explain", *QUESTION, *ten)),
        Command("pfw --help", (*pfw, "--help")),
    ]
    if setting.is_installed:
        firewall = (sys.executable, str(ROOT / "firewall.py"))
        words = ("--read", str(tiny), "-q", *ten)
        found.append(Command("python3 firewall.py --read tiny.pcap -q", (*firewall, *words)))
        found.append(Command("… the same with --no-log", (*firewall, *words, "--no-log")))
    found.append(Command("python3 -c 'import scapy.all'", (python, "-c", "import scapy.all")))
    if shutil.which("ufw") is not None:
        found.append(Command("ufw --version", ("ufw", "--version")))
    return found


def _questions(setting: Setting, rules: Path, words: str) -> Command:
    lines = setting.folder / "questions.txt"
    lines.write_text(
        "".join(
            f"in tcp 45.{number >> 8 & 255}.{number & 255}.9:{1024 + number} 192.168.1.5:{1 + number % 9000}\n"
            for number in range(LINES)
        )
    )
    command = (*setting.pfw, "explain", "-", "--json", "--rules", str(rules))
    return Command(f"pfw explain - --json, {LINES:,} lines, {words}", command, lines)
