from __future__ import annotations

import sys

import pytest

from processes import BenchError, Running, run


def test_what_a_process_says_and_costs():
    finished = run([sys.executable, "-c", "print('out'); sum(range(10**6)); import sys; print('err', file=sys.stderr)"])
    assert (finished.status, finished.output, finished.errors) == (0, "out\n", "err\n")
    assert finished.cpu_s > 0
    assert finished.wall_s > 0


def test_a_failure_is_told_with_its_last_line():
    with pytest.raises(BenchError, match="ended with status 3: why it failed"):
        run([sys.executable, "-c", "import sys; print('much'); sys.exit(print('why it failed', file=sys.stderr) or 3)"])


def test_interrupt_is_what_ctrl_c_does():
    running = Running(["cat", "/dev/zero"], keep_output=False)
    try:
        assert not running.has_ended
        assert running.interrupt().status == -2
    finally:
        running.kill()
