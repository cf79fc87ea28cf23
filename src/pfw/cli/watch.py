"""The screens of `monitor` and `replay`: which one is wanted, the summary, the report."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping

from pfw.cli import report
from pfw.cli.screen import JsonScreen, NoScreen, Screen, TextScreen, encode
from pfw.engine.totals import Totals
from pfw.model.address import AddressSet, parse_range

Rows = dict[str, list[tuple[str, int]]]

_TITLES = {
    "peers_blocked": "top blocked peers (connections)",
    "ports_blocked": "top blocked ports (connections)",
    "peers_allowed": "top allowed peers (connections)",
    "ports_allowed": "top allowed ports (connections)",
}


def addresses(texts: list[str] | None) -> AddressSet | None:
    """What `--local` says, None where it was not given. Raises ValueError with a line for the person."""
    if texts is None:
        return None
    ranges = []
    for text in texts:
        try:
            ranges.append(parse_range(text))
        except ValueError as error:
            raise ValueError(f"--local {text!r} {error}") from None
    return AddressSet(ranges)


def screen(options: Namespace) -> Screen:
    """The screen that the command line of `monitor` asks for."""
    if options.quiet:
        return NoScreen()
    if options.json:
        return JsonScreen()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return TextScreen(colour=colour, verbose=options.verbose, every_packet=options.every_packet)


def summary(options: Namespace, totals: Totals, losses: Mapping[str, int], duration_s: float) -> list[str]:
    """How a watch went."""
    if options.json:
        facts = {**report.totals_facts(totals), "lost": dict(losses), "seconds": round(duration_s, 3)}
        return [encode({"event": "summary", **facts})]
    lines = report.totals_lines(totals)
    lines[0] = f"{lines[0]}, in {duration_s:.1f} s"
    lines[2:2] = report.losses_lines(losses)
    return ["", *lines]


def replay_report(
    options: Namespace, totals: Totals, tops: Rows, losses: Mapping[str, int], duration_s: float
) -> list[str]:
    """What a policy would have done."""
    rate = round(totals.packets / duration_s) if duration_s > 0 else 0
    if options.json:
        named = {name: [{"name": each, "connections": count} for each, count in rows] for name, rows in tops.items()}
        facts = {**report.totals_facts(totals), "seconds": round(duration_s, 4), "packets_per_s": rate}
        return [encode({**facts, "lost": dict(losses), "top": named})]
    lines = report.totals_lines(totals)
    lines[2:2] = report.losses_lines(losses)
    for name, title in _TITLES.items():
        lines += report.top_lines(title, tops[name])
    return [*lines, "", f"{totals.packets:,} packets in {duration_s:.2f} s ({rate:,} packets/s)"]
