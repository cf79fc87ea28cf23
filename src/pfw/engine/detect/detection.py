"""All detectors at work: who is told what, and one alert a source and kind with growing silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from pfw.engine.detect.detector import Detector
from pfw.model.observation import Alert, Kind, Observation

FOLDED_MAX = 10_000
"""Sources and kinds that were told of; further ones are told of each time, but the oldest makes room."""
_PERIOD_S = 60.0
_SILENCE_FACTOR = 10

_Name = tuple[Kind, bytes | None, bytes | None]


class Detection:
    """Give it observations in the order of time. `alerts` holds the latest state of each alert; `observe` returns those
    that are to be told now: the first of its source and kind, then the tenth, the hundredth …"""

    def __init__(self, detectors: Sequence[Detector]) -> None:
        self._detectors = detectors
        self._by_type: dict[type, list[Callable[[Observation], Iterable[Alert]]]] = {}
        for each in detectors:
            for kind in each.wants:
                self._by_type.setdefault(kind, []).append(each.observe)
        self._alerts: dict[_Name, Alert] = {}
        self._counts: dict[_Name, int] = {}
        self._next_period = 0.0

    @property
    def alerts(self) -> list[Alert]:
        """By time of the first evidence."""
        return sorted(self._alerts.values(), key=lambda each: (each.first, each.kind, each.source or b""))

    @property
    def refused(self) -> int:
        return sum(each.refused for each in self._detectors)

    def observe(self, seen: Observation) -> list[Alert]:
        told: list[Alert] = []
        if seen.time >= self._next_period:
            if self._next_period:
                told += self.end(seen.time)
            self._next_period = seen.time + _PERIOD_S
        for observe in self._by_type.get(type(seen), ()):
            for alert in observe(seen):
                told += self._fold(alert)
        return told

    def end(self, now: float) -> list[Alert]:
        """Nothing more comes, or a while has passed."""
        return [told for each in self._detectors for alert in each.end(now) for told in self._fold(alert)]

    def _fold(self, alert: Alert) -> list[Alert]:
        name = alert.kind, alert.source, None if alert.source is not None else alert.target
        before = self._alerts.pop(name, None)
        if before is not None:
            alert = _joined(before, alert)
        self._alerts[name] = alert
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if len(self._alerts) > FOLDED_MAX:
            oldest = next(iter(self._alerts))
            del self._alerts[oldest], self._counts[oldest]
        return [alert] if _is_power(count) else []


def _is_power(count: int) -> bool:
    while count % _SILENCE_FACTOR == 0:
        count //= _SILENCE_FACTOR
    return count == 1


def _joined(before: Alert, after: Alert) -> Alert:
    """The later evidence counts, unless it weighs less; whom it is about is many if they differ."""
    stronger = after if after.score >= before.score else before
    return replace(
        stronger,
        first=min(before.first, after.first),
        last=max(before.last, after.last),
        target=before.target if before.target == after.target else None,
        ban=tuple(dict.fromkeys((*before.ban, *after.ban))),
    )
