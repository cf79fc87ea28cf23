"""Processes that are measured: run to the end or watched while they run, with wall and CPU time.

CPU time is user and system time of a process and of what it waited for, from wait4(2): on a machine that is
busy with other things it tells more than the wall clock.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path


class BenchError(Exception):
    """The bench cannot go on; a line for the person at the screen."""


class Finished:
    """A process that has ended. `output` and `errors` are what it wrote, as far as they were kept."""

    def __init__(self, status: int, wall_s: float, cpu_s: float, output: str, errors: str) -> None:
        self.status = status
        self.wall_s = wall_s
        self.cpu_s = cpu_s
        self.output = output
        self.errors = errors


class Running:
    """A process under way. `cpu` pins it to a core."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str] | None = None,
        keep_output: bool = True,
        cpu: int | None = None,
        folder: Path | None = None,
        standard_input: Path | None = None,
    ) -> None:
        if cpu is not None:
            command = ("taskset", "-c", str(cpu), *command)
        self._output = os.memfd_create("output") if keep_output else None
        self._errors = os.memfd_create("errors")
        self._command = command
        with open(standard_input or os.devnull, "rb") as source:
            self._began = time.perf_counter()
            self._process = subprocess.Popen(
                command,
                stdin=source,
                stdout=subprocess.DEVNULL if self._output is None else self._output,
                stderr=self._errors,
                env=environment,
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Without taking its status, which is for `wait`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def interrupt(self) -> Finished:
        """End it as Ctrl-C does."""
        if not self.has_ended:
            os.kill(self.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> Finished:
        _, status, usage = os.wait4(self.pid, 0)
        wall_s = time.perf_counter() - self._began
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return Finished(self._process.returncode, wall_s, usage.ru_utime + usage.ru_stime, *self._texts())

    def _texts(self) -> tuple[str, str]:
        texts = []
        for descriptor in (self._output, self._errors):
            if descriptor is None:
                texts.append("")
                continue
            os.lseek(descriptor, 0, os.SEEK_SET)
            with open(descriptor, "rb") as file:
                texts.append(file.read().decode(errors="replace"))
        return texts[0], texts[1]

    def kill(self) -> None:
        if self._process.returncode is None:
            if not self.has_ended:
                os.kill(self.pid, signal.SIGKILL)  # not Popen.kill, which takes the status of one that has ended
            self.wait()

    def fail(self, finished: Finished) -> BenchError:
        last = (finished.errors or finished.output).strip().splitlines()[-1:]
        return BenchError(f"{' '.join(self._command)} ended with status {finished.status}: {''.join(last)}")


def run(
    command: Sequence[str],
    *,
    environment: dict[str, str] | None = None,
    keep_output: bool = True,
    folder: Path | None = None,
    standard_input: Path | None = None,
    good: Iterable[int] = (0,),
) -> Finished:
    """Run it to its end. Raises BenchError for a status that is not `good`."""
    running = Running(
        command, environment=environment, keep_output=keep_output, folder=folder, standard_input=standard_input
    )
    finished = running.wait()
    if finished.status not in good:
        raise running.fail(finished)
    return finished


def say(line: str) -> None:
    """Progress, for whoever waits."""
    print(line, file=sys.stderr, flush=True)
