"""How long whoever repairs waits, where somebody undoes each repair. What is repaired is in tests/netns/."""

from __future__ import annotations

import time

from pfw.daemon.loop import Loop
from pfw.daemon.restoring import Patience


def test_the_first_is_at_once():
    assert Patience().wait_s(1000.0) == 0


def test_once_a_second_ten_times_then_once_a_minute():
    patience = Patience()
    now = 1000.0
    for _ in range(10):
        assert not patience.is_out
        now += patience.wait_s(now)
        patience.repaired(now)
    assert now == 1009.0
    assert patience.is_out
    for _ in range(3):
        assert patience.wait_s(now) == 60.0
        assert patience.wait_s(now + 20.0) == 40.0
        now += 60.0
        assert patience.wait_s(now) == 0.0
        patience.repaired(now)


def test_it_is_forgiven_after_ten_quiet_minutes():
    patience = Patience()
    for number in range(12):
        patience.repaired(float(number))
    assert patience.wait_s(11.0 + 600.0) == 0.0
    assert patience.is_out
    assert patience.wait_s(11.0 + 601.0) == 0.0
    assert not patience.is_out


def test_seldom_is_never_too_often():
    patience = Patience()
    for number in range(30):
        now = 1000.0 + 900.0 * number
        assert patience.wait_s(now) == 0.0
        patience.repaired(now)
        assert not patience.is_out


def test_a_loop_calls_once_after_a_time():
    failed: list[Exception] = []
    loop = Loop(failed.append)
    called: list[float] = []
    begin = time.monotonic()
    loop.after(0.05, lambda: called.append(time.monotonic() - begin))
    loop.after(0.15, loop.stop)
    loop.run(lambda: None, lambda: None)
    loop.close()
    assert not failed
    assert len(called) == 1
    assert called[0] >= 0.05
