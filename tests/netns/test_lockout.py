"""Nobody locks himself out: a policy that would cut the remote session that applies it is refused, and nothing that
the machine cannot do without is banned."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, opened, policy

LOGIN = Path(__file__).with_name("login.py")
PORT = 2222
SHUT = {"name": "nobody from there", "action": "block", "direction": "in", "from": ["10.77.0.0/24", "fd77::/64"]}
LOGINS = opened([PORT, 22], "tcp")


class Session:
    """A remote login from `there` to `here`, seen from where somebody sits."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._lines = sock.makefile("r")
        self.name = name

    def patience(self, seconds: float) -> None:
        self._sock.settimeout(seconds)

    def run(self, *words: str, status: int | None = 0) -> str:
        """What a command says that is started over there. Fails where the session is dead."""
        self._sock.sendall(json.dumps(words).encode() + b"\n")
        found, said = json.loads(self._lines.readline())
        assert status is None or found == status, said
        return str(said)


@contextmanager
def login(firewall: Firewall, pair: Any, address: str) -> Iterator[Session]:
    server = firewall.start(pair.here.command(sys.executable, "-P", LOGIN, address, str(PORT)))
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n", server.communicate()
        with pair.there.call(lambda: socket.create_connection((address, PORT), timeout=10)) as sock:
            sock.settimeout(10)
            end = sock.getsockname()
            shown = f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"
            yield Session(sock, shown)
    finally:
        server.kill()
        server.communicate()


def pids(at: Any) -> list[int]:
    """Everybody who is in a namespace."""
    found = subprocess.run(["ip", "netns", "pids", at.name], capture_output=True, text=True, check=True)
    return [int(number) for number in found.stdout.split()]


def inside(firewall: Firewall, *words: str | Path) -> list[str]:
    """`pfw` without entering a namespace: whoever starts it is there already."""
    return [sys.executable, "-P", "-m", "pfw", *map(str, words)]


def up(firewall: Firewall, *options: str) -> list[str]:
    return inside(firewall, "up", "--rules", firewall.path, "--backend", firewall.backend, *options)


@pytest.fixture(params=["nftables", "iptables-nft"])
def held(request: pytest.FixtureRequest, firewall: Callable[..., Firewall]) -> Firewall:
    return firewall(request.param)


@pytest.mark.parametrize("six", [False, True])
def test_a_policy_that_would_cut_who_asks(held: Firewall, pair: Any, net: Any, six: bool) -> None:
    with login(held, pair, net.here6 if six else net.here) as session:
        held.write(policy(SHUT, LOGINS))
        said = session.run(*up(held), status=1)
        assert f"refused: it would cut your session {session.name} -> " in said
        assert 'block by rule "nobody from there"' in said
        assert "--force does it anyway" in said
        assert held.ours() == ""
        held.write(policy())
        assert "block by default in" in session.run(*up(held), status=1)
        held.write(policy(LOGINS))
        assert "in force" in session.run(*up(held))
        assert session.run("echo", "still here") == "still here\n"
        held.write(policy(SHUT, LOGINS))
        assert "refused" in session.run(*up(held), status=1)
        assert session.run("echo", "still here") == "still here\n"


def test_force_does_it(held: Firewall, pair: Any, net: Any) -> None:
    with login(held, pair, net.here) as session:
        held.write(policy(SHUT, LOGINS))
        session.patience(3)
        with pytest.raises(TimeoutError):
            session.run(*up(held, "--force"))
        net.wait_until(lambda: held.status()["active"], "it is in force")
        with pytest.raises(TimeoutError):
            pair.there.call(lambda: socket.create_connection((net.here, PORT), timeout=0.5))


def test_what_ssh_says(held: Firewall, pair: Any, net: Any) -> None:
    """Under su or a multiplexer no ancestor holds the socket, but the environment tells."""
    held.write(policy(SHUT, LOGINS))
    held.environment["SSH_CONNECTION"] = f"{net.there} 50000 {net.here} 22"
    done = held.up(status=1)
    assert f"{net.there}:50000 -> {net.here}:22" in done.stderr
    assert 'block by rule "nobody from there"' in done.stderr
    held.environment["SSH_CONNECTION"] = "nonsense 1 2 3"
    held.up()


def test_a_session_from_this_very_machine(held: Firewall, net: Any) -> None:
    """It is not cut by a policy: loopback is always open."""
    held.environment["SSH_CONNECTION"] = "127.0.0.1 50000 127.0.0.1 22"
    held.up(policy())


def test_a_block_list_that_names_who_asks(held: Firewall, pair: Any, net: Any, tmp_path: Path) -> None:
    """His own address is taken out of a list when it is fetched; a list from before is asked about."""
    public = "45.9.9.9"
    pair.there.run("ip", "addr", "add", f"{public}/32", "dev", net.cable)
    pair.here.run("ip", "route", "add", public, "via", net.there)
    listed = tmp_path / "listed.txt"
    listed.write_text("45.9.9.0/24\n46.0.0.0/8\n")
    lists = [{"name": "bad", "source": str(listed), "direction": "in"}]
    held.environment["SSH_CONNECTION"] = f"{public} 50000 {net.here} 22"
    done = held.up(policy(LOGINS, blocklists=lists), status=None)
    if done.returncode == 1:
        assert "refused: it would cut your session" in done.stderr
        assert 'block list "bad"' in done.stderr
        held.up(None, "--force")
    else:
        with pair.there.call(socket.socket) as sock:
            sock.settimeout(2)
            sock.bind((public, 0))
            with pytest.raises(ConnectionRefusedError):
                sock.connect((net.here, 22))


def test_bans_never_take_who_is_logged_in(held: Firewall, pair: Any, net: Any) -> None:
    Changing(held).up(policy(LOGINS))
    with login(held, pair, net.here) as session:
        for what in (net.there, f"{net.there}/32", "10.77.0.0/24"):
            said = session.run(*inside(held, "ban", "add", what), status=1)
            assert "and is not banned (--force bans it)" in said
        assert session.run("echo", "still here") == "still here\n"
        session.run(*inside(held, "ban", "add", "10.78.0.0/16"))
        assert session.run("echo", "still here") == "still here\n"


def test_bans_never_take_what_the_machine_needs(held: Firewall, pair: Any, net: Any, tmp_path: Path) -> None:
    Changing(held).up(policy())
    pair.here.run("ip", "route", "add", "default", "via", "10.77.0.254")
    pair.here.run("ip", "-6", "route", "add", "default", "via", "fd77::254")
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("nameserver 9.9.9.9\nnameserver 2620:fe::fe\n")

    def ban(what: str, *options: str, status: int) -> str:
        words = " ".join(inside(held, "ban", "add", what, *options))
        script = f"mount --bind {resolvers} /etc/resolv.conf && exec {words}"
        done = held.run(pair.here.command("sh", "-c", script), status=status)
        return done.stdout + done.stderr

    never = {
        "the gateway's": ("10.77.0.254", "fd77::254", "10.77.0.252-10.77.0.254"),
        "the resolver's": ("9.9.9.9", "2620:fe::fe", "9.0.0.0/8", "2620::/16"),
        "this machine's own": (net.here, net.here6, "10.77.0.0-10.77.0.1"),
        "loopback": ("127.0.0.1", "127.8.8.8", "::1"),
    }
    for reason, addresses in never.items():
        for what in addresses:
            said = ban(what, status=1)
            assert reason in said, (what, said)
            assert "and is not banned (--force bans it)" in said
            assert "0 banned" in said
    assert held.status()["bans"] == []
    ban("9.9.9.9", "--force", status=0)
    assert [each["address"] if "address" in each else each["what"] for each in held.status()["bans"]] == ["9.9.9.9"]


class TestSsh:
    """A real server for remote logins."""

    @pytest.fixture
    def ssh(self, firewall: Callable[..., Firewall], pair: Any, net: Any, tmp_path: Path) -> Iterator[Any]:
        for program in ("dropbear", "dbclient", "dropbearkey"):
            if shutil.which(program, path="/usr/sbin:/usr/bin") is None:
                pytest.skip("no dropbear here")
        held = firewall()
        home = tmp_path / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        for name in ("host", "own"):
            made = subprocess.run(
                ["dropbearkey", "-t", "ed25519", "-f", str(tmp_path / name)], capture_output=True, text=True, check=True
            )
        public = next(line for line in made.stdout.splitlines() if line.startswith("ssh-ed25519 "))
        (home / ".ssh" / "authorized_keys").write_text(public + "\n")
        (home / ".ssh" / "authorized_keys").chmod(0o600)
        passwd = tmp_path / "passwd"
        passwd.write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
        # The folder of an account is elsewhere for this server alone; the machine's own accounts stay as they are.
        files = f"-r {tmp_path / 'host'} -P {tmp_path / 'pid'}"
        server = f"mount --bind {passwd} /etc/passwd && exec dropbear -F -E -s -p {PORT} {files}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(pair.here.command("sh", "-c", server), stdin=subprocess.DEVNULL, **quiet)
        there = pair.there.command(
            "dbclient", "-T", "-y", "-y", "-i", tmp_path / "own", "-p", str(PORT), f"root@{net.here}", "sh"
        )

        def listening() -> bool:
            return f":{PORT} " in pair.here.run("ss", "-Htln").stdout

        net.wait_until(listening, "the server listens")
        client = subprocess.Popen(
            there, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "HOME": str(home)}
        )
        yield held, client
        for number in pids(pair.here) + pids(pair.there):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for each in (client, process):
            each.communicate()

    def test_it(self, ssh: Any, net: Any) -> None:
        held, client = ssh

        too_late = threading.Timer(30, client.kill)
        too_late.start()

        def ask(words: list[str]) -> str:
            variables = f"PYTHONPATH={held.environment['PYTHONPATH']} PFW_STATE_DIR={held.state}"
            client.stdin.write(f"{variables} {' '.join(words)} 2>&1; echo status $?\n")
            client.stdin.flush()
            lines: list[str] = []
            while not lines or not lines[-1].startswith("status "):
                lines.append(client.stdout.readline())
                assert lines[-1], lines
            return "".join(lines)

        held.write(policy(SHUT, LOGINS))
        said = ask(up(held))
        assert "refused: it would cut your session 10.77.0.2:" in said
        assert said.endswith("status 1\n")
        said = ask(inside(held, "ban", "add", net.there))
        assert f"{net.there} is of somebody who is logged in and is not banned" in said
        held.write(policy(LOGINS))
        assert ask(up(held)).endswith("status 0\n")
        assert ask(["echo", "still", "here"]) == "still here\nstatus 0\n"
        too_late.cancel()
