"""All detectors at work: who is told what, and one alert a source, kind and program with growing silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from pfw.engine.detect.detector import Detector
from pfw.model.observation import Alert, Kind, Observation

FOLDED_MAX = 10_000
"""Sources and kinds that were told of; further ones are told of each time, but the oldest makes room."""
AGAIN_S = 3600.0
"""What begins again after an hour is another occasion."""
PERIOD_S = 60.0
_FAR = 10
_SILENCE_FACTOR = 10
_MARKS = (50, 80)
"""Worth a look, and almost certainly so: what is done about an alert depends on it."""

_Name = tuple[Kind, bytes | None, bytes | None, str | None, str | None]


class Detection:
    """Give it observations in the order of time. `alerts` holds the latest state of each alert; `observe` returns those
    that are to be told now: the first of its source and kind, then the tenth, the hundredth …, the first again after
    AGAIN_S without any, and one by which it becomes grave, or by which somebody more could be banned. `quiet` gets
    those that are not told. Every `period_s` detectors are asked what follows from nothing more having come."""

    def __init__(
        self,
        detectors: Sequence[Detector],
        quiet: Callable[[Alert], None] | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._detectors = detectors
        self._period_s = period_s
        self._quiet = quiet
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
        told = self.due(seen.time) if seen.time >= self._next_period else []
        for observe in self._by_type.get(type(seen), ()):
            for alert in observe(seen):
                told += self._fold(alert)
        return told

    def due(self, now: float) -> list[Alert]:
        """What follows from a while having passed, where it has; for when nothing is observed."""
        # Where it is far away, the clock was set back.
        if 0 < self._next_period - now <= _FAR * self._period_s:
            return []
        began, self._next_period = self._next_period, now + self._period_s
        return self.end(now) if began else []

    def end(self, now: float) -> list[Alert]:
        """Nothing more comes, or a while has passed."""
        return [told for each in self._detectors for alert in each.end(now) for told in self._fold(alert)]

    def _fold(self, alert: Alert) -> list[Alert]:
        target = None if alert.source is not None else alert.target
        name = alert.kind, alert.source, target, alert.program, alert.about
        before = self._alerts.pop(name, None)
        if before is not None and alert.last < before.last - AGAIN_S:
            before = None  # the clock was set back
        self._alerts[name] = alert if before is None else _joined(before, alert)
        if before is None or alert.last - before.last > AGAIN_S:
            self._counts[name] = 0
        else:
            alert = self._alerts[name]
        count = self._counts[name] = self._counts[name] + 1
        if len(self._alerts) > FOLDED_MAX:
            oldest = next(iter(self._alerts))
            del self._alerts[oldest], self._counts[oldest]
        if _is_power(count) or (before is not None and _is_graver(before, alert)):
            return [alert]
        if self._quiet is not None:
            self._quiet(alert)
        return []


def _is_power(count: int) -> bool:
    while count % _SILENCE_FACTOR == 0:
        count //= _SILENCE_FACTOR
    return count == 1


def _is_graver(before: Alert, after: Alert) -> bool:
    return len(after.ban) > len(before.ban) or any(before.score < mark <= after.score for mark in _MARKS)


def _joined(before: Alert, after: Alert) -> Alert:
    """The later evidence counts, unless it weighs less; whom it is about is many if they differ."""
    stronger = after if after.score >= before.score else before
    return replace(
        stronger,
        first=min(before.first, after.first),
        last=max(before.last, after.last),
        target=before.target if before.target == after.target else None,
        ban=tuple(dict.fromkeys((*before.ban, *after.ban))),
        by_reset=all(each.by_reset for each in (before, after) if each.ban) and bool(before.ban or after.ban),
    )
