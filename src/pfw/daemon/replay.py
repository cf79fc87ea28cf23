"""Replay: what a policy would have done with captures. Counts alone, no screen, no log."""

from __future__ import annotations

from heapq import nlargest, nsmallest
from time import perf_counter

from msgspec import Struct

from pfw.daemon.sources import CaptureFile
from pfw.drivers.clock import utc_offset_s
from pfw.engine.engine import Engine
from pfw.engine.flows import REPLAYED_CONNECTIONS_MAX, FlowTable
from pfw.engine.totals import Totals
from pfw.model.address import format_address
from pfw.model.command import Judged
from pfw.model.event import LocalAddresses, Packets
from pfw.model.flow import Direction
from pfw.model.packet import protocol_name
from pfw.model.policy import Policy
from pfw.model.verdict import Action
from pfw.wire.scan import scan

Key = bytes | tuple[int, int]
"""A packed address, or a port and its protocol."""
Counts = dict[Key, int]

NAMES_MAX = 50_000
"""Different peers or ports that are counted one by one; when there are more the rarest are let go."""


class Tops:
    """The most frequent peers and ports, allowed and not. Bounded: with more than NAMES_MAX names a count
    may be too low by what a name had when it was let go."""

    def __init__(self) -> None:
        # By whether they were stopped.
        self._peers: tuple[Counts, Counts] = ({}, {})
        self._ports: tuple[Counts, Counts] = ({}, {})

    def add(self, command: Judged) -> None:
        verdict, flow = command.verdict, command.flow
        stopped = verdict.action is not Action.ALLOW
        if stopped and not verdict.stops:
            return
        peer = flow.destination if flow.direction is Direction.OUT else flow.source
        _count(self._peers[stopped], peer)
        if flow.port is not None:
            _count(self._ports[stopped], (flow.port, flow.protocol))

    def rows(self, number: int) -> dict[str, list[tuple[str, int]]]:
        """`peers_allowed`, `peers_blocked`, `ports_allowed`, `ports_blocked`: names and connections."""
        counts = {
            "peers_allowed": self._peers[False],
            "peers_blocked": self._peers[True],
            "ports_allowed": self._ports[False],
            "ports_blocked": self._ports[True],
        }
        return {
            what: [(_name(key), each[key]) for key in nlargest(number, each, key=each.__getitem__)]
            for what, each in counts.items()
        }


def _count(counts: Counts, key: Key) -> None:
    counts[key] = counts.get(key, 0) + 1
    if len(counts) > NAMES_MAX:
        for rare in nsmallest(NAMES_MAX // 2, counts, key=counts.__getitem__):
            del counts[rare]


class Replayed(Struct):
    """What came out. `errors` are the files that could not be read to their end, with the reason."""

    totals: Totals
    tops: Tops
    errors: list[str]
    dropped: int
    duration_s: float
    """From the first packet to the last; the policy was ready before."""


def replay(files: list[CaptureFile], policy: Policy, local: LocalAddresses) -> Replayed:
    """Run the files through one engine, in this order. Raises OSError and FilterError."""
    engine = Engine(policy, utc_offset_s, details=False, table=FlowTable(REPLAYED_CONNECTIONS_MAX))
    engine.step(local, 0.0)
    tops = Tops()
    errors = []
    began = perf_counter()
    for file in files:
        for batch in file.batches():
            items = scan(batch.source, batch.buffer, batch.frames)
            for command in engine.step(Packets(batch.source, batch.buffer, items), 0.0):
                if isinstance(command, Judged):
                    tops.add(command)
        if file.error is not None:
            errors.append(f"{file.path}: {file.error}")
    duration_s = perf_counter() - began
    return Replayed(
        totals=engine.totals(),
        tops=tops,
        errors=errors,
        dropped=sum(file.dropped for file in files),
        duration_s=duration_s,
    )


def _name(key: Key) -> str:
    if isinstance(key, bytes):
        return format_address(key)
    return f"{key[0]}/{protocol_name(key[1]).lower()}"
