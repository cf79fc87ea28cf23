"""What kernels differ in, in few and quick tests: `./test --vm` runs them on Debian's own kernel, in emulation.

There nothing may be skipped for what the kernel lacks; elsewhere it may, but for the policy itself.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from tests.netns.conftest import Namespace
from tests.netns.firewalling import BACKENDS, Firewall, arrived, opened, policy

IN_VM = "PFW_IN_VM" in os.environ
OPEN, CLOSED = 6001, 6002

# Every condition that a rule may have, and every action. What decides about the packets of the test stands last.
RULES: list[dict[str, Any]] = [
    {"name": "nets", "action": "block",
     "from": ["192.0.2.0/24", "!192.0.2.7", "2001:db8::/32", "198.51.100.1-198.51.100.9"]},
    {"name": "ports", "action": "reject", "protocol": ["tcp", "udp"], "port": [7000, "7100-7200"], "from_port": "1-9"},
    {"name": "others", "action": "block", "protocol": ["sctp", "esp", "udplite"]},
    {"name": "far", "action": "block", "direction": "in", "remote": "203.0.113.0/24", "interface": ["wlan*", "eth9"]},
    {"name": "types", "action": "allow", "icmp_type": ["echo-request", 13], "limit": "10/second", "burst": 3},
    {"name": "whose", "action": "reject", "direction": "out", "protocol": "tcp", "port": 25,
     "user": ["nobody", "group:root"]},
    {"name": "when", "action": "block", "port": 7300,
     "schedule": {"days": ["sat", "sun"], "from": "22:00", "until": "06:30"}},
    {"name": "until", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22, "expires": "2099-01-01"},
    {"name": "through", "action": "reject", "direction": "forward", "to": "10.0.0.0/8", "log": True},
]  # fmt: skip
DEVICES = (
    "link y name x type vlan id 7", "name x type bridge", "name x type dummy", "name x type wireguard",
    "name x type ifb",
)  # fmt: skip


def lacks(what: str) -> NoReturn:
    (pytest.fail if IN_VM else pytest.skip)(f"this kernel lacks {what}")
    raise AssertionError


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_policy_from_up_to_down(
    firewall: Callable[..., Firewall], pair: SimpleNamespace, net: SimpleNamespace, backend: str
) -> None:
    made = firewall(backend)
    places = {(address, OPEN) for address in (net.here, net.here6)}

    def open_places() -> set[tuple[str, int]]:
        found = arrived(pair.here, pair.there, (OPEN, CLOSED), (net.here, net.here6))
        return {place for place in found if place[1] in (OPEN, CLOSED)}

    made.up(policy(*RULES, opened(OPEN), blocklists=[{"name": "list", "source": str(_block_list(made))}]))
    assert open_places() == places
    assert f"({backend})" in made.up(policy(*RULES[::-1], opened(OPEN))).stdout
    made.pfw("ban", "add", net.there, "2001:db8:1::/48", "--for", "1h")
    assert open_places() == {(net.here6, OPEN)}
    made.pfw("ban", "remove", net.there)
    assert open_places() == places
    made.pfw("down")
    assert made.ours() == ""


def _block_list(made: Firewall) -> Any:
    path = made.path.with_name("list.txt")
    path.write_text("".join(f"45.{number}.0.0/23\n" for number in range(200)) + "2a0b:bad::/48\n")
    return path


def test_packets_can_be_handed_to_a_program(namespace: Callable[[], Namespace]) -> None:
    each = namespace()
    rule = "add table inet x; add chain inet x c { type filter hook input priority 0; }; add rule inet x c queue to 3"
    if each.run("nft", rule, check=False).returncode:
        lacks("the statement `queue`")
    assert "queue to 3" in each.run("nft", "list", "table", "inet", "x").stdout


@pytest.mark.parametrize("words", DEVICES)
def test_a_device_of_another_kind(namespace: Callable[[], Namespace], words: str) -> None:
    each = namespace()
    each.run("ip", "link", "add", "y", "type", "veth", "peer", "name", "z")
    try:
        each.run("ip", "link", "add", *words.split())
    except subprocess.CalledProcessError as error:
        lacks(f"it: {error.stderr}")
    assert each.run("ip", "-o", "link", "show", "x").stdout.count("\n") == 1
