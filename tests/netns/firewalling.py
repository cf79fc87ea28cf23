"""The real command `pfw` in a namespace, and packets that tell what it lets through."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pfw.cli import rules
from pfw.daemon import backends, banning, enforcing
from pfw.daemon.state import State
from pfw.drivers.store import Store
from pfw.model.address import parse_range

SOURCE = Path(__file__).resolve().parents[2] / "src"
BACKENDS = ("nftables", "iptables-nft", "iptables-legacy")
CONTROL_PORT = 9999
"""Open under every policy of `policy`: what is sent there last tells that all before it has come, or never will."""
_ARRIVES_S = 5.0
_GRACE_S = 0.05


def policy(*rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A policy that lets in what these rules do, and the probes' last packet."""
    control = {"name": "control", "action": "allow", "direction": "in", "protocol": "udp", "port": CONTROL_PORT}
    defaults = {"in": "block", "out": "allow", "forward": "block"}
    return {"version": 2, "default": defaults, "rules": [*rules, control], **fields}


def opened(port: int | list[int], protocol: str = "udp", **more: Any) -> dict[str, Any]:
    return {
        "name": f"{protocol} {port}", "action": "allow", "direction": "in", "protocol": protocol, "port": port, **more
    }  # fmt: skip


class Firewall:
    """`pfw` in a namespace, with its state and its policy in a folder of its own."""

    def __init__(self, at: Any, folder: Path, backend: str = "auto") -> None:
        self.at = at
        self.state = folder / "state"
        self.path = folder / "rules.json"
        self.backend = backend
        self.environment = {
            **os.environ, "PYTHONPATH": str(SOURCE), "PFW_STATE_DIR": str(self.state), "NO_COLOR": "1",
            "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        for name in ("SSH_CONNECTION", "SSH_CLIENT"):
            self.environment.pop(name, None)

    def write(self, wanted: dict[str, Any] | str) -> Path:
        self.path.write_text(wanted if isinstance(wanted, str) else json.dumps(wanted))
        return self.path

    def words(self, *words: str | Path) -> list[str]:
        """The command line that starts it inside."""
        command: list[str] = self.at.command(sys.executable, "-P", "-m", "pfw", *words)
        return command

    def up_words(self, *options: str) -> list[str]:
        return self.words("up", "--rules", self.path, "--backend", self.backend, *options)

    def start(self, words: list[str], **options: Any) -> subprocess.Popen[str]:
        options = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True,
            "env": self.environment,
        } | options  # fmt: skip
        return subprocess.Popen(words, **options)

    def run(self, words: list[str], *, status: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 60, "env": self.environment} | options
        if "input" not in options:
            options["stdin"] = subprocess.DEVNULL
        done = subprocess.run(words, check=False, **options)
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def pfw(self, *words: str | Path, status: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(self.words(*words), status=status, **options)

    def up(
        self, wanted: dict[str, Any] | str | None = None, *options: str, status: int | None = 0, **others: Any
    ) -> subprocess.CompletedProcess[str]:
        if wanted is not None:
            self.write(wanted)
        return self.run(self.up_words(*options), status=status, **others)

    def status(self) -> dict[str, Any]:
        done = self.pfw("status", "--json", status=None)
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def ours(self) -> str:
        """All that the kernel has of ours, of every backend."""
        nft = self.at.run("nft", "list", "ruleset").stdout
        found = [nft] if "table inet pfw" in nft else []
        for kind in ("iptables-nft", "iptables-legacy"):
            for program in (kind, kind.replace("ip", "ip6", 1)):
                saved = self.at.run(f"{program}-save").stdout
                found += [line for line in saved.splitlines() if "PFW" in line]
        found += [name for name in self.at.run("ipset", "list", "-name").stdout.split() if name.startswith("pfw")]
        return "\n".join(found)


class Changing:
    """The firewall, changed by the functions behind the commands, without their start-up."""

    def __init__(self, firewall: Firewall) -> None:
        self.firewall = firewall
        self.state = State(Store(firewall.state))
        self.backend = firewall.backend

    def up(self, wanted: dict[str, Any]) -> enforcing.Outcome:
        path = self.firewall.write(wanted)
        content = path.read_bytes()
        order = enforcing.Wanted(
            policy=rules.parse(content, path), path=str(path), content=content, backend=self.backend, force=True
        )
        outcome: enforcing.Outcome = self.firewall.at.call(lambda: enforcing.up(self.state, order, lambda _: None))
        return outcome

    def down(self) -> list[str]:
        found: list[str] = self.firewall.at.call(lambda: enforcing.down(self.state))
        return found

    def ban(self, texts: list[str]) -> None:
        ranges = [parse_range(text) for text in texts]
        kernel = backends.named(self.backend)
        done = self.firewall.at.call(lambda: banning.add(self.state, kernel, ranges, 600, force=True))
        assert done.done == len(texts)

    def unban(self, texts: list[str]) -> None:
        ranges = [parse_range(text) for text in texts]
        kernel = backends.named(self.backend)
        done = self.firewall.at.call(lambda: banning.remove(self.state, kernel, ranges))
        assert done.done == len(texts)


def arrived(receiver: Any, sender: Any, ports: Iterable[int], addresses: Iterable[str]) -> set[tuple[str, int]]:
    """To which of these addresses and ports of the receiver a datagram of the sender comes; each from a new port."""
    found: set[tuple[str, int]] = set()
    with ExitStack() as stack:

        def bound(address: str, port: int) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.setblocking(False)
            return sock

        places = [(address, port) for address in addresses for port in (*ports, CONTROL_PORT)]
        sockets = {place: stack.enter_context(receiver.call(lambda p=place: bound(*p))) for place in places}

        def send(place: tuple[str, int]) -> None:
            family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
            with sender.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
                sock.sendto(b"probe", place)

        for place in places:
            send(place)
        deadline = time.monotonic() + _ARRIVES_S
        while {place for place in places if place[1] == CONTROL_PORT} - found and time.monotonic() < deadline:
            found |= _read(sockets)
        time.sleep(_GRACE_S)
        found |= _read(sockets)
    return found


def _read(sockets: dict[tuple[str, int], socket.socket]) -> set[tuple[str, int]]:
    found = set()
    for place, sock in sockets.items():
        try:
            sock.recv(100)
            found.add(place)
        except BlockingIOError:
            continue
    return found


def needs(backend: str, at: Any) -> None:
    """Skips where this backend cannot work here."""
    if backend.startswith("iptables"):
        programs = (f"{backend}-save", f"{backend.replace('ip', 'ip6', 1)}-save")
        for words in (*((program,) for program in programs), ("ipset", "list", "-name")):
            try:
                at.run(*words)
            except (subprocess.CalledProcessError, FileNotFoundError) as error:
                pytest.skip(f"no {backend} here: {words[0]}: {error}")
    elif at.run("nft", "list", "tables", check=False).returncode:
        pytest.skip("no nft here")


@pytest.fixture
def firewall(pair: Any, tmp_path: Path) -> Callable[..., Firewall]:
    """Makes the firewall of `here`, or of another namespace."""
    made: list[Firewall] = []

    def make(backend: str = "nftables", at: Any = None) -> Firewall:
        at = pair.here if at is None else at
        needs(backend, at)
        folder = tmp_path / f"firewall{len(made)}"
        folder.mkdir()
        made.append(Firewall(at, folder, backend))
        return made[-1]

    return make
