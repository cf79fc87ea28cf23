"""The command line, described once: parser, help, man page and completions are made from this.

It imports nothing of ours but the version, so that `--help` is quick. What a command does is in `main.py`.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter, _SubParsersAction
from functools import partial

from pfw import __version__
from pfw.cli import parser_change, parser_history, parser_programs, parser_rehearsal

_EXIT_STATUS = "exit status: 0 done, 1 the answer is no, 2 the input is bad, 3 the system refused"
_RULES_HELP = "policy file (default: ./rules.json, else /etc/pfw/rules.json)"


def build_parser() -> ArgumentParser:
    """The parser of `pfw`, with a parser for each command in it."""
    parser = ArgumentParser(
        prog="pfw",
        description="Personal Firewall: one readable policy file says what may talk to this machine and it to whom.",
        epilog="examples:\n"
        "  sudo pfw up                           put ./rules.json in force\n"
        "  sudo pfw monitor                      watch the traffic, judge it by ./rules.json\n"
        "  pfw check                             is ./rules.json all right?\n"
        "  pfw explain in tcp 203.0.113.9:50000 192.168.1.5:22\n"
        "  pfw replay capture.pcap               what would this policy have done?\n\n" + _EXIT_STATUS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pfw {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _monitor(commands)
    _check(commands)
    _test(commands)
    _explain(commands)
    _replay(commands)
    _schema(commands)
    _convert(commands)
    _import(commands)
    parser_change.add_commands(partial(_command, commands), _rules, _json)
    parser_programs.add_commands(partial(_command, commands), _rules, _json, lambda each: _logs(each, None))
    parser_history.add_commands(partial(_command, commands), _json)
    parser_rehearsal.add_commands(partial(_command, commands), _rules, _json)
    _completion(commands)
    return parser


def _command(
    commands: _SubParsersAction[ArgumentParser], name: str, summary: str, text: str, examples: str
) -> ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=f"examples:\n{examples}",
        formatter_class=RawDescriptionHelpFormatter,
    )


def _monitor(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "monitor",
        "watch traffic and show what the policy says to each connection",
        "Watch traffic, judge every connection by the policy, show each verdict, log what is blocked or\n"
        "suspicious. Changes nothing in the kernel, except with --enforce: that is `pfw up` first, and then shows\n"
        "what the kernel does. A change of the policy file is taken up while it runs.\n"
        "Ctrl-C ends it with a summary.",
        "  sudo pfw monitor\n"
        "  sudo pfw monitor --interface wlan0 --filter 'not port 22' -v\n"
        "  pfw monitor --read capture.pcap --json | jq 'select(.verdict == \"block\")'\n"
        "  tcpdump -w - | pfw monitor --read -",
    )
    _rules(parser)
    parser.add_argument("--interface", "-i", metavar="NAME", help="watch this interface alone (default: all)")
    parser.add_argument("--read", "-r", metavar="FILE", help="read a pcap or pcapng file, - for standard input")
    parser.add_argument("--local", metavar="ADDRESS", action="append", help=_LOCAL_HELP)
    parser.add_argument("--filter", "-f", metavar="BPF", help="only packets that this filter takes, as in tcpdump")
    parser.add_argument("--count", "-c", metavar="N", type=_count, help="end after N packets")
    parser.add_argument("--seconds", metavar="N", type=_seconds, help="end after N seconds")
    parser.add_argument("--every-packet", action="store_true", help="a line a packet instead of one a connection")
    parser.add_argument("--verbose", "-v", action="store_true", help="time, direction and interface on each line")
    parser.add_argument(
        "--enforce", action="store_true", help="put the policy in force first, and show what the kernel does"
    )
    parser_change.backend(parser)
    parser_change.confirm(parser)
    parser_change.force(parser, "--enforce: also where it cuts the remote session that it is typed in")
    parser.add_argument("--quiet", "-q", action="store_true", help="show the summary alone")
    _json(parser, "a JSON object a line")
    _logs(parser)


def _logs(parser: ArgumentParser, usual: str | None = "firewall.log") -> None:
    logs = parser.add_argument_group("logs")
    logs.add_argument("--log", metavar="FILE", default=usual, help=f"text log (default: {usual or 'none'})")
    logs.add_argument("--no-log", action="store_const", const=None, dest="log", help="no text log")
    logs.add_argument("--eve", metavar="FILE", help="EVE JSON as Suricata writes it, for EveBox, Filebeat, Wazuh")
    logs.add_argument(
        "--syslog",
        metavar="TO",
        nargs="?",
        const="/dev/log",
        help="syslog, to a socket or HOST:PORT (default: /dev/log)",
    )
    logs.add_argument(
        "--journal", metavar="SOCKET", nargs="?", const="/run/systemd/journal/socket", help="the systemd journal"
    )
    logs.add_argument(
        "--log-budget",
        metavar="SIZE",
        type=_size,
        default=_size("100M"),
        help="disk space for all log files together, old ones are deleted (default: 100M)",
    )


_LOCAL_HELP = (
    'an address or prefix that is "this machine" in somebody else\'s capture (may be repeated; default: this '
    "machine's own addresses, and strangers are judged from both of their ends)"
)


def _check(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "check",
        "is a policy file all right?",
        "Read a policy file and report every fault with its line and column, and every test of it that fails.\n"
        "Exit status 0, or 2 with faults.",
        "  pfw check\n  pfw check /etc/pfw/rules.json --json",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=_RULES_HELP)
    _rules(parser)
    _json(parser)


def _test(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "test",
        "does a policy do what its tests say?",
        'Run the "tests" of a policy file: a line each, and for one that fails what decided instead and why.\n'
        "Nothing is sent and no root is needed. pfw up refuses a policy that fails one.",
        "  pfw test\n  pfw test /etc/pfw/rules.json --json",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=_RULES_HELP)
    _rules(parser)
    _json(parser)


def _explain(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "explain",
        "what would happen to a connection, and why",
        "Say what the policy does with a connection, which rule decides, its line in the file, and for each\n"
        "rule before it which field did not match. Nothing is sent and no root is needed.",
        "  pfw explain in tcp 203.0.113.9:50000 192.168.1.5:22\n"
        "  pfw explain out udp 192.168.1.5:40000 [2001:db8::53]:53 --app /usr/bin/dig --user alice\n"
        "  pfw explain in icmp 203.0.113.9 192.168.1.5 echo-request\n"
        "  pfw explain 'in tcp 192.168.1.9 -> :22'   what is left out is any, in quotes for the shell\n"
        "  pfw explain - --json < questions.txt",
    )
    parser.add_argument(
        "question",
        metavar="WORD",
        nargs="+",
        help="in|out|forward PROTOCOL SOURCE[:PORT] DESTINATION[:PORT] [ICMP-TYPE], or - to read many, a line each",
    )
    shapes = {"app": "PATH", "sha256": "HASH", "script": "PATH", "time": "WHEN"}
    for name, what in _ABOUT.items():
        parser.add_argument(f"--{name}", metavar=shapes.get(name, "NAME"), action="append", help=what)
    _rules(parser)
    _json(parser)


_ABOUT = {
    "app": "the program's executable",
    "sha256": "the hash of that executable's file",
    "script": "the script that the program runs",
    "user": "its user or group:NAME",
    "unit": "its systemd unit or cgroup",
    "interface": "the interface it comes in by or leaves by",
    "time": "when, as 2026-11-23T10:00 (default: now)",
}


def _replay(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "replay",
        "what the policy would have done with a capture",
        "Judge the traffic of capture files by the policy and sum it up: verdicts by rule, top peers and ports.\n"
        "Writes no log. Without --local, connections between strangers are judged from both of their ends.\n"
        "With --detect no policy is needed: it lists what is suspicious (scans, floods, tunnels, forged neighbours),\n"
        "the numbers that say so, and whom one could ban for it. Exit status 0, or 2 for what is no capture.",
        "  pfw replay capture.pcap\n"
        "  pfw replay --local 192.168.1.5 *.pcapng --json\n"
        "  pfw replay --detect --local 192.168.1.0/24 capture.pcap\n"
        "  zcat old.pcap.gz | pfw replay -",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="pcap or pcapng, - for standard input")
    parser.add_argument("--detect", action="store_true", help="list what is suspicious instead, no policy needed")
    parser.add_argument("--local", metavar="ADDRESS", action="append", help=_LOCAL_HELP)
    parser.add_argument("--filter", "-f", metavar="BPF", help="only packets that this filter takes, as in tcpdump")
    parser.add_argument("--top", metavar="N", type=_count, default=10, help="how many peers and ports (default: 10)")
    _rules(parser)
    _json(parser)


def _schema(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "schema",
        "the JSON Schema of policy files",
        "Print the JSON Schema of rules.json, by which editors complete and check it.",
        '  pfw schema > rules.schema.json        and in rules.json: "$schema": "./rules.schema.json"',
    )
    _json(parser, "accepted for uniformity: the schema is JSON")


def _convert(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "convert",
        "a policy of lists as one of ordered rules",
        "Print a simple policy (block and allow lists) in the full form that means the same.",
        "  pfw convert > rules2.json",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help=_RULES_HELP)
    _rules(parser)
    _json(parser, "accepted for uniformity: a policy is JSON")


def _import(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "import",
        "the rules of another firewall as a policy",
        "Print a policy that allows nothing that the rules of OpenSnitch do not, and say of each of them whether it\n"
        "is kept, narrowed, stricter or left out, and why. network_aliases.json and default-config.json are read too,\n"
        "where they are beside the folder. Exit status 1 where a rule could not be kept as it is.",
        "  sudo pfw import opensnitch /etc/opensnitchd/rules --output rules.json\n"
        "  pfw import opensnitch rules --json | jq .rules",
    )
    parser.add_argument("firewall", metavar="FIREWALL", choices=("opensnitch",), help="opensnitch")
    parser.add_argument("folder", metavar="DIR", help="where its rules are, a JSON file each")
    parser.add_argument("--output", "-o", metavar="FILE", help="write the policy into a new file")
    parser.add_argument(
        "--default",
        choices=("ask", "allow", "deny", "reject"),
        help="what no rule decides (default: ask, and without an answer the DefaultAction of OpenSnitch)",
    )
    parser.add_argument(
        "--leave-out-denies",
        action="store_true",
        help="leave out what denies and cannot be kept, instead of blocking more: this allows what it denied",
    )
    _json(parser)


def _completion(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _command(
        commands,
        "completion",
        "completion for a shell",
        "Print the completion script of a shell.",
        "  pfw completion bash > /etc/bash_completion.d/pfw\n"
        "  pfw completion zsh > /usr/share/zsh/vendor-completions/_pfw",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")


def _rules(parser: ArgumentParser) -> None:
    parser.add_argument("--rules", metavar="FILE", help=_RULES_HELP)


def _json(parser: ArgumentParser, text: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15 or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _size(text: str) -> int:
    """Bytes: `500K`, `100M`, `2G` or a plain number."""
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper())
    digits = text[:-1] if scale else text
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 12 or int(digits) == 0:
        raise ArgumentTypeError(f"{text!r} is not a size, as in 500K, 100M or 2G")
    return int(digits) * (scale or 1)
