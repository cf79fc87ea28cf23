"""What labels on sockets cost the programs that make them, with no firewall around."""

from __future__ import annotations

from contextlib import closing
from statistics import median

from connecting import share
from firewalls import unmeasurable
from pair import Pair, Pairs
from per_program import ControlGroup, PfwDaemon, app_rules, client, control_group, inside, policy
from processes import Running, say
from setting import Setting
from table import Section

TURNS, QUICK_TURNS = 30, 6
COUNT = 5_000
COLUMNS = (
    "",
    "socket() and close(), ns",
    "of nothing",
    "more, ns",
    "connect() on loopback, ns",
    "of nothing",
    "more, ns",
)


class Place:
    """A control group, and what each turn of a program in it took, in nanoseconds."""

    def __init__(self, name: str, pair: Pair, group: ControlGroup, words: tuple[str, ...]) -> None:
        self.name = name
        self.socket_ns: list[float] = []
        self.connect_ns: list[float] = []
        self._command = group.command(*inside(pair.near), *words, "labels", str(COUNT))

    def turn(self, core: int | None) -> None:
        running = Running(self._command, cpu=core)
        finished = running.wait()
        if finished.status != 0:
            raise running.fail(finished)
        socket_ns, connect_ns = map(float, finished.output.split())
        self.socket_ns.append(socket_ns)
        self.connect_ns.append(connect_ns)

    def row(self, nothing: Place) -> tuple[str, ...]:
        cells = [self.name]
        for ours, theirs in ((self.socket_ns, nothing.socket_ns), (self.connect_ns, nothing.connect_ns)):
            cells += [f"{median(ours):,.0f}", share(ours, theirs), f"{more(ours, theirs):,.0f}"]
        return tuple(cells)


def more(ours: list[float], theirs: list[float]) -> float:
    """The median of differences, each of one turn."""
    return median(our - their for our, their in zip(ours, theirs, strict=True))


def measure(setting: Setting) -> list[Section]:
    section = Section("Labels alone", COLUMNS)
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    turns = QUICK_TURNS if setting.quick else TURNS
    say(f"bench: labels, {turns} turns")
    with Pairs() as pairs:
        everyone = _places(setting, pairs)
        for turn in range(turns):
            # Who comes first after the others is not always the same.
            for each in everyone[turn % len(everyone) :] + everyone[: turn % len(everyone)]:
                each.turn(setting.cores()[0])
    for each in everyone:
        section.row(*each.row(everyone[0]))
    section.note(
        f"{turns} turns of {COUNT:,} each; medians, of the ratios and differences as well. The program is in a network "
        "namespace without a firewall, and in a control group with labels or without"
    )
    return [section]


def _places(setting: Setting, pairs: Pairs) -> list[Place]:
    pair, words = pairs.pair(), client(setting)
    found = [Place("nothing", pair, pairs.enter_context(control_group()), words)]
    for name, path in (("a program that is known", words[0]), ("a program that is not", "/usr/bin/env")):
        group = pairs.enter_context(control_group())
        daemon = pairs.enter_context(closing(PfwDaemon(setting, pairs.pair(), group)))
        daemon.up(policy(app_rules([path])))
        daemon.need_labels()
        # Labels stay when the daemon has gone; nobody learns of a program that it does not know then.
        daemon.end()
        found.append(Place(name, pair, group, words))
    return found
