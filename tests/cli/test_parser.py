"""The command line: every command teaches by example, and the examples are true."""

from __future__ import annotations

import shlex
from argparse import ArgumentParser, ArgumentTypeError, _SubParsersAction

import pytest

from pfw.cli.parser import _count, _seconds, _size, build_parser

COMMANDS = (
    "monitor", "check", "test", "explain", "replay", "schema", "convert", "completion",
    "up", "confirm", "down", "status", "show", "allow", "block", "reject", "delete", "undo", "history",
    "ban", "lists", "panic", "doctor", "install", "uninstall",
    "daemon", "agent", "ask", "apps", "connections", "why", "log", "stats", "first-seen",
    "rehearse", "suggest", "import",
)  # fmt: skip


def parsers() -> dict[str, ArgumentParser]:
    """`pfw` and each of its commands."""
    top = build_parser()
    found = {"pfw": top}
    for action in top._actions:
        if isinstance(action, _SubParsersAction):
            found.update(action.choices)
    return found


def examples(parser: ArgumentParser) -> list[list[str]]:
    """The commands in the help, as a shell would split them: without `sudo`, pipes, and remarks behind spaces."""
    text = parser.epilog or ""
    commands = []
    for line in text.removeprefix("examples:\n").split("\n\n")[0].splitlines():
        for part in line.strip().split("        ")[0].split(" | "):
            words = shlex.split(part.split("    ")[0])
            words = words[1:] if words[:1] == ["sudo"] else words
            if words[:1] == ["pfw"]:
                commands.append(words[1 : next((at for at, word in enumerate(words) if word in "<>"), None)])
    return commands


def test_these_are_the_commands():
    assert set(parsers()) == {"pfw", *COMMANDS}


@pytest.mark.parametrize("name", ["pfw", *COMMANDS])
class TestHelp:
    def test_has_examples_that_are_true(self, name):
        found = examples(parsers()[name])
        assert found
        for words in found:
            options = build_parser().parse_args(words)
            assert name in ("pfw", options.command)

    def test_is_shown(self, name, pfw):
        done = pfw(*(() if name == "pfw" else (name,)), "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: pfw")
        assert "examples:\n  " in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 120

    def test_every_option_says_what_it_does(self, name):
        for action in parsers()[name]._actions:
            assert action.help or isinstance(action, _SubParsersAction)


@pytest.mark.parametrize(
    "name", ["monitor", "check", "explain", "replay", "schema", "convert", "log", "stats", "first-seen"]
)
def test_all_that_answer_take_json(name):
    assert "--json" in parsers()[name]._option_string_actions


@pytest.mark.parametrize("name", ["monitor", "check", "explain", "replay", "convert"])
def test_all_that_need_a_policy_take_rules(name):
    assert "--rules" in parsers()[name]._option_string_actions


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("1", 1), ("500K", 500 << 10), ("100M", 100 << 20), ("2G", 2 << 30), ("2g", 2 << 30)],
    )
    def test_size(self, text, size):
        assert _size(text) == size

    @pytest.mark.parametrize("text", ["", "0", "K", "1T", "-1", "1.5G", "٣", "1e3", "9" * 13, "0M"])
    def test_no_size(self, text):
        with pytest.raises(ArgumentTypeError, match="is not a size"):
            _size(text)

    @pytest.mark.parametrize("text", ["", "0", "-1", "1.0", "٣", "1_0", "9" * 16])
    def test_no_count(self, text):
        with pytest.raises(ArgumentTypeError, match="is not a number"):
            _count(text)

    @pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e9", "x"])
    def test_no_seconds(self, text):
        with pytest.raises(ArgumentTypeError, match="is not a number of seconds"):
            _seconds(text)

    def test_what_they_give(self):
        assert (_count("12"), _seconds("0.5"), _seconds("1e3")) == (12, 0.5, 1000.0)
