"""`pfw apps`, `connections`, `why`: what the daemon knows of programs."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress

from pfw.api.client import Client, Stream
from pfw.api.definition import Nothing
from pfw.api.interface import AppsResult, Connection, ConnectionsResult, WhyParameters, WhyResult
from pfw.cli import programs as screen
from pfw.cli.screen import encode
from pfw.cli.table import clip
from pfw.commands.calling import BAD_INPUT, NO, OK, called, colour, daemon, taken, tell, told
from pfw.drivers import clock, terminal
from pfw.model.address import AddressSet, parse_range

_PATH_BYTES_MAX = 4096
_REFRESH_S = 2.0
_REDRAW_S = 0.5
"""At most so often: a table that changes faster cannot be read."""
_PAUSE_S, _LONGEST_S = 1.0, 5.0
"""How a list ends whose end is not told: it comes without a pause, and in some seconds."""
_CLEAR, _HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


@told
def apps(options: Namespace) -> int:
    """`pfw apps`."""
    found = called("Apps", Nothing(), AppsResult).apps
    if options.json:
        print(encode([screen.facts(each) for each in screen.sorted_apps(found)]))
    else:
        print("\n".join(screen.app_lines(found, clock.now(), terminal.width())))
    return OK


@told
def why(options: Namespace) -> int:
    """`pfw why`."""
    try:
        asked = _meant(options.program)
    except ValueError as error:
        tell(f"{options.program!r} {error}")
        return BAD_INPUT
    result = called("Why", asked, WhyResult)
    if options.json:
        print(encode(screen.facts(result)))
    else:
        print("\n".join(screen.why_lines(result, terminal.width(), screen.painter(colour=colour()))))
    return NO if screen.may_do_nothing(result) else OK


def _meant(text: str) -> WhyParameters:
    """A process by its number, else an executable: a path, or a name as a shell looks it up. Raises ValueError."""
    if text.isascii() and text.isdecimal():
        if len(text) > 10 or not 0 < int(text) < 1 << 31:
            raise ValueError("is not the number of a process")
        return WhyParameters(pid=int(text))
    # The kernel knows programs by their real paths.
    path = os.path.realpath(text if "/" in text else _looked_up(text))
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise ValueError("is too long for a path")
    return WhyParameters(path=path)


def _looked_up(name: str) -> str:
    for folder in os.get_exec_path():
        path = os.path.join(folder, name)
        if name and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise ValueError("is no program that is found here; name its path")


@told
def connections(options: Namespace) -> int:
    """`pfw connections`."""
    try:
        wanted = _filter(options)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    if options.watch:
        return _watch(wanted, options)
    found = [one for one in _all() if wanted.takes(one)]
    if options.json:
        print(encode([screen.facts(one) for one in screen.sorted_connections(found)]))
    else:
        print("\n".join(screen.connection_lines(found, clock.now(), terminal.width())))
    return OK


def _filter(options: Namespace) -> screen.Filter:
    remote = None
    if options.remote is not None:
        try:
            remote = AddressSet([parse_range(options.remote)])
        except ValueError as error:
            raise ValueError(f"--remote {options.remote!r} {error}") from None
    return screen.Filter(
        app=options.app,
        pid=options.pid,
        user=options.user,
        direction=options.direction,
        protocol=options.protocol,
        remote=remote,
        port=options.port,
        rule=options.rule,
    )


def _all() -> list[Connection]:
    live = _Live()
    next(live.follow())
    return list(live.connections.values())


class _Live:
    """The connections of now, followed."""

    def __init__(self) -> None:
        self.connections: dict[screen.Key, Connection] = {}

    def follow(self) -> Iterator[list[Connection]]:
        """What is new, has changed or is closed, again and again, the first time everything. The list is fetched anew
        every now and then, whatever else is told, for that is when bytes are counted. May give an empty list."""
        while True:
            until = time.monotonic() + _REFRESH_S
            with daemon() as client:
                stream = client.stream("Connections", Nothing(), ConnectionsResult, 0.0)
                yield self._replace(_first(client, stream))
                while (left_s := until - time.monotonic()) > 0:
                    for result in taken(stream):
                        yield self._update(result)
                    terminal.wait([client.fileno()], left_s)

    def _replace(self, found: dict[screen.Key, Connection]) -> list[Connection]:
        before, self.connections = self.connections, found
        changed = [one for key, one in found.items() if screen.differ(one, before.get(key))]
        return changed + [screen.closed(one) for key, one in before.items() if key not in found]

    def _update(self, result: ConnectionsResult) -> list[Connection]:
        for one in result.connections:
            if one.state == screen.CLOSED:
                self.connections.pop(screen.key_of(one), None)
            else:
                self.connections[screen.key_of(one)] = one
        return list(result.connections)


def _first(client: Client, stream: Stream[ConnectionsResult]) -> dict[screen.Key, Connection]:
    """The list that a stream begins with. An empty result is behind it, or a pause."""
    found: dict[screen.Key, Connection] = {}
    until = time.monotonic() + _LONGEST_S
    while time.monotonic() < until and client.fileno() in terminal.wait([client.fileno()], _PAUSE_S):
        for result in taken(stream):
            if not result.connections:
                return found
            found |= {screen.key_of(one): one for one in result.connections}
    return found


def _watch(wanted: screen.Filter, options: Namespace) -> int:
    draws = not options.json and terminal.width() is not None and os.environ.get("TERM") != "dumb"
    with suppress(KeyboardInterrupt):
        if draws:
            _draw_on(wanted)
        else:
            _print_on(wanted, as_json=options.json)
    return OK


def _print_on(wanted: screen.Filter, *, as_json: bool) -> None:
    """A line for each connection, and for each change, for as long as somebody reads."""
    for changed in _Live().follow():
        shown = screen.sorted_connections(one for one in changed if wanted.takes(one))
        lines = [encode(screen.facts(one)) if as_json else screen.connection_line(one) for one in shown]
        print("".join(f"{line}\n" for line in lines), end="", flush=True)


def _draw_on(wanted: screen.Filter) -> None:
    live = _Live()
    drawn: float | None = None
    for _ in live.follow():
        now = time.monotonic()
        if drawn is None:
            print(_CLEAR, end="")
        if drawn is None or now - drawn >= _REDRAW_S:
            drawn = now
            _draw([one for one in live.connections.values() if wanted.takes(one)])


def _draw(found: list[Connection]) -> None:
    width, height = terminal.width() or 80, terminal.height()
    lines = screen.connection_lines(found, clock.now(), width)
    room = max(2, height - 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], clip(screen.total_line(room - 2, len(found)), width)]
    sys.stdout.write(_HOME + "".join(f"{line}{_TO_LINE_END}\n" for line in lines) + _TO_SCREEN_END)
    sys.stdout.flush()
