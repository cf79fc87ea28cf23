"""Real captures against what is known to be in them: no alert is missing, and none is false.

The table of what was expected and found is printed in the end. Captures are not part of the repository (`conftest.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfw.daemon.detecting import Detected, detect
from pfw.daemon.sources import CaptureFile
from pfw.model.address import format_address
from pfw.model.observation import Kind

NOTHING: frozenset[str] = frozenset()


def kinds(*names: str) -> frozenset[str]:
    return frozenset(map(str, map(Kind, names)))


EXPECTED: dict[str, frozenset[str]] = {
    "benign-arp-gratuitous.pcapng": NOTHING,
    "benign-bittorrent-a.pcap": NOTHING,
    "benign-bittorrent-b.pcap": NOTHING,
    "benign-chrome.pcap": NOTHING,
    "benign-dns-ssdp.pcap": NOTHING,
    "benign-fragments-ipv4.pcapng": NOTHING,
    "benign-fragments-ipv6.pcapng": NOTHING,
    "benign-iphone.pcap": NOTHING,
    "benign-long-connection.pcap": NOTHING,
    "benign-mixture.pcap": NOTHING,
    "benign-multicast.pcap": NOTHING,
    "benign-traceroute.pcapng": NOTHING,
    "benign-tracert.pcap": NOTHING,
    "benign-web-ipv6.pcap": NOTHING,
    "benign-web-mixed.pcap": NOTHING,
    "benign-web-tcp.pcapng": NOTHING,
    "bruteforce-ftp.pcap": kinds("brute-force"),
    "covert-ipv6-dstopts.pcap": kinds("malformed"),
    "dnstunnel-dnscat.pcap": kinds("dns-tunnel"),
    "flood-dhcp.pcap": kinds("rogue-dhcp"),
    "flood-reflection-snmp.pcapng": kinds("reflection"),
    "flood-syn-100.pcap": kinds("syn-flood"),
    "flood-syn-200.pcap": kinds("syn-flood"),
    "flood-syn-ecn-cwr.pcapng": kinds("syn-flood"),
    "flood-syn-mixed.pcapng": kinds("reflection"),
    "malformed-arp.pcap": kinds("malformed"),
    "malformed-dns.pcap": kinds("malformed"),
    "malformed-ipv6-reassembly.pcap": kinds("fragment-evasion"),
    "probes-syn-fin-null-xmas.pcapng": kinds("stealth-scan"),
    "scan-5-ports.pcap": kinds("port-scan"),
    "scan-ack-nmap.pcap": kinds("stealth-scan"),
    "scan-fin-nmap.pcap": kinds("stealth-scan"),
    "scan-ip-protocol-nmap.pcap": kinds("port-scan"),
    "scan-null-nmap.pcap": kinds("stealth-scan"),
    "sweep-slow-5-hosts.pcap": kinds("sweep"),
}

ALLOWED: dict[str, frozenset[str]] = {}
"""What may be found besides, with the reason."""
MISSED: dict[str, str] = {}
"""What is not found yet, and why. Whoever finds it takes it out here: the test fails until then."""


BANNED: dict[str, frozenset[str]] = {"bruteforce-ftp.pcap": frozenset({"10.234.125.254"})}
"""Who could be banned: of all others the source may be forged, or is innocent."""


def path_of(captures: list[Path], name: str) -> Path:
    for path in captures:
        if path.name == name:
            return path
    pytest.skip(f"no {name}")


FOUND: dict[str, Detected] = {}


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    true, false = Counter[str](), Counter[str]()
    print(f"\n{'capture':<36} {'expected':<24} found")
    for name, detected in sorted(FOUND.items()):
        found = sorted({str(each.kind) for each in detected.alerts})
        print(f"{name:<36} {', '.join(sorted(EXPECTED[name])) or '-':<24} {', '.join(found) or '-'}")
        for each in detected.alerts:
            ends = " > ".join("many" if end is None else shown(end) for end in (each.source, each.target))
            print(f"    {each.score:>3} {each.kind} {ends}: {each.evidence}")
            (true if each.kind in EXPECTED[name] | ALLOWED.get(name, NOTHING) else false)[each.kind] += 1
    for kind in sorted({*true, *false}):
        print(f"{kind:<20} {true[kind]:>4} true {false[kind]:>4} false")


def shown(address: bytes) -> str:
    return address.hex(":") if len(address) == 6 else format_address(address)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_in_it_is_found_and_nothing_else(captures, request, name):
    detected = FOUND[name] = detect([CaptureFile(str(path_of(captures, name)))], None)
    found = {str(each.kind) for each in detected.alerts}
    assert found <= EXPECTED[name] | ALLOWED.get(name, NOTHING)
    if name in MISSED:
        assert not EXPECTED[name] <= found, f"found now: take it out of MISSED ({MISSED[name]})"
        pytest.xfail(MISSED[name])
    assert found >= EXPECTED[name]
    banned = {format_address(each) for alert in detected.alerts for each in alert.ban}
    assert banned == BANNED.get(name, NOTHING)
    assert detected.refused == 0


def test_all_of_them_are_in_the_table(captures):
    assert {path.name for path in captures} <= EXPECTED.keys()
