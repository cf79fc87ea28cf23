"""Observations for tests of the scans' detectors, and what they make of them."""

from __future__ import annotations

from collections.abc import Iterable

from pfw.model.address import parse_address
from pfw.model.observation import Alert, Began, Confirmed, Ended, HalfOpen, Met, Observation, Reply, Stray
from pfw.model.packet import TCP

SYN_BYTES = 74


def address(text: str) -> bytes:
    return parse_address(text)


def began(
    source: str, target: str, port: int, time: float = 0.0, protocol: int = TCP, source_port: int = 50_000
) -> Began:
    return Began(time, protocol, address(source), address(target), source_port, port, None, SYN_BYTES)


def met(first: Began, reply: Reply, attempts: int = 1) -> Met:
    """Silence is only known after some seconds, and Watch may tell of it at once for many."""
    return Met(first.time + (3.5 if reply is Reply.SILENT else 0.001), first, reply, attempts)


def tried_with_connect(first: Began) -> list[Observation]:
    """Opened by a whole handshake, and left: SYN, ACK, RST."""
    return [
        met(first, Reply.ANSWERED),
        Confirmed(first.time + 0.002, first),
        Ended(first.time + 0.003, first, SYN_BYTES + 66 + 66, 3, SYN_BYTES, 1, by_reset=True),
    ]


def half_open(first: Began) -> list[Observation]:
    """Answered, and reset by the kernel of a host that knows nothing of it."""
    return [
        met(first, Reply.ANSWERED),
        Confirmed(first.time + 0.002, first, by_reset=True),
        Ended(first.time + 0.002, first, SYN_BYTES + 54, 2, SYN_BYTES, 1, by_reset=True),
    ]


def unsaid(first: Began) -> list[Observation]:
    """Answered, and nothing came back."""
    return [met(first, Reply.ANSWERED), HalfOpen(first.time + 3.5, first)]


def talked(first: Began) -> list[Observation]:
    """An ordinary connection."""
    return [
        met(first, Reply.ANSWERED),
        Confirmed(first.time + 0.002, first),
        Ended(first.time + 1.0, first, 1_500, 8, 20_000, 20),
    ]


def stray(source: str, target: str, port: int, flags: int, time: float = 0.0, source_port: int = 50_000) -> Stray:
    return Stray(time, address(source), address(target), source_port, port, flags, 54)


def alerts(detector: object, seen: Iterable[Observation]) -> list[Alert]:
    """All that a detector says, the last state of each source last."""
    found: list[Alert] = []
    now = 0.0
    for each in seen:
        now = max(now, each.time)
        found += detector.observe(each)  # type: ignore[attr-defined]
    found += detector.end(now)  # type: ignore[attr-defined]
    return found
