"""EVE JSON as Suricata writes it, for EveBox, Filebeat, Wazuh and others: commands in, lines out.

Names and types are those of Suricata (etc/schema.json, output-json-*.c). What Suricata has no place for
stands under `pfw`: `rule`, `direction` (in, out, forward) and `reason`. Pure: text from outside is escaped
here, times come with the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from msgspec import json

from pfw.model.address import format_address
from pfw.model.command import Ended, Judged, Suspicious
from pfw.model.flow import Flow
from pfw.model.packet import ACK, CWR, ECE, FIN, ICMPV6, PSH, RST, SYN, TCP, URG, protocol_name
from pfw.model.text import printable
from pfw.model.verdict import Action, Verdict
from pfw.record.community import community_id
from pfw.record.headers import Headers, read_headers
from pfw.record.timestamps import eve_time, whole_seconds
from pfw.wire.anomaly import ANOMALY_TEXTS

Value = str | int | float | bool | dict[str, "Value"] | list["Value"]
Event = dict[str, Value]

CATEGORIES = {
    "tcp.flags.": "Attempted Information Leak",
    "martian.": "Potentially Bad Traffic",
    "flow.": "Potentially Bad Traffic",
}
"""Suricata's words (classification.config) for events that begin so; others are `Misc activity`."""
SIGNATURES: dict[str, tuple[int, int, str]] = {
    "tcp.flags.null": (1000001, 2, "TCP null scan"),
    "tcp.flags.fin": (1000002, 2, "TCP FIN scan"),
    "tcp.flags.xmas": (1000003, 2, "TCP Xmas scan"),
    "tcp.flags.syn_fin": (1000004, 2, "TCP SYN and FIN together"),
    "tcp.flags.syn_rst": (1000005, 2, "TCP SYN and RST together"),
    "tcp.flags.fin_rst": (1000006, 2, "TCP FIN and RST together"),
    "tcp.flags.invalid": (1000007, 2, "TCP flags that do not go together"),
    "martian.loopback": (1000020, 2, "loopback address on the wire"),
    "martian.multicast": (1000021, 3, "multicast or broadcast address as source"),
    "martian.unspecified": (1000022, 3, "source of this-network"),
    "martian.reserved": (1000023, 3, "source in reserved space"),
    "martian.mapped": (1000024, 3, "IPv4-mapped IPv6 address on the wire"),
    "martian.own": (1000025, 1, "source is an address of this machine"),
    "flow.land": (1000040, 1, "source and destination are the same"),
    "flow.port_zero": (1000041, 3, "port 0"),
}
"""Event: signature id, severity (1 is the gravest, 3 the least), signature. Ids are never given anew."""

_OTHER_FIRST, _OTHER_COUNT = 1_100_000, 900_000
"""Ids of events that the table does not have, by their CRC-32; with the table's within 1000000-1999999."""

_SURICATA_STATS = frozenset({"uptime", "capture", "decoder", "tcp", "flow", "defrag", "detect"})
_CONNECTION_BITS, _RUN_BITS = 32, 19
_TCP_STATES = {"new": "syn_sent", "established": "established", "closed": "closed"}
_FLAG_NAMES = (
    (SYN, "syn"), (FIN, "fin"), (RST, "rst"), (PSH, "psh"), (ACK, "ack"), (URG, "urg"), (ECE, "ecn"), (CWR, "cwr")
)  # fmt: skip


def flow_id(connection: int, run: int) -> int:
    """The same for all events of a connection, positive. `run` tells runs apart, whose counts begin anew.

    51 bits like Suricata's: what JavaScript can still tell from its neighbours.
    """
    low = connection & ((1 << _CONNECTION_BITS) - 1)
    return (run & ((1 << _RUN_BITS) - 1)) << _CONNECTION_BITS | low or 1


def encode(event: Event) -> bytes:
    """The event as a line."""
    return json.encode(event) + b"\n"


def flow_event(command: Ended, pkt_src: str, run: int) -> Event:
    """A `flow` event: a connection is over."""
    verdict = command.verdict
    event = _begin("flow", command.time, command.flow, pkt_src, None)
    event["flow_id"] = flow_id(command.connection, run)
    flow: dict[str, Value] = {
        "pkts_toserver": command.packets_sent,
        "pkts_toclient": command.packets_received,
        "bytes_toserver": command.bytes_sent,
        "bytes_toclient": command.bytes_received,
        "start": eve_time(command.start),
        "end": eve_time(command.end),
        "age": max(0, whole_seconds(command.end) - whole_seconds(command.start)),
        "state": command.state,
        # Suricata knows no `closed` here: such a flow times out of its table, its state says closed.
        "reason": "shutdown" if command.reason == "shutdown" else "timeout",
        "alerted": False,
    }
    if verdict.stops:
        flow["action"] = "drop"
    elif verdict.action is Action.ALLOW:
        flow["action"] = "pass"
    event["flow"] = flow
    if command.flow.protocol == TCP:
        event["tcp"] = _tcp(command)
    event["pfw"] = _ours(verdict, command.flow)
    return event


def drop_event(command: Judged, pkt_src: str, run: int) -> Event:
    """A `drop` event: a connection was blocked or rejected, with the headers of its first packet."""
    headers = None if command.frame is None else read_headers(command.frame)
    event = _begin("drop", command.time, command.flow, pkt_src, headers)
    event["flow_id"] = flow_id(command.connection, run)
    event["direction"] = "to_server"
    by_default = command.verdict.rule is None
    event["drop"] = {
        **({} if headers is None else headers.fields),
        "reason": "firewall default packet policy" if by_default else "firewall rules",
    }
    verdict: dict[str, Value] = {"action": "drop"}
    if command.verdict.action is Action.REJECT:
        verdict["reject"] = ["tcp-reset" if command.flow.protocol == TCP else "icmp-prohib"]
    event["verdict"] = verdict
    event["pfw"] = _ours(command.verdict, command.flow)
    return event


def suspicious_event(command: Suspicious, pkt_src: str) -> Event:
    """An `anomaly` for what is malformed (`decoder.…`), an `alert` for everything else that is suspicious."""
    headers = read_headers(command.frame)
    decoder = command.event.startswith("decoder.")
    event = _begin("anomaly" if decoder else "alert", command.time, command.flow, pkt_src, headers)
    if command.flow is None and command.interface is not None:
        event["in_iface"] = printable(command.interface)
    if decoder:
        event["anomaly"] = {"type": "decode", "event": printable(command.event)}
    else:
        event["alert"] = _alert(command.event)
        event["direction"] = "to_server"
        event["verdict"] = {"action": "alert"}
    ours: dict[str, Value] = {"reason": printable(command.text or ANOMALY_TEXTS.get(command.event, ""))}
    if command.flow is not None:
        ours["direction"] = command.flow.direction.value
    event["pfw"] = ours
    return event


def stats_event(counters: Mapping[str, int | float], time: float) -> Event:
    """A `stats` event. Dotted names become objects (`capture.kernel_drops`), those that are ours under `pfw`."""
    stats: dict[str, Value] = {}
    for name, value in counters.items():
        path = printable(name).split(".")
        if path[0] not in _SURICATA_STATS:
            path.insert(0, "pfw")
        place = stats
        for part in path[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                break  # `flow` is a number and `flow.total` wants an object: the first stands
            place = inner
        else:
            place.setdefault(path[-1], value)
    return {"timestamp": eve_time(time), "event_type": "stats", "stats": stats}


def _begin(kind: str, time: float, flow: Flow | None, pkt_src: str, headers: Headers | None) -> Event:
    """What all events have: the 5-tuple of the flow, or of the headers where there is no flow."""
    event: Event = {"timestamp": eve_time(time), "event_type": kind}
    of: Flow | Headers | None = headers if flow is None else flow
    if flow is not None and flow.interface is not None:
        event["in_iface"] = printable(flow.interface)
    event["pkt_src"] = pkt_src
    if of is None:
        return event
    event["src_ip"] = format_address(of.source)
    event["dest_ip"] = format_address(of.destination)
    if of.source_port is not None and of.port is not None:
        event["src_port"] = of.source_port
        event["dest_port"] = of.port
    event["proto"] = "IPv6-ICMP" if of.protocol == ICMPV6 else protocol_name(of.protocol)
    event["ip_v"] = 4 if len(of.source) == 4 else 6
    code = None if headers is None else headers.icmp_code
    if of.icmp_type is not None:
        event["icmp_type"] = of.icmp_type
        if code is not None:
            event["icmp_code"] = code
    common = community_id(of.protocol, of.source, of.destination, of.source_port, of.port, of.icmp_type, code)
    if common is not None:
        event["community_id"] = common
    return event


def _ours(verdict: Verdict, flow: Flow) -> dict[str, Value]:
    ours: dict[str, Value] = {"action": verdict.action.value, "direction": flow.direction.value}
    if verdict.rule is not None:
        ours["rule"] = printable(verdict.rule)
    if verdict.reason:
        ours["reason"] = printable(verdict.reason)
    if flow.app is not None:
        ours["app"] = printable(flow.app)
    return ours


def _alert(event: str) -> dict[str, Value]:
    known = SIGNATURES.get(event)
    if known is None:
        name = printable(event)
        known = (_OTHER_FIRST + crc32(name.encode()) % _OTHER_COUNT, 3, name)
    number, severity, signature = known
    category = next((text for prefix, text in CATEGORIES.items() if event.startswith(prefix)), "Misc activity")
    return {
        "action": "allowed",
        "gid": 1,
        "signature_id": number,
        "rev": 1,
        "signature": f"PFW {signature}",
        "category": category,
        "severity": severity,
    }


def _tcp(command: Ended) -> dict[str, Value]:
    flags = command.flags_sent | command.flags_received
    state = _TCP_STATES.get(command.state, "none")
    if state == "syn_sent" and command.flags_received & SYN:
        state = "syn_recv"
    tcp: dict[str, Value] = {
        "tcp_flags": f"{flags:02x}",
        "tcp_flags_ts": f"{command.flags_sent:02x}",
        "tcp_flags_tc": f"{command.flags_received:02x}",
    }
    tcp |= {name: True for bit, name in _FLAG_NAMES if flags & bit}
    tcp["state"] = state
    return tcp
