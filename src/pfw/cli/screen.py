"""What people see of traffic: a line a connection, a line a packet, or JSON. Pure; times local on screen.

Everything that comes from packets or a policy passes through `printable` here.
"""

from __future__ import annotations

from time import localtime, strftime

from msgspec import json

from pfw.model.address import format_address, format_endpoint
from pfw.model.command import Command, Judged, Seen, Suspicious
from pfw.model.flow import Flow
from pfw.model.packet import protocol_name
from pfw.model.text import printable
from pfw.model.verdict import Action, Verdict
from pfw.wire.anomaly import ANOMALY_TEXTS

LABELS = {
    Action.ALLOW: "ALLOWED",
    Action.BLOCK: "BLOCKED",
    Action.REJECT: "REJECTED",
    Action.ASK: "ASK",
    Action.UNKNOWN: "UNKNOWN",
}
COLOURS = {
    Action.ALLOW: "\x1b[32m",
    Action.BLOCK: "\x1b[31m",
    Action.REJECT: "\x1b[31m",
    Action.ASK: "\x1b[33m",
    Action.UNKNOWN: "\x1b[33m",
}
_SUSPICIOUS_COLOUR = "\x1b[35m"
_PLAIN = "\x1b[0m"

SUSPICIONS_SHOWN_MAX = 4096
"""Pairs of event and source that are shown once each; beyond it further ones go to the log alone."""


def decided_by(verdict: Verdict) -> str:
    """`rule "no mail"`, `base loopback`, `default in`; for an unknown verdict what it depends on."""
    if verdict.action is Action.UNKNOWN:
        return printable(verdict.reason)
    if verdict.rule is None:
        return verdict.reason
    return printable(verdict.rule) if verdict.base else f'rule "{printable(verdict.rule)}"'


def endpoints(flow: Flow) -> str:
    """`192.0.2.1:51514 (TCP) -> 192.0.2.5:80`."""
    source = format_endpoint(flow.source, flow.source_port)
    destination = format_endpoint(flow.destination, flow.port)
    return f"{source} ({protocol_name(flow.protocol)}) -> {destination}"


class TextScreen:
    """Lines for a person; `verbose` puts time, direction and interface before them, `every_packet` makes it
    a line a packet instead of one a connection."""

    def __init__(self, *, colour: bool, verbose: bool, every_packet: bool = False) -> None:
        self._colour = colour
        self._every_packet = every_packet
        self._verbose = verbose
        self._suspicions: set[tuple[str, bytes | None]] = set()

    def lines(self, commands: list[Command]) -> list[str]:
        shown = []
        for command in commands:
            if isinstance(command, Judged):
                if self._every_packet and not command.again:
                    continue
                what = endpoints(command.flow)
                again = "  (the policy changed)" if command.again else ""
                shown.append(self._line(command.time, command.flow, command.verdict, what, again))
            elif isinstance(command, Seen):
                shown.append(self._packet(command))
            elif isinstance(command, Suspicious):
                shown.extend(self._suspicious(command))
        return shown

    def _line(self, time: float, flow: Flow, verdict: Verdict, what: str, more: str) -> str:
        label = self._paint(f"[{LABELS[verdict.action]}]", COLOURS[verdict.action])
        return f"{self._front(time, flow)}{label} {what}  {decided_by(verdict)}{more}"

    def _packet(self, command: Seen) -> str:
        flow = command.flow
        what = endpoints(flow)
        if command.reply:
            source = format_endpoint(flow.destination, flow.port)
            destination = format_endpoint(flow.source, flow.source_port)
            what = f"{source} ({protocol_name(flow.protocol)}) -> {destination}"
        return self._line(command.time, flow, command.verdict, what, f"  {command.size} bytes")

    def _suspicious(self, command: Suspicious) -> list[str]:
        flow = command.flow
        mark = (command.event, flow.source if flow else None)
        if mark in self._suspicions or len(self._suspicions) >= SUSPICIONS_SHOWN_MAX:
            return []
        self._suspicions.add(mark)
        front = self._front(command.time, flow) if flow else self._clock(command.time)
        who = f" {endpoints(flow)}" if flow else ""
        return [f"{front}{self._paint('[SUSPICIOUS]', _SUSPICIOUS_COLOUR)}{who}  {suspicion(command)}"]

    def _front(self, time: float, flow: Flow) -> str:
        if not self._verbose:
            return ""
        return f"{self._clock(time)}{flow.direction.value:<7} {printable(flow.interface or '-')} "

    def _clock(self, time: float) -> str:
        if not self._verbose:
            return ""
        return f"{local_time(time)}.{int(time % 1 * 1000):03} "

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colour else text


class JsonScreen:
    """An object a line, `event` telling `connection`, `packet` and `suspicious` apart; times UTC."""

    def lines(self, commands: list[Command]) -> list[str]:
        return [encode(each) for each in map(json_object, commands) if each is not None]


class NoScreen:
    """For --quiet."""

    def lines(self, _: list[Command]) -> list[str]:
        return []


Screen = TextScreen | JsonScreen | NoScreen


def suspicion(command: Suspicious) -> str:
    """What is suspicious, in words."""
    return printable(command.text or ANOMALY_TEXTS.get(command.event, command.event))


def encode(value: object) -> str:
    """One line of JSON."""
    return json.encode(value).decode()


def local_time(time: float) -> str:
    """`14:03:07` by the local clock; the number itself where it is no time."""
    try:
        return strftime("%H:%M:%S", localtime(time))
    except (ValueError, OverflowError, OSError):
        return str(time)


def utc_time(time: float) -> str:
    """`2026-11-23T02:05:00.123456Z`, as files and programs want it."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError, OSError):
        return str(time)


def flow_facts(flow: Flow) -> dict[str, object]:
    """A flow as JSON shows it everywhere."""
    return {
        "direction": flow.direction,
        "interface": printable(flow.interface) if flow.interface else None,
        "protocol": protocol_name(flow.protocol),
        "source": format_address(flow.source),
        "source_port": flow.source_port,
        "destination": format_address(flow.destination),
        "destination_port": flow.port,
        "icmp_type": flow.icmp_type,
    }


def verdict_facts(verdict: Verdict) -> dict[str, object]:
    """A verdict as JSON shows it everywhere; `rule` is null where the default decided."""
    return {
        "verdict": verdict.action,
        "rule": printable(verdict.rule) if verdict.rule is not None else None,
        "reason": printable(verdict.reason),
    }


def json_object(command: Command) -> dict[str, object] | None:
    if isinstance(command, Judged):
        return {"event": "connection", "time": utc_time(command.time), "connection": command.connection,
                **verdict_facts(command.verdict), **flow_facts(command.flow), "again": command.again}  # fmt: skip
    if isinstance(command, Seen):
        return {"event": "packet", "time": utc_time(command.time), "connection": command.connection,
                **verdict_facts(command.verdict), **flow_facts(command.flow),
                "reply": command.reply, "bytes": command.size}  # fmt: skip
    if isinstance(command, Suspicious):
        facts = flow_facts(command.flow) if command.flow else {}
        return {"event": "suspicious", "time": utc_time(command.time), "kind": printable(command.event),
                "text": suspicion(command), **facts}  # fmt: skip
    return None
