"""Beside other firewalls: what is theirs is afterwards byte for byte what it was, and ports that Docker publishes are
closed until a rule for forwarded connections opens them, by the number that is published."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Firewall, opened, policy

FOREIGN = """
table inet other {
    set some {
        type ipv4_addr
        flags interval
        elements = { 192.0.2.0/24, 198.51.100.1 }
    }
    counter seen { }
    chain input {
        type filter hook input priority 10; policy accept;
        ip saddr @some counter name seen drop
    }
    chain output {
        type filter hook output priority -200; policy accept;
        meta mark 7 counter accept
    }
}
table ip old {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        tcp dport 9 redirect to :10
    }
}
"""
CONTAINER, BRIDGE = "10.88.0.2", "10.88.0.1"
DOCKER = [
    "-t nat -N DOCKER",
    "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
    "-t nat -A POSTROUTING -s 10.88.0.0/24 ! -o docker0 -j MASQUERADE",
    "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80",
    "-N DOCKER",
    "-N DOCKER-USER",
    "-N DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A DOCKER -d 10.88.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT",
    "-A DOCKER-ISOLATION-STAGE-1 -j RETURN",
    "-A DOCKER-USER -j RETURN",
    "-P FORWARD DROP",
]


def everything(at: Any) -> str:
    """All that the kernel has, of everybody, but what only counts or runs out."""
    parts = [at.run("nft", "-a", "list", "ruleset").stdout]
    for program in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        saved = at.run(f"{program}-save").stdout
        parts += [line for line in saved.splitlines() if not line.startswith("#")]
    parts.append(at.run("ipset", "save").stdout)
    text = "\n".join(parts)
    return re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|expires \w+|timeout \d+$", "", text, flags=re.MULTILINE)


@pytest.fixture(autouse=True)
def legacy_tables(pair: Any) -> None:
    """The kernel makes the legacy tables when they are first asked for, empty and open, and keeps them for good."""
    for program in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("raw", "mangle", "filter"):
            pair.here.run(program, "-t", table, "-S", check=False)


def from_up_to_down(firewall: Firewall, pair: Any, net: Any) -> None:
    """All that it does, with traffic."""
    firewall.up(policy(opened(8081, "tcp"), {"name": "out", "action": "reject", "direction": "out", "port": 25}))
    net.send(pair.there, net.here, 1)
    net.send(pair.here, net.there6, 2)
    firewall.pfw("ban", "add", "203.0.113.9", "203.0.114.0/24", "2001:db8::1")
    firewall.up(policy(opened([8081, 8082], "tcp"), opened(53)))
    firewall.pfw("panic", "--backend", firewall.backend)
    firewall.pfw("panic", "--off", "--backend", firewall.backend)
    assert firewall.status()["active"]
    firewall.pfw("ban", "remove", "203.0.113.9")
    firewall.pfw("down")


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def held(request: pytest.FixtureRequest, firewall: Callable[..., Firewall]) -> Firewall:
    return firewall(request.param)


def run_beside(at: Any, folder: Path, script: str, *copies: str) -> str:
    """A script in a namespace of its own for files and processes, with folders of /etc that are copies."""
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs none /run"]
    for path in copies:
        copy = folder / path.replace("/", "_")
        (shutil.copytree if Path(path).is_dir() else shutil.copy)(path, copy)
        lines.append(f"mount --bind {copy} {path}")
    words = ("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", "\n".join([*lines, script]))
    done = at.run(*words, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_tables_and_sets_of_anybody(held: Firewall, pair: Any, net: Any) -> None:
    at = pair.here
    at.run("nft", "-f", "-", input=FOREIGN)
    for words in DOCKER:
        at.run("iptables-nft", *words.split())
    at.run("ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
    at.run("ipset", "create", "other", "hash:ip", "timeout", "300")
    at.run("ipset", "add", "other", "192.0.2.1")
    before = everything(at)
    from_up_to_down(held, pair, net)
    assert everything(at) == before


def test_alone_nothing_is_left(held: Firewall, pair: Any, net: Any) -> None:
    before = everything(pair.here)
    from_up_to_down(held, pair, net)
    assert everything(pair.here) == before


@pytest.mark.skipif(shutil.which("ufw") is None, reason="needs ufw")
def test_ufw(held: Firewall, pair: Any, net: Any, tmp_path: Path) -> None:
    run_beside(pair.here, tmp_path, "ufw allow 22/tcp && ufw --force enable", "/etc/ufw", "/etc/default/ufw")
    before = everything(pair.here)
    assert "ufw-user-input" in before
    from_up_to_down(held, pair, net)
    assert everything(pair.here) == before


@pytest.mark.skipif(not all(map(shutil.which, ("firewalld", "dbus-daemon"))), reason="needs firewalld and D-Bus")
def test_firewalld(firewall: Callable[..., Firewall], pair: Any, net: Any, tmp_path: Path) -> None:
    held = firewall("nftables")
    (tmp_path / "log").mkdir()
    script = f"""mount --bind {tmp_path / "log"} /var/log
        mkdir -p /run/dbus
        dbus-daemon --system --fork --nopidfile
        firewalld --nofork --nopid >&2 &
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            firewall-cmd --state >&2 && break
            sleep 0.5
        done
        firewall-cmd --add-service=https >&2"""
    run_beside(pair.here, tmp_path, script, "/etc/firewalld")
    before = everything(pair.here)
    assert "table inet firewalld" in before
    from_up_to_down(held, pair, net)
    assert everything(pair.here) == before


@contextmanager
def container(pair: Any, net: Any, namespace: Callable[[], Any]) -> Iterator[Any]:
    """A web server at port 80 behind `here`, published at its port 8080 as Docker does it."""
    inside = namespace()
    here = pair.here
    net.ip("link", "add", "docker0", "netns", here.name, "type", "veth", "peer", "name", "eth0", "netns", inside.name)
    here.run("ip", "link", "set", "docker0", "up")
    here.run("ip", "addr", "add", f"{BRIDGE}/24", "dev", "docker0")
    inside.run("ip", "link", "set", "eth0", "up")
    inside.run("ip", "addr", "add", f"{CONTAINER}/24", "dev", "eth0")
    inside.run("ip", "route", "add", "default", "via", BRIDGE)
    here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for words in DOCKER:
        here.run("iptables-nft", *words.split())
    with inside.call(lambda: socket.create_server((CONTAINER, 80))) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield inside
        server.shutdown(socket.SHUT_RDWR)


def serve(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            client.sendall(b"hello")


def answers(at: Any, address: str, port: int) -> bool:
    try:
        with at.call(lambda: socket.create_connection((address, port), timeout=0.4)) as sock:
            sock.settimeout(2)
            return bool(sock.recv(5) == b"hello")
    except OSError:
        return False


def test_a_port_that_docker_publishes(held: Firewall, pair: Any, net: Any, namespace: Callable[[], Any]) -> None:
    def forwarded(port: int) -> dict[str, Any]:
        return {"name": f"to {port}", "action": "allow", "direction": "forward", "protocol": "tcp", "port": port}

    with container(pair, net, namespace) as inside:
        assert answers(pair.there, net.here, 8080)
        before = everything(pair.here)
        held.up(policy())
        assert not answers(pair.there, net.here, 8080), "closed by default"
        held.up(policy(opened([80, 8080], "tcp")))
        assert not answers(pair.there, net.here, 8080), "a rule for what comes in is not for what is forwarded"
        held.up(policy(forwarded(80)))
        assert not answers(pair.there, net.here, 8080), "80 is a number that only the container knows"
        held.up(policy(forwarded(8080)))
        assert answers(pair.there, net.here, 8080)
        held.pfw("ban", "add", net.there)
        assert not answers(pair.there, net.here, 8080), "Docker's rules do not pass by a ban"
        held.pfw("ban", "remove", net.there)
        assert answers(pair.there, net.here, 8080)
        held.pfw("ban", "add", CONTAINER)
        assert not answers(pair.there, net.here, 8080)
        held.pfw("ban", "remove", CONTAINER)
        held.up(policy({"name": "no", "action": "block", "direction": "forward", "from": net.there}, forwarded(8080)))
        assert not answers(pair.there, net.here, 8080)
        held.pfw("down")
        assert answers(pair.there, net.here, 8080)
        assert everything(pair.here) == before
        done = subprocess.run(inside.command("ping", "-c1", "-W1", BRIDGE), capture_output=True, check=False)
        assert done.returncode == 0
