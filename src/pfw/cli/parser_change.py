"""The part of the command line that changes something: the ruleset, the policy file, bans, block lists, the boot."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

Add = Callable[[str, str, str, str], ArgumentParser]
"""Adds a command: name, summary, text, examples."""
Rules = Callable[[ArgumentParser], None]
Json = Callable[..., None]

BACKENDS = ("auto", "nftables", "iptables", "iptables-nft", "iptables-legacy")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
LONGEST_S = 10 * 366 * 86400


def add_commands(add: Add, rules: Rules, json: Json) -> None:
    """All of them, in the order in which they are listed."""
    _up(add, rules, json)
    _status(add, rules, json)
    _edits(add, rules, json)
    _bans(add, json)
    _lists(add, rules, json)
    _rest(add, json)


def backend(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--backend", choices=BACKENDS, default="auto", help="what enforces it (default: what works here)"
    )


def confirm(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--confirm",
        metavar="SECONDS",
        type=confirm_s,
        help="taken back by itself after so many seconds, unless `pfw confirm` follows",
    )


def force(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--force", action="store_true", help=text)


_FORCE = "also where it cuts the remote session that it is typed in"


def _up(add: Add, rules: Rules, json: Json) -> None:
    parser = add(
        "up",
        "put the policy in force",
        "Compile the policy, load it into the kernel in one transaction, read it back, and cut the connections\n"
        "that it now forbids. Says what changed, rule by rule. What would cut your own remote session is refused.",
        "  sudo pfw up\n"
        "  sudo pfw up --confirm 60              and then, if you can still type: sudo pfw confirm\n"
        "  sudo pfw up --rehearse                what it would have done in the last days; then it asks\n"
        "  sudo pfw up --rules /etc/pfw/rules.json --dry-run",
    )
    rules(parser)
    backend(parser)
    confirm(parser)
    parser.add_argument(
        "--rehearse", action="store_true", help="show what it would have done in the last days, and ask first"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="--rehearse: show it, and do not ask")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    force(parser, _FORCE)
    json(parser)
    parser = add("confirm", "keep the policy that was applied with --confirm", "Keep it.", "  sudo pfw confirm")
    json(parser)
    parser = add(
        "down",
        "take the firewall out",
        "Take everything of ours out of the kernel, and nothing else. Bans are remembered for the next `pfw up`.",
        "  sudo pfw down",
    )
    json(parser)


def _status(add: Add, rules: Rules, json: Json) -> None:
    parser = add(
        "status",
        "is it on, and what has each rule done?",
        "On or off, by which backend and policy, whether the policy file has changed since, and for each rule\n"
        "how many packets it decided (the first of each connection) and when. Exit status 1 when it is off.",
        "  sudo pfw status\n  sudo pfw status --json | jq .rules",
    )
    json(parser)
    parser = add(
        "show",
        "the ruleset that would be loaded",
        "Print the exact ruleset of a policy, with the names of the rules in it. Nothing is loaded.",
        "  pfw show\n  pfw show --backend iptables",
    )
    rules(parser)
    backend(parser)
    json(parser)


def _edits(add: Add, rules: Rules, json: Json) -> None:
    for name, summary, example in (
        ("allow", "add a rule that allows", "in tcp 22 --from lan --limit 6/minute"),
        ("block", "add a rule that drops in silence", "203.0.113.7 --for 1h"),
        ("reject", "add a rule that refuses with an answer", "out tcp 25"),
    ):
        parser = add(
            name,
            summary,
            "Write a rule into the policy file, and put the policy in force where the firewall is on. Words are as in\n"
            "ufw; a rule that allows goes to the end, one that blocks or rejects to the beginning.",
            f"  sudo pfw {name} {example}\n"
            f"  sudo pfw {name} 8000-8100/tcp\n"
            f"  sudo pfw {name} in from 10.0.0.0/8 to any port 443",
        )
        parser.add_argument("words", metavar="WORD", nargs="*", help="direction, protocol, port, service, address")
        _rule_options(parser)
        rules(parser)
        json(parser)
    parser = add("delete", "delete a rule", "Delete the rule with this name.", '  sudo pfw delete "ssh from the lan"')
    parser.add_argument("name", metavar="NAME", help="the rule's name")
    rules(parser)
    force(parser, _FORCE)
    json(parser)
    parser = add("undo", "take the last change of the policy back", "Bring back the policy before.", "  sudo pfw undo")
    rules(parser)
    force(parser, _FORCE)
    json(parser)
    parser = add("history", "the last policies", "List the last 20 policies that were in force.", "  sudo pfw history")
    json(parser)


def _rule_options(parser: ArgumentParser) -> None:
    for flag, metavar, text in (
        ("--from", "ADDRESS", "source of the connection"),
        ("--to", "ADDRESS", "destination of the connection"),
        ("--remote", "ADDRESS", "the other end, whoever starts"),
        ("--protocol", "NAME", "tcp, udp, icmp, …"),
        ("--port", "PORT", "destination port"),
        ("--from-port", "PORT", "source port"),
        ("--icmp-type", "TYPE", "as in echo-request"),
        ("--interface", "NAME", "comes in by, or leaves by"),
        ("--user", "NAME", "of this user, or group:NAME"),
        ("--unit", "NAME", "of this systemd unit"),
        ("--app", "PATH", "of this program"),
        ("--script", "PATH", "of this script, which the program runs"),
        ("--limit", "RATE", "as in 6/minute"),
        ("--schedule", "WHEN", "as in 'mon-fri 09:00-17:00'"),
        ("--for", "TIME", "for so long: 30m, 12h, 7d"),
        ("--until", "TIME", "until then: 2026-12-01T18:00"),
        ("--note", "TEXT", "a note for people"),
        ("--name", "NAME", "what the rule is called"),
    ):
        parser.add_argument(flag, metavar=metavar, help=text, dest={"--from": "from_", "--for": "for_"}.get(flag))
    parser.add_argument("--burst", metavar="N", type=int, help="how many at once")
    parser.add_argument("--log", action="store_true", help="record every match")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--first", action="store_true", help="before all other rules")
    place.add_argument("--last", action="store_true", help="behind all other rules")
    place.add_argument("--before", metavar="RULE", help="before this rule")
    force(parser, _FORCE)


def _bans(add: Add, json: Json) -> None:
    parser = add(
        "ban",
        "drop addresses for a time",
        "Ban addresses and prefixes, whatever the policy says. Thousands in one go come from standard input. This\n"
        "machine's own addresses, its gateway, its resolvers and whoever is logged in remotely are left out. `show`\n"
        "says of each ban why, by what, and until when. What `remove` lifts no alert bans for the next 30 days.",
        "  sudo pfw ban add 203.0.113.7 --for 1h\n"
        "  sudo pfw ban add - < addresses.txt\n"
        "  sudo pfw ban remove 203.0.113.7\n"
        "  sudo pfw ban list\n"
        "  sudo pfw ban show 203.0.113.7",
    )
    parser.add_argument(
        "what", choices=("add", "remove", "list", "show", "reload"), help="reload: the kernel's anew from the disk"
    )
    parser.add_argument(
        "addresses", metavar="ADDRESS", nargs="*", help="address, prefix or range; - reads them, a line each"
    )
    parser.add_argument(
        "--for", dest="for_", metavar="TIME", type=duration_s, help="30m, 12h, 7d, or ever (default: 1d)"
    )
    parser.add_argument("--why", metavar="TEXT", default="", help="a note for people")
    force(parser, "also what should never be banned")
    json(parser)


def _lists(add: Add, rules: Rules, json: Json) -> None:
    parser = add(
        "lists",
        "block lists from files and URLs",
        'The block lists of the policy ("blocklists"): what is loaded, how old it is. `update` fetches them anew,\n'
        "`why` tells which list an address is on.",
        "  sudo pfw lists\n  sudo pfw lists update\n  sudo pfw lists why 203.0.113.7",
    )
    parser.add_argument("what", choices=("show", "update", "why"), nargs="?", default="show", help="default: show")
    parser.add_argument("names", metavar="NAME|ADDRESS", nargs="*", help="lists to update, or addresses to look up")
    parser.add_argument("--due", action="store_true", help="update: only those that are due")
    parser.add_argument(
        "--accept-shrunken", action="store_true", help="update: also where a list lost most of its entries"
    )
    rules(parser)
    json(parser)


def _rest(add: Add, json: Json) -> None:
    parser = add(
        "panic",
        "cut everything off, now",
        "Nothing in or out but loopback, and the remote session that this is typed in. It ends with --off or a boot.",
        "  sudo pfw panic\n  sudo pfw panic --off",
    )
    parser.add_argument("--off", action="store_true", help="end it")
    backend(parser)
    json(parser)
    parser = add(
        "doctor",
        "what else filters here, and what is missing?",
        "Look at the kernel, at who else filters on this machine, and at whether anything lets packets pass us or\n"
        "stops what we allow. Exit status 1 where something should be done.",
        "  sudo pfw doctor",
    )
    json(parser)
    for name, summary in (("install", "have the policy loaded at each boot"), ("uninstall", "no longer at each boot")):
        parser = add(
            name,
            summary,
            "Write (take out) units for systemd: one loads the last good ruleset before the network is up, with nft\n"
            "or iptables-restore alone; one gives bans their times back; a timer looks after block lists.",
            f"  sudo pfw {name}",
        )
        parser.add_argument("--units", metavar="FOLDER", help="where units are (default: /etc/systemd/system)")
        json(parser)


def confirm_s(text: str) -> float:
    """Seconds to wait for a confirmation."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 86400:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds (1-86400)")
    return float(text)


def duration_s(text: str) -> float:
    """`30m`, `12h`, `1d12h` in seconds; 0 for `ever`."""
    if text in ("ever", "forever"):
        return 0.0
    if not re.fullmatch("(?:[0-9]{1,9}[smhdw])+", text):
        raise ArgumentTypeError(f"{text!r} is not a time, as in 30m, 12h or 7d")
    total = sum(int(number) * _SECONDS[unit] for number, unit in re.findall("([0-9]+)([smhdw])", text))
    if not 0 < total <= LONGEST_S:
        raise ArgumentTypeError(f"{text!r} is not a time from 1s to 10 years")
    return float(total)
