"""The policies that are rehearsed are ones, and a command's first line is told from its end."""

from __future__ import annotations

import os
import sys

from pfw.policy.load import load
from recalling import first_line_s, looks


def test_policies_that_are_rehearsed(tmp_path):
    looks(tmp_path)
    found = [load(path.read_bytes(), path.name) for path in sorted(tmp_path.glob("rules-*.json"))]
    assert [len(each.rules) for each in found] == [20, 1_000]


def test_commands_differ(tmp_path):
    found = looks(tmp_path)
    assert len({each.name for each in found}) == len(found)


def test_the_first_line_comes_before_the_end():
    script = "import time; print(1, flush=True); time.sleep(0.5); print(2)"
    assert first_line_s((sys.executable, "-c", script), dict(os.environ)) < 0.5
