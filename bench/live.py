"""The highest rate that is watched without a loss, found by bisection, beside a Scapy loop and tcpdump.

What was sent is counted by the interface at the watched end; nothing is lost where a program has seen every
one of these packets and reports no loss itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from namespaces import WIRE, Wire, wait_until_listening, wire
from policies import write_policies
from processes import BenchError, Finished, Running, run, say
from setting import Setting
from table import NOTHING, Section, plural_rounds, ratios, spread
from traffic import Mix, generate, write_capture

PACKETS, FLOWS = 50_000, 2_500
"""Of the capture that is sent again and again."""
STEP_S, QUICK_STEP_S = 3.0, 1.0
PRECISION, QUICK_PRECISION = 1.1, 1.4
DRAIN_S, TCPDUMP_DRAIN_S = 0.4, 1.3
"""How long a program may take to read what is left; tcpdump lets a block fill for a second."""
KEPT_UP = 0.97
"""The sender has done a rate when it has reached this share of it."""
ATTEMPTS = 2
LATER_ROUNDS = 1.35
"""Rounds after the first search within this factor of what came out before, lower only if they must."""

Report = tuple[int, int]
"""Packets seen, packets known to be lost."""


class Watcher:
    """A program that watches an interface, the rates between which to begin, and what its rounds gave."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        report: Callable[[Finished], Report],
        rates: tuple[int, int],
        drain_s: float = DRAIN_S,
    ) -> None:
        self.name = name
        self.command = tuple(command)
        self.report = report
        self.low, self.high = rates
        self.drain_s = drain_s
        self.rates: list[float] = []
        self.cpu_us: list[float] = []
        self.is_limited_by_sender = False

    def bracket(self) -> tuple[int, int]:
        if not self.rates:
            return self.low, self.high
        before = median(self.rates)
        return int(before / LATER_ROUNDS), int(before * LATER_ROUNDS)


class Step:
    """One rate tried: whether the sender did it, what was lost of it, and at what cost."""

    def __init__(self, wanted: int, rate: float, arrived: int, report: Report, cpu_s: float) -> None:
        self.rate = rate
        self.is_kept_up = rate >= wanted * KEPT_UP
        self.lost = max(arrived - report[0], report[1])
        self.cpu_us = cpu_s / max(1, arrived) * 1e6


def measure(setting: Setting) -> list[Section]:
    columns = ("", "packets/s without a loss", "CPU µs a packet then", "the first is")
    section = Section("Watching an interface: the highest rate without a loss", columns)
    if not setting.is_root:
        section.note("not measured: network namespaces need root")
        return [section]
    everyone = watchers(setting)
    capture = setting.folder / f"live-{PACKETS}-{FLOWS}.pcap"
    write_capture(capture, generate(Mix(PACKETS, FLOWS)))
    rounds = 1 if setting.quick else min(3, setting.rounds)
    with wire() as made:
        for turn in range(rounds):
            for watcher in everyone:
                say(f"bench: live, round {turn + 1} of {rounds}: {watcher.name}")
                search(Trial(setting, made, capture, watcher), watcher)
    for watcher in everyone:
        compared = NOTHING if watcher is everyone[0] else ratios(everyone[0].rates, watcher.rates)
        more = "≥ " if watcher.is_limited_by_sender else ""
        section.row(watcher.name, more + spread(watcher.rates), spread(watcher.cpu_us, 2), compared)
    if any(watcher.is_limited_by_sender for watcher in everyone):
        section.note("≥: nothing was lost at the most that the sender could do, so the highest rate is not known")
    section.note(
        f"veth pair between two network namespaces; {PACKETS:,} packets in {FLOWS:,} flows sent again and again for "
        f"{_step_s(setting):.0f} s at each rate by a process on the other core, so that a twentieth of the packets "
        f"begins a connection; {plural_rounds(rounds)}, to {(_precision(setting) - 1) * 100:.0f} %, and a rate "
        "that failed is tried once more, because a busy machine fails any"
    )
    return [section]


def watchers(setting: Setting) -> list[Watcher]:
    policies = write_policies(setting.folder)
    ten = ("--rules", str(policies["10"]))
    watch = (*setting.pfw, "monitor", "--interface", WIRE, "--json", *ten)
    logged = ("--log", str(setting.folder / "firewall.log"))
    scapy = (*setting.program("scapy_loop"), "sniff", WIRE, str(policies["simple"]))
    found = [
        Watcher("pfw monitor -q --no-log", (*watch, "-q", "--no-log"), _pfw_report, (40_000, 640_000)),
        Watcher("pfw monitor, a JSON line a connection, log", (*watch, *logged), _pfw_report, (20_000, 640_000)),
        Watcher("Scapy loop, a line a packet", scapy, _scapy_report, (800, 13_000)),
    ]
    if setting.has("tcpdump", "tcpdump"):
        command = ("tcpdump", "-nn", "-i", WIRE, "-w", "/dev/null")
        name = "tcpdump -w /dev/null (no judging)"
        found.append(Watcher(name, command, _tcpdump_report, (40_000, 640_000), TCPDUMP_DRAIN_S))
    return found


def _pfw_report(finished: Finished) -> Report:
    summary = json.loads(finished.output.splitlines()[-1])
    return summary["packets"], summary["lost"]["packets by the kernel"]


def _scapy_report(finished: Finished) -> Report:
    said = json.loads(finished.errors.splitlines()[-1])
    return said["packets"], said["lost"]


def _tcpdump_report(finished: Finished) -> Report:
    seen = re.search(r"(\d+) packets? captured", finished.errors)
    lost = re.search(r"(\d+) packets? dropped by kernel", finished.errors)
    if seen is None or lost is None:
        raise BenchError(f"tcpdump says: {finished.errors.strip()}")
    return int(seen[1]), int(lost[1])


class Trial:
    """Trying rates on one watcher."""

    def __init__(self, setting: Setting, made: Wire, capture: Path, watcher: Watcher) -> None:
        self.precision = _precision(setting)
        self._setting = setting
        self._wire = made
        self._capture = capture
        self._watcher = watcher
        self._seconds = _step_s(setting)

    def holds(self, rate: int) -> Step | None:
        """The step if nothing was lost at this rate, at the first attempt or another."""
        best = None
        for _ in range(ATTEMPTS):
            step = self.run(rate)
            if step.lost == 0 and (best is None or step.rate > best.rate):
                best = step
            if best is not None and best.is_kept_up:
                break
        return best

    def run(self, rate: int) -> Step:
        core, _ = self._setting.cores()
        running = Running(
            (*self._wire.watched, *self._watcher.command), environment=self._setting.environment, cpu=core
        )
        try:
            wait_until_listening(running)
            before = self._wire.arrived()
            seconds = send(self._setting, self._wire, self._capture, rate, int(rate * self._seconds))
            time.sleep(self._watcher.drain_s)
            arrived = self._wire.arrived() - before
            finished = running.interrupt()
        finally:
            running.kill()
        if finished.status != 0:
            raise running.fail(finished)
        return Step(rate, arrived / seconds, arrived, self._watcher.report(finished), finished.cpu_s)


def send(setting: Setting, made: Wire, capture: Path, rate: int, packets: int, *, fresh: bool = False) -> float:
    """Send from the other end of the wire, on the other core; how long it took, in seconds."""
    _, core = setting.cores()
    pinned = ("taskset", "-c", str(core)) if core is not None else ()
    program = (setting.python, str(Path(__file__).with_name("send.py")))
    words = (str(capture), WIRE, str(rate), str(packets), *(["fresh"] if fresh else []))
    finished = run((*made.sending, *pinned, *program, *words), environment=setting.environment)
    return float(json.loads(finished.output)["seconds"])


def search(trial: Trial, watcher: Watcher) -> None:
    """One round: the highest rate that holds, between one that does and one that does not."""
    low, high = watcher.bracket()
    best = trial.holds(low)
    while best is None and low > 100:
        high, low = low, low // 2
        best = trial.holds(low)
    while best is not None and high / low > trial.precision:
        rate = int((low * high) ** 0.5)
        step = trial.holds(rate)
        if step is None:
            high = rate
            continue
        low, best = rate, step
        if not step.is_kept_up:
            watcher.is_limited_by_sender = True
            break
    if best is not None:
        watcher.rates.append(best.rate)
        watcher.cpu_us.append(best.cpu_us)


def _step_s(setting: Setting) -> float:
    return QUICK_STEP_S if setting.quick else STEP_S


def _precision(setting: Setting) -> float:
    return QUICK_PRECISION if setting.quick else PRECISION
