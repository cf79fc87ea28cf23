"""What of all alerts is told, and when."""

from __future__ import annotations

from pfw.engine.detect.detection import AGAIN_S, FOLDED_MAX, Detection
from pfw.model.observation import Alert, Began, Kind
from pfw.model.packet import TCP

SOURCE, TARGET = bytes((203, 0, 113, 9)), bytes((192, 0, 2, 1))


class Repeater:
    """Says what it was given, one alert an observation."""

    wants: tuple[type, ...] = (Began,)
    refused = 0

    def __init__(self, *alerts: Alert) -> None:
        self._alerts = iter(alerts)

    def observe(self, _seen):
        return [next(self._alerts)]

    def end(self, _now):
        return ()


def alert(time: float = 1.0, **fields) -> Alert:
    given = {"kind": Kind.SWEEP, "source": SOURCE, "target": TARGET, "score": 60, "evidence": f"at {time}"} | fields
    return Alert(first=time, last=time, **given)


def told(*alerts: Alert) -> tuple[list[list[Alert]], list[Alert], Detection]:
    quiet: list[Alert] = []
    detection = Detection([Repeater(*alerts)], quiet.append)
    seen = [detection.observe(Began(each.last, TCP, SOURCE, TARGET, 1, 2)) for each in alerts]
    return seen, quiet, detection


def test_the_first_the_tenth_and_the_hundredth_are_told():
    seen, quiet, detection = told(*(alert(1.0 + n / 10) for n in range(250)))
    assert [number + 1 for number, each in enumerate(seen) if each] == [1, 10, 100]
    assert len(quiet) == 247
    (folded,) = detection.alerts
    assert (folded.first, folded.last, folded.evidence) == (1.0, 25.9, "at 25.9")


def test_what_becomes_graver_is_told():
    scores = [40, 45, 55, 60, 85, 90]
    seen, _, _ = told(*(alert(1.0 + n, score=score) for n, score in enumerate(scores)))
    assert [each[0].score for each in seen if each] == [40, 55, 85]
    bans = [(), (), (SOURCE,), (SOURCE,), (TARGET,)]
    seen, _, detection = told(*(alert(1.0 + n, ban=ban) for n, ban in enumerate(bans)))
    assert [each[0].ban for each in seen if each] == [(), (SOURCE,), (SOURCE, TARGET)]
    assert detection.alerts[0].ban == (SOURCE, TARGET)


def test_other_sources_programs_and_things_are_other_alerts():
    others = [
        alert(), alert(source=TARGET), alert(kind=Kind.BEACON),
        alert(program="/usr/bin/a"), alert(program="/usr/bin/b"),
        alert(about="tcp 0.0.0.0:80"), alert(source=None), alert(source=None, target=None),
    ]  # fmt: skip
    seen, quiet, detection = told(*others, *others)
    assert [len(each) for each in seen] == [1] * 8 + [0] * 8
    assert (len(quiet), len(detection.alerts)) == (8, 8)


def test_after_a_long_pause_it_is_another_occasion():
    seen, _, _ = told(alert(1.0), alert(2.0), alert(2.0 + AGAIN_S), alert(4.0 + 2 * AGAIN_S))
    assert [len(each) for each in seen] == [1, 0, 0, 1]


def test_the_target_is_many_where_it_differs():
    _, _, detection = told(alert(), alert(target=SOURCE))
    assert detection.alerts[0].target is None


def test_what_is_folded_is_bounded():
    _, _, detection = told(*(alert(source=number.to_bytes(4)) for number in range(FOLDED_MAX + 10)))
    assert len(detection.alerts) == len(detection._counts) == FOLDED_MAX


def test_a_clock_that_is_set_back_ends_nothing():
    """It is told of what comes, once, and detectors are asked what follows from nothing having come."""
    asked: list[float] = []

    class Asked(Repeater):
        def end(self, now):
            asked.append(now)
            return ()

    year = 365 * 86_400.0
    seen, _, _ = told(*(alert(each) for each in (year, 1.0, 2.0, 3.0)))
    assert [len(each) for each in seen] == [1, 1, 0, 0]
    detection = Detection([Asked()], period_s=5.0)
    for now in (year, year + 6.0, 10.0, 11.0, 12.0, 16.0):
        detection.due(now)
    assert asked == [year + 6.0, 10.0, 16.0]
