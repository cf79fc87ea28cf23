"""The page "From ufw": every command of ours on it is one, and the rules on both sides are the same rule."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from pfw.cli.parser import build_parser
from pfw.model.flow import Moment
from pfw.policy.load import load
from pfw.policy.request import Options, rule_from_words

PAGE = (Path(__file__).parents[1] / "docs" / "from-ufw.md").read_text()
COMMANDS = sorted(set(re.findall(r"`(pfw [^`]+)`", PAGE)) - {"pfw allow …"})
RULES = [command for command in COMMANDS if command.split()[1] in ("allow", "block", "reject")]


def words(command: str) -> list[str]:
    found = shlex.split(command.partition(" < ")[0])
    return found[1:]


def test_there_are_commands():
    assert len(COMMANDS) > 40
    assert len(RULES) > 20


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "pfw --version"])
def test_command_is_understood(command):
    assert build_parser().parse_args(words(command)).command == words(command)[0]


@pytest.mark.parametrize("command", RULES)
def test_rule_can_be_written_and_loaded(command):
    options = build_parser().parse_args(words(command))
    names = set(Options.__struct_fields__)
    given = Options(**{name: value for name, value in vars(options).items() if name in names})
    rule = rule_from_words(options.command, options.words, given, Moment(1_800_000_000.0))
    policy = load(json.dumps({"version": 2, "rules": [rule]}))
    assert policy.rules[0].action == options.command
