"""A query as conditions of SQL, and which texts fit what a person wrote. Values are parameters, never part of it.

The conditions are on a row of `connection` or `folded`; those of the time differ, the others are the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from math import isfinite

from msgspec import Struct

from pfw.model.address import IPV4_LAST, as_int, from_int
from pfw.model.history import Query
from pfw.record.history_schema import ACTIONS, DAY_S, DIRECTIONS, HOUR_S, LATE_US, MICRO, STOPPED

PERIODS = (DAY_S, HOUR_S)
"""Of folded lines, the oldest first."""
_DEFAULTS = {"default": DIRECTIONS, "(default)": DIRECTIONS} | {f"default {each}": (each,) for each in DIRECTIONS}
"""The words that screens have for a default where a rule's name would stand."""
_FAR_US = 1 << 61
_RANGES_AS_SQL = 16
"""More ranges than these are looked up by a function of ours: SQLite's expressions are only so deep."""

Parameters = tuple[int | str | bytes, ...]
IdsOf = Callable[[Callable[[str], bool]], str]
"""The numbers of the texts that fit, as a JSON array."""

FunctionOf = Callable[[tuple[tuple[int, int], ...]], str]
"""The name of a function of SQL that tells whether an address is in these ranges."""


class Where(Struct, frozen=True):
    """A condition that stands behind WHERE, and its parameters."""

    sql: str
    parameters: Parameters = ()


def both(*parts: Where) -> Where:
    """All of them."""
    return Where(" AND ".join(part.sql for part in parts), sum((part.parameters for part in parts), ()))


def micros(time_s: float | None, otherwise: int) -> int:
    """Seconds as whole microseconds that SQLite can hold."""
    if time_s is None:
        return otherwise
    if not isfinite(time_s) or abs(time_s) > _FAR_US / MICRO:
        return _FAR_US if time_s > 0 else -_FAR_US
    return round(time_s * MICRO)


def span_of(query: Query) -> tuple[int, int]:
    """From when on and until when, that not included, in microseconds."""
    return micros(query.since, -_FAR_US), micros(query.until, _FAR_US)


def began_between(since: int, until: int, lowest_id: int, highest_id: int) -> Where:
    """Whole connections that began then; all of them have an id within these two."""
    return Where(
        "id BETWEEN ? AND ? AND id - late >= ? AND id - late < ?",
        (min(lowest_id, since), max(highest_id, min(until + LATE_US, _FAR_US)), since, until),
    )


def may_have_begun_between(since: int, until: int, period_s: int) -> Where:
    """Folded lines of a period in which one began then, as far as that can be told."""
    return Where(
        "period_s = ? AND start >= ? AND (start + last + 1) * 1000000 > ? AND (start + first) * 1000000 < ?",
        (period_s, since // MICRO - period_s, since, until),
    )


def of_subjects(query: Query, ids_of: IdsOf) -> list[Where]:
    """What the subject must be like."""
    parts = []
    if query.direction is not None:
        parts.append(Where("direction = ?", (DIRECTIONS.index(query.direction),)))
    if query.protocol is not None:
        parts.append(Where("protocol = ?", (query.protocol,)))
    if query.port is not None:
        parts.append(Where("port = ?", (query.port,)))
    if query.blocked is not None:
        actions = STOPPED if query.blocked else (ACTIONS.index(ACTIONS[0]),)
        parts.append(Where(f"action IN ({', '.join('?' * len(actions))})", actions))
    if query.program is not None:
        parts.append(_among("program", ids_of(program_pattern(query.program))))
    if query.rule is not None:
        parts.append(_rule(query.rule, ids_of))
    if query.user is not None:
        parts.append(_user(query.user, ids_of))
    if not parts:
        return []
    wanted = both(*parts)
    return [Where(f"subject IN (SELECT id FROM subject WHERE {wanted.sql})", wanted.parameters)]


def of_ends(query: Query, ids_of: IdsOf, function_of: FunctionOf) -> list[Where]:
    """What the other end must be like."""
    parts = []
    if query.remotes:
        parts.append(_remotes(query.remotes, function_of))
    if query.name is not None:
        parts.append(_among("name", ids_of(name_pattern(query.name))))
    return parts


def _among(column: str, ids: str) -> Where:
    return Where(f"{column} IN (SELECT value FROM json_each(?))", (ids,))


def _rule(rule: str, ids_of: IdsOf) -> Where:
    """A rule of that name, and the defaults that are called so, too."""
    by_name = _among("rule", ids_of(rule.__eq__))
    directions = tuple(DIRECTIONS.index(each) for each in _DEFAULTS.get(rule, ()))
    if not directions:
        return by_name
    default = f"rule = -1 AND direction IN ({', '.join('?' * len(directions))})"
    return Where(f"({by_name.sql} OR {default})", (*by_name.parameters, *directions))


def _user(user: str, ids_of: IdsOf) -> Where:
    by_name = _among("user", ids_of(user.__eq__))
    if user.isascii() and user.isdigit() and len(user) < 11:
        return Where(f"({by_name.sql} OR uid = ?)", (*by_name.parameters, int(user)))
    return by_name


def _remotes(ranges: tuple[tuple[int, int], ...], function_of: FunctionOf) -> Where:
    if len(ranges) > _RANGES_AS_SQL:
        return Where(f"{function_of(ranges)}(remote)")
    sql = " OR ".join(["length(remote) = ? AND remote BETWEEN ? AND ?"] * len(ranges))
    found: list[int | bytes] = []
    for first, last in ranges:
        found += (4 if first <= IPV4_LAST else 16, from_int(first), from_int(last))
    return Where(f"({sql})", tuple(found))


class InRanges:
    """Whether an address is in one of many ranges."""

    def __init__(self, ranges: tuple[tuple[int, int], ...]) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(ranges):
            if self._lasts and first <= self._lasts[-1]:
                self._lasts[-1] = max(last, self._lasts[-1])
            else:
                self._firsts.append(first)
                self._lasts.append(last)

    def __call__(self, remote: bytes) -> bool:
        if len(remote) not in (4, 16):
            return False
        number = as_int(remote)
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]


def program_pattern(wanted: str) -> Callable[[str], bool]:
    """`/usr/bin/curl` is that path, `curl` the last part of one; `*` stands for any text. Without a slash the last
    part is what is looked at."""
    parts = wanted.split("*")
    if "/" in wanted:
        return lambda path: fits(parts, path)
    return lambda path: fits(parts, path.rpartition("/")[2])


def fits(parts: list[str], text: str) -> bool:
    """Whether the text is these parts with anything between them; takes time in step with its length only."""
    if len(parts) == 1:
        return text == parts[0]
    if len(text) < len(parts[0]) + len(parts[-1]) or not text.startswith(parts[0]) or not text.endswith(parts[-1]):
        return False
    at, end = len(parts[0]), len(text) - len(parts[-1])
    for part in parts[1:-1]:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def name_pattern(wanted: str) -> Callable[[str], bool]:
    """A host's name, and every name below it."""
    whole = wanted.lower().strip(".")
    below = "." + whole
    return lambda name: name.lower() == whole or name.lower().endswith(below)
