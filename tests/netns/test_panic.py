"""`pfw panic`: everything is cut off but loopback and the session that asked, and comes back as it was."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, opened, policy
from tests.netns.test_lockout import LOGINS, inside, login

PORT = 7000


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def held(request: pytest.FixtureRequest, firewall: Callable[..., Firewall]) -> Firewall:
    return firewall(request.param)


def pings(at: Any, address: str) -> bool:
    done = subprocess.run(at.command("ping", "-c1", "-W0.4", address), capture_output=True, check=False)
    return done.returncode == 0


def reaches(pair: Any, address: str) -> bool:
    """Whether a connection in comes to be."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pair.here.call(lambda: socket.create_server((address, PORT), family=family)):
        try:
            pair.there.call(lambda: socket.create_connection((address, PORT), timeout=0.4)).close()
        except OSError:
            return False
    return True


def without_panic(held: Firewall) -> None:
    for program in ("nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"):
        assert "panic" not in held.at.run(*program.split()).stdout.lower()


def test_everything_is_cut_off_and_comes_back(held: Firewall, pair: Any, net: Any) -> None:
    Changing(held).up(policy(opened(PORT, "tcp"), {"name": "ping", "action": "allow", "icmp_type": "echo-request"}))
    assert all(reaches(pair, each) for each in (net.here, net.here6))
    said = held.pfw("panic")
    assert said.stdout == "everything is cut off but loopback; pfw panic --off ends it\n"
    for address in (net.here, net.here6):
        assert not reaches(pair, address)
        assert not pings(pair.there, address)
    for address in (net.there, net.there6):
        assert not pings(pair.here, address)
    assert pings(pair.here, "127.0.0.1")
    assert pings(pair.here, "::1")
    assert held.status()["panic"]
    held.pfw("panic")
    held.up(policy(opened(PORT, "tcp")))
    assert not reaches(pair, net.here), "a policy does not end it"
    assert "panic is over" in held.pfw("panic", "--off").stdout
    assert all(reaches(pair, each) for each in (net.here, net.here6))
    assert not held.status()["panic"]
    assert held.status()["intact"]
    without_panic(held)
    assert "there was no panic" in held.pfw("panic", "--off").stdout


@pytest.mark.parametrize("six", [False, True])
def test_the_session_that_asked_stays(held: Firewall, pair: Any, net: Any, six: bool) -> None:
    Changing(held).up(policy(LOGINS, opened(PORT, "tcp")))
    address = net.here6 if six else net.here
    with login(held, pair, address) as session:
        said = json.loads(session.run(*inside(held, "panic", "--json", "--backend", held.backend)))
        assert said["panic"]
        assert len(said["sessions"]) == 1
        assert not reaches(pair, address)
        assert not pings(pair.here, net.there6 if six else net.there)
        assert session.run("echo", "still here") == "still here\n"
        session.run(*inside(held, "panic", "--off", "--backend", held.backend))
        assert reaches(pair, address)
    without_panic(held)


def test_without_any_policy(held: Firewall, pair: Any, net: Any) -> None:
    held.pfw("panic", "--backend", held.backend)
    assert not pings(pair.there, net.here)
    assert not pings(pair.here, net.there6)
    held.pfw("panic", "--off", "--backend", held.backend)
    assert pings(pair.there, net.here)
    assert pings(pair.here, net.there6)
    without_panic(held)
    assert held.ours() == ""
