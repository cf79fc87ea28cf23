"""New connections of programs that a firewall knows and lets out: how many a second, and how long each has to wait.

A client makes one connection after the other, from a namespace and a control group of its own for each firewall; they
take turns, slice after slice, so that what else goes on meets them all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles

from firewalls import load_floor, unmeasurable
from pair import FAR, Pair, Pairs
from per_program import (
    FIRST_PORT,
    PORT_COUNT,
    ControlGroup,
    OpenSnitch,
    PfwDaemon,
    app_rules,
    client,
    control_group,
    far_end,
    inside,
    policy,
    queued_packets,
    script,
)
from processes import BenchError, Running, say
from setting import Setting
from table import NOTHING, Section, spread

SLICES, QUICK_SLICES = 20, 5
SLICE_S = 0.25
RULES = 500
AT_ONCE = 8
COLUMNS = (
    "",
    "connections/s",
    "of nothing",
    "of OpenSnitch",
    f"{AT_ONCE} clients at once, connections/s",
    "of OpenSnitch",
    "median, µs",
    "99 of 100 within, µs",
)
Check = Callable[[int], None]
"""Raises BenchError where so many connections did not go the way that they should."""


class Candidate:
    """A firewall that is up, and how its client fared."""

    def __init__(self, name: str, pair: Pair, group: ControlGroup, words: Sequence[str], check: Check) -> None:
        self.name = name
        self.asks = False
        """Whether each connection waits for a daemon."""
        self.rates: list[float] = []
        self.rates_at_once: list[float] = []
        self.took_us: list[float] = []
        self.check = check
        self.connections = 0
        where = (f"{FAR}:{FIRST_PORT}", str(PORT_COUNT), str(SLICE_S))
        self._command = group.command(*inside(pair.near), *words, "out", *where)

    def slice(self, core: int | None) -> None:
        rate, took_us = self._outcome(Running(self._command, cpu=core))
        self.rates.append(rate)
        self.took_us += took_us

    def slice_at_once(self) -> None:
        everyone = [Running(self._command) for _ in range(AT_ONCE)]
        self.rates_at_once.append(sum(self._outcome(each)[0] for each in everyone))

    def _outcome(self, running: Running) -> tuple[float, list[float]]:
        finished = running.wait()
        if finished.status != 0:
            raise BenchError(f"{self.name}: {running.fail(finished)}")
        seconds, took_us = outcome(finished.output)
        self.connections += len(took_us)
        return len(took_us) / seconds, took_us


def outcome(text: str) -> tuple[float, list[float]]:
    """What a client tells: how many seconds it took, and how many microseconds each connection was waited for."""
    seconds, *took_ns = text.split()
    return float(seconds), [int(each) / 1e3 for each in took_ns]


def share(ours: Sequence[float], theirs: Sequence[float], digits: int = 2) -> str:
    """The median of ratios, each of two slices of the same turn."""
    if not ours or not theirs:
        return NOTHING
    return f"{median(our / their for our, their in zip(ours, theirs, strict=True)):.{digits}f}"


def hundredths(values: Sequence[float]) -> tuple[float, float]:
    """The median, and what 99 of 100 are not above."""
    parts = quantiles(values, n=100, method="inclusive")
    return parts[49], parts[98]


def measure(setting: Setting) -> list[Section]:
    program = Section("New connections of a program that is allowed, one after the other", COLUMNS)
    interpreted = Section("The same of a script, which rules for scripts tell from others of its interpreter", COLUMNS)
    reason = unmeasurable(setting)
    if reason is not None:
        program.note(reason)
        return [program]
    with Pairs() as pairs:
        for section, everyone in ((program, programs(setting, pairs)), (interpreted, scripts(setting, pairs))):
            _take_turns(setting, everyone)
            _tell(section, everyone)
    for text in _NOTES:
        program.note(text)
    slices = _slices(setting)
    program.note(f"{slices} slices of {SLICE_S * 1e3:.0f} ms for each, in turn; medians, of the ratios as well")
    if not OpenSnitch.is_there():
        program.note("left out: OpenSnitch; its Debian package is opensnitch")
    return [program, interpreted]


_NOTES = (
    "a client connects, over a veth pair, to somebody who accepts and closes, and resets; the time is that of "
    "connect(), in which all of the handshake happens",
    '"each looked up" and OpenSnitch: every new connection waits for the daemon, which looks for the program of its '
    "socket. With labels the kernel decides alone; with rules for scripts the daemon does. That connections went the "
    "way that they should is checked by the counters of each",
    "OpenSnitch has the one rule that allows everything, and looks programs up in /proc (its eBPF needs kprobes). It "
    "has the kernel list all connections each time, whose table is the bigger the more memory there is: most of its "
    "time goes there. The rules of pfw are for different programs that are there, of which the client is the last; "
    "whatever has no rule is blocked",
    f"{AT_ONCE} clients at once only where a daemon is asked, to see what it can do at most",
)


def _slices(setting: Setting) -> int:
    return QUICK_SLICES if setting.quick else SLICES


def _take_turns(setting: Setting, everyone: list[Candidate]) -> None:
    core, _ = setting.cores()
    say(f"bench: connecting, {', '.join(each.name for each in everyone)}")
    for turn in range(_slices(setting)):
        for each in everyone:
            each.slice(core)
        for each in everyone:
            if each.asks and turn % 2 == 0:
                each.slice_at_once()
    for each in everyone:
        each.check(each.connections)


def _tell(section: Section, everyone: list[Candidate]) -> None:
    nothing = everyone[0]
    other = next((each for each in everyone if each.name.startswith("OpenSnitch")), None)
    for each in everyone:
        middle, most = hundredths(each.took_us)
        section.row(
            each.name,
            spread([median(each.rates)]),
            share(each.rates, nothing.rates),
            NOTHING if other is None else share(each.rates, other.rates, 1),
            spread([median(each.rates_at_once)] if each.asks else []),
            NOTHING if other is None or not each.asks else share(each.rates_at_once, other.rates_at_once, 1),
            f"{middle:,.0f}",
            f"{most:,.0f}",
        )


class _Maker:
    """Makes candidates, each in a pair and a control group of its own, with somebody at the far end."""

    def __init__(self, setting: Setting, pairs: Pairs, words: Sequence[str]) -> None:
        self._setting = setting
        self._pairs = pairs
        self._words = words

    def nothing(self) -> Candidate:
        return self._made("nothing", *self._place())

    def tracking(self) -> Candidate:
        pair, group = self._place()
        load_floor(pair)
        return self._made("nft: ct state established, related, new accept", pair, group)

    def pfw(self, name: str, text: str, counted: str, *options: str) -> Candidate:
        """`counted` is what the daemon must have counted for every connection; nothing for none of them."""
        pair, group = self._place()
        daemon = self._pairs.enter_context(closing(PfwDaemon(self._setting, pair, group)))
        daemon.up(text, *options)
        if not options:
            daemon.need_labels()

        def check(connections: int) -> None:
            counts = daemon.counts()
            if not (counts[counted] >= connections if counted else counts["queued"] < connections / 100):
                raise BenchError(f"{name}: {connections} connections went another way: {counts}")

        return self._made(name, pair, group, check, asks=bool(counted))

    def opensnitch(self) -> Candidate:
        pair, group = self._place()
        daemon = self._pairs.enter_context(closing(OpenSnitch(self._setting, pair)))
        daemon.up()

        def check(connections: int) -> None:
            queued = queued_packets(daemon.ruleset())
            if queued < connections:
                raise BenchError(f"OpenSnitch has seen {queued} packets of {connections} connections")

        return self._made("OpenSnitch 1.5", pair, group, check, asks=True)

    def _place(self) -> tuple[Pair, ControlGroup]:
        pair = self._pairs.pair()
        self._pairs.enter_context(far_end(self._setting, pair))
        return pair, self._pairs.enter_context(control_group())

    def _made(
        self, name: str, pair: Pair, group: ControlGroup, check: Check = lambda _: None, *, asks: bool = False
    ) -> Candidate:
        say(f"bench: connecting, {name} is up")
        made = Candidate(name, pair, group, self._words, check)
        made.asks = asks
        return made


def programs(setting: Setting, pairs: Pairs) -> list[Candidate]:
    words = client(setting)
    others = _other_programs(setting, RULES - 1)
    one, many = policy(app_rules([words[0]])), policy(app_rules([*others, words[0]]))
    make = _Maker(setting, pairs, words)
    found = [
        make.nothing(),
        make.tracking(),
        make.pfw("pfw, labels, 1 program", one, ""),
        make.pfw(f"pfw, labels, {RULES} programs", many, ""),
        make.pfw("pfw --no-labels, 1 program, each looked up", one, "labelled", "--no-labels"),
    ]
    return [*found, make.opensnitch()] if OpenSnitch.is_there() else found


def scripts(setting: Setting, pairs: Pairs) -> list[Candidate]:
    words = script(setting)
    rule = app_rules([words[0]])[0] | {"script": words[-1]}
    make = _Maker(setting, pairs, words)
    found = [make.nothing(), make.pfw("pfw, labels, a rule for the script", policy([rule]), "decided")]
    return [*found, make.opensnitch()] if OpenSnitch.is_there() else found


def _other_programs(setting: Setting, count: int) -> list[str]:
    """Files that could be programs; nobody starts them."""
    folder = setting.folder / "programs"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"program-{at}" for at in range(count)]
    for each in paths:
        _make_program(each)
    return list(map(str, paths))


def _make_program(path: Path) -> None:
    if not path.exists():
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
