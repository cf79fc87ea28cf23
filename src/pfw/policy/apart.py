"""What a policy can tell apart: addresses, source ports and times between two borders of its rules are one to it.

So one decision holds for all connections that differ in nothing else. Everything is a place on a line: the number of
borders that are not behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

from pfw.model.address import IPV6_FIRST, as_int
from pfw.model.flow import Moment
from pfw.model.policy import Policy
from pfw.model.rule import MINUTES_A_DAY, MINUTES_A_WEEK, Rule
from pfw.policy.base import rules_in_order
from pfw.policy.match import minute_of_week

PHASES_MAX = 64
"""Times of the week that are looked at for one question."""

_LOOPBACK = (as_int(b"\x7f\0\0\0"), as_int(b"\x80\0\0\0"), IPV6_FIRST, IPV6_FIRST + 1, IPV6_FIRST + 2)
"""Where what counts as loopback begins and ends (`base.interface_of`), and the second family."""


class Apart:
    """For one policy, of which expiries are not looked at. `utc_offset_s` is the local clock's distance from UTC."""

    def __init__(self, policy: Policy, utc_offset_s: Callable[[float], int]) -> None:
        rules = [rule for _, rule in rules_in_order(policy)]
        self._utc_offset_s = utc_offset_s
        self._addresses = _addresses(rules)
        ranges = (each for rule in rules for each in rule.source_ports or ())
        self._ports = sorted({border for first, last in ranges for border in (first, last + 1)})
        windows = (each for rule in policy.rules if rule.enabled and rule.schedule for each in rule.schedule.windows)
        self._minutes = sorted({minute % MINUTES_A_WEEK for window in windows for minute in window})

    def address(self, packed: bytes) -> int:
        """-1 for what is none."""
        return bisect_right(self._addresses, as_int(packed)) if len(packed) in (4, 16) else -1

    def port(self, number: int | None) -> int:
        """-1 for one that is not known."""
        return -1 if number is None else bisect_right(self._ports, number)

    def phases(self, first: float, last: float) -> tuple[int, ...]:
        """The phases of the week that there are between two times; none where they are too many."""
        if not self._minutes:
            return (0,)
        # Where the clock is changed in between, all that it can have shown.
        offsets = self._utc_offset_s(first), self._utc_offset_s(max(first, last))
        begin = minute_of_week(Moment(first, min(offsets)))
        found: tuple[int, ...] = (bisect_right(self._minutes, begin),)
        minutes = int((last + max(offsets)) // 60) - int((first + min(offsets)) // 60)
        if minutes <= 0:
            return found
        length = min(minutes, MINUTES_A_WEEK)
        found += tuple(
            place + 1
            for place, minute in enumerate(self._minutes)
            if 0 < (minute - begin) % MINUTES_A_WEEK <= length and place + 1 != found[0]
        )
        return found if len(found) <= PHASES_MAX else ()

    def moment(self, phase: int) -> Moment:
        """A moment of this phase; 1970 began on a Thursday."""
        minute = self._minutes[phase - 1] if phase else 0
        return Moment((minute - 3 * MINUTES_A_DAY) % MINUTES_A_WEEK * 60.0)


def _addresses(rules: Iterable[Rule]) -> list[int]:
    found = [*_LOOPBACK]
    for rule in rules:
        for wanted in (rule.source, rule.destination, rule.remote):
            if wanted is not None:
                found += wanted.firsts
                found += [last + 1 for last in wanted.lasts]
    return sorted(found)
