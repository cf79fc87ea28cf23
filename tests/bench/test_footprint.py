from __future__ import annotations

import os
import sys

import pytest

from footprint import Measured, resident
from processes import BenchError


def test_memory_of_a_command_and_of_what_it_started():
    grown = "import time; kept = bytearray(60_000_000); time.sleep(0.3)"
    starts = f"import subprocess, sys; kept = bytearray(30_000_000); subprocess.run([sys.executable, '-c', {grown!r}])"
    measured = Measured("two")
    measured.run([sys.executable, "-c", starts])
    assert 90 < measured.peak_mb[0] < 200
    assert measured.wall_s[0] > 0.3


def test_what_fails_is_told_and_not_measured():
    measured = Measured("fails")
    with pytest.raises(BenchError, match="ended with status 3"):
        measured.run([sys.executable, "-c", "raise SystemExit(3)"])
    assert measured.wall_s == []


def test_patience_ends():
    with pytest.raises(TimeoutError, match="sleeps: more than 0 s"):
        Measured("sleeps").run(["sleep", "30"], patience_s=0.1)


def test_who_is_gone_has_no_memory():
    assert resident(os.getpid()) > 1_000_000
    assert resident(2**22 + 1) == 0
