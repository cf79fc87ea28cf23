from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pfw.engine.suspicion import TEXTS
from pfw.model.command import Frame, Judged, Suspicious
from pfw.model.flow import Direction, Flow
from pfw.model.text import printable
from pfw.model.verdict import Action, Verdict
from pfw.record.eve import (
    SIGNATURES,
    drop_event,
    encode,
    flow_event,
    flow_id,
    stats_event,
    suspicious_event,
)

TIME = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}\+0000$"}
COUNT = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
HEX = {"type": "string", "pattern": "^[0-9a-f]{2}$"}
FLAG = {"type": "boolean"}
ALWAYS = {"const": True}
WORD = {"type": "string", "minLength": 1}


def closed(required: list[str], **properties: object) -> dict[str, object]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


# Names and types of Suricata's etc/schema.json and output-json-*.c, as far as we write them.
SCHEMA = closed(
    ["timestamp", "event_type"],
    timestamp=TIME,
    event_type={"enum": ["flow", "drop", "alert", "anomaly", "stats"]},
    flow_id={"type": "integer", "minimum": 1, "exclusiveMaximum": 2**53},
    in_iface=WORD,
    src_ip={"type": "string", "pattern": "^[0-9a-f.:]+$"},
    src_port=PORT,
    dest_ip={"type": "string", "pattern": "^[0-9a-f.:]+$"},
    dest_port=PORT,
    proto=WORD,
    ip_v={"enum": [4, 6]},
    icmp_type=COUNT,
    icmp_code=COUNT,
    pkt_src={"const": "wire/pcap"},
    direction={"enum": ["to_server", "to_client"]},
    community_id={"type": "string", "pattern": "^1:[A-Za-z0-9+/]{27}=$"},
    verdict=closed(
        ["action"],
        action={"enum": ["alert", "pass", "drop"]},
        reject={"type": "array", "items": {"enum": ["icmp-prohib", "tcp-reset"]}},
    ),
    drop=closed(
        ["reason"],
        reason=WORD,
        **dict.fromkeys(("len", "tos", "ttl", "ipid", "tc", "hoplimit", "flowlbl", "udplen"), COUNT),
        **dict.fromkeys(("tcpseq", "tcpack", "tcpwin", "tcpres", "tcpurgp", "icmp_id", "icmp_seq"), COUNT),
        **dict.fromkeys(("syn", "ack", "psh", "rst", "urg", "fin"), FLAG),
    ),
    alert=closed(
        ["action", "gid", "signature_id", "rev", "signature", "category", "severity"],
        action={"enum": ["allowed", "blocked"]},
        gid=COUNT,
        signature_id={"type": "integer", "minimum": 1000000, "maximum": 1999999},
        rev=COUNT,
        signature=WORD,
        category=WORD,
        severity={"enum": [1, 2, 3]},
    ),
    anomaly=closed(["type", "event"], type={"const": "decode"}, event={"type": "string", "pattern": "^decoder[.]"}),
    flow=closed(
        [
            "pkts_toserver",
            "pkts_toclient",
            "bytes_toserver",
            "bytes_toclient",
            "start",
            "end",
            "age",
            "state",
            "reason",
        ],
        **dict.fromkeys(("pkts_toserver", "pkts_toclient", "bytes_toserver", "bytes_toclient", "age"), COUNT),
        start=TIME,
        end=TIME,
        state={"enum": ["new", "established", "closed", "bypassed"]},
        reason={"enum": ["timeout", "forced", "shutdown"]},
        alerted=FLAG,
        action={"enum": ["pass", "drop"]},
    ),
    tcp=closed(
        ["tcp_flags", "tcp_flags_ts", "tcp_flags_tc", "state"],
        tcp_flags=HEX,
        tcp_flags_ts=HEX,
        tcp_flags_tc=HEX,
        state=WORD,
        **dict.fromkeys(("syn", "fin", "rst", "psh", "ack", "urg", "ecn", "cwr"), ALWAYS),
    ),
    stats={"type": "object"},
    pfw={"type": "object", "additionalProperties": {"type": "string"}},
)


def written(event: Any) -> dict[str, Any]:
    """What a reader gets of the event: one line, of the right shape."""
    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    read: dict[str, Any] = json.loads(line)
    Draft202012Validator(SCHEMA).validate(read)
    assert read.get("event_type") == "stats" or read["event_type"] in read
    return read


def test_drop(make: Any) -> None:
    event = written(drop_event(make.judged(), "wire/pcap", 5))
    assert event["timestamp"] == "2026-11-23T02:05:00.123456+0000"
    assert event.items() >= {
        "event_type": "drop", "in_iface": "eth0", "src_ip": "192.168.1.100", "src_port": 51514,
        "dest_ip": "192.168.1.5", "dest_port": 80, "proto": "TCP", "ip_v": 4, "direction": "to_server",
        "flow_id": 5 << 32 | 7, "verdict": {"action": "drop"},
        "pfw": {"action": "block", "rule": "block ip", "direction": "in", "reason": "192.168.1.100 is in the list"},
    }.items()  # fmt: skip
    assert event["drop"].items() >= {"reason": "firewall rules", "len": 40, "ttl": 63, "ipid": 77, "syn": True}.items()


def test_reject_by_default_without_a_frame(make: Any) -> None:
    flow = Flow(direction=Direction.OUT, protocol=17, source=bytes(4), destination=bytes(4), source_port=1, port=2)
    event = written(drop_event(Judged(1.0, 1, flow, Verdict(Action.REJECT)), "wire/pcap", 0))
    assert event["verdict"] == {"action": "drop", "reject": ["icmp-prohib"]}
    assert event["drop"] == {"reason": "firewall default packet policy"}
    rejected = written(drop_event(make.judged(verdict=Verdict(Action.REJECT)), "wire/pcap", 0))
    assert rejected["verdict"]["reject"] == ["tcp-reset"]


def test_flow(make: Any) -> None:
    event = written(flow_event(make.ended(), "wire/pcap", 5))
    assert event["flow"] == {
        "pkts_toserver": 5, "pkts_toclient": 4, "bytes_toserver": 600, "bytes_toclient": 4000,
        "start": "2026-11-23T02:05:00.123456+0000", "end": "2026-11-23T02:05:02.623456+0000", "age": 2,
        "state": "closed", "reason": "timeout", "alerted": False, "action": "drop",
    }  # fmt: skip
    assert event["tcp"] == {
        "tcp_flags": "13", "tcp_flags_ts": "13", "tcp_flags_tc": "12", "syn": True, "fin": True, "ack": True,
        "state": "closed",
    }  # fmt: skip
    assert event["flow_id"] == drop_event(make.judged(), "wire/pcap", 5)["flow_id"]
    assert event["community_id"] == drop_event(make.judged(), "wire/pcap", 5)["community_id"]


def test_a_flow_that_was_allowed_and_cut_short(make: Any) -> None:
    event = written(flow_event(make.ended(Verdict(Action.ALLOW), "shutdown", "new"), "wire/pcap", 5))
    assert (event["flow"]["action"], event["flow"]["reason"], event["tcp"]["state"]) == ("pass", "shutdown", "syn_recv")


@pytest.mark.parametrize("name", [*SIGNATURES, "other.event"])
def test_alert(make: Any, name: str) -> None:
    event = written(suspicious_event(make.suspicious(event=name), "wire/pcap"))
    assert event["event_type"] == "alert"
    assert event["alert"]["action"] == "allowed"
    assert event["alert"]["signature"].startswith("PFW ")
    assert event["pfw"]["reason"] == "TCP SYN and FIN together"


def test_every_suspicion_has_a_signature_of_its_own() -> None:
    assert SIGNATURES.keys() >= TEXTS.keys()
    assert len({number for number, _, _ in SIGNATURES.values()}) == len(SIGNATURES)


def test_anomaly_without_a_flow() -> None:
    frame = Frame(1, b"\0" * 12 + b"\x08\x00E", 15)
    command = Suspicious(1.0, "decoder.ipv4.trunc_pkt", "IPv4 header is cut off", frame, None, "eth0\n")
    event = written(suspicious_event(command, "wire/pcap"))
    assert event["anomaly"] == {"type": "decode", "event": "decoder.ipv4.trunc_pkt"}
    assert event["in_iface"] == "eth0\\x0a"
    assert "src_ip" not in event


def test_icmpv6_by_its_name_with_the_code_of_the_frame() -> None:
    here, there = ip_address("fe80::1").packed, ip_address("ff02::1").packed
    flow = Flow(direction=Direction.IN, protocol=58, source=here, destination=there, icmp_type=128)
    header = (6 << 28).to_bytes(4) + (8).to_bytes(2) + bytes((58, 64)) + here + there
    frame = Frame(101, header + bytes((128, 0, 0, 0, 0, 9, 0, 1)), 48)
    event = written(drop_event(Judged(1.0, 1, flow, Verdict(Action.BLOCK), frame), "wire/pcap", 0))
    assert (event["proto"], event["ip_v"], event["icmp_type"], event["icmp_code"]) == ("IPv6-ICMP", 6, 128, 0)
    assert (event["drop"]["icmp_id"], event["drop"]["icmp_seq"]) == (9, 1)


def test_stats() -> None:
    counters = {
        "uptime": 60, "capture.kernel_packets": 10, "capture.kernel_drops": 1, "decoder.pkts": 9,
        "flow": 3, "flow.total": 4, "lost": 2, "log.lost\n": 0,
    }  # fmt: skip
    event = written(stats_event(counters, 1795399500.5))
    assert event["stats"] == {
        "uptime": 60, "capture": {"kernel_packets": 10, "kernel_drops": 1}, "decoder": {"pkts": 9}, "flow": 3,
        "pfw": {"lost": 2, "log": {"lost\\x0a": 0}},
    }  # fmt: skip


@given(st.integers(0, 2**80), st.integers(0, 2**60))
def test_flow_ids_fit_where_javascript_counts(connection: int, run: int) -> None:
    assert 0 < flow_id(connection, run) < 2**51


def test_flow_ids_tell_connections_and_runs_apart() -> None:
    assert len({flow_id(connection, run) for connection in range(50) for run in range(50)}) == 2500 - 1


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=())),
    st.text(st.characters(exclude_categories=())),
    st.binary(max_size=80),
    st.floats(),
)
def test_hostile_text_and_bytes_give_one_printable_line(name: str, text: str, data: bytes, time: float) -> None:
    command = Suspicious(time, "x" + name, text, Frame(1, data, len(data)), None, name + "e")
    line = encode(suspicious_event(command, "wire/pcap"))[:-1].decode()
    assert printable(line) == line
    assert json.loads(line)["event_type"] in ("alert", "anomaly")
