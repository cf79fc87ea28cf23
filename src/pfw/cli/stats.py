"""The traffic of the past summed up: tables by program, remote end and so on, and a chart of time. Pure; times local on
screen, UTC in JSON. Programs, rules and names are escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import localtime, strftime

from msgspec import Struct

from pfw.cli.charts import Bar, Style, chart, legend
from pfw.cli.history import Services, address_text
from pfw.cli.report import size_text
from pfw.cli.screen import utc_time
from pfw.cli.table import Column, table
from pfw.cli.times import moment_text, span_text
from pfw.model.address import AddressSet
from pfw.model.history import By, Total, Traffic
from pfw.model.text import counted, printable

COUNTRY = "country"
LOCAL = "local"
"""In place of a country for addresses that are nobody's in particular."""
_CHART_COLUMNS = 80
"""Where there is no terminal whose width could be asked for."""
_HOUR_S, _DAY_S = 3600, 86400
_HOURS_SHOWN, _DAYS_SHOWN = 48, 62
"""Beyond that many bars days, and then weeks, are drawn instead."""
_WEEKS_MOST = 105
"""A clock that was wrong may have dated some into another age."""
_PLURALS = {"program": "programs", "remote": "remotes", "rule": "rules", COUNTRY: "countries", "hour": "hours"}


class Page(Struct, frozen=True, kw_only=True):
    """All that `pfw stats` tells without --by. `tables` are by what their keys are."""

    since: float
    until: float
    hours: Sequence[Total]
    tables: Mapping[str, Sequence[Total]]


def summed(totals: Iterable[Total]) -> Total | None:
    """All of them as one; None where there are none."""
    found = list(totals)
    if not found:
        return None
    traffic = [each.traffic for each in found]
    return Total(
        key=None,
        count=sum(each.count for each in found),
        blocked=sum(each.blocked for each in found),
        traffic=Traffic(
            sum(each.sent_bytes for each in traffic),
            sum(each.sent_packets for each in traffic),
            sum(each.received_bytes for each in traffic),
            sum(each.received_packets for each in traffic),
        ),
        first=min(each.first for each in found),
        last=max(each.last for each in found),
    )


def by_country(remotes: Iterable[Total], countries: Mapping[bytes, str | None], most: int) -> list[Total]:
    """Totals by remote end as totals by country, the biggest first."""
    groups: dict[str | None, list[Total]] = {}
    for each in remotes:
        if isinstance(each.key, bytes):
            groups.setdefault(countries.get(each.key), []).append(each)
    found = [Total(key, one.count, one.blocked, one.traffic, one.first, one.last)
             for key, group in groups.items() if (one := summed(group))]  # fmt: skip
    return sorted(found, key=lambda each: (-each.count, str(each.key)))[:most]


def nobodys() -> AddressSet:
    """The addresses that are in no country."""
    from pfw.model.address import parse_range
    from pfw.policy.addresses import BUILT_IN_ALIASES

    more = ("0.0.0.0/8", "100.64.0.0/10", "255.255.255.255", "::")
    ranges = [parse_range(text) for texts in (*BUILT_IN_ALIASES.values(), more) for text in texts]
    return AddressSet(ranges)


def row_facts(by: str, total: Total) -> dict[str, object]:
    """A row as JSON shows it: the key under the name of what it is by."""
    return {by: _key_fact(by, total.key), **_sum_facts(total)}


def _sum_facts(total: Total) -> dict[str, object]:
    return {
        "connections": total.count,
        "blocked": total.blocked,
        "sent_bytes": total.traffic.sent_bytes,
        "sent_packets": total.traffic.sent_packets,
        "received_bytes": total.traffic.received_bytes,
        "received_packets": total.traffic.received_packets,
        "first": utc_time(total.first),
        "last": utc_time(total.last),
    }


def _key_fact(by: str, key: str | bytes | int | None) -> object:
    if isinstance(key, bytes):
        return address_text(key) if key else None
    if by == By.HOUR and isinstance(key, int):
        return utc_time(key)
    return printable(key) if isinstance(key, str) else key


def page_facts(page: Page) -> dict[str, object]:
    whole = summed(page.hours) or Total(None, 0, 0, Traffic(), 0.0, 0.0)
    sums = _sum_facts(whole)
    if not whole.count:
        sums |= {"first": None, "last": None}
    tables = {**page.tables, By.HOUR: page.hours}
    return {
        "since": utc_time(page.since),
        "until": utc_time(page.until),
        **sums,
        **{_PLURALS[by]: [row_facts(by, each) for each in totals] for by, totals in tables.items()},
    }


def table_lines(by: str, totals: Sequence[Total], width: int | None, services: Services) -> list[str]:
    heads = [
        Column(by, 16), Column("connections", right=True), Column("blocked", right=True), Column("sent", right=True),
        Column("received", right=True), Column("last", 10),
    ]  # fmt: skip
    rows = [
        [
            _key_text(by, each.key, services),
            f"{each.count:,}",
            f"{each.blocked:,}",
            size_text(each.traffic.sent_bytes),
            size_text(each.traffic.received_bytes),
            moment_text(each.last),
        ]
        for each in totals
    ]
    return table(heads, rows, width) if rows else ["no connection that is like this"]


def _key_text(by: str, key: str | bytes | int | None, services: Services) -> str:
    if key is None:
        return "(default)" if by == By.RULE else "-"
    if isinstance(key, bytes):
        return address_text(key)
    if isinstance(key, str):
        return printable(key)
    if by == By.HOUR:
        return moment_text(key)
    name = services(key) if by == By.PORT else None
    return f"{key} ({printable(name)})" if name else str(key)


def page_lines(page: Page, width: int | None, style: Style, services: Services) -> list[str]:
    """The span, the sums, a table each, and the chart."""
    whole = summed(page.hours)
    span = f"{moment_text(page.since)} to {moment_text(page.until)} ({span_text(page.until - page.since)})"
    if whole is None:
        return [span, "no connection that is like this"]
    passed, traffic = whole.count - whole.blocked, whole.traffic
    lines = [
        span,
        f"{counted(whole.count, 'connection')}: {passed:,} allowed, {whole.blocked:,} blocked "
        f"({whole.blocked / max(1, whole.count):.1%}); "
        f"{size_text(traffic.sent_bytes)} sent, {size_text(traffic.received_bytes)} received",
    ]
    for by, totals in page.tables.items():
        lines += ["", *table_lines(by, totals, width, services)]
    return [*lines, "", legend(style), *chart(bars(page.hours, page.until), width or _CHART_COLUMNS, style)]


def chart_lines(hours: Sequence[Total], until: float, width: int | None, style: Style) -> list[str]:
    """The chart alone."""
    if not hours:
        return ["no connection that is like this"]
    return [legend(style), *chart(bars(hours, until), width or _CHART_COLUMNS, style)]


def bars(hours: Sequence[Total], until: float) -> list[Bar]:
    """A bar an hour, a day or a week, from the first with a connection on; those without one have a place, too."""
    last = int(until) - 1
    earliest = last - _WEEKS_MOST * 7 * _DAY_S
    known = [(each.key, each) for each in hours if isinstance(each.key, int) and earliest <= each.key <= last]
    if not known:
        return []
    first = min(key for key, _ in known)
    span = last - first
    unit = "hour" if span < _HOURS_SHOWN * _HOUR_S else "day" if span < _DAYS_SHOWN * _DAY_S else "week"
    # Half days, so that none is passed over where the clock is changed.
    step = _HOUR_S if unit == "hour" else _DAY_S // 2
    places = (*range(first, last, step), last - span % _HOUR_S)
    found = {_title(at, unit): [0, 0] for at in places}
    for key, each in known:
        slot = found.setdefault(_title(key, unit), [0, 0])
        slot[0] += each.count - each.blocked
        slot[1] += each.blocked
    return [Bar(title, passed, stopped, f"{passed + stopped:,}") for title, (passed, stopped) in found.items()]


def _title(at: int, unit: str) -> str:
    from datetime import date, timedelta

    there = localtime(at)
    if unit == "hour":
        return strftime("%Y-%m-%d %H:%M", there)
    day = date(there.tm_year, there.tm_mon, there.tm_mday)
    return f"week of {day - timedelta(days=there.tm_wday)}" if unit == "week" else str(day)
