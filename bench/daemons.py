"""The daemons of firewalls that tell programs apart: how soon they are ready, their memory, and what they take while
nothing happens."""

from __future__ import annotations

import json
import shutil
import socket
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from connecting import outcome
from firewalls import unmeasurable
from memory import Sample
from pair import FAR, Pairs
from per_program import (
    FIRST_PORT,
    PORT_COUNT,
    ControlGroup,
    OpenSnitch,
    PfwDaemon,
    app_rules,
    control_group,
    far_end,
    inside,
    policy,
    script,
    wait_until,
)
from processes import Running, say
from setting import Setting
from table import NOTHING, Section, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pair import Pair

PROMPTS = 20
"""Few enough that no one is left out."""
IDLE_S, QUICK_IDLE_S = 10.0, 3.0
SETTLE_S = 1.0
LOAD_S, QUICK_LOAD_S = 4.0, 1.5
COLUMNS = (
    "",
    "ready after, s",
    "RSS, MB",
    "PSS, MB",
    "RSS under load, MB",
    "PSS under load, MB",
    "CPU µs a connection",
    "idle, % of a core",
)


class Figures:
    """What was found of a daemon."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready_s: list[float] = []
        self.before: Sample | None = None
        self.under_load: Sample | None = None
        self.connection_us = 0.0
        self.idle_percent = 0.0

    def row(self) -> tuple[str, ...]:
        memory = [NOTHING if each is None else f"{value:.1f}" for each in (self.before, self.under_load)
                  for value in ((each.rss, each.tree) if each is not None else (0.0, 0.0))]  # fmt: skip
        return (self.name, spread(self.ready_s, 2), *memory, f"{self.connection_us:,.0f}", f"{self.idle_percent:.2f}")


def cpu_s(pid: int) -> float:
    """Processor time that the threads of a process have had so far; of those that have ended none."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def measure(setting: Setting) -> list[Section]:
    section = Section("The daemons", COLUMNS)
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    with Pairs() as pairs:
        found = [_pfw(setting, pairs, "pfw daemon"), _pfw(setting, pairs, "pfw daemon --no-labels", "--no-labels")]
        if OpenSnitch.is_there():
            found.append(_opensnitch(setting, pairs))
    for each in found:
        section.row(*each.row())
    for text in _NOTES:
        section.note(text)
    section.note(f"idle for {_idle_s(setting):.0f} s; ready: {_starts(setting)} starts")
    return [section]


_NOTES = (
    "MB are 1,000,000 bytes; PSS counts what processes share in parts. Load: a script whose connections all wait for "
    "the daemon; CPU time of the daemon alone",
    f"pfw is idle with {PROMPTS} connections that wait for an answer, which try again now and then, and somebody who "
    "watches; OpenSnitch, without its window, with nobody",
    "pfw says itself that it is ready, with its policy in force; OpenSnitch is when its queue is read and filled",
)


def _idle_s(setting: Setting) -> float:
    return QUICK_IDLE_S if setting.quick else IDLE_S


def _starts(setting: Setting) -> int:
    return 1 if setting.quick else setting.rounds


def _place(setting: Setting, pairs: Pairs) -> tuple[Pair, ControlGroup]:
    pair = pairs.pair()
    pairs.enter_context(far_end(setting, pair))
    return pair, pairs.enter_context(control_group())


def _pfw(setting: Setting, pairs: Pairs, name: str, *options: str) -> Figures:
    say(f"bench: daemons, {name}")
    pair, group = _place(setting, pairs)
    interpreter, *words, path = script(setting)
    allowed = setting.folder / "allowed.py"
    shutil.copy(path, allowed)
    text = policy([app_rules([interpreter])[0] | {"script": str(allowed)}], "ask")
    daemon = pairs.enter_context(closing(PfwDaemon(setting, pair, group)))
    figures = Figures(name)
    for _ in range(_starts(setting)):
        daemon.end()
        figures.ready_s.append(daemon.up(text, *options))
    at = inside(pair.near)
    _watch_load(setting, figures, daemon.pid, group.command(*at, interpreter, *words, str(allowed)))
    waiting = group.command(*at, interpreter, *words, path, "wait", f"{FAR}:{FIRST_PORT + 100}", str(PROMPTS))
    with _asked(daemon, waiting):
        _watch_idle(setting, figures, daemon.pid)
    daemon.close()
    return figures


def _opensnitch(setting: Setting, pairs: Pairs) -> Figures:
    say("bench: daemons, OpenSnitch")
    pair, group = _place(setting, pairs)
    daemon = pairs.enter_context(closing(OpenSnitch(setting, pair)))
    figures = Figures("OpenSnitch 1.5")
    for _ in range(_starts(setting)):
        daemon.end()
        figures.ready_s.append(daemon.up())
    _watch_load(setting, figures, daemon.pid, group.command(*inside(pair.near), *script(setting)))
    _watch_idle(setting, figures, daemon.pid)
    daemon.close()
    return figures


def _watch_load(setting: Setting, figures: Figures, pid: int, command: tuple[str, ...]) -> None:
    time.sleep(SETTLE_S)
    figures.before = Sample(pid)
    seconds, core = QUICK_LOAD_S if setting.quick else LOAD_S, setting.cores()[0]
    began = cpu_s(pid)
    loading = Running((*command, "out", f"{FAR}:{FIRST_PORT}", str(PORT_COUNT), str(seconds)), cpu=core)
    time.sleep(seconds * 0.8)
    figures.under_load = Sample(pid)
    finished = loading.wait()
    if finished.status != 0:
        raise loading.fail(finished)
    figures.connection_us = (cpu_s(pid) - began) / len(outcome(finished.output)[1]) * 1e6


def _watch_idle(setting: Setting, figures: Figures, pid: int) -> None:
    time.sleep(SETTLE_S)
    cpu, began = cpu_s(pid), time.perf_counter()
    time.sleep(_idle_s(setting))
    figures.idle_percent = (cpu_s(pid) - cpu) / (time.perf_counter() - began) * 100


@contextmanager
def _asked(daemon: PfwDaemon, command: tuple[str, ...]) -> Iterator[None]:
    """Somebody watches, and has been asked about all that this command wants."""
    with daemon.connected("Prompts", more=True) as watching:
        prompts = _Prompts(watching)
        waiting = Running(command)
        try:
            wait_until(lambda: prompts.count() >= PROMPTS, waiting, f"has been asked about {PROMPTS} times")
            yield
        finally:
            waiting.kill()


class _Prompts:
    """The prompts that a watcher has been told of, and that have not gone."""

    def __init__(self, watching: socket.socket) -> None:
        self._watching = watching
        self._watching.settimeout(0.05)
        self._data = b""
        self._numbers: set[int] = set()

    def count(self) -> int:
        try:
            self._data += self._watching.recv(1 << 16)
        except TimeoutError:
            return len(self._numbers)
        *messages, self._data = self._data.split(b"\0")
        for each in map(json.loads, messages):
            told = each["parameters"]
            self._numbers |= {prompt["id"] for prompt in told["prompts"]}
            self._numbers -= set(told["gone"])
        return len(self._numbers)
