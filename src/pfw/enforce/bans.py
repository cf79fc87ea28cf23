"""Bans: what may never be banned, and prefixes that lie within each other as stretches that do not."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import pairwise
from math import inf

from pfw.enforce.nft_table import Ban
from pfw.model.address import AddressSet, Range, format_range


def flattened(bans: Iterable[Ban]) -> list[Ban]:
    """The same bans without overlaps, sorted: an address that several hold stays banned as long as any of them."""
    begins = sorted(bans, key=lambda ban: ban.range[0])
    borders = sorted({border for ban in begins for border in (ban.range[0], ban.range[1] + 1)})
    found: list[Ban] = []
    # The longest first: time left (for good before all), where it ends, and which it is.
    holding: list[tuple[float, int, int]] = []
    at, holder = 0, -1
    for border, following in pairwise(borders):
        while at < len(begins) and begins[at].range[0] <= border:
            left_s = begins[at].left_s
            heappush(holding, (-(inf if left_s is None else left_s), begins[at].range[1], at))
            at += 1
        while holding and holding[0][1] < border:
            heappop(holding)
        if not holding:
            holder = -1
            continue
        left = begins[holding[0][2]].left_s
        if holding[0][2] == holder:
            found[-1] = Ban((found[-1].range[0], following - 1), left)
        else:
            found.append(Ban((border, following - 1), left))
        holder = holding[0][2]
    return found


def protected(wanted: Range, kept: Iterable[tuple[str, AddressSet]]) -> str | None:
    """Why a range must not be banned: whose addresses are in it. None where nothing speaks against it."""
    own = AddressSet([wanted])
    for whose, addresses in kept:
        left = own.without(addresses)
        if left != own:
            hit = own.without(left)
            return f"{format_range(*hit.ranges[0])} is {whose}"
    return None
