"""What it takes to remember every connection, and to look whether it is suspicious, at a rate that few machines see.

A client makes connections at a fixed rate, first to the machine with the firewall, then from it. Nothing waits for what
is measured here: the kernel decides, and tells of it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from connecting import hundredths, outcome
from daemons import cpu_s
from firewalls import Pfw, unmeasurable
from memory import Sample, descendants
from pair import NEAR, Pair, Pairs
from per_program import ControlGroup, PfwDaemon, compiled, control_group, inside, wait_until
from policies import full, many_rules
from processes import Running, run, say
from setting import Setting
from table import NOTHING, Section

RATE = 10_000
SECONDS, QUICK_SECONDS = 30.0, 5.0
WITHOUT_SECONDS = 10.0
FIRST_HOST = "10.80.0.1"
FEW, MANY = 16, 4_000
FIRST_PORT, PORTS = 5210, 4
SETTLE_S = 30.0
"""The longest that is waited until the kernel has forgotten the connections, and the last is written."""
SAMPLE_S = 1.0
COUNTS_S = 5.5
"""A little more than what lies between two messages of the observer about its counts."""
TRACKED_STILL = 10
"""Connections that are somebody else's."""
COLUMNS = (
    "",
    "connections/s",
    "made",
    "recorded",
    "of which detectors looked at",
    "CPU of the observer, % of a core",
    "CPU of the daemon, % of a core",
    "RSS of both, MB",
    "PSS of both, MB",
    "connect(): median, µs",
    "99 of 100 within, µs",
)
LOOSE = ("_lost", "_refused")
"""How the counts end that tell of a bound that was hit."""


class Load:
    """Connections that come in, or go out, with so many peers."""

    def __init__(self, peers: int, *, goes_out: bool) -> None:
        self.name = f"{'out to' if goes_out else 'in from'} {peers:,} hosts"
        self.goes_out = goes_out
        self.peers = peers

    def words(self, seconds: float) -> tuple[str, ...]:
        """What is to be said to the client."""
        peers, here = (FIRST_HOST, self.peers), (NEAR, 1)
        (source, sources), (target, targets) = (here, peers) if self.goes_out else (peers, here)
        to = f"{target}:{FIRST_PORT}"
        return ("pace", source, str(sources), to, str(targets), str(PORTS), str(RATE), str(seconds))


LOADS = (Load(FEW, goes_out=False), Load(FEW, goes_out=True), Load(MANY, goes_out=False), Load(MANY, goes_out=True))


class Place:
    """A pair with a client and somebody who accepts, at whichever end they are wanted."""

    def __init__(self, setting: Setting, pair: Pair, group: ControlGroup, client: Path) -> None:
        self.pair = pair
        self.group = group
        self._core = setting.cores()[1]
        self._client = str(client)

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Both ends listen."""
        everyone: list[Running] = []
        try:
            for namespace in (self.pair.near, self.pair.far):
                at = inside(namespace)
                run((*at, "sysctl", "-qw", "net.core.somaxconn=65535"))
                words = (*at, self._client, "listen", f"0.0.0.0:{FIRST_PORT}", str(PORTS))
                everyone.append(Running(words, cpu=self._core))
                wait_until(lambda: _listens(everyone[-1]), everyone[-1], "listens")
            yield
        finally:
            for each in everyone:
                each.kill()

    def start(self, load: Load, seconds: float) -> Running:
        """The client, in the daemon's control group where it is on the daemon's side."""
        words = (self._client, *load.words(seconds))
        if load.goes_out:
            return Running(self.group.command(*inside(self.pair.near), *words), cpu=self._core)
        return Running((*inside(self.pair.far), *words), cpu=self._core)

    def tracked(self) -> int:
        """Connections that the kernel has not forgotten yet."""
        words = (*inside(self.pair.near), "sysctl", "-n", "net.netfilter.nf_conntrack_count")
        return int(run(words).output)


class Outcome:
    """What a client told."""

    def __init__(self, running: Running) -> None:
        finished = running.wait()
        if finished.status != 0:
            raise running.fail(finished)
        self.seconds, self.took_us = outcome(finished.output)
        self.made = len(self.took_us)

    def cells(self) -> tuple[str, str]:
        middle, most = hundredths(self.took_us)
        return f"{middle:,.0f}", f"{most:,.0f}"


def measure(setting: Setting) -> list[Section]:
    section = Section(f"{RATE:,} new connections a second, all of them recorded and looked at", COLUMNS)
    reason = unmeasurable(setting)
    client = compiled(setting)
    if reason is not None or client is None:
        section.note(reason or "not measured: the client needs a C compiler")
        return [section]
    with Pairs() as pairs:
        for make in (_without, _with):
            pair = pairs.pair()
            pair.add_hosts()
            place = Place(setting, pair, pairs.enter_context(control_group()), client)
            with place.accepting():
                make(setting, place, section)
    seconds = QUICK_SECONDS if setting.quick else SECONDS
    section.note(
        f"{seconds:.0f} s each with the daemon. A client on the other core makes the connections over a veth pair, to "
        f"{PORTS} ports, and resets each at once; somebody accepts them. The policy has 10 rules and lets them pass. "
        "CPU time is that until the kernel has forgotten the last of them and it is in the file, shared out over the "
        "seconds in which they were made"
    )
    section.note(
        "recorded: rows of the history. Of connections of one source to one port that are answered detectors are told "
        "of a sample. MB are 1,000,000 bytes, the most that was seen; PSS counts what processes share in parts"
    )
    return [section]


def ten_rules() -> str:
    """Nine rules for others, and one that lets the client in."""
    ports = f"{FIRST_PORT}-{FIRST_PORT + PORTS - 1}"
    mine: dict[str, object] = {"name": "bench", "action": "allow", "direction": "in", "protocol": "tcp", "port": ports}
    return json.dumps(full([*many_rules(9), mine]))


def _without(setting: Setting, place: Place, section: Section) -> None:
    """The same policy in the kernel, and nobody who is told."""
    pfw = Pfw(setting, place.pair)
    pfw.up(ten_rules())
    for load in LOADS:
        say(f"bench: recording, {load.name}, without the daemon")
        done = Outcome(place.start(load, QUICK_SECONDS if setting.quick else WITHOUT_SECONDS))
        cells = (f"{load.name}, pfw up alone", f"{done.made / done.seconds:,.0f}", f"{done.made:,}")
        section.row(*cells, *[NOTHING] * (len(COLUMNS) - len(cells) - 2), *done.cells())


def _with(setting: Setting, place: Place, section: Section) -> None:
    with closing(PfwDaemon(setting, place.pair, place.group)) as daemon:
        daemon.up(ten_rules())
        watched = Watched(daemon)
        for load in LOADS:
            say(f"bench: recording, {load.name}")
            watched.begin()
            running = place.start(load, QUICK_SECONDS if setting.quick else SECONDS)
            watched.watch(running)
            done = Outcome(running)
            watched.settle(place)
            section.row(load.name, *watched.cells(done), *done.cells())
            section.note(f"{load.name}, counts of what was left out: {losses(watched.counted)}")


class Watched:
    """The daemon and its observer during a load: their time, their memory, and what they say."""

    def __init__(self, daemon: PfwDaemon) -> None:
        self._daemon = daemon
        wait_until(lambda: "connection_events" in daemon.counts(), daemon.running, "has an observer that counts")
        self._pids = [daemon.pid, observer(daemon.pid) or 0]
        self._history = daemon.folder / "state" / "history.db"
        self._before: tuple[list[float], dict[str, int], int] = ([], {}, 0)
        self._rss = self._pss = 0.0
        self.cpu_s: list[float] = []
        self.counted: dict[str, int] = {}
        self.recorded = 0

    def begin(self) -> None:
        self._rss = self._pss = 0.0
        self._before = self._now()

    def watch(self, running: Running) -> None:
        """Look at their memory until it has ended."""
        while not running.has_ended:
            samples = [Sample(each) for each in self._pids]
            self._rss = max(self._rss, sum(each.rss for each in samples))
            self._pss = max(self._pss, samples[0].tree)  # its own, and that of all that it started
            time.sleep(SAMPLE_S)

    def settle(self, place: Place) -> None:
        """Wait until the kernel has forgotten all, and nothing more is written."""
        until, before = time.monotonic() + SETTLE_S, -1
        while time.monotonic() < until and (place.tracked() > TRACKED_STILL or before != self._rows()):
            before = self._rows()
            time.sleep(COUNTS_S)
        cpu_s, counts, rows = self._now()
        self.cpu_s = [now - then for now, then in zip(cpu_s, self._before[0], strict=True)]
        self.counted = {name: count - self._before[1].get(name, 0) for name, count in counts.items()}
        self.recorded = rows - self._before[2]

    def cells(self, done: Outcome) -> tuple[str, ...]:
        looked_at = done.made - self.counted.get("connections_sampled_out", 0)
        daemon, watching = (f"{each / done.seconds * 100:.1f}" for each in self.cpu_s)
        counts = (done.made / done.seconds, done.made, self.recorded, looked_at)
        return (*(f"{each:,.0f}" for each in counts), watching, daemon, f"{self._rss:.1f}", f"{self._pss:.1f}")

    def _now(self) -> tuple[list[float], dict[str, int], int]:
        return [cpu_s(each) for each in self._pids], self._daemon.counts(), self._rows()

    def _rows(self) -> int:
        return recorded(self._history)


def observer(pid: int) -> int | None:
    """The process beside a daemon that records and looks."""
    for each in descendants(pid):
        if b"pfw.daemon.observer" in Path(f"/proc/{each}/cmdline").read_bytes():
            return each
    return None


def recorded(history: Path) -> int:
    """Connections of the client in a history, whole ones and folded ones."""
    if not history.exists():
        return 0  # nothing was to be written yet
    where = f"JOIN subject ON subject.id = subject WHERE port BETWEEN {FIRST_PORT} AND {FIRST_PORT + PORTS - 1}"
    with closing(sqlite3.connect(f"file:{history}?mode=ro", uri=True)) as asked:
        return sum(
            asked.execute(f"SELECT COALESCE(SUM(count), 0) FROM {table} {where}").fetchone()[0]
            for table in ("connection", "folded")
        )


def losses(counts: dict[str, int]) -> str:
    """Those of a daemon's counts that tell of a bound that was hit."""
    found = [f"{name} {count:,}" for name, count in counts.items() if count and name.endswith(LOOSE)]
    return ", ".join(found) or "none"


def _listens(serving: Running) -> bool:
    rows = Path(f"/proc/{serving.pid}/net/tcp").read_text().splitlines()
    return any(f":{FIRST_PORT + PORTS - 1:04X} " in row and " 0A " in row for row in rows)
