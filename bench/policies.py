"""Policy files for the bench: few rules, many rules, a long block list. The same for every run."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

PREFIXES = 100_000

_SIMPLE = {
    "block": {"ip": ["192.168.1.100", "45.59.1.0/24", "203.0.113.0/24"], "port": [23, 25, 445], "protocol": ["SCTP"]},
    "allow": {"ip": ["127.0.0.1", "192.168.1.1"], "port": [22]},
}
_TEN: list[dict[str, object]] = [
    {"name": "bad neighbours", "action": "block", "from": ["45.59.1.0/24", "93.139.5.0/24"]},
    {"name": "web", "action": "allow", "direction": "out", "port": [80, 443]},
    {"name": "ssh from home", "action": "allow", "direction": "in", "from": "192.168.0.0/16", "port": 22},
    {"name": "names", "action": "allow", "direction": "out", "to": "192.168.1.1", "protocol": "udp", "port": 53},
    {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": [25, 465, 587]},
    {"name": "web here", "action": "allow", "direction": "in", "protocol": "tcp", "port": [80, 443]},
    {"name": "high ports", "action": "block", "direction": "in", "port": "8000-9000"},
    {"name": "ping", "action": "allow", "direction": "in", "icmp_type": "echo-request"},
    {"name": "chat", "action": "allow", "direction": "out", "protocol": "tcp", "port": 5222},
    {"name": "no telnet", "action": "reject", "direction": "out", "protocol": "tcp", "port": 23},
]


def write_policies(folder: Path) -> dict[str, Path]:
    """Writes them all: `simple`, `10`, `100`, `1000`, `10000` rules, `prefixes`. Gives the files by name."""
    documents: dict[str, object] = {"simple": _SIMPLE, "10": full(_TEN), "prefixes": full(block_list(PREFIXES) + _TEN)}
    documents |= {str(count): full(many_rules(count - len(_TEN)) + _TEN) for count in (100, 1000, 10_000)}
    paths = {}
    for name, document in documents.items():
        paths[name] = folder / f"rules-{name}.json"
        paths[name].write_text(json.dumps(document, indent=1))
    return paths


def full(rules: list[dict[str, object]]) -> dict[str, object]:
    return {"version": 2, "default": {"in": "block", "out": "allow", "forward": "block"}, "rules": rules}


def many_rules(count: int) -> list[dict[str, object]]:
    """Rules such as grow over years: a network, a protocol and a service each; few of them ever match."""
    pick = Random(2)
    return [
        {
            "name": f"rule {number}",
            "action": pick.choice(("allow", "block", "reject")),
            "direction": "in",
            "from": _prefix(pick, 24),
            "protocol": pick.choice(("tcp", "udp")),
            "port": pick.randrange(1, 10_000),
        }
        for number in range(count)
    ]


def block_list(prefixes: int) -> list[dict[str, object]]:
    """One rule with that many prefixes of the usual lengths, mostly single hosts; they may overlap."""
    pick = Random(3)
    lengths = pick.choices((32, 24, 22, 20), (80, 15, 3, 2), k=prefixes)
    return [{"name": "block list", "action": "block", "remote": [_prefix(pick, length) for length in lengths]}]


def _prefix(pick: Random, length: int) -> str:
    """Somewhere in the public half of the address space that the traffic's hosts are in too."""
    address = pick.randrange(16 << 24, 223 << 24) >> 32 - length << 32 - length
    return f"{IPv4Address(address)}/{length}" if length < 32 else str(IPv4Address(address))
