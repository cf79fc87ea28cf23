"""Which files processes run, by what the kernel calls them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pfw.drivers.processes import Identity, executable, running

SLEEP = os.path.realpath(shutil.which("sleep") or "")


@contextmanager
def started(path: Path) -> Iterator[Identity]:
    """A process that has begun its program, and which file that is."""
    found = path.stat()
    with subprocess.Popen([path, "60"]) as process:
        deadline = time.monotonic() + 8
        while executable(process.pid) != (found.st_dev, found.st_ino):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        try:
            yield found.st_dev, found.st_ino
        finally:
            process.kill()


def test_files_that_processes_run(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for each in (first, second):
        shutil.copy(SLEEP, each)
    with started(first) as one:
        assert running([str(first), str(second)]) == {one}
        with started(second) as other:
            assert running([str(first), str(second)]) == {one, other}
            assert running([str(second)]) == {other}
            second.unlink()
            assert running([f"{second} (deleted)"]) == {other}
            assert running([str(second)]) == set()
    assert running([str(first), f"{second} (deleted)"]) == set()
