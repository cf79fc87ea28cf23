"""Memory of the monitor while millions of packets go by: is it flat?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from live import send
from namespaces import WIRE, Wire, wait_until_listening, wire
from policies import write_policies
from processes import Running, say
from setting import Setting
from table import Section
from traffic import Mix, generate, write_capture

PACKETS, FLOWS = 100_000, 5_000
"""Of the capture that is sent again and again, with little in each packet: a lap is a second."""
RATE = 100_000
MARKS, FRESH_MARKS = (0, 1_000_000, 2_000_000, 5_000_000, 10_000_000), (0, 1_000_000, 2_000_000, 3_000_000)
QUICK_MARKS, QUICK_FRESH_MARKS = (0, 500_000, 1_000_000), (0, 1_000_000)
SETTLE_S = 1.0


class Sample:
    """Memory of one process and of all that it started, in MB (1,000,000 bytes).

    RSS counts what processes share in each of them, PSS (proportional) only once over all.
    """

    def __init__(self, pid: int) -> None:
        tree = [pid, *descendants(pid)]
        self.rss = _field(pid, "smaps_rollup", "Rss:")
        self.peak = _field(pid, "status", "VmHWM:")
        self.tree = sum(_field(each, "smaps_rollup", "Pss:") for each in tree)


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def _field(pid: int, file: str, name: str) -> float:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def measure(setting: Setting) -> list[Section]:
    title = f"Memory of pfw monitor with its log, MB, {RATE:,} packets/s"
    if not setting.is_root:
        section = Section(title, ("",))
        section.note("not measured: network namespaces need root")
        return [section]
    capture = setting.folder / f"memory-{PACKETS}-{FLOWS}.pcap"
    write_capture(capture, generate(Mix(PACKETS, FLOWS, payload_bytes=64)))
    marks = QUICK_MARKS if setting.quick else MARKS
    fresh_marks = QUICK_FRESH_MARKS if setting.quick else FRESH_MARKS
    section = Section(title, ("packets", "RSS", "peak RSS", "PSS with the recorder", "connections judged so far"))
    with wire() as made:
        for name, each, fresh in (("", marks, False), (", all connections new", fresh_marks, True)):
            for mark, sample in zip(each, _watch(setting, made, capture, each, fresh=fresh), strict=True):
                laps = -(-mark // PACKETS)
                section.row(
                    f"{mark:,}{name}" if mark else f"none{name}",
                    f"{sample.rss:.1f}",
                    f"{sample.peak:.1f}",
                    f"{sample.tree:.1f}",
                    f"{laps * FLOWS:,}",
                )
    section.note(
        f"one run each: {PACKETS:,} packets in {FLOWS:,} flows sent again and again, first with the same hosts, then "
        "with other hosts each time, which fills the table of connections (20,000)"
    )
    return [section]


def _watch(setting: Setting, made: Wire, capture: Path, marks: Sequence[int], *, fresh: bool) -> Iterator[Sample]:
    """A sample when so many packets have been sent; the first before any."""
    rules = write_policies(setting.folder)["10"]
    log = setting.folder / "firewall.log"
    core, _ = setting.cores()
    command = (*setting.pfw, "monitor", "--interface", WIRE, "-q", "--rules", str(rules), "--log", str(log))
    running = Running((*made.watched, *command), environment=setting.environment, cpu=core, folder=setting.folder)
    try:
        wait_until_listening(running)
        sent = 0
        for mark in marks:
            say(f"bench: memory, {mark:,} packets{' of new connections' if fresh else ''}")
            if mark > sent:
                send(setting, made, capture, RATE, mark - sent, fresh=fresh)
                sent = mark
            time.sleep(SETTLE_S)
            yield Sample(running.pid)
        finished = running.interrupt()
        if finished.status != 0:
            raise running.fail(finished)
    finally:
        running.kill()
