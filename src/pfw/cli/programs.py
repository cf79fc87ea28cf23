"""What people see of programs and their connections. Pure; times local on screen, UTC in JSON.

Programs choose their own names, arguments and files: all of it passes through `printable` here. Other screens are
imported where they are needed: a prompt is to be there at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from pfw.api.interface import App, Connection, Program, Reason, WhyResult
from pfw.cli.table import Column, clip, table
from pfw.model.address import AddressSet, parse_address
from pfw.model.text import counted, printable
from pfw.model.verdict import Action

CLOSED = "closed"
"""The state of a connection that is no more."""
_TIMES = frozenset(("asked", "until", "seen", "since"))
_PLAIN = "\x1b[0m"

Key = tuple[str, str, str, int | None, str, int | None]


class Filter(Struct, frozen=True, kw_only=True):
    """Which connections are wanted; None for all."""

    app: str | None = None
    pid: int | None = None
    user: str | None = None
    direction: str | None = None
    protocol: str | None = None
    remote: AddressSet | None = None
    port: int | None = None
    rule: str | None = None

    def takes(self, one: Connection) -> bool:
        own = one.program
        service = one.local_port if one.direction == "in" else one.remote_port
        return (
            (self.app is None or (own is not None and self.app in _names(own)))
            and (self.pid is None or (own is not None and self.pid == own.pid))
            and (self.user is None or (own is not None and self.user in (own.user, str(own.uid))))
            and self.direction in (None, one.direction)
            and (self.protocol is None or self.protocol.lower() == one.protocol.lower())
            and (self.remote is None or _holds(self.remote, one.remote))
            and self.port in (None, service)
            and self.rule in (None, one.rule)
        )


def _names(program: Program) -> set[str]:
    files = {each for each in (program.path, program.shown, program.script) if each}
    return files | {each.rpartition("/")[2] for each in files}


def _holds(wanted: AddressSet, address: str) -> bool:
    try:
        return parse_address(address) in wanted
    except ValueError:
        return False


def differ(one: Connection, other: Connection | None) -> bool:
    """Whether there is more to tell than that bytes have passed."""
    if other is None:
        return True
    return replace(one, sent_bytes=None, received_bytes=None) != replace(other, sent_bytes=None, received_bytes=None)


def closed(one: Connection) -> Connection:
    return replace(one, state=CLOSED)


def key_of(one: Connection) -> Key:
    """What tells a connection from the others."""
    return one.direction, one.protocol, one.local, one.local_port, one.remote, one.remote_port


def facts(value: Struct) -> dict[str, object]:
    """As JSON shows it: every field, names escaped, times UTC."""
    from pfw.cli.screen import utc_time

    found: dict[str, object] = {}
    for name in value.__struct_fields__:
        each = getattr(value, name)
        is_time = name in _TIMES and isinstance(each, int | float)
        # A program that no decision was about was seen at the time 0.
        found[name] = (utc_time(each) if each else None) if is_time else _safe(each)
    return found


def _safe(value: object) -> object:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Struct):
        return facts(value)
    if isinstance(value, tuple):
        return [_safe(each) for each in value]
    if isinstance(value, Mapping):
        return {printable(str(name)): each for name, each in value.items()}
    return value


def app_lines(apps: Iterable[App], now: float, width: int | None) -> list[str]:
    """Those with connections first, then those that were seen last."""
    from pfw.cli.enforcement import ago_text

    heads = [
        Column("program", 16), Column("connections", right=True), Column("processes", right=True),
        Column("last seen"), Column("verdicts", 8), Column("rules", 8),
    ]  # fmt: skip
    rows = [
        [
            printable(app.path),
            f"{app.connections:,}",
            f"{app.processes:,}",
            ago_text(now - app.seen) if app.seen else "-",
            ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(app.verdicts.items())) or "-",
            ", ".join(map(printable, app.rules)) or "-",
        ]
        for app in sorted_apps(apps)
    ]
    return table(heads, rows, width) if rows else ["no program was seen on the network yet"]


def sorted_apps(apps: Iterable[App]) -> list[App]:
    return sorted(apps, key=lambda app: (-app.connections, -app.seen, app.path))


_CONNECTION_HEADS = [
    Column("program", 12), Column("dir"), Column("protocol"), Column("remote", 15), Column("local", 15),
    Column("state", 5), Column("user", 4), Column("sent", right=True), Column("received", right=True),
    Column("since", right=True), Column("rule", 6), Column("pid", right=True),
]  # fmt: skip


def connection_lines(connections: Iterable[Connection], now: float, width: int | None) -> list[str]:
    """A table, by program."""
    rows = [_connection_row(one, now) for one in sorted_connections(connections)]
    return table(_CONNECTION_HEADS, rows, width) if rows else ["no connection that is like this"]


def sorted_connections(connections: Iterable[Connection]) -> list[Connection]:
    return sorted(connections, key=_order)


def _order(one: Connection) -> tuple[object, ...]:
    # What nobody is known to have comes last.
    whose = one.program is None, program_name(one.program)
    far, near = (one.remote, one.remote_port or 0), (one.local, one.local_port or 0)
    return *whose, one.direction, one.protocol, *far, *near


def _connection_row(one: Connection, now: float) -> list[str]:
    from pfw.cli.enforcement import span_text
    from pfw.cli.report import size_text

    own = one.program
    doubt = "" if own is None or one.certainty in ("label", "socket", "proc", None) else " ?"
    return [
        program_name(own) + doubt,
        printable(one.direction),
        printable(one.protocol),
        endpoint(one.remote, one.remote_port),
        endpoint(one.local, one.local_port),
        printable(one.state),
        "-" if own is None else printable(own.user),
        "-" if one.sent_bytes is None else size_text(one.sent_bytes),
        "-" if one.received_bytes is None else size_text(one.received_bytes),
        "-" if one.since is None else span_text(now - one.since),
        "-" if one.rule is None else printable(one.rule),
        "-" if own is None else str(own.pid),
    ]


def connection_line(one: Connection) -> str:
    """A line by itself, for a stream."""
    here, there = endpoint(one.local, one.local_port), endpoint(one.remote, one.remote_port)
    arrow = "<-" if one.direction == "in" else "->"
    rule = "" if one.rule is None else f'  rule "{printable(one.rule)}"'
    who = program_name(one.program)
    return f"{printable(one.state):<11} {who}  {here} {arrow} {there} ({printable(one.protocol)}){rule}"


def endpoint(address: str, port: int | None) -> str:
    """`192.0.2.1:80`, `[2001:db8::1]:80`, or the address alone."""
    shown = printable(address)
    if port is None:
        return shown
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"


def program_name(program: Program | None) -> str:
    """The path, or in brackets what the kernel calls a program that has none; with the script that it runs."""
    if program is None:
        return "-"
    name = printable(program.path) if program.path is not None else f"({printable(program.shown)})"
    return f"{name} {printable(program.script)}" if program.script else name


def origin(program: Program) -> str:
    """Who started it, whose it is, and where: one line."""
    parts = [f"process {program.pid}"]
    if program.parents:
        parts.append(f"started by {' < '.join(map(printable, program.parents))}")
    parts.append(f"as {printable(program.user or '-')} ({program.uid})")
    if program.unit:
        parts.append(f"in {printable(program.unit)}")
    return ", ".join(parts)


def command_text(program: Program) -> str:
    """What it says that it was started with; where one word ends and the next begins stays to be seen."""
    return " ".join(_word(printable(word)) for word in program.command)


def _word(text: str) -> str:
    plain = text and not any(character in " '\"" for character in text)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def why_lines(result: WhyResult, width: int | None, paint: Callable[[str, str], str]) -> list[str]:
    """What a program may do, and the rules, which count in this order."""
    lines = []
    if result.program is not None:
        lines += [program_name(result.program), f"  {origin(result.program)}"]
        lines += [f"  {command_text(result.program)}"] if result.program.command else []
        lines = [clip(line, width) for line in lines]
    lines += [printable(result.says), ""] if result.reasons else [printable(result.says)]
    if result.reasons:
        lines += _reason_lines(result.reasons, width, paint)
    return lines


def _reason_lines(reasons: Sequence[Reason], width: int | None, paint: Callable[[str, str], str]) -> list[str]:
    heads = [Column("action"), Column("matches"), Column("rule", 10), Column("says", 12)]
    rows = [[printable(text) for text in (each.action, each.matches, each.rule, each.says)] for each in reasons]
    head, *lines = table(heads, rows, width)
    return [head, *(_painted(line, each, paint) for line, each in zip(lines, reasons, strict=True))]


def _painted(line: str, reason: Reason, paint: Callable[[str, str], str]) -> str:
    word = printable(reason.action)
    if reason.matches == "no" or not line.startswith(word):
        return line
    return paint(word, reason.action) + line[len(word) :]


def painter(*, colour: bool) -> Callable[[str, str], str]:
    """Puts a text into the colour of an action."""
    from pfw.cli.screen import COLOURS

    def paint(text: str, action: str) -> str:
        known = colour and action in set(Action)
        return f"{COLOURS[Action(action)]}{text}{_PLAIN}" if known else text

    return paint


def may_do_nothing(result: WhyResult) -> bool:
    """Whether nothing of what is told lets anything pass, or could; without the defaults that cannot be said."""
    reasons = result.reasons
    is_whole = any(each.rule.startswith("default ") for each in reasons)
    return is_whole and not any(each.action in (Action.ALLOW, Action.ASK) and each.matches != "no" for each in reasons)


def total_line(shown: int, all_of_them: int) -> str:
    """Under a table that is not whole."""
    return f"… {counted(all_of_them - shown, 'more connection')}"
