"""A policy that comes into force ends the connections that it forbids, and no others."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, opened, policy

FAR, FAR6, NEAR, NEAR6 = "10.88.0.2", "fd88::2", "10.88.0.1", "fd88::1"
KEPT, CUT, OUT_KEPT, OUT_CUT, DATAGRAMS = 7010, 7000, 7110, 7100, 7001
SILENCE_S = 0.4


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Connection:
    """Both ends of something that is open."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server

    def passes(self, *, from_server: bool = False) -> bool:
        """Whether what one end says comes to the other."""
        sender, receiver = (self.server, self.client) if from_server else (self.client, self.server)
        try:
            sender.send(b"something")
        except OSError:
            return False
        try:
            return bool(select.select([receiver], [], [], SILENCE_S)[0]) and receiver.recv(100).startswith(b"something")
        except OSError:
            return False


class Network:
    """`there`, `here` between, and `far` behind it."""

    def __init__(self, pair: Any, far: Any, stack: ExitStack) -> None:
        self.here, self.there, self.far = pair.here, pair.there, far
        self._stack = stack

    def tcp(self, server_at: Any, client_at: Any, address: str, port: int) -> Connection:
        keep = self._stack.enter_context
        server = keep(server_at.call(lambda: socket.create_server((address, port), family=family_of(address))))
        client = keep(client_at.call(lambda: socket.create_connection((address, port), timeout=5)))
        connection = Connection(client, keep(server.accept()[0]))
        assert connection.passes()
        assert connection.passes(from_server=True)
        return connection

    def udp(self, server_at: Any, client_at: Any, address: str, port: int) -> Connection:
        keep = self._stack.enter_context
        server = keep(server_at.call(lambda: socket.socket(family_of(address), socket.SOCK_DGRAM)))
        client = keep(client_at.call(lambda: socket.socket(family_of(address), socket.SOCK_DGRAM)))
        server.bind((address, port))
        client.connect((address, port))
        client.send(b"something")
        _, whose = server.recvfrom(100)
        server.connect(whose)
        connection = Connection(client, server)
        assert connection.passes(from_server=True)
        return connection

    def known(self, port: int) -> set[str]:
        """The kernel's entries of a port, by their numbers."""
        listed = "".join(
            self.here.run("conntrack", "-L", "-f", family, "-o", "id").stdout for family in ("ipv4", "ipv6")
        )
        return {re.findall(r"id=(\d+)", line)[0] for line in listed.splitlines() if re.search(rf"dport={port}\b", line)}


@pytest.fixture
def network(pair: Any, net: Any, namespace: Callable[[], Any]) -> Iterator[Network]:
    far = namespace()
    net.ip("link", "add", "eth1", "netns", pair.here.name, "type", "veth", "peer", "name", "eth1", "netns", far.name)
    for at, address, address6 in ((pair.here, NEAR, NEAR6), (far, FAR, FAR6)):
        at.run("ip", "link", "set", "eth1", "up")
        at.run("ip", "addr", "add", f"{address}/24", "dev", "eth1")
        at.run("ip", "addr", "add", f"{address6}/64", "dev", "eth1", "nodad")
    pair.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for at, way, way6 in ((pair.there, net.here, net.here6), (far, NEAR, NEAR6)):
        at.run("ip", "route", "add", "default", "via", way)
        at.run("ip", "-6", "route", "add", "default", "via", way6)
    with ExitStack() as stack:
        yield Network(pair, far, stack)


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def changing(request: pytest.FixtureRequest, firewall: Callable[..., Firewall]) -> Changing:
    return Changing(firewall(request.param))


def before() -> dict[str, Any]:
    through = {"name": "through", "action": "allow", "direction": "forward", "protocol": "tcp", "port": [CUT, KEPT]}
    ping = {"name": "ping", "action": "allow", "direction": "in", "icmp_type": "echo-request"}
    return policy(opened([CUT, KEPT], "tcp"), opened(DATAGRAMS), ping, through)


def after() -> dict[str, Any]:
    through = {"name": "through", "action": "allow", "direction": "forward", "protocol": "tcp", "port": KEPT}
    away = {"name": "away", "action": "block", "direction": "out", "protocol": "tcp", "port": OUT_CUT}
    return policy(opened(KEPT, "tcp"), through, away)


@pytest.mark.parametrize("six", [False, True])
def test_what_it_forbids_and_no_more(changing: Changing, network: Network, net: Any, six: bool) -> None:
    here, there, far = (net.here6, net.there6, FAR6) if six else (net.here, net.there, FAR)
    changing.up(before())
    n = network
    cut = {
        "in": n.tcp(n.here, n.there, here, CUT),
        "out": n.tcp(n.there, n.here, there, OUT_CUT),
        "through": n.tcp(n.far, n.there, far, CUT),
        "datagrams": n.udp(n.here, n.there, here, DATAGRAMS),
    }
    kept = {
        "in": n.tcp(n.here, n.there, here, KEPT),
        "out": n.tcp(n.there, n.here, there, OUT_KEPT),
        "through": n.tcp(n.far, n.there, far, KEPT),
    }
    n.there.run("ping", "-c1", "-W2", here)
    entries = {port: n.known(port) for port in (KEPT, OUT_KEPT)}
    assert [len(each) for each in entries.values()] == [2, 1]
    outcome = changing.up(after())
    assert outcome.cut == 5
    assert not cut["datagrams"].passes()
    assert n.known(CUT) | n.known(OUT_CUT) | n.known(DATAGRAMS) == set()
    assert {port: n.known(port) for port in (KEPT, OUT_KEPT)} == entries
    for name, connection in kept.items():
        assert connection.passes(), name
        assert connection.passes(from_server=True), name
    for name, connection in cut.items():
        # What the server sends in datagrams begins a connection outwards, which is allowed.
        assert name == "datagrams" or not connection.passes(from_server=True), name
        assert name == "datagrams" or not connection.passes(), name
    assert n.there.run("ping", "-c1", "-W1", here, check=False).returncode
    for name, connection in kept.items():
        assert connection.passes(), name


def test_it_does_not_live_again_when_it_is_allowed_again(changing: Changing, network: Network, net: Any) -> None:
    """Nor from the server's side, which would look as if it had begun it."""
    changing.up(before())
    first = network.tcp(network.here, network.there, net.here, CUT)
    second = network.tcp(network.there, network.here, net.there, OUT_CUT)
    changing.up(after())
    changing.up(before())
    for connection in (first, second):
        assert not connection.passes(from_server=True)
        assert not connection.passes()


def test_of_a_machine_where_it_was_off(changing: Changing, network: Network, net: Any) -> None:
    """What was open before is made known, and what the first policy forbids of it is cut."""
    forbidden = network.tcp(network.here, network.there, net.here, CUT)
    allowed = network.tcp(network.here, network.there, net.here6, KEPT)
    outward = network.tcp(network.there, network.here, net.there, OUT_KEPT)
    outward6 = network.tcp(network.there, network.here, net.there6, OUT_KEPT)
    changing.up(after())
    # The other end speaks first: to us it must not look as if it began something new.
    for connection in (outward, outward6, allowed):
        assert connection.passes(from_server=True)
        assert connection.passes()
    assert not forbidden.passes(from_server=True)
    assert not forbidden.passes()


def test_bans_before_the_first_policy(changing: Changing, network: Network, net: Any) -> None:
    """A table of bans alone knows no connection: a policy that comes after it does."""
    outward = network.tcp(network.there, network.here, net.there, OUT_KEPT)
    inward = network.tcp(network.here, network.there, net.here6, KEPT)
    changing.firewall.pfw("ban", "add", "203.0.113.9")
    assert outward.passes(from_server=True)
    changing.up(after())
    for connection in (outward, inward):
        assert connection.passes(from_server=True)
        assert connection.passes()


def test_a_ban_ends_what_is_open(changing: Changing, network: Network, net: Any) -> None:
    changing.up(before())
    connection = network.tcp(network.here, network.there, net.here, CUT)
    other = network.tcp(network.here, network.there, net.here6, KEPT)
    through = network.tcp(network.far, network.there, FAR, KEPT)
    changing.ban([net.there])
    assert not connection.passes()
    assert not connection.passes(from_server=True)
    assert not through.passes(from_server=True)
    assert other.passes()
