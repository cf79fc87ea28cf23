"""`pfw log`, `stats`, `first-seen`: the history read back. The daemon need not run for it.

Nothing of the file is held while a screen or a pipe is waited for: a reader that stays would make the file grow.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache, wraps
from heapq import merge
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from pfw.cli import history as screen
from pfw.cli import recall
from pfw.cli.ask import BAD_INPUT, OK, REFUSED, tell
from pfw.cli.parser_history import NEW
from pfw.cli.screen import encode
from pfw.commands.calling import colour
from pfw.drivers import clock, terminal
from pfw.drivers.store import folder
from pfw.model.history import Entry, New, Noticed, Query
from pfw.record.history_read import HistoryError, Reader, open_history
from pfw.record.history_schema import FILE

_LAST = 50
"""So many lines without --since."""
_NUMBER_MOST = 100_000
"""The last ones are held in memory, until they are in the order of time."""
_LINES_AT_ONCE = 500
_FOLLOW_S = 0.3
_AWAY_S = 3.0
_STATS_S = 86400.0
"""So much is summed up without --since."""

Command = Callable[[Namespace], int]


def told(command: Command) -> Command:
    """Tells what is wrong with the history, and makes the exit status of it."""

    @wraps(command)
    def run(options: Namespace) -> int:
        try:
            return command(options)
        except HistoryError as error:
            tell(str(error))
            return REFUSED

    return run


def path() -> Path:
    """Where the history is kept."""
    return folder() / FILE


@told
def log(options: Namespace) -> int:
    """`pfw log`."""
    try:
        query = recall.read_query(options, clock.now())
        _check(options, query)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    shape = _shape(options)
    with open_history(path()) as history:
        shown = _Shown(history.last_id())
        alerts = _alerts(history, query, options, shown)
        if options.since is None or options.number is not None:
            events: Iterable[screen.Event] = _last(history, query, alerts, options)
        else:
            entries = _entries(history, query, options)
            events = merge(entries, alerts, key=_when) if alerts else entries
        _print(shape.head())
        _print(map(shape.line, shown.passing(events)))
    if options.follow:
        # --since is of what was: what comes is shown, whatever became of the clock.
        with suppress(KeyboardInterrupt):
            _follow(replace(query, since=None), shape, options, shown)
    return OK


def _check(options: Namespace, query: Query) -> None:
    """Raises ValueError for words that do not go together."""
    unfit = recall.unfit_for_alerts(query)
    if options.alerts and unfit is not None:
        raise ValueError(f"--alerts: an alert has no {unfit}; it can be asked for by time, --remote address and --app")
    if options.number is not None and options.number > _NUMBER_MOST:
        raise ValueError(f"-n takes a number up to {_NUMBER_MOST:,}; --since shows any number of them")
    if options.follow and options.until is not None:
        raise ValueError("--follow has no end, --until is one; leave one of them out")


def _shape(options: Namespace) -> screen.Log:
    if options.json:
        return screen.JsonLog()
    if options.csv:
        return screen.CsvLog(screen.ALERT_KEYS if options.alerts else screen.ENTRY_KEYS)
    return screen.TextLog(services(), colour=colour())


@cache
def services() -> screen.Services:
    """What ports are called here."""
    from pfw.cli import rules
    from pfw.policy.services import Services

    return cache(Services(rules.services).name_of)


def _print(lines: Iterable[str]) -> None:
    """The first of many are there before the last is read."""
    left = iter(lines)
    while some := list(islice(left, _LINES_AT_ONCE)):
        sys.stdout.write("\n".join(some) + "\n")
        sys.stdout.flush()


def _when(event: screen.Event) -> float:
    return event.time if isinstance(event, Noticed) else event.start


def _entries(history: Reader, query: Query, options: Namespace, after: int | None = None) -> Iterator[screen.Event]:
    return iter(()) if options.alerts else history.entries(query, after=after)


def _alerts(history: Reader, query: Query, options: Namespace, shown: _Shown) -> list[screen.Event]:
    """Those that are wanted and new, in the order of time. A table of connections has no place for them."""
    if (options.csv and not options.alerts) or recall.unfit_for_alerts(query) is not None:
        return []
    shown.alert, found = history.alerts_after(shown.alert, query.since)
    return sorted((each for each in found if recall.takes_alert(query, each)), key=_when)


def _last(history: Reader, query: Query, alerts: list[screen.Event], options: Namespace) -> list[screen.Event]:
    """The last lines, and a word where there are more and nobody said how many."""
    most = _LAST if options.number is None else options.number
    found: list[screen.Event] = []
    if not options.alerts:
        found += history.entries(query, newest_first=True, limit=most + 1)
    events = sorted([*reversed(found), *alerts], key=_when)
    if len(events) > most and options.number is None:
        tell(f"these are the last {most}; --since 1d shows all of a day, -n N the last N")
    return events[len(events) - most :] if len(events) > most else events


class _Shown:
    """What was shown: nothing is shown twice, and nothing that comes is passed over. Up to which connection and which
    alert is told by their numbers, which grow where the clock is set back, too."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.alert = 0

    def passing(self, events: Iterable[screen.Event]) -> Iterator[screen.Event]:
        for event in events:
            if isinstance(event, Entry):
                self.newest = max(self.newest, event.id)
            yield event


def _follow(query: Query, shape: screen.Log, options: Namespace, shown: _Shown) -> None:
    """A line for each that comes, for as long as somebody reads."""
    while True:
        # A file that was put in the place of another is another inode, and another reader.
        with _opened() as history:
            known = _identity()
            while _identity() == known:
                _print(map(shape.line, shown.passing(_come(history, query, options, shown))))
                terminal.wait((), _FOLLOW_S)


def _opened() -> Reader:
    """The history, which may just be put aside for a new one. Raises HistoryError where it stays away."""
    until = time.monotonic() + _AWAY_S
    while True:
        try:
            return open_history(path())
        except HistoryError:
            if time.monotonic() >= until:
                raise
        terminal.wait((), _FOLLOW_S)


def _identity() -> tuple[int, int] | None:
    with suppress(FileNotFoundError):
        status = path().stat()
        return status.st_dev, status.st_ino
    return None


def _come(history: Reader, query: Query, options: Namespace, shown: _Shown) -> list[screen.Event]:
    """What has come since the last time."""
    newest = history.last_id()
    found: list[screen.Event] = []
    if newest > shown.newest:
        found += _entries(history, query, options, shown.newest)
        shown.newest = newest
    found += _alerts(history, query, options, shown)
    return sorted(found, key=_when)


@told
def stats(options: Namespace) -> int:
    """`pfw stats`."""
    from pfw.commands.summing import shown_stats

    try:
        query = recall.read_query(options, clock.now(), without_since_s=_STATS_S)
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    with open_history(path()) as history:
        return shown_stats(history, query, options, services())


@told
def first_seen(options: Namespace) -> int:
    """`pfw first-seen`."""
    wrong = [word for word in options.what if word not in NEW]
    try:
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not one of {', '.join(NEW)}")
        since = recall.read_since(options.since, clock.now())
    except ValueError as error:
        tell(str(error))
        return BAD_INPUT
    wanted = {f"{each}s" for each in New} if not options.what else set(options.what)
    with open_history(path()) as history:
        found = [each for each in history.first_seen(since, None) if f"{each.new}s" in wanted]
    found.sort(key=lambda each: each.time)
    if options.json:
        print(encode([screen.first_seen_facts(each) for each in found]))
    else:
        print("\n".join(screen.first_seen_lines(found, terminal.width())))
    return OK
