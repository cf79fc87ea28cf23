"""What `pfw stats` does: the history's totals as a page, or as one table."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Timer

from pfw.cli import stats as screen
from pfw.cli.ask import OK, REFUSED, tell
from pfw.cli.charts import Style
from pfw.cli.history import Services
from pfw.cli.screen import encode
from pfw.commands.calling import colour
from pfw.drivers import clock, geoip, terminal
from pfw.model.history import By, Query, Total
from pfw.record.history_read import Reader

_PATIENCE_S = 1.0
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
_TABLES = (By.PROGRAM, By.REMOTE, By.RULE)


def shown_stats(history: Reader, query: Query, options: Namespace, services: Services) -> int:
    """The exit status; where countries are asked for and cannot be told, it says why."""
    try:
        with _patience():
            lines = (_page if options.by is None else _table)(history, query, options, services)
    except geoip.GeoipError as error:
        tell(str(error))
        return REFUSED
    print("\n".join(lines))
    return OK


@contextmanager
def _patience() -> Iterator[None]:
    """What takes longer than a second says so, on a terminal, until it is done."""
    said = Event()

    def say() -> None:
        said.set()
        sys.stderr.write("summing up the history …")
        sys.stderr.flush()

    if not sys.stderr.isatty():
        yield
        return
    timer = Timer(_PATIENCE_S, say)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if said.is_set():
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _page(history: Reader, query: Query, options: Namespace, services: Services) -> list[str]:
    until = clock.now() if query.until is None else query.until
    limits: dict[By, int | None] = dict.fromkeys(_TABLES, options.number) | {By.HOUR: None}
    database = _database(options)
    if database is not None:
        limits[By.REMOTE] = None  # countries are made of all of them
    found = history.tables(query, limits)
    tables: dict[str, list[Total]] = {by: found[by][: options.number] for by in _TABLES}
    countries = None if database is None else _countries_if_any(found[By.REMOTE], database, options)
    if countries is not None:
        tables[screen.COUNTRY] = countries
    page = screen.Page(since=query.since or _first(history), until=until, hours=found[By.HOUR], tables=tables)
    if options.json:
        return [encode(screen.page_facts(page))]
    return screen.page_lines(page, terminal.width(), style(), services)


def _first(history: Reader) -> float:
    """From when on there is a history."""
    span = history.span()
    return clock.now() if span is None else span[0]


def _table(history: Reader, query: Query, options: Namespace, services: Services) -> list[str]:
    if options.by == screen.COUNTRY:
        database = _database(options)
        if database is None:
            raise geoip.GeoipError(geoip.NO_DATABASE)
        totals = _by_country(history.totals(query, By.REMOTE), database, options.number)
    else:
        # Hours are in the order of time: the first of them would be the oldest.
        totals = history.totals(query, By(options.by), limit=None if options.by == By.HOUR else options.number)
    if options.json:
        return [encode([screen.row_facts(options.by, each) for each in totals])]
    if options.by == By.HOUR:
        until = clock.now() if query.until is None else query.until
        return screen.chart_lines(totals, until, terminal.width(), style())
    return screen.table_lines(options.by, totals, terminal.width(), services)


def _database(options: Namespace) -> Path | None:
    return Path(options.geoip) if options.geoip else geoip.found()


def _countries_if_any(remotes: list[Total], database: Path, options: Namespace) -> list[Total] | None:
    """Without --geoip nobody has asked for them: what is missing is not told."""
    try:
        return _by_country(remotes, database, options.number)
    except geoip.GeoipError:
        if options.geoip:
            raise
        return None


def _by_country(remotes: list[Total], database: Path, most: int) -> list[Total]:
    nobodys = screen.nobodys()
    local = [each.key for each in remotes if isinstance(each.key, bytes) and each.key and each.key in nobodys]
    known: dict[bytes, str | None] = dict.fromkeys(local, screen.LOCAL)
    others = [each.key for each in remotes if isinstance(each.key, bytes) and each.key not in known]
    return screen.by_country(remotes, geoip.countries(database, others) | known, most)


def style() -> Style:
    """What standard output can show."""
    if not _is_unicode():
        return Style.ASCII
    return Style.COLOUR if colour() else Style.SHADES


def _is_unicode() -> bool:
    """Whether the locale's characters are those of Unicode."""
    values = {name: os.environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")}
    if sys.flags.utf8_mode and values["LC_CTYPE"] in _COERCED:
        # Where the locale is C, Python writes UTF-8 all the same, and says so in a variable (PEP 538, PEP 540).
        values["LC_CTYPE"] = None
    locale = next(filter(None, values.values()), "C")
    return _is_utf8(locale.rpartition(".")[2]) and _is_utf8(sys.stdout.encoding)


def _is_utf8(name: str) -> bool:
    return name.lower().partition("@")[0].replace("-", "") == "utf8"
