"""Alerts of the detectors as records: a line for people, an EVE `alert`, the journal's fields.

Signature ids are never given anew; docs/signatures.md is made from the table. Suricata has one flow a record, so an
alert about many has the end that it knows, and the rest stands under `pfw`.
"""

from __future__ import annotations

from pfw.model.address import format_address
from pfw.model.command import Alerted
from pfw.model.observation import Kind
from pfw.model.text import printable
from pfw.record.timestamps import eve_time

ALERTS: dict[Kind, tuple[int, str, str]] = {
    Kind.PORT_SCAN: (1000100, "port scan", "Detection of a Network Scan"),
    Kind.SWEEP: (1000101, "sweep of hosts", "Detection of a Network Scan"),
    Kind.STEALTH_SCAN: (1000102, "scan with odd TCP flags", "Detection of a Network Scan"),
    Kind.ARP_SCAN: (1000103, "scan by ARP", "Detection of a Network Scan"),
    Kind.SYN_FLOOD: (1000104, "SYN flood", "Attempted Denial of Service"),
    Kind.UDP_FLOOD: (1000105, "UDP flood", "Attempted Denial of Service"),
    Kind.ICMP_FLOOD: (1000106, "ICMP flood", "Attempted Denial of Service"),
    Kind.REFLECTION: (1000107, "answers that nobody asked for", "Attempted Denial of Service"),
    Kind.BRUTE_FORCE: (1000108, "brute force at a login", "Attempted User Privilege Gain"),
    Kind.ARP_SPOOF: (1000109, "ARP spoofing", "Potentially Bad Traffic"),
    Kind.ROGUE_ROUTER: (1000110, "rogue router", "Potentially Bad Traffic"),
    Kind.ROGUE_DHCP: (1000111, "rogue DHCP server", "Potentially Bad Traffic"),
    Kind.DNS_TUNNEL: (1000112, "tunnel in DNS", "Potential Corporate Privacy Violation"),
    Kind.ICMP_TUNNEL: (1000113, "tunnel in ICMP", "Potential Corporate Privacy Violation"),
    Kind.DGA: (1000114, "names made by an algorithm", "A Network Trojan was detected"),
    Kind.BEACON: (1000115, "beacon", "A Network Trojan was detected"),
    Kind.UPLOAD_SPIKE: (1000116, "unusual upload", "Potential Corporate Privacy Violation"),
    Kind.NEW_LISTENER: (1000117, "new listening port", "Misc activity"),
    Kind.KNOWN_BAD: (1000118, "peer on a list of bad addresses", "Misc Attack"),
    Kind.MALFORMED: (1000119, "malformed packets", "Generic Protocol Command Decode"),
    Kind.FRAGMENT_EVASION: (1000120, "evasive fragments", "Potentially Bad Traffic"),
    Kind.CHANGED_PROGRAM: (1000121, "program changed on disk", "Suspicious Filename Detected"),
}
"""Signature id, signature, and Suricata's words for its category (classification.config)."""
_GRAVE, _MIDDLING = 80, 60
_MAC_BYTES = 6


def severity(score: int) -> int:
    """1 is the gravest, 3 the least."""
    return 1 if score >= _GRAVE else 2 if score >= _MIDDLING else 3


def end_text(end: bytes | None) -> str:
    """An end of an alert: an address, a MAC address, or many."""
    if end is None:
        return "many"
    return end.hex(":") if len(end) == _MAC_BYTES else format_address(end)


def message(command: Alerted) -> str:
    """`192.0.2.7 > 192.0.2.1 - Alert port-scan (score 90): tried 15 ports …; banned for 10 m`."""
    alert = command.alert
    source, program = end_text(alert.source), printable(command.program) if command.program else ""
    if program:
        source = program if alert.source is None else f"{source} ({program})"
    done = f"; {printable(command.response)}" if command.response else ""
    ends = f"{source} > {end_text(alert.target)}"
    return f"{ends} - Alert {alert.kind} (score {alert.score}): {printable(alert.evidence)}{done}"


def journal_fields(command: Alerted) -> dict[str, str]:
    alert = command.alert
    fields = {
        "PFW_ALERT": alert.kind.value,
        "PFW_SCORE": str(alert.score),
        "PFW_SOURCE": end_text(alert.source),
        "PFW_TARGET": end_text(alert.target),
    }
    return fields | ({"PFW_APP": printable(command.program)} if command.program else {})


def eve_event(command: Alerted) -> dict[str, object]:
    """An EVE record of the type `alert`."""
    alert = command.alert
    number, signature, category = ALERTS[alert.kind]
    event: dict[str, object] = {"timestamp": eve_time(command.time), "event_type": "alert", "pkt_src": "wire/pcap"}
    for name, end in (("src_ip", alert.source), ("dest_ip", alert.target)):
        if end is not None and len(end) != _MAC_BYTES:
            event[name] = format_address(end)
    event["alert"] = {
        "action": "blocked" if command.blocked else "allowed",
        "gid": 1,
        "signature_id": number,
        "rev": 1,
        "signature": f"PFW {signature}",
        "category": category,
        "severity": severity(alert.score),
    }
    ours: dict[str, object] = {
        "kind": alert.kind.value,
        "source": end_text(alert.source),
        "target": end_text(alert.target),
        "first": eve_time(alert.first),
        "last": eve_time(alert.last),
        "score": alert.score,
        "evidence": printable(alert.evidence),
    }
    ours |= {"app": printable(command.program)} if command.program else {}
    ours |= {"response": printable(command.response)} if command.response else {}
    event["pfw"] = ours
    return event
