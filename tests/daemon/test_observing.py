"""The daemon's end of the observer: when it is started again."""

from __future__ import annotations

import pytest

from pfw.daemon.observing import Begin, ObserverProcess
from pfw.record.recorder import Options


@pytest.mark.parametrize(("after_s", "starts"), [(0.5, 0), (1.5, 1), (-365 * 86_400.0, 1)])
def test_it_is_started_again_after_a_while_though_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch, after_s: float, starts: int
) -> None:
    now = 1.7e9
    monkeypatch.setattr("pfw.drivers.clock.now", lambda: now)
    one = ObserverProcess(Begin(None, Options()), lambda _: None, lambda _: None, lambda *_: None, lambda _: None)
    begun: list[int] = []
    monkeypatch.setattr(one, "start", lambda: begun.append(1))
    one.check(now)
    assert not begun, "nobody has started it"
    one._later("it has ended")
    one.check(now + after_s)
    assert len(begun) == starts
