#!/usr/bin/env python3
"""Writes a history as of a busy machine: 40 programs, 3,000 remote ends of which few are used often, 8 % blocked.

    .venv/bin/python bench/history_data.py history.db --count 1000000 --hours 28

The same seed and the same beginning give the same history.
"""

from __future__ import annotations

import random
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from pfw.model.flow import Direction
from pfw.model.history import Entry, FirstSeen, New, Subject, Traffic
from pfw.model.packet import TCP, UDP
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.record.history import History, next_id

PROGRAMS, REMOTES, BLOCKED = 40, 3000, 0.08
_PORTS = (443, 443, 443, 80, 53, 22, 123, 993, 5222, 8080)
_LOCALS = (bytes((192, 168, 1, 20)), bytes.fromhex("20010db8000000000000000000000020"))
_BATCH = 5000


def connections(count: int, begin: float, span_s: float, seed: int = 1) -> Iterator[Entry]:
    """So many that began evenly over the span, the last hundred still open."""
    chance = random.Random(seed)
    subjects = _subjects(chance)
    remotes = [_remote(chance, number) for number in range(REMOTES)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(REMOTES)))
    last = 0
    for number in range(count):
        start = round(begin + number * span_s / count, 6)
        last = next_id(last, start)
        (remote, name, place) = chance.choices(remotes, cum_weights=weights)[0]
        subject, blocked = subjects[(place + min(int(chance.expovariate(0.5)), 20)) % len(subjects)]
        is_open = number >= count - 100
        took = chance.expovariate(0.2)
        yield Entry(
            id=last,
            subject=blocked if chance.random() < BLOCKED else subject,
            remote=remote,
            start=start,
            end=None if is_open else start + took,
            from_port=chance.randrange(32768, 60999),
            name=name,
            traffic=_traffic(chance),
        )


def _subjects(chance: random.Random) -> list[tuple[Subject, Subject]]:
    """Each as it is allowed, and as it is blocked."""
    made = []
    for number in range(PROGRAMS):
        uid = chance.choice((0, 1000, 1000, 1000, 104))
        for port in sorted(set(chance.choices(_PORTS, k=4))):
            common = Subject(
                direction=Direction.OUT,
                protocol=UDP if port in (53, 123) else TCP,
                local=_LOCALS[number % 2],
                port=port,
                interface="wlp2s0",
                program=f"/usr/bin/program-{number:02}",
                uid=uid,
                user={0: "root", 1000: "anna", 104: "messagebus"}[uid],
                unit=f"/user.slice/app-{number:02}.scope",
                certainty=Certainty.LABEL,
                action=Action.ALLOW,
                rule=f"programs {number % 5}" if number % 3 else None,
            )
            blocked = Subject(
                direction=Direction.IN, protocol=TCP, local=_LOCALS[number % 2], port=port, interface="wlp2s0",
                action=Action.BLOCK, rule=f"block {number % 7}",
            )  # fmt: skip
            made.append((common, blocked))
    return made


def _remote(chance: random.Random, number: int) -> tuple[bytes, str | None, int]:
    """The address, its name, and where the subjects begin that talk to it."""
    address = chance.randbytes(4) if number % 5 else b"\x2a" + chance.randbytes(15)
    name = f"{['www', 'cdn', 'api', 'mail'][number % 4]}.host-{number}.example" if number % 7 else None
    return address, name, chance.randrange(PROGRAMS * 4)


def _traffic(chance: random.Random) -> Traffic:
    sent, received = int(chance.paretovariate(1.2) * 400), int(chance.paretovariate(1.1) * 1500)
    return Traffic(sent, 2 + sent // 900, received, 2 + received // 1400)


def write(path: Path, count: int, begin: float, span_s: float, seed: int = 1) -> None:
    history = History(str(path), tell=print)
    batch: list[Entry] = []
    for entry in connections(count, begin, span_s, seed):
        batch.append(entry)
        if len(batch) >= _BATCH:
            _put(history, batch)
    _put(history, batch)
    history.close()


def _put(history: History, batch: list[Entry]) -> None:
    history.write(batch)
    history.first_seen(
        [FirstSeen(each.start, New.PROGRAM, each.subject.program) for each in batch if each.subject.program]
        + [FirstSeen(each.start, New.REMOTE, each.name, each.subject.program) for each in batch if each.name]
    )
    history.commit()
    batch.clear()


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--hours", type=float, default=28.0, help="how long ago the first began")
    parser.add_argument("--end", type=float, default=None, help="seconds since 1970; now")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    span_s = options.hours * 3600
    write(options.path, options.count, (options.end or time.time()) - span_s, span_s, options.seed)


if __name__ == "__main__":
    main()
