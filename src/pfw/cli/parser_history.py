"""The part of the command line that looks back: what was, how much of it, and what had never been before."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError

from pfw.cli.parser_change import Add, Json
from pfw.cli.parser_programs import port

BY = ("program", "remote", "name", "country", "rule", "hour", "port", "user")
NEW = ("programs", "remotes", "listeners")


def add_commands(add: Add, json: Json) -> None:
    """All of them, in the order in which they are listed."""
    _log(add, json)
    _stats(add, json)
    _first_seen(add, json)


def _log(add: Add, json: Json) -> None:
    parser = add(
        "log",
        "the connections of the past, and alerts between them",
        "A line a connection, the newest last: when it began, what was decided and by which rule, the program and\n"
        "its user, the other end, the bytes each way and how long it took. What is long ago is folded: a line for\n"
        "all connections of an hour or a day that are alike. Without --since the last 50 are shown. `pfw daemon`\n"
        "keeps the history; it need not run for this.",
        "  sudo pfw log --since 2h --app firefox\n"
        "  sudo pfw log -f --blocked --in\n"
        "  sudo pfw log --remote example.net --since yesterday --until today\n"
        "  sudo pfw log --since 7d --csv > week.csv\n"
        "  sudo pfw log --since 1h --json | jq 'select(.sent_bytes > 1000000)'",
    )
    parser.add_argument("--follow", "-f", action="store_true", help="go on: a line when one begins or is blocked")
    _filters(parser)
    parser.add_argument("--alerts", action="store_true", help="show alerts alone")
    parser.add_argument("--number", "-n", metavar="N", type=number, help="the last N of them (default: 50, or --since)")
    shape = parser.add_mutually_exclusive_group()
    json(shape, "print JSON, an object a line")
    shape.add_argument("--csv", action="store_true", help="print CSV with a line of names, for spreadsheets")


def _stats(add: Add, json: Json) -> None:
    parser = add(
        "stats",
        "the traffic of the past, summed up",
        "How many connections there were and how many were blocked, the bytes each way, the most frequent programs,\n"
        "remote ends and rules, and a chart of the hours. With --by one table alone. Countries need a database of\n"
        "addresses in MaxMind's format and the package maxminddb (pip install 'pfw[geoip]').",
        "  sudo pfw stats\n"
        "  sudo pfw stats --since 7d --by program -n 20\n"
        "  sudo pfw stats --by remote --app firefox --json\n"
        "  sudo pfw stats --by country --geoip /usr/share/GeoIP/GeoLite2-Country.mmdb",
    )
    parser.add_argument("--by", choices=BY, help="one table, by this (default: the most important ones)")
    parser.add_argument("--number", "-n", metavar="N", type=number, default=10, help="rows a table (default: 10)")
    _filters(parser, " (default: 24h before --until)")
    parser.add_argument(
        "--geoip", metavar="FILE", help="the database of addresses (default: as /usr/share/GeoIP has it)"
    )
    json(parser)


def _first_seen(add: Add, json: Json) -> None:
    parser = add(
        "first-seen",
        "what was seen for the first time",
        "Programs, remote ends and listening ports that had never been seen before, with when and by which program,\n"
        "the newest last.",
        "  sudo pfw first-seen\n  sudo pfw first-seen programs listeners --since 30d\n  sudo pfw first-seen --json",
    )
    parser.add_argument("what", metavar="WHAT", type=new, nargs="*", help=f"{', '.join(NEW)} (default: all)")
    parser.add_argument("--since", metavar="TIME", default="7d", help="from then on: 2h, 7d, a date (default: 7d)")
    json(parser)


def _filters(parser: ArgumentParser, default: str = "") -> None:
    """Which connections are wanted; all that are given hold."""
    since = f"from then on: 30s, 2h, 7d, ever, 14:00, yesterday, a date{default}"
    parser.add_argument("--since", metavar="TIME", help=since)
    parser.add_argument("--until", metavar="TIME", help="before then: the same words, a date is its beginning")
    parser.add_argument("--app", metavar="PATH", help="of this program: its path, its name, or a path with *")
    parser.add_argument("--remote", metavar="ADDRESS", help="the other end: address, prefix, range, or host name")
    parser.add_argument("--port", metavar="N", type=port, help="the port of the service, at whichever end it is")
    parser.add_argument("--protocol", metavar="NAME", help="tcp, udp, icmp, …")
    way = parser.add_mutually_exclusive_group()
    for name, text in (("in", "that somebody else began"), ("out", "that began here"), ("forward", "that passed by")):
        way.add_argument(f"--{name}", action="store_const", const=name, dest="direction", help=f"only those {text}")
    parser.add_argument("--user", metavar="NAME", help="of this user, by name or number")
    verdict = parser.add_mutually_exclusive_group()
    verdict.add_argument("--blocked", action="store_const", const=True, dest="blocked", help="only what was stopped")
    verdict.add_argument("--allowed", action="store_const", const=False, dest="blocked", help="only what passed")
    parser.add_argument("--rule", metavar="NAME", help="that this rule decided, or a default: 'default in', 'default'")


def number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def new(text: str) -> str:
    if text not in NEW:
        raise ArgumentTypeError(f"{text!r} is not one of {', '.join(NEW)}")
    return text
