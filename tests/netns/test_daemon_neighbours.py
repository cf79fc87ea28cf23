"""Others who use marks: their routing works as it does without us, and the rules for programs hold all the same.

Two cables lead to the same address at the other end. Which of them a packet takes is up to marks: of Tailscale's kind
(a few bits), of wg-quick's and Mullvad's (a whole value, and everything else goes through the tunnel), and by hand.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.netns.conftest import Namespace, ip
from tests.netns.daemon_load import CURL, Running, dial, python_copy
from tests.netns.programs_lab import MASK, WEB, Lab, lab  # noqa: F401

pytestmark = pytest.mark.xdist_group("daemon neighbours")
FAR, FAR6 = "10.99.0.9", "fd99::9"
"""Addresses that are reached by both cables."""
SECOND = "eth1"
TUNNEL = "52"
_COUNTING = f"""table inet counting {{
	set came {{ type ifname . inet_proto . inet_service; flags dynamic; counter; size 65535; }}
	chain raw {{
		type filter hook prerouting priority raw;
		update @came {{ iifname . meta l4proto . th dport counter }}
	}}
	chain nat {{
		type nat hook prerouting priority dstnat;
		tcp dport 9000-40000 redirect to :{WEB}
		udp dport 9000-40000 redirect to :{WEB}
	}}
}}
"""


class Roads:
    """The two cables, and what has come by each."""

    def __init__(self, lab: Lab) -> None:  # noqa: F811
        self._lab = lab
        here, there = lab.here, lab.there
        ip("link", "add", SECOND, "netns", here.name, "type", "veth", "peer", "name", SECOND, "netns", there.name)
        for each, last in ((here, 1), (there, 2)):
            each.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            ip("-n", each.name, "link", "set", SECOND, "up")
            ip("-n", each.name, "addr", "add", f"10.88.0.{last}/24", "dev", SECOND)
            ip("-n", each.name, "addr", "add", f"fd88::{last}/64", "dev", SECOND, "nodad")
        for address in (f"{FAR}/32", f"{FAR6}/128"):
            ip("-n", there.name, "addr", "add", address, "dev", "lo")
        for table, cable, net in (("main", "eth0", "77"), (TUNNEL, SECOND, "88")):
            ip("-n", here.name, "route", "add", FAR, "via", f"10.{net}.0.2", "dev", cable, "table", table)
            ip("-n", here.name, "-6", "route", "add", FAR6, "via", f"fd{net}::2", "dev", cable, "table", table)
        words = there.command("nft", "-f", "-")
        subprocess.run(words, input=_COUNTING, text=True, check=True, capture_output=True)

    def rule(self, *words: str) -> None:
        for family in ("-4", "-6"):
            ip("-n", self._lab.here.name, family, "rule", "add", *words, "table", TUNNEL, "priority", "100")

    def came(self, port: int) -> set[str]:
        """By which cables something has come to this port."""
        told = json.loads(self._lab.there.run("nft", "-j", "list", "set", "inet", "counting", "came").stdout)
        found = next(each["set"] for each in told["nftables"] if "set" in each)
        places = [elem["elem"]["val"]["concat"] for elem in found.get("elem", ())]
        return {cable for cable, _, number in places if number == port}


@pytest.fixture
def roads(lab: Lab) -> Roads:  # noqa: F811
    return Roads(lab)


def rules(*found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"version": 2, "default": {"in": "block", "out": "block"}, "rules": list(found), **fields}


def allows(lab: Lab, name: str, **more: Any) -> dict[str, Any]:  # noqa: F811
    return {"name": name, "action": "allow", "direction": "out", "app": str(python_copy(lab, name)), **more}


class Out:
    """Programs, with a mark on their sockets or without, that want to go out to a port."""

    def __init__(self, lab: Lab) -> None:  # noqa: F811
        self._lab = lab
        self._running: dict[int, list[Running]] = {}

    def wants(self, name: str, port: int, mark: int = 0) -> None:
        program = python_copy(self._lab, name)
        self._running[port] = [
            dial(self._lab, program, "many", f"{FAR},{FAR6}", str(port), "0.7", kind, mark=mark)
            for kind in ("tcp", "udp")
        ]

    def went(self) -> set[int]:
        """The ports from which answers came: by both families and protocols, or by none."""
        found = set()
        for port, running in self._running.items():
            answers = [(each.line(), each.line())[1] for each in running]
            assert answers in ([[0, 1]] * 2, [[]] * 2), (port, answers)
            found |= {port} if answers[0] else set()
        self._running.clear()
        return found


@pytest.fixture
def out(lab: Lab) -> Out:  # noqa: F811
    return Out(lab)


TAILSCALE, WIREGUARD, MULLVAD = 0x80000, 0xCA6C, 0x6D6F6C65
HANDS = 0x100
KINDS = {
    # rule, mark of who routes, the cable of that mark, the cable of everybody else
    "tailscale": (("fwmark", "0x80000/0xff0000"), TAILSCALE, SECOND, "eth0"),
    "wg-quick": (("not", "fwmark", "0xca6c"), WIREGUARD, "eth0", SECOND),
    "mullvad": (("not", "fwmark", "0x6d6f6c65"), MULLVAD, "eth0", SECOND),
    "by hand": (("fwmark", "0x100"), HANDS, SECOND, "eth0"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_marks_of_programs(lab: Lab, roads: Roads, out: Out, kind: str) -> None:  # noqa: F811
    """A program that marks its sockets, a copy of it that may not, and programs without marks."""
    rule, mark, marked_cable, cable = KINDS[kind]
    roads.rule(*rule)
    lab.up(rules(allows(lab, "vpn"), allows(lab, "plain")))
    out.wants("vpn", 9001, mark)
    out.wants("plain", 9002)
    out.wants("copy of vpn", 9003, mark)
    out.wants("copy of plain", 9004)
    assert out.went() == {9001, 9002}
    assert [roads.came(port) for port in range(9001, 9005)] == [{marked_cable}, {cable}, set(), set()]


def test_routing_that_comes_later(lab: Lab, roads: Roads, out: Out) -> None:  # noqa: F811
    """The tunnel is set up when the daemon runs already."""
    many = [allows(lab, "vpn"), allows(lab, "plain")]
    others = [{"name": str(at), "action": "allow", "direction": "out", "app": f"/no/such/{at}"} for at in range(20)]
    lab.up(rules(*many, *others))
    roads.rule("not", "fwmark", "0xca6c")
    lab.until(lambda: foreign(lab) == {WIREGUARD}, "it has looked at the routing again")
    out.wants("vpn", 9001, WIREGUARD)
    out.wants("plain", 9002)
    out.wants("copy of vpn", 9003, WIREGUARD)
    assert out.went() == {9001, 9002}
    assert [roads.came(port) for port in range(9001, 9004)] == [{"eth0"}, {SECOND}, set()]


def foreign(lab: Lab) -> set[int]:  # noqa: F811
    """The marks that the labels leave alone."""
    from pfw.drivers import labels, libbpf

    pinned = labels.find(lab.runtime / "bpf")
    assert pinned is not None
    found = libbpf.Map(pinned.folder / "foreign", 4, 1)
    try:
        return {int.from_bytes(key, "little") for key in found.all_keys()}
    finally:
        found.close()
        pinned.close()


def test_marks_kept_by_connection(lab: Lab, roads: Roads, out: Out) -> None:  # noqa: F811
    """Others note the mark of a connection, and give it to its packets again."""
    table = """table inet others {
	chain out { type route hook output priority mangle; meta mark != 0 ct mark set meta mark; }
	chain into { type filter hook prerouting priority mangle; ct mark != 0 meta mark set ct mark; }
}
"""
    subprocess.run(lab.here.command("nft", "-f", "-"), input=table, text=True, check=True, capture_output=True)
    roads.rule("fwmark", "0x80000/0xff0000")
    server = python_copy(lab, "server")
    into = {"name": "into", "action": "allow", "direction": "in", "app": str(server)}
    lab.up(rules(allows(lab, "vpn"), into))
    out.wants("vpn", 9001, TAILSCALE)
    out.wants("copy", 9003, TAILSCALE)
    assert out.went() == {9001}
    assert roads.came(9001) == {SECOND}
    running = [dial(lab, program, "serve", "10.77.0.1", port)
               for program, port in ((server, "7000"), (python_copy(lab, "copy"), "7001"))]  # fmt: skip
    assert [each.line() for each in running] == ["listens"] * 2
    assert [reached(lab.there, port) for port in (7000, 7001)] == [True, False]


def reached(at: Namespace, port: int, address: str = "10.77.0.1") -> bool:
    def connect() -> bool:
        try:
            with socket.create_connection((address, port), timeout=0.5) as sock:
                return sock.recv(10) == b"yes"
        except TimeoutError:
            return False

    return at.call(connect)


def test_a_mask_that_is_too_small(lab: Lab) -> None:  # noqa: F811
    """Two programs and all others need three labels; half of four numbers are labels, and 0 is none."""
    lab.firewall.write(rules(allows(lab, "plain"), allows(lab, "vpn")))
    done = subprocess.run(
        lab.daemon_words("--mask", "0x3"), env=lab.firewall.environment, capture_output=True, text=True, check=False,
        timeout=20,
    )  # fmt: skip
    assert done.returncode == 2
    assert "do not fit into the mask 0x3" in done.stderr
    assert lab.here.run("nft", "list", "tables").stdout == ""


@pytest.mark.parametrize("mask", ["0x7f", "0xfff00000"])
def test_other_bits(lab: Lab, roads: Roads, out: Out, mask: str) -> None:  # noqa: F811
    lab.up(rules(allows(lab, "plain")), "--mask", mask)
    out.wants("plain", 9001)
    out.wants("copy", 9002)
    out.wants("plain", 9003, 0x4000)
    assert out.went() == {9001, 9003}


def labels_of(lab: Lab, names: list[str]) -> dict[str, int]:  # noqa: F811
    """The labels of programs by their names, as whole marks."""
    from pfw.enforce.programs import spread

    numbers = json.loads((lab.firewall.state / "labels.json").read_text())["numbers"]
    return {name: spread(numbers[str(python_copy(lab, name))], MASK) for name in names}


@pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
def test_a_label_that_others_write_opens_nothing(lab: Lab, roads: Roads, out: Out, options: tuple[str, ...]) -> None:  # noqa: F811
    """A rule of others, before ours, gives the label of a program that is allowed to the packets of one that is not."""
    barred = {"name": "barred", "action": "block", "direction": "out", "app": str(python_copy(lab, "barred"))}
    lab.up(rules(allows(lab, "plain"), barred), *options)
    label = labels_of(lab, ["plain"])["plain"]
    table = f"""table inet others {{
	chain out {{ type filter hook output priority mangle; th dport 9000-9100 meta mark set {label:#x}; }}
}}
"""
    subprocess.run(lab.here.command("nft", "-f", "-"), input=table, text=True, check=True, capture_output=True)
    out.wants("plain", 9001)
    out.wants("barred", 9002)
    out.wants("copy", 9003)
    assert out.went() == {9001}
    assert roads.came(9002) == roads.came(9003) == set()


@pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
def test_a_label_on_what_comes_in_or_goes_through_opens_nothing(
    lab: Lab, roads: Roads, options: tuple[str, ...], namespace: Callable[[], Namespace]  # noqa: F811
) -> None:  # fmt: skip
    server = python_copy(lab, "server")
    into = {"name": "into", "action": "allow", "direction": "in", "app": str(server)}
    lab.up(rules(allows(lab, "plain"), into), *options)
    found = labels_of(lab, ["plain", "server"])
    behind = namespace()
    ip("link", "add", "eth2", "netns", lab.here.name, "type", "veth", "peer", "name", "eth2", "netns", behind.name)
    for each, last in ((lab.here, 1), (behind, 2)):
        ip("-n", each.name, "link", "set", "eth2", "up")
        ip("-n", each.name, "addr", "add", f"10.66.0.{last}/24", "dev", "eth2")
    lab.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    ip("-n", behind.name, "route", "add", "default", "via", "10.66.0.1")
    ip("-n", lab.there.name, "route", "add", "10.66.0.0/24", "via", "10.77.0.1")
    running = [dial(lab, program, "serve", "10.77.0.1", port)
               for program, port in ((server, "7000"), (python_copy(lab, "copy"), "7001"))]  # fmt: skip
    assert [each.line() for each in running] == ["listens"] * 2
    for label in found.values():
        table = f"""table inet others
delete table inet others
table inet others {{
	chain into {{ type filter hook prerouting priority mangle; meta mark set {label:#x}; }}
}}
"""
        subprocess.run(lab.here.command("nft", "-f", "-"), input=table, text=True, check=True, capture_output=True)
        assert [reached(lab.there, port) for port in (7000, 7001)] == [True, False]

        def through() -> bool:
            try:
                socket.create_connection((FAR, 9005), timeout=0.5).close()
                return True
            except TimeoutError:
                return False

        assert not behind.call(through)
    assert roads.came(9005) == set()


def test_published_ports(lab: Lab, net: Any, namespace: Callable[[], Namespace]) -> None:  # noqa: F811
    """As a container engine does it: rewritten to a machine behind this one, and rules for programs are none of its."""
    lab.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    behind = namespace()
    ip("link", "add", "docker0", "netns", lab.here.name, "type", "veth", "peer", "name", "eth2", "netns", behind.name)
    for each, name, last in ((lab.here, "docker0", 1), (behind, "eth2", 2)):
        ip("-n", each.name, "link", "set", name, "up")
        ip("-n", each.name, "addr", "add", f"172.17.0.{last}/16", "dev", name)
    ip("-n", behind.name, "route", "add", "default", "via", "172.17.0.1")
    table = """table ip others {
	chain published { type nat hook prerouting priority dstnat; tcp dport 8081 dnat to 172.17.0.2:80; }
}
"""
    subprocess.run(lab.here.command("nft", "-f", "-"), input=table, text=True, check=True, capture_output=True)
    server = behind.call(lambda: socket.create_server(("172.17.0.2", 80)))
    web = {"name": "web", "action": "allow", "direction": "forward", "protocol": "tcp", "port": 8081}

    def published() -> bool:
        try:
            lab.there.call(lambda: socket.create_connection((net.here, 8081), timeout=0.7)).close()
            return True
        except TimeoutError:
            return False

    with server:
        for found, wanted in (([web], True), ([], False)):
            policy = rules(*found, {"name": "curl", "action": "allow", "direction": "both", "app": CURL})
            if lab.daemon is None:
                lab.up(policy)
                without = lab.pfw("show", "--rules", str(lab.firewall.path)).stdout
                assert "published" in without
            else:
                lab.firewall.write(policy)
                lab.pfw("up", "--rules", str(lab.firewall.path))
            assert published() is wanted
