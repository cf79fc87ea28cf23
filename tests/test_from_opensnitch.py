"""The page "From OpenSnitch": its commands are ours, and each rule on it becomes what stands below it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from pfw.cli.parser import build_parser
from pfw.policy.load import load
from pfw.policy.opensnitch import LEFT_OUT, Settings, import_rules
from pfw.policy.opensnitch_match import UNKEEPABLE
from pfw.policy.opensnitch_rule import RuleFile

PAGE = (Path(__file__).parents[1] / "docs" / "from-opensnitch.md").read_text()
BLOCKS = re.findall(r"(?ms)^```json (opensnitch|pfw)([a-z ]*)\n(.*?)^```$", PAGE)


def pairs() -> list[tuple[str, str, str, str]]:
    """A rule of OpenSnitch, what becomes of it, and the object below it with its kind."""
    found = []
    for at, (whose, outcome, text) in enumerate(BLOCKS):
        if whose == "opensnitch":
            below = BLOCKS[at + 1] if at + 1 < len(BLOCKS) and BLOCKS[at + 1][0] == "pfw" else ("", "", "null")
            found.append((text, outcome.strip(), below[2], below[1].strip()))
    return found


def test_every_rule_here_stands_below_one_of_opensnitch():
    assert len(pairs()) >= 12
    assert sum(below != "null" for _, _, below, _ in pairs()) == sum(whose == "pfw" for whose, _, _ in BLOCKS)
    assert {outcome for _, outcome, _, _ in pairs()} == {"kept", "narrowed", "stricter", "left out"}


@pytest.mark.parametrize(("theirs", "outcome", "ours", "kind"), pairs())
def test_rule_becomes_what_stands_below_it(theirs, outcome, ours, kind):
    folder = {"/etc/lists": ("/etc/lists/bad.txt",)}.get
    made = import_rules([RuleFile("x.json", theirs.encode())], Settings(folder=folder))
    assert [each.outcome for each in made.outcomes] == [outcome]
    load(made.text)
    policy = json.loads(made.text)
    written = policy.get("blocklists", []) if kind == "blocklist" else policy["rules"][3:]
    assert written == ([] if outcome == LEFT_OUT else [json.loads(ours)])


def test_commands_are_understood():
    commands = set(re.findall(r"^(?:sudo )?(pfw .*)$|`(pfw [^`]+)`", PAGE, re.MULTILINE))
    words = [shlex.split(one or other)[1:] for one, other in commands]
    assert len(words) > 5
    for each in words:
        assert build_parser().parse_args(each).command == each[0]


def test_what_cannot_be_kept_is_on_the_page():
    for operand in UNKEEPABLE:
        assert f"`{operand}`" in PAGE
