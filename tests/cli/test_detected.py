"""What was found, for people and for programs."""

from __future__ import annotations

import json

from pfw.cli.detected import Facts, json_lines, text_lines
from pfw.model.address import parse_address
from pfw.model.observation import Alert, Kind

SCAN = Alert(
    kind=Kind.PORT_SCAN, source=parse_address("203.0.113.9"), target=parse_address("2001:db8::1"), first=1.5, last=2.0,
    score=80, evidence="tried 15 ports", ban=(parse_address("203.0.113.9"),),
)  # fmt: skip
SPOOF = Alert(
    kind=Kind.ARP_SPOOF, source=bytes.fromhex("020000000001"), target=None, first=1e18, last=1e18, score=5,
    evidence="said \x1b[31m",
)  # fmt: skip


def facts(*alerts: Alert, **others) -> Facts:
    given = {"packets": 1500, "refused": 0, "errors": [], "dropped": 0, "duration_s": 0.5} | others
    return Facts(alerts, **given)


def test_text():
    heads, scan, spoof, blank, summary = text_lines(facts(SCAN, SPOOF))
    assert heads.split() == ["first", "seen", "what", "from", "to", "score", "evidence"]
    assert scan.split()[2:6] == ["port-scan", "203.0.113.9", "2001:db8::1", "80"]
    assert scan.endswith("     80  tried 15 ports (could be banned: 203.0.113.9)")
    assert "02:00:00:00:00:01  many" in spoof
    assert "\x1b" not in spoof
    assert (blank, summary) == ("", "2 alerts in 1,500 packets, 0.50 s (3,000 packets/s)")


def test_text_of_nothing_says_what_was_looked_at():
    assert text_lines(facts(refused=3, sampled=9, dropped=1, packets=0, duration_s=0.0)) == [
        "0 alerts in 0 packets, 3 not looked at for want of room, 9 packets of floods counted only, "
        "1 packet lost by the capturing system, 0.00 s (0 packets/s)"
    ]


def test_json():
    (text,) = json_lines(facts(SCAN, SPOOF, errors=["a.pcap: \x07"], refused=2, dropped=1))
    found = json.loads(text)
    scan, spoof = found.pop("alerts")
    assert found == {
        "packets": 1500, "duration_s": 0.5, "refused": 2, "sampled": 0, "dropped": 1, "errors": ["a.pcap: \\x07"],
    }  # fmt: skip
    assert scan == {
        "kind": "port-scan", "source": "203.0.113.9", "target": "2001:db8::1", "first": 1.5, "last": 2.0, "score": 80,
        "evidence": "tried 15 ports", "would_ban": ["203.0.113.9"],
    }  # fmt: skip
    assert (spoof["source"], spoof["target"], spoof["would_ban"]) == ("02:00:00:00:00:01", None, [])
    assert spoof["evidence"] == "said \\x1b[31m"
