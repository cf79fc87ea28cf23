"""The daemon with its observer in a namespace, traffic through it, and what it remembers and says of that.

`here` is the machine that is watched, `there` the other end of its cable. `far` is behind `here`, where a test wants
something forwarded.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.netns.conftest import CABLE, HERE, HERE6, THERE, THERE6, Namespace, ip
from tests.netns.daemon_load import CURL
from tests.netns.firewalling import SOURCE
from tests.netns.programs_lab import WEB, Lab, lab  # noqa: F401

from pfw.api.client import Client
from pfw.api.definition import Nothing
from pfw.api.interface import AlertsResult, StatusResult
from pfw.model.address import as_int, parse_address
from pfw.model.history import Entry, Noticed, Query
from pfw.record.history_read import Reader, open_history
from pfw.record.history_schema import FILE, HistoryError

EVIL = "10.77.0.66"
FAR, FAR_HERE = "10.78.0.2", "10.78.0.1"
"""Behind `here`: `far`, and its gateway."""
OPEN: dict[str, Any] = {"version": 2, "default": {"in": "allow", "out": "allow", "forward": "allow"}, "rules": []}
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
Found = TypeVar("Found")
MARK = 60_000
"""From here on are ports that nothing else is sent to."""
WAIT_S = 60.0 if os.environ.get("PFW_IN_VM") else 12.0
__all__ = ["CABLE", "CURL", "HERE", "HERE6", "THERE", "THERE6", "WEB", "Namespace", "ip"]


class Observed:
    """A `Lab`, seen by what its observer writes and says."""

    def __init__(self, lab: Lab) -> None:  # noqa: F811
        self.lab = lab
        self.here, self.there = lab.here, lab.there
        self.path = lab.firewall.state / FILE
        self.mounts_of: int | None = None
        """The process whose mounts the file is below; None for our own."""

    def up(self, wanted: dict[str, Any] | None = None, *options: str) -> None:
        """Start the daemon, and wait until its observer has told of itself."""
        self.lab.up(OPEN if wanted is None else wanted, *options)
        self.observing()

    def begin(self, *options: str) -> None:
        self.lab.begin(*options)
        self.observing()

    def observing(self) -> None:
        """Wait until what is sent now is recorded."""
        port = MARK + len(self.lab.said) + int(time.monotonic() * 10) % 1000

        def seen() -> bool:
            send(self.there, HERE, port)
            time.sleep(0.15)
            return bool(self.rows(port=port))

        self.lab.until(seen, "the observer records")

    def altered(self, code: str, *, daemon: bool = False) -> None:
        """Have the observer (and the daemon) run this before anything else, from the next start on."""
        folder = self.lab.folder / "altered"
        folder.mkdir(exist_ok=True)
        inner = "".join(f"    {line}\n" for line in code.strip().splitlines())
        who = "'pfw.daemon.observer' in sys.orig_argv" + (" or 'daemon' in sys.orig_argv" if daemon else "")
        (folder / "sitecustomize.py").write_text(f"import sys\nif {who}:\n{inner}")
        self.lab.firewall.environment["PYTHONPATH"] = f"{folder}:{SOURCE}"

    # -- what is remembered

    def rows(self, **wanted: Any) -> list[Entry]:
        """What the history has, the oldest first; nothing where there is no history yet."""
        return self._read(lambda reader: list(reader.entries(Query(**wanted))))

    def row(self, true: Callable[[Entry], bool] = lambda _: True, **wanted: Any) -> Entry:
        """The one row that is wanted, waited for."""
        self.lab.until(lambda: [each for each in self.rows(**wanted) if true(each)], f"{wanted} is in the history")
        (found,) = [each for each in self.rows(**wanted) if true(each)]
        return found

    def ended(self, **wanted: Any) -> Entry:
        return self.row(lambda each: each.end is not None, **wanted)

    def json(self, *words: str) -> list[dict[str, Any]]:
        """What another command prints with `--json`, an object a line or a list of them."""
        text = self.lab.pfw(*words, "--json").stdout
        return [json.loads(line) for line in text.splitlines()] if text.startswith("{") else json.loads(text)

    def log(self, *words: str) -> list[dict[str, Any]]:
        """What `pfw log --json` prints."""
        return [json.loads(line) for line in self.lab.pfw("log", "--json", *words).stdout.splitlines()]

    def alerts(self) -> list[Noticed]:
        return self._read(lambda reader: reader.alerts(None))

    def _read(self, of: Callable[[Reader], list[Found]]) -> list[Found]:
        found: list[Found] = []

        def read() -> None:
            with suppress(HistoryError), mounts_of(self.mounts_of), open_history(self.path) as reader:
                found.extend(of(reader))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        return found

    def noticed(self, kind: str, true: Callable[[Noticed], bool] = lambda _: True) -> Noticed:
        """The first alert of this kind, waited for."""

        def found() -> list[Noticed]:
            return [each for each in self.alerts() if each.kind == kind and true(each)]

        self.lab.until(found, f"there is an alert: {kind}")
        return found()[0]

    # -- the processes

    def counts(self) -> dict[str, int]:
        with self.lab.client() as client:
            return client.call("Status", Nothing(), StatusResult).counts

    def observer(self) -> int:
        """Its process, waited for."""
        assert self.lab.daemon is not None
        pid = self.lab.daemon.pid
        self.lab.until(lambda: _observers(pid), "there is an observer")
        return _observers(pid)[0]

    def heard(self, text: str) -> str:
        """A line of the daemon's that has this text, waited for."""
        self.lab.until(lambda: [line for line in self.lab.said if text in line], f"it says {text!r}")
        return next(line for line in self.lab.said if text in line)

    @contextmanager
    def listening(self) -> Iterator[list[AlertsResult]]:
        """The alerts that come by the interface meanwhile."""
        came: list[AlertsResult] = []
        client = Client(self.lab.runtime / "pfw.sock")
        stream = client.stream("Alerts", Nothing(), AlertsResult, timeout_s=60.0)

        def listen() -> None:
            with suppress(OSError, ValueError):
                for each in stream:
                    came.append(each)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        time.sleep(0.1)
        try:
            yield came
        finally:
            client.close()


def _observers(parent: int) -> list[int]:
    with suppress(OSError):
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(each) for each in children if b"pfw.daemon.observer" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return []


@contextmanager
def mounts_of(pid: int | None) -> Iterator[None]:
    """Have this thread, which must be a new one and end then, see the file systems that a process sees."""
    if pid is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{pid}/ns/mnt") as place:
            if libc.unshare(_CLONE_FS) or libc.setns(place.fileno(), _CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), "setns")
    yield


def send(at: Any, address: str, port: int, payload: bytes = b"datagram") -> int:
    """One datagram; the port that it came from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with at.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.sendto(payload, (address, port))
        return int(sock.getsockname()[1])


def knock(at: Any, address: str, port: int) -> None:
    """Try to make a TCP connection, for a moment."""
    with suppress(OSError):
        at.call(lambda: socket.create_connection((address, port), timeout=0.3)).close()


def ask(at: Any, address: str, port: int) -> None:
    """One datagram, and its answer."""
    with at.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(5)
        sock.sendto(b"question", (address, port))
        assert sock.recv(100) == b"question"


def drain(sock: socket.socket, size: int) -> None:
    while size > 0:
        piece = sock.recv(65_536)
        assert piece
        size -= len(piece)


def only(address: str) -> tuple[tuple[int, int], ...]:
    """A query's `remotes` for one address."""
    number = as_int(parse_address(address))
    return ((number, number),)


def connected(at: Any, address: str, port: int) -> socket.socket:
    """A TCP connection from a namespace."""
    return at.call(lambda: socket.create_connection((address, port), timeout=5))  # type: ignore[no-any-return]


@contextmanager
def serving(at: Any, address: str, port: int) -> Iterator[socket.socket]:
    """A TCP socket that waits in a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with at.call(lambda: socket.create_server((address, port), family=family)) as server:
        yield server


def shorten(at: Any, **seconds: int) -> None:
    """Have a kernel forget connections sooner."""
    for name, value in seconds.items():
        at.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_{name}={value}")


@pytest.fixture
def observed(lab: Lab) -> Observed:  # noqa: F811
    """Nothing runs yet."""
    return Observed(lab)


@pytest.fixture
def far(lab: Lab, namespace: Callable[[], Namespace]) -> Namespace:  # noqa: F811
    """Behind `here`, which forwards."""
    made = namespace()
    ip("link", "add", "eth1", "netns", lab.here.name, "type", "veth", "peer", "name", CABLE, "netns", made.name)
    for at, name, address in ((lab.here, "eth1", FAR_HERE), (made, CABLE, FAR)):
        ip("-n", at.name, "link", "set", name, "up")
        ip("-n", at.name, "addr", "add", f"{address}/24", "dev", name)
    made.run("ip", "route", "add", "default", "via", FAR_HERE)
    lab.there.run("ip", "route", "add", "10.78.0.0/24", "via", HERE)
    lab.here.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    return made


@pytest.fixture
def evil(lab: Lab, namespace: Callable[[], Namespace]) -> Namespace:  # noqa: F811
    """Another machine at the same cable as `there`, with an Ethernet address of its own."""
    made = namespace()
    ip("-n", lab.there.name, "link", "add", "evil", "link", CABLE, "type", "macvlan", "mode", "bridge")
    ip("-n", lab.there.name, "link", "set", "evil", "netns", made.name, "name", CABLE)
    ip("-n", made.name, "link", "set", CABLE, "up")
    ip("-n", made.name, "addr", "add", f"{EVIL}/24", "dev", CABLE)
    return made


def needs(*programs: str) -> None:
    """Skips where one of these is not installed."""
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        pytest.skip(f"not installed here: {', '.join(missing)}")


@contextmanager
def running(at: Any, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A program that runs in a namespace meanwhile."""
    process = subprocess.Popen(
        at.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
