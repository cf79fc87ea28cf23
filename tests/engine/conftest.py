"""Dialogues with the engine: packets made by hand go in, commands come out as lines that read like a transcript.

    script >> web.tcp("S") << "#1 out TCP 192.0.2.1:40000 > 198.51.100.2:443 allow: default out"

A command that is not asserted before the next event, or at the end of the test, is a failure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pfw.engine.engine import Engine
from pfw.engine.totals import Totals
from pfw.model.address import AddressSet, format_address, format_endpoint, parse_address, parse_range
from pfw.model.command import Command, Ended, Judged, Notice, Seen, Suspicious
from pfw.model.event import Event, LocalAddresses, Packets, Source
from pfw.model.flow import Direction, Flow, make_key
from pfw.model.packet import FLAG_LETTERS, ICMP, ICMPV6, TCP, UDP, flag_letters, protocol_name
from pfw.model.policy import Base, Policy
from pfw.model.rule import App, Limit, Rule
from pfw.model.verdict import Action
from pfw.wire.scan import scan

HERE, THERE, OTHER = "192.0.2.1", "198.51.100.2", "203.0.113.7"
HERE6, THERE6 = "2001:db8::1", "2001:db8:ffff::2"
LOCAL = AddressSet([parse_range(text) for text in (HERE, HERE6, "192.0.2.255", "127.0.0.0/8", "::1")])
NOON = 1_795_392_000.0
"""2026-11-23 00:00 UTC, a Monday."""
RAW_IP = 101


class Path:
    """One way between two ends, and what can be sent along it, as raw IP packets."""

    def __init__(self, source: str, destination: str, source_port: int = 40000, port: int = 443) -> None:
        self.source, self.destination = parse_address(source), parse_address(destination)
        self.source_port, self.port = source_port, port
        self.texts = source, destination

    @property
    def back(self) -> Path:
        return Path(self.texts[1], self.texts[0], self.port, self.source_port)

    @property
    def is_ipv6(self) -> bool:
        return len(self.source) == 16

    def ip(self, protocol: int, payload: bytes, **fields: int) -> bytes:
        return self.ipv6(protocol, payload) if self.is_ipv6 else self.ipv4(protocol, payload, **fields)

    def ipv4(self, protocol: int, payload: bytes, ident: int = 7, fragment: int = 0) -> bytes:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0)
        return head + self.source + self.destination + payload

    def ipv6(self, protocol: int, payload: bytes) -> bytes:
        head = struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64)
        return head + self.source + self.destination + payload

    def segment(self, flags: str, payload: bytes = b"", options: bytes = b"") -> bytes:
        bits = sum(1 << FLAG_LETTERS.index(letter) for letter in flags)
        offset = 5 + len(options) // 4 << 4
        head = struct.pack(">HHIIBBHHH", self.source_port, self.port, 1, 2, offset, bits, 512, 0, 0)
        return head + options + payload

    def datagram(self, payload: bytes = b"") -> bytes:
        return struct.pack(">HHHH", self.source_port, self.port, 8 + len(payload), 0) + payload

    def tcp(self, flags: str, payload: bytes = b"", options: bytes = b"") -> bytes:
        return self.ip(TCP, self.segment(flags, payload, options))

    def udp(self, payload: bytes = b"") -> bytes:
        return self.ip(UDP, self.datagram(payload))

    def icmp(self, kind: int, code: int = 0, rest: bytes = b"\x12\x34\0\1", payload: bytes = b"") -> bytes:
        return self.ip(ICMPV6 if self.is_ipv6 else ICMP, struct.pack(">BBH", kind, code, 0) + rest + payload)

    def ping(self) -> bytes:
        return self.icmp(128 if self.is_ipv6 else 8)

    def pong(self) -> bytes:
        return self.icmp(129 if self.is_ipv6 else 0)

    def unreachable(self, quoted: bytes) -> bytes:
        """An ICMP error (port unreachable) that quotes a packet."""
        size = 48 if self.is_ipv6 else 28
        kind, code = (1, 4) if self.is_ipv6 else (3, 3)
        return self.icmp(kind, code, bytes(4), quoted[:size])

    def fragments(self, protocol: int, whole: bytes, size: int, ident: int = 99) -> list[bytes]:
        """The payload in pieces of `size` bytes (a multiple of 8)."""
        pieces = []
        for at in range(0, len(whole), size):
            more = at + size < len(whole)
            piece = whole[at : at + size]
            if self.is_ipv6:
                head = struct.pack(">BBHI", protocol, 0, at | more, ident)
                pieces.append(self.ipv6(44, head + piece))
            else:
                pieces.append(self.ipv4(protocol, piece, ident, at // 8 | 0x2000 * more))
        return pieces

    def key(self, protocol: int = TCP) -> bytes:
        return make_key(protocol, self.source, self.destination, struct.pack(">HH", self.source_port, self.port))


class Script:
    """An engine in a dialogue. `>>` tells it something, `<<` says what it must answer next.

    What can be told: bytes (a packet, now), a list of them (one batch), a number (so many seconds pass
    without anything being told), or any event.
    """

    def __init__(self, engine: Engine, source: Source, sent: bool | None) -> None:
        self.engine = engine
        self.source = source
        self.sent = sent
        self.time = NOON
        self.commands: list[Command] = []
        self.answers: list[str] = []

    def __rshift__(self, told: bytes | list[bytes] | float | Event) -> Script:
        if isinstance(told, int | float):
            self.time += told
            return self
        self.done()
        if isinstance(told, bytes | list):
            told = self.packets(told if isinstance(told, list) else [told])
        self.commands = self.engine.step(told, self.time)
        self.answers = [line(command) for command in self.commands]
        check(self.engine.totals())
        return self

    def __lshift__(self, expected: str) -> Script:
        answer = self.answers.pop(0) if self.answers else "(nothing)"
        assert answer == expected
        return self

    def done(self) -> None:
        """Fails when an answer has not been asserted."""
        assert self.answers == []

    def packets(self, frames: list[bytes]) -> Packets:
        """One batch of frames, all of them now."""
        places = []
        at = 0
        for frame in frames:
            places.append((self.time, at, at + len(frame), len(frame)))
            at += len(frame)
        buffer = b"".join(frames)
        sent = None if self.sent is None else {place[1] for place in places if self.sent}
        return Packets(self.source, buffer, scan(self.source, buffer, places), sent)

    def rule(self, name: str) -> tuple[int, int]:
        """Connections and packets of a rule, or of a default."""
        rows = [row for row in self.engine.totals().rules if row.name == name]
        return sum(row.connections for row in rows), sum(row.packets for row in rows)


def check(totals: Totals) -> None:
    """What always holds: every packet is counted in exactly one place."""
    assert totals.packets == sum(row.packets for row in totals.rules) + totals.undecodable + sum(totals.not_ip.values())
    assert sum(row.bytes for row in totals.rules) <= totals.bytes
    assert all(row.packets >= 0 and row.bytes >= 0 for row in totals.rules)
    judged = (totals.allowed, totals.blocked, totals.rejected, totals.asked, totals.unknown)
    assert totals.connections == sum(judged) == sum(row.connections for row in totals.rules)


def line(command: Command) -> str:
    """A command as a line of the transcript."""
    match command:
        case Judged():
            again = " again" if command.again else ""
            verdict = command.verdict
            return (
                f"#{command.connection} {ends(command.flow)} {verdict.action}: {verdict.rule or verdict.reason}{again}"
            )
        case Seen():
            way = "<" if command.reply else ">"
            return f"#{command.connection} {way} {command.size} {command.verdict.action}"
        case Suspicious():
            return f"suspicious {command.event}"
        case Ended():
            sent, received = command.packets_sent, command.packets_received
            flags = f" {flag_letters(command.flags_sent)}/{flag_letters(command.flags_received)}"
            return (
                f"#{command.connection} ended: {command.reason}, {command.state}, {sent}/{received} packets, "
                f"{command.end - command.start:g} s{flags if command.flow.protocol == TCP else ''}"
            )
        case Notice():
            return f"notice: {command.text}"
    raise AssertionError(f"an unknown command: {command}")


def ends(flow: Flow) -> str:
    icmp = "" if flow.icmp_type is None else f" type {flow.icmp_type}"
    source = format_endpoint(flow.source, flow.source_port)
    destination = format_endpoint(flow.destination, flow.port)
    return f"{flow.direction} {protocol_name(flow.protocol)}{icmp} {source} > {destination}"


def make_rule(name: str = "a rule", action: str = "block", direction: str = "both", **fields: Any) -> Rule:
    """A rule; addresses and programs are given as texts, `ports` as one number."""
    for field in ("source", "destination", "remote"):
        if field in fields:
            fields[field] = AddressSet([parse_range(text) for text in fields[field].split()])
    if "apps" in fields:
        fields["apps"] = tuple(map(App, fields["apps"]))
    if "ports" in fields:
        fields["ports"] = ((fields["ports"], fields["ports"]),)
        fields.setdefault("protocols", frozenset({TCP, UDP}))
    directions = ("in", "out") if direction == "both" else (direction,)
    return Rule(name=name, action=Action(action), directions=frozenset(map(Direction, directions)), **fields)


def make_policy(*rules: Rule, base: Base | None = None, **defaults: str) -> Policy:
    """A policy that allows out and blocks everything else unless told otherwise (`inbound="allow"`)."""
    actions = {"inbound": "block", "outbound": "allow", "forward": "block"} | defaults
    chosen = dict(zip(("in", "out", "forward"), actions.values(), strict=True))
    return Policy(
        rules=rules,
        defaults={Direction(name): Action(action) for name, action in chosen.items()},
        base=base or Base(),
    )


@pytest.fixture(scope="session")
def wire() -> SimpleNamespace:
    """Ends and paths between them."""
    return SimpleNamespace(
        Path=Path,
        here=HERE,
        there=THERE,
        other=OTHER,
        here6=HERE6,
        there6=THERE6,
        local=LOCAL,
        noon=NOON,
        raw_ip=RAW_IP,
        out=Path(HERE, THERE),
        out6=Path(HERE6, THERE6),
        inward=Path(THERE, HERE, 50000, 22),
        inward6=Path(THERE6, HERE6, 50000, 22),
        strangers=Path(THERE, OTHER),
        check=check,
        line=line,
        address=format_address,
    )


@pytest.fixture(scope="session")
def rule() -> Callable[..., Rule]:
    return make_rule


@pytest.fixture(scope="session")
def policy() -> Callable[..., Policy]:
    return make_policy


@pytest.fixture(scope="session")
def limit() -> Callable[..., Limit]:
    return Limit


def begin(
    policy: Policy | None = None,
    *,
    interface: str | None = "eth0",
    observer: bool = False,
    known: bool = True,
    sent: bool | None = None,
    **options: Any,
) -> Script:
    """Begin a dialogue: `known` tells whether the local addresses are, `options` are the engine's."""
    engine = Engine(policy or make_policy(), **options)
    if known:
        engine.step(LocalAddresses(LOCAL, observer=observer), NOON)
    return Script(engine, Source(RAW_IP, interface), sent)


@pytest.fixture(scope="session")
def loose_script() -> Callable[..., Script]:
    """Begins dialogues whose answers nobody has to assert: for properties over random packets."""
    return begin


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Begins dialogues; at the end every answer must have been asserted."""
    scripts: list[Script] = []

    def begin_strictly(policy: Policy | None = None, **options: Any) -> Script:
        scripts.append(begin(policy, **options))
        return scripts[-1]

    yield begin_strictly
    for each in scripts:
        each.done()
