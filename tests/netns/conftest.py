"""Two network namespaces joined by a cable, real traffic in them, and the real command watching it.

Nothing here touches the machine's own interfaces: every socket is made by a thread that has entered one of
the namespaces, every program is started inside one, and both are removed again whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from tests.netns.firewalling import firewall  # noqa: F401

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
DEADLINE_S = 8.0
SOURCE = Path(__file__).resolve().parents[2] / "src"
HERE, THERE = "10.77.0.1", "10.77.0.2"
HERE6, THERE6 = "fd77::1", "fd77::2"
CABLE = "eth0"
"""What the cable's end is called in both namespaces."""

_numbers = itertools.count(1)


def ip(*words: str | bytes) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Namespace:
    """A network namespace of the test's own."""

    def __init__(self) -> None:
        self.name = f"pfw-test-{os.getpid()}-{next(_numbers)}"
        ip("netns", "add", self.name)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def command(self, *words: str | Path) -> list[str]:
        """What starts a program inside."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": 30} | options
        return subprocess.run(self.command(*words), check=check, **options)

    def call(self, function: Callable[[], T]) -> T:
        """What a function gives that runs inside; sockets that it makes stay inside."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/run/netns/{self.name}") as place:
                    if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


class Monitor:
    """A `pfw monitor` that runs in a namespace, its lines as they come."""

    def __init__(self, namespace: Namespace, folder: Path, *options: str | Path, **others: Any) -> None:
        command = namespace.command(sys.executable, "-m", "pfw", "monitor", *options)
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=others.get("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._more = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._more:
                lines.append(line.rstrip("\n"))
                self._more.notify_all()

    def ready(self) -> Monitor:
        """Wait until it captures, and ends well on a signal."""
        process = Path(f"/proc/{self.process.pid}")

        def captures() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"it ended too early: {self.err}")
            caught = int((process / "status").read_text().split("SigCgt:")[1].split()[0], 16)
            sockets = [line.split() for line in (process / "net" / "packet").read_text().splitlines()[1:]]
            return bool(caught >> signal.SIGTERM - 1 & 1) and any(
                each[3] == "0003" and each[5] == "1" for each in sockets
            )

        wait_until(captures, "it captures")
        return self

    def line(self, pattern: str, *, errors: bool = False) -> re.Match[str]:
        """The first line that the pattern describes as a whole, waited for."""
        lines = self.err if errors else self.out
        deadline = time.monotonic() + DEADLINE_S
        with self._more:
            while True:
                for line in lines:
                    if match := re.fullmatch(pattern, line):
                        return match
                if not self._more.wait(deadline - time.monotonic()) or time.monotonic() > deadline:
                    pytest.fail(f"no line {pattern!r} came, but: {self.out} {self.err}")

    def object(self, **facts: object) -> dict[str, Any]:
        """The first JSON object with these facts, waited for."""
        found: list[dict[str, Any]] = []

        def came() -> bool:
            objects = [json.loads(line) for line in list(self.out)]
            found[:] = [each for each in objects if all(each.get(name) == fact for name, fact in facts.items())]
            return bool(found)

        wait_until(came, f"an object with {facts} comes", lambda: f"{self.out} {self.err}")
        return found[0]

    def end(self, how: signal.Signals | None = signal.SIGINT) -> int:
        """Its exit status, after a signal or by itself."""
        if how is not None:
            self.process.send_signal(how)
        status = self.process.wait(DEADLINE_S * 2)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        return status

    def summary(self, how: signal.Signals | None = signal.SIGINT) -> str:
        """The text behind the empty line, after the end."""
        assert self.end(how) == 0, self.err
        assert "" in self.out, (self.out, self.err)
        return "\n".join(self.out[self.out.index("") + 1 :])

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_until(true: Callable[[], bool], what: str, said: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain until {what} {said()}")
        time.sleep(0.01)


def talk(
    server_at: Namespace, client_at: Namespace, address: str, port: int, payload: bytes = b"GET / HTTP/1.0\r\n\r\n"
) -> None:
    """One TCP connection from beginning to end."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        server_at.call(lambda: socket.create_server((address, port), family=family)) as server,
        client_at.call(lambda: socket.create_connection((address, port), timeout=5)) as client,
    ):
        served, _ = server.accept()
        with served:
            client.sendall(payload)
            assert served.recv(100) == payload[:100]


def send(namespace: Namespace, address: str, port: int, payload: bytes = b"datagram") -> None:
    """One datagram."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.sendto(payload, (address, port))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.netns)


@pytest.fixture(scope="session")
def namespaces_work() -> None:
    """Skips where no namespace can be made."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need ip (iproute2)")
    try:
        Namespace().remove()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr!r}")


@pytest.fixture
def namespace(namespaces_work: None) -> Iterator[Callable[[], Namespace]]:
    """Makes namespaces, each with loopback up and without the chatter of IPv6."""
    with contextlib.ExitStack() as made:

        def make() -> Namespace:
            each = Namespace()
            made.callback(each.remove)
            for name in ("accept_dad=0", "router_solicitations=0"):
                each.run("sysctl", "-qw", f"net.ipv6.conf.default.{name}")
            each.run("ip", "link", "set", "lo", "up")
            return each

        yield make


@pytest.fixture
def pair(namespace: Callable[[], Namespace]) -> SimpleNamespace:
    """`here`, where the monitor watches, and `there`, joined by a cable with addresses of both families."""
    here, there = namespace(), namespace()
    ip("link", "add", CABLE, "netns", here.name, "type", "veth", "peer", "name", CABLE, "netns", there.name)
    for each, address, address6 in ((here, HERE, HERE6), (there, THERE, THERE6)):
        ip("-n", each.name, "link", "set", CABLE, "up")
        ip("-n", each.name, "addr", "add", f"{address}/24", "broadcast", "10.77.0.255", "dev", CABLE)
        ip("-n", each.name, "addr", "add", f"{address6}/64", "dev", CABLE, "nodad")
    return SimpleNamespace(here=here, there=there)


@pytest.fixture
def net() -> SimpleNamespace:
    """The names of it all."""
    return SimpleNamespace(
        here=HERE,
        there=THERE,
        here6=HERE6,
        there6=THERE6,
        cable=CABLE,
        source=SOURCE,
        wait_until=wait_until,
        ip=ip,
        talk=talk,
        send=send,
    )


RULES: dict[str, Any] = {
    "version": 2,
    "default": {"in": "block", "out": "allow", "forward": "block"},
    "rules": [
        {"name": "web", "action": "allow", "direction": "in", "protocol": "tcp", "port": 8080},
        {"name": "ping", "action": "allow", "direction": "in", "icmp_type": "echo-request"},
        {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": 2525},
    ],
}


@pytest.fixture
def rules(tmp_path: Path) -> SimpleNamespace:
    """A policy file where the monitor looks for it; `write` replaces it as editors do."""
    path = tmp_path / "rules.json"

    def write(*more: dict[str, Any], **fields: Any) -> None:
        text = json.dumps({**RULES, "rules": [*more, *RULES["rules"]], **fields})
        new = tmp_path / "rules.json.new"
        new.write_text(text)
        new.replace(path)

    write()
    return SimpleNamespace(path=path, write=write)


@pytest.fixture
def monitor(pair: SimpleNamespace, rules: SimpleNamespace, tmp_path: Path) -> Iterator[Callable[..., Monitor]]:
    """Starts a monitor on `here` that captures already."""
    started: list[Monitor] = []

    def start(*options: str | Path, ready: bool = True, **others: Any) -> Monitor:
        started.append(Monitor(pair.here, tmp_path, *options, **others))
        return started[-1].ready() if ready else started[-1]

    yield start
    for each in started:
        each.kill()
