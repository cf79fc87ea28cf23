from __future__ import annotations

import errno
import os
from collections.abc import Callable

from pfw.record.trouble import QUIET_S, RETRY_S, Trouble


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_series_is_told_once_and_its_end_with_the_loss(told: list[str], tell: Callable[[str], None]) -> None:
    trouble = Trouble("firewall.log", tell)
    trouble.fail(full(), 100, 10.0)
    assert trouble.failing
    assert trouble.waits(10.0 + RETRY_S / 2)
    trouble.lose(50)
    assert not trouble.waits(10.0 + RETRY_S)
    trouble.fail(full(), 100, 10.0 + RETRY_S)
    trouble.work()
    assert told == [
        "firewall.log: cannot write: No space left on device; what is lost is counted",
        "firewall.log: writing again, 3 lines were lost",
    ]
    assert (trouble.lost_lines, trouble.lost_bytes, trouble.recovered) == (3, 250, 1)
    assert trouble.reasons == {"No space left on device": 3}


def test_trouble_that_comes_and_goes_is_not_told_each_time(told: list[str], tell: Callable[[str], None]) -> None:
    trouble = Trouble("journal", tell)
    for second in range(30):
        trouble.fail(full(), 1, float(second))
        trouble.work()
    assert len(told) == 2
    trouble.fail(full(), 1, QUIET_S)
    assert len(told) == 3
    assert trouble.lost_lines == 31


def test_a_clock_that_jumps_back_does_not_stop_it_for_long(tell: Callable[[str], None]) -> None:
    trouble = Trouble("log", tell)
    trouble.fail(full(), 1, 4e9)
    assert not trouble.waits(1e9)
