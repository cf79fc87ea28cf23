"""Commands measured with their memory: the most that a command and all that it started had at one moment."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from memory import descendants
from processes import Finished, Running

_EVERY_S = 0.005
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Measured:
    """The runs of one command. `peak_mb` is in 1,000,000 bytes, of resident memory; what processes share counts in
    each of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []
        self.peak_mb: list[float] = []

    def add(self, wall_s: float, cpu_s: float, peak_mb: float) -> None:
        self.wall_s.append(wall_s)
        self.cpu_s.append(cpu_s)
        self.peak_mb.append(peak_mb)

    def run(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        standard_input: Path | None = None,
        patience_s: float = 600.0,
    ) -> Finished:
        """Run it to its end. Raises BenchError where it fails, TimeoutError where it takes longer."""
        running = Running(command, environment=environment, standard_input=standard_input)
        peak, began = 0, time.perf_counter()
        while not running.has_ended:
            peak = max(peak, resident(running.pid))
            if time.perf_counter() - began > patience_s:
                running.kill()
                raise TimeoutError(f"{self.name}: more than {patience_s:.0f} s")
            time.sleep(_EVERY_S)
        finished = running.wait()
        if finished.status != 0:
            raise running.fail(finished)
        self.add(finished.wall_s, finished.cpu_s, peak / 1e6)
        return finished


def resident(pid: int) -> int:
    """Bytes of memory of a process and all its descendants; of those that have just ended none."""
    total = 0
    try:
        for each in (pid, *descendants(pid)):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        pass
    return total
