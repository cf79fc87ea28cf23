"""The part of the command line that is about programs: the daemon that knows them, and what it is asked."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

from pfw.cli.parser_change import Add, Json, Rules, duration_s

SCOPES = ("exact", "address", "port", "anywhere")
_PORT_MAX = 65535


def add_commands(add: Add, rules: Rules, json: Json, logs: Callable[[ArgumentParser], None]) -> None:
    """All of them, in the order in which they are listed."""
    _daemon(add, rules, logs)
    _ask(add, json)
    _apps(add, json)
    _connections(add, json)
    _why(add, json)
    _agent(add)


def _daemon(add: Add, rules: Rules, logs: Callable[[ArgumentParser], None]) -> None:
    parser = add(
        "daemon",
        "tell programs apart, ask about them, keep the history, notice what is suspicious",
        "Run in the foreground: note in the kernel which program opens each connection, ask about what the policy\n"
        "asks about (pfw ask answers), keep a history of all connections (pfw log), notice what is suspicious and\n"
        "do about it what the policy says, and listen on a socket for the other commands. Where it is stopped, the\n"
        "policy stays in force. Alerts are told here, in the history, and in the logs that are named.",
        "  sudo pfw daemon\n  sudo pfw daemon --rules /etc/pfw/rules.json --eve /var/log/pfw/eve.json",
    )
    rules(parser)
    parser.add_argument("--cgroup", metavar="PATH", help="watch the programs below this control group (default: all)")
    parser.add_argument("--mask", metavar="BITS", type=mask, help="bits of the packets' mark that are ours, as in 0xff")
    parser.add_argument(
        "--no-labels", action="store_false", dest="labels", help="leave the kernel's labels out: look programs up"
    )
    logs(parser)


def _ask(add: Add, json: Json) -> None:
    parser = add(
        "ask",
        "answer what the policy asks about",
        "On a terminal: wait for prompts, show one after the other, and take a key for an answer: a allows, b\n"
        "blocks, this once and exactly this address and port. Other keys before it say for how long (o once,\n"
        "p until the program ends, 1 an hour, d a day, A always) and how much (e exactly this, h the address,\n"
        "P the port, w anywhere). ? shows them all. Without a terminal it reads lines: ID allow|block [TIME] [SCOPE].\n"
        "`answer` answers one prompt. As long as `pfw ask` runs, somebody is there to be asked.",
        "  pfw ask\n"
        "  pfw ask --list\n"
        "  pfw ask answer 7 allow                this once, exactly this\n"
        "  pfw ask answer 7 block --for 1h --scope anywhere",
    )
    parser.add_argument("what", choices=("answer",), nargs="?", help="answer one prompt (default: all, as they come)")
    parser.add_argument("words", metavar="ID|ACTION", nargs="*", help="the prompt's number, and allow or block")
    parser.add_argument("--list", action="store_true", help="print what waits for an answer, and end")
    lasting = parser.add_mutually_exclusive_group()
    lasting.add_argument("--for", dest="for_", metavar="TIME", type=duration_s, help="for so long: 30m, 12h, 7d")
    for name, text in (
        ("once", "for the connections that wait (the default)"),
        ("program", "until the program ends"),
        ("always", "make it a rule of the policy"),
    ):
        lasting.add_argument(f"--{name}", action="store_const", const=name, dest="lasting", help=text)
    parser.add_argument("--scope", choices=SCOPES, help="how much it is about (default: exact, the address and port)")
    json(parser, "print JSON; without --list and answer: an object a line, and read lines")


def _apps(add: Add, json: Json) -> None:
    parser = add(
        "apps",
        "the programs that were seen on the network",
        "For each program: its processes and connections now, what was decided, when it was last seen, and the\n"
        "rules that name it.",
        "  pfw apps\n  pfw apps --json | jq '.[].path'",
    )
    json(parser)


def _connections(add: Add, json: Json) -> None:
    parser = add(
        "connections",
        "the connections of now, and whose they are",
        "The connections that the kernel knows, with their programs. Options say which; all that are given hold.",
        "  pfw connections\n"
        "  pfw connections --app curl --port 443\n"
        "  pfw connections --watch --direction in\n"
        "  pfw connections -w --json --remote 192.168.0.0/16",
    )
    parser.add_argument("--watch", "-w", action="store_true", help="go on: redraw, or print what is new and changed")
    parser.add_argument("--app", metavar="PATH", help="of this program: its path, or its name")
    parser.add_argument("--pid", metavar="N", type=pid, help="of this process")
    parser.add_argument("--user", metavar="NAME", help="of this user, by name or number")
    parser.add_argument("--direction", choices=("in", "out"), help="who started: in is somebody else")
    parser.add_argument("--protocol", metavar="NAME", help="tcp, udp, …")
    parser.add_argument("--remote", metavar="ADDRESS", help="the other end: address, prefix or range")
    parser.add_argument("--port", metavar="N", type=port, help="the port of the service, at whichever end it is")
    parser.add_argument("--rule", metavar="NAME", help="that this rule decided")
    json(parser, "print JSON; with --watch an object a line")


def _why(add: Add, json: Json) -> None:
    parser = add(
        "why",
        "what a program may do, and by which rules",
        "Say what the policy holds for a program, given as a process or an executable, rule by rule. Exit status 1\n"
        "where it may do nothing.",
        "  pfw why 4711\n  pfw why /usr/bin/curl",
    )
    parser.add_argument("program", metavar="PID|PATH", help="number of a process, or path or name of an executable")
    json(parser)


def _agent(add: Add) -> None:
    add(
        "agent",
        "prompts as notifications on the desktop",
        "Run in a person's desktop session, without root: show what `pfw ask` would ask as notifications with\n"
        "buttons, and alerts as notifications without. A button answers for exactly this program, address and port;\n"
        "closing a notification answers nothing. It needs the package jeepney (pip install 'pfw[agent]'), and a\n"
        "person who is in the group pfw. Ends with exit status 3 when the session's bus does.",
        "  pfw agent\n  systemctl --user enable --now pfw-agent",
    )


def mask(text: str) -> int:
    """Bits of a mark, which has 32."""
    try:
        value = int(text, 0) if text.isascii() and len(text) <= 34 else 0
    except ValueError:
        value = 0
    if not 0 < value < 1 << 32:
        raise ArgumentTypeError(f"{text!r} is not a mask of a mark's 32 bits, as in 0xff000000")
    return value


def pid(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or not 0 < int(text) < 1 << 31:
        raise ArgumentTypeError(f"{text!r} is not the number of a process")
    return int(text)


def port(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > _PORT_MAX:
        raise ArgumentTypeError(f"{text!r} is not a port (0-65535)")
    return int(text)
