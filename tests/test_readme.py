"""The README is true: its commands are commands, its policies load, what it shows is what the program prints."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pfw.cli.parser import build_parser
from pfw.cli.report import losses_lines, size_text, totals_lines
from pfw.cli.screen import LABELS, TextScreen, decided_by
from pfw.engine.suspicion import TEXTS
from pfw.engine.totals import RuleTotals, Totals
from pfw.model.address import parse_address
from pfw.model.command import Frame, Judged, Suspicious
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.packet import PROTOCOL_NAMES
from pfw.model.policy import Base
from pfw.policy.addresses import BUILT_IN_ALIASES
from pfw.policy.decide import Decider
from pfw.policy.fields import RULE_FIELDS
from pfw.policy.load import load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
INLINE = re.findall(r"`((?:sudo )?(?:pfw|python3 firewall\.py) [^`]+)`", README)
MONDAY_NOON = Moment(1795435200.0)


def blocks(language: str) -> list[str]:
    return [text for word, text in BLOCKS if word == language]


def typed() -> list[str]:
    """The lines that are typed in the README's shells."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    lines += [line[2:] for text in blocks("console") for line in text.splitlines() if line.startswith("$ ")]
    return lines + INLINE


def commands() -> list[list[str]]:
    """The words behind `pfw` or `firewall.py` of every command in it."""
    found = []
    for line in typed():
        for part in re.split(r" && | \| ", line):
            words = shlex.split(part, comments=True)
            words = words[1:] if words[:1] == ["sudo"] else words
            words = list(itertools.takewhile(lambda word: word not in ("<", ">"), words))
            if words[:1] == ["pfw"]:
                found.append(words[1:])
            elif words[:2] == ["python3", "firewall.py"]:
                rest = words[2:]
                found.append(rest if rest and not rest[0].startswith("-") else ["monitor", *rest])
    return found


def without_remarks(text: str) -> str:
    return re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)


def test_it_has_what_is_looked_at_here():
    assert len(commands()) >= 8
    assert blocks("json")
    assert blocks("jsonc")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one(words):
    assert build_parser().parse_args(words).command == words[0]


def test_every_option_that_is_named_is_there():
    known = set()
    for name in build_parser()._subparsers._group_actions[0].choices:
        with pytest.raises(SystemExit):
            build_parser().parse_args([name, "--nonsense-for-its-usage"])
        known |= set(re.findall(r"--[a-z-]+", build_parser()._subparsers._group_actions[0].choices[name].format_help()))
    named = {option for text in re.findall(r"`(--?[^`]*)`", README) for option in re.findall(r"--[a-z-]+", text)}
    assert named
    assert named <= known


class TestPolicies:
    @pytest.mark.parametrize("text", [*blocks("json"), *map(without_remarks, blocks("jsonc"))])
    def test_they_load(self, text):
        assert load(text).rules

    def test_the_one_that_comes_with_it_loads(self):
        assert load((ROOT / "rules.json").read_text(encoding="utf-8")).rules

    def test_the_table_has_every_field(self):
        table = re.search(r"^\| field \| meaning \|\n(.*?)\n\n", README, re.DOTALL | re.MULTILINE)
        assert table is not None
        fields = [name for line in table[1].splitlines()[1:] for name in re.findall(r"`(\w+)`", line.split("|")[1])]
        assert sorted(fields) == sorted(RULE_FIELDS)

    def test_what_is_always_there(self):
        for name in Base.__struct_fields__:
            assert f"`{name}`" in README
        remark = next(line for line in blocks("jsonc")[0].splitlines() if "are always there" in line)
        assert set(re.findall(r'"([a-z-]+)"', remark)) <= set(BUILT_IN_ALIASES)


def test_the_faults_are_those_that_check_prints(tmp_path):
    """A file with a wrong port in line 7 and a wrong key in line 9 is told in these very lines."""
    (tmp_path / "rules.json").write_text(
        '{\n  "version": 2,\n  "rules": [\n    {"name": "web", "action": "allow", "port": 80},\n'
        '    {"name": "ssh",\n     "action": "allow",\n     "port": 70000},\n'
        '    {"name": "mail", "action": "allow",\n     "prot": "tcp"}\n  ]\n}\n'
    )
    command = [sys.executable, "-m", "pfw", "check"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"$ pfw check\n{done.stderr}" in blocks("console")


LINE = re.compile(r"\[([A-Z]+)\] (\S+) \((\w+)\) -> (\S+)  (.+)")
SUMMARY = re.compile(
    r"([\d,]+) packets? \(.*\), ([\d,]+) connections?: "
    r"([\d,]+) allowed, ([\d,]+) blocked, ([\d,]+) rejected, in (\S+) s"
)
ROW = re.compile(r"(\S.*?)  +([a-z]+) +([\d,]+) +([\d,]+) +(\S+ k?B)")


def endpoint(text: str) -> tuple[bytes, int | None]:
    match = re.fullmatch(r"\[(.+)\]:(\d+)|(\d+\.\d+\.\d+\.\d+):(\d+)|(.+)", text)
    assert match is not None
    address, port = match[1] or match[3] or match[5], match[2] or match[4]
    return parse_address(address), None if port is None else int(port)


class TestSession:
    """What the README shows of a watch: each line again made from what it says, and judged again."""

    text = README.partition("<!-- session -->\n```console\n")[2].partition("\n```\n<!-- /session -->")[0]
    first, _, rest = text.partition("\n^C\n")

    def flows(self) -> list[tuple[str, str, Flow]]:
        found = []
        for line in self.first.splitlines()[1:]:
            match = LINE.fullmatch(line)
            assert match is not None, line
            (source, source_port), (destination, port) = endpoint(match[2]), endpoint(match[4])
            number = next(number for number, name in PROTOCOL_NAMES.items() if name == match[3])
            here = {parse_address("192.168.1.5"), parse_address("2001:db8::5")}
            direction = Direction.OUT if source in here else Direction.IN
            flow = Flow(
                direction=direction,
                protocol=number,
                source=source,
                destination=destination,
                source_port=source_port,
                port=port,
                interface="eth0",
            )
            found.append((line, match[5], flow))
        return found

    def test_it_begins_with_the_command(self):
        assert self.first.startswith("$ sudo python3 firewall.py\n")
        families = {len(flow.source) for _, _, flow in self.flows()}
        assert families == {4, 16}

    def test_each_verdict_is_that_of_the_policy_that_comes_with_it(self):
        policy = load((ROOT / "rules.json").read_text(encoding="utf-8"))
        screen = TextScreen(colour=False, verbose=False)
        for line, why, flow in self.flows():
            if line.startswith("[SUSPICIOUS]"):
                assert why in TEXTS.values()
                assert screen.lines([Suspicious(0.0, "x", why, Frame(1, b"", 0), flow)]) == [line]
                continue
            # The lines do not tell the type of ICMP.
            types = (8, 128, 135, 136) if flow.port is None else (None,)
            verdicts = [
                Decider(policy).decide(
                    Flow(**{name: getattr(flow, name) for name in flow.__struct_fields__} | {"icmp_type": each}),
                    MONDAY_NOON,
                )
                for each in types
            ]
            fitting = [verdict for verdict in verdicts if decided_by(verdict) == why]
            assert fitting, line
            assert screen.lines([Judged(0.0, 1, flow, fitting[0])]) == [line]

    def test_the_summary_is_one(self):
        lines = self.rest.splitlines()
        summary = SUMMARY.fullmatch(lines[0])
        assert summary is not None
        packets, connections, allowed, blocked, rejected = (int(each.replace(",", "")) for each in summary.groups()[:5])
        asides = dict(reversed(each.split(" ", 1)) for each in lines[1].split(", "))
        losses = {name: int(count) for count, name in (each.split(" ", 1) for each in lines[2][6:].split(", "))}
        assert losses_lines(losses) == [lines[2]]
        rows = [ROW.fullmatch(line) for line in lines[5:-1]]
        assert all(rows)
        labels = {label.lower(): action for action, label in LABELS.items()}
        rules = [RuleTotals(row[1], labels[row[2]], int(row[3]), int(row[4]), bytes_in(row[5])) for row in rows if row]
        idle = int(lines[-1].split()[0])
        rules += [RuleTotals(f"idle {at}", labels["allowed"], 0, 0, 0) for at in range(idle)]
        undecodable = int(asides.pop("packets undecodable"))
        not_ip = {name: int(count) for name, count in asides.items()}
        totals = Totals(
            packets=packets,
            bytes=bytes_in(lines[0].partition("(")[2].partition(")")[0]),
            connections=connections,
            allowed=allowed,
            blocked=blocked,
            rejected=rejected,
            asked=0,
            unknown=0,
            undecodable=undecodable,
            undecodable_bytes=0,
            not_ip=not_ip,
            not_ip_bytes=0,
            midstream=0,
            untracked=0,
            evicted=0,
            rules=tuple(rules),
        )
        assert packets == sum(rule.packets for rule in rules) + undecodable + sum(not_ip.values())
        assert connections == sum(rule.connections for rule in rules)
        shown = totals_lines(totals)
        shown[0] += f", in {summary[6]} s"
        assert [*shown[:2], lines[2], *shown[2:]] == lines


def bytes_in(text: str) -> int:
    number, unit = text.split()
    size = round(float(number) * {"B": 1, "kB": 1000}[unit])
    assert size_text(size) == text
    return size


def test_the_log_lines_have_the_shape_of_the_log():
    lines = next(text for text in blocks("") if " - Ether" in text).splitlines()
    for line in lines:
        assert re.match(r"2026-11-23 \d\d:\d\d:\d\d,\d{3} - (Ether / IP / |… \d+ more like this in \d+ s: )", line)
        assert line.endswith('Blocked by rule "block ip"')


def test_files_that_it_names_are_there():
    for name in re.findall(r"`((?:docs/|bench/|\.ci/)?[A-Za-z_.]+(?:\.md|\.py|/run))`", README):
        assert (ROOT / name).exists(), name


def test_the_schema_that_it_speaks_of(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    from pfw.policy.schema import schema

    for text in [*blocks("json"), *map(without_remarks, blocks("jsonc"))]:
        jsonschema.validate(json.loads(text), schema())
