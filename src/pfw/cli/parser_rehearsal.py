"""The part of the command line that holds a policy against the past: what would end otherwise, which rules miss."""

from __future__ import annotations

from argparse import ArgumentParser

from pfw.cli.parser_change import Add, Json, Rules

DEFAULT_SINCE = "7d"


def add_commands(add: Add, rules: Rules, json: Json) -> None:
    """All of them, in the order in which they are listed."""
    _rehearse(add, rules, json)
    _suggest(add, rules, json)


def _rehearse(add: Add, rules: Rules, json: Json) -> None:
    parser = add(
        "rehearse",
        "what a policy would have done with the connections of the past",
        "Hold a policy against the history, before it is put in force: which connections would be blocked that were\n"
        "allowed, allowed that were blocked, asked about; by which program, with whom, how many, and which rule\n"
        "decides instead. What the history does not tell (which script, a guessed program) is said, and never taken\n"
        "for a yes. `pfw up --rehearse` shows it, too, and asks before it applies. Exit status 0 where nothing\n"
        "would end otherwise, 1 where something would, 2 for a bad file, 3 without a history.",
        "  sudo pfw rehearse new.json\n"
        "  sudo pfw rehearse new.json --since 30d --app firefox\n"
        "  sudo pfw rehearse --json | jq .counts",
    )
    _past(parser, rules)
    parser.add_argument("--remote", metavar="ADDRESS", help="with this other end: address, prefix, range, or host name")
    json(parser)


def _suggest(add: Add, rules: Rules, json: Json) -> None:
    parser = add(
        "suggest",
        "rules for what was seen and allowed",
        "Print a diff of the policy file with rules for the connections that were allowed and that no rule allows:\n"
        "one for each program and direction, with the ports that it used. It is to be read before it is taken. No\n"
        "rule of the file changes, and nothing is allowed that a rule stops. Standard error tells how many\n"
        "connections each rule was needed for, and what is left out. Exit status 1 where no rule is missing, or\n"
        "where a test of the file would not hold.",
        "  sudo pfw suggest\n"
        "  sudo pfw suggest --app firefox --since 1d\n"
        "  sudo pfw suggest --output new.json    and then: sudo pfw rehearse new.json\n"
        "  sudo pfw suggest > rules.diff         and then: patch FILE < rules.diff",
    )
    _past(parser, rules)
    parser.add_argument("--output", metavar="FILE", help="write the new policy there, instead of the diff; a new file")
    json(parser)


def _past(parser: ArgumentParser, rules: Rules) -> None:
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="policy file (default: ./rules.json, else /etc/pfw/rules.json)"
    )
    rules(parser)
    parser.add_argument(
        "--since",
        metavar="TIME",
        default=DEFAULT_SINCE,
        help=f"the past from then on: 2h, 7d, ever, yesterday, a date (default: {DEFAULT_SINCE})",
    )
    parser.add_argument("--app", metavar="PATH", help="of this program: its path, its name, or a path with *")
