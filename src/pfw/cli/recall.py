"""Which part of the history is meant: the words of `pfw log` and `stats` as a query, and which alerts fit it. Pure."""

from __future__ import annotations

import re
from argparse import Namespace

from pfw.cli.history import protocol_number
from pfw.cli.times import moment_text, read_moment
from pfw.model.address import as_int, parse_range
from pfw.model.flow import Direction
from pfw.model.history import Noticed, Query
from pfw.record.history_query import program_pattern

_CLOCK = re.compile(r"[0-9:.]+Z?")
"""A time of day alone, of all that can be read as a moment."""
_DAY_S = 86400
_HOST = re.compile(r"(?=.*[a-z_])[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_HOST_LONGEST = 253
"""RFC 1035, 2.3.4, written with dots."""
_NOT_OF_ALERTS = ("name", "port", "protocol", "direction", "user", "blocked", "rule")
"""What an alert does not have."""


def read_query(options: Namespace, now: float, *, without_since_s: float | None = None) -> Query:
    """What is wanted of the history; without --since it may be the last so many seconds. Raises ValueError with the
    line that says which word is wrong, and why."""
    since, until = _read_span(options, now)
    if since is None and without_since_s is not None:
        since = min(now, now if until is None else until) - without_since_s
    ranges, name = _read_remote(options.remote)
    try:
        protocol = None if options.protocol is None else protocol_number(options.protocol)
    except ValueError as error:
        raise ValueError(f"--protocol {options.protocol!r} {error}") from None
    return Query(
        since=since,
        until=until,
        program=options.app,
        user=options.user,
        remotes=ranges,
        name=name,
        port=options.port,
        protocol=protocol,
        direction=None if options.direction is None else Direction(options.direction),
        blocked=options.blocked,
        rule=options.rule,
    )


def _read_span(options: Namespace, now: float) -> tuple[float | None, float | None]:
    since, until = read_since(options.since, now), _read("--until", options.until, now)
    if since is None or until is None:
        return since, until
    if until < since and _CLOCK.fullmatch(options.until):
        # The last one that has been is not what ends this: the first one behind its beginning is.
        until = read_moment(options.until, since + _DAY_S)
    if since >= until:
        raise ValueError(
            f"--since {options.since!r} ({moment_text(since)}) is not before"
            f" --until {options.until!r} ({moment_text(until)})"
        )
    return since, until


def read_since(text: str | None, now: float) -> float | None:
    """Raises ValueError as `read_query` does."""
    return _read("--since", text, now)


def _read(option: str, text: str | None, now: float) -> float | None:
    try:
        return None if text is None else read_moment(text, now)
    except ValueError as error:
        raise ValueError(f"{option} {text!r} {error}") from None


def _read_remote(text: str | None) -> tuple[tuple[tuple[int, int], ...], str | None]:
    """Ranges, or the name of a host."""
    if text is None:
        return (), None
    try:
        return (parse_range(text),), None
    except ValueError as error:
        name = _host_name(text)
        if name is None:
            raise ValueError(f"--remote {text!r} {error}; it takes a prefix, a range or a host's name, too") from None
        return (), name


def _host_name(text: str) -> str | None:
    name = text.lower().removeprefix("*").strip(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return None
    return name if len(name) <= _HOST_LONGEST and _HOST.fullmatch(name) else None


def unfit_for_alerts(query: Query) -> str | None:
    """What is asked for that no alert has; None where alerts can be found."""
    return next((name for name in _NOT_OF_ALERTS if getattr(query, name) is not None), None)


def takes_alert(query: Query, alert: Noticed) -> bool:
    """Whether an alert is among what is wanted: its time, either of its ends, its program."""
    if unfit_for_alerts(query) is not None:
        return False
    if (query.since is not None and alert.time < query.since) or (
        query.until is not None and alert.time >= query.until
    ):
        return False
    if query.program is not None and not (alert.program and program_pattern(query.program)(alert.program)):
        return False
    ends = [as_int(end) for end in (alert.source, alert.target) if end is not None and len(end) in (4, 16)]
    return not query.remotes or any(first <= end <= last for first, last in query.remotes for end in ends)
