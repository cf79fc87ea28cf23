"""Firewalls that tell programs apart, in the near end of a pair, with their daemons; and the programs themselves.

What is measured runs in control groups of its own. OpenSnitch reads /etc/opensnitchd: its daemon sees a folder of ours
in that place, in mounts of its own.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from firewalls import fresh
from pair import FAR, Pair
from processes import BenchError, Running, run
from setting import PROGRAMS, Setting

FIRST_PORT, PORT_COUNT = 5210, 16
"""Where the far end listens."""
START_S = 20.0
Rule = dict[str, object]
_MNT_DETACH = 2
_numbers = itertools.count(1)


def policy(rules: Sequence[Rule], out: str = "block") -> str:
    """A policy file; what no rule speaks of is blocked, or what `out` says."""
    return json.dumps({"version": 2, "default": {"in": "block", "out": out}, "rules": list(rules)}, indent=1)


def app_rules(paths: Sequence[str]) -> list[Rule]:
    """A rule for each program, which may go out."""
    return [
        {"name": f"program {at}", "action": "allow", "direction": "out", "app": path} for at, path in enumerate(paths)
    ]


def opensnitch_settings() -> dict[str, object]:
    """Its daemon's settings. Its eBPF needs kprobes, its nftables the kernel's own queue statement: not all kernels
    have them, and its defaults are these."""
    return {
        "Server": {"Address": "unix:///run/nobody.sock", "LogFile": "/dev/stdout"},
        "DefaultAction": "allow",
        "DefaultDuration": "once",
        "InterceptUnknown": False,
        "ProcMonitorMethod": "proc",
        "LogLevel": 2,
        "Firewall": "iptables",
        "Stats": {"MaxEvents": 150, "MaxStats": 25},
    }


def opensnitch_rule() -> dict[str, object]:
    """A rule of OpenSnitch's that allows everything: the least that it can be asked to do."""
    date = "2026-01-01T00:00:00Z"
    return {
        "created": date,
        "updated": date,
        "name": "000-bench",
        "enabled": True,
        "precedence": False,
        "action": "allow",
        "duration": "always",
        "operator": {"type": "simple", "operand": "true", "sensitive": False, "data": "", "list": []},
    }


def queued_packets(ruleset: str) -> int:
    """Packets that rules of a listing by `nft` have given to a queue."""
    return sum(map(int, re.findall(r"counter packets (\d+) bytes \d+ queue num", ruleset)))


def inside(namespace: str) -> tuple[str, ...]:
    """`ip netns exec` would mount another /sys, without control groups."""
    return ("nsenter", f"--net=/run/netns/{namespace}", "--")


class ControlGroup:
    """A control group of the bench's own, for the programs of one candidate."""

    def __init__(self) -> None:
        root = cgroup_root()
        if root is None:
            raise BenchError("no cgroup v2 is mounted")
        self.path = root / f"pfw-test-bench-{os.getpid()}-{next(_numbers)}"

    def make(self) -> None:
        self.path.mkdir()

    def command(self, *words: str) -> tuple[str, ...]:
        """What starts a program in it."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs; exec "$@"', "sh", *words)

    def remove(self) -> None:
        until = time.monotonic() + START_S
        while True:
            for pid in (self.path / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                self.path.rmdir()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


@contextmanager
def control_group() -> Iterator[ControlGroup]:
    made = ControlGroup()
    made.make()
    try:
        yield made
    finally:
        made.remove()


def cgroup_root() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        words = line.split()
        if words[2] == "cgroup2":
            return Path(words[1])
    return None


class PfwDaemon:
    """`pfw daemon`, with all that it keeps in a folder of this pair's."""

    def __init__(self, setting: Setting, pair: Pair, group: ControlGroup) -> None:
        self.folder = fresh(setting, pair)
        self.run_folder = self.folder / "run"
        self.socket = self.run_folder / "pfw.sock"
        self._rules = self.folder / "rules.json"
        self._ready = self.folder / "ready.sock"
        places = {"PFW_STATE_DIR": str(self.folder / "state"), "PFW_RUN_DIR": str(self.run_folder)}
        self._environment = setting.environment | places | {"NOTIFY_SOCKET": str(self._ready)}
        words = ("daemon", "--rules", str(self._rules), "--cgroup", str(group.path))
        self._words = (*inside(pair.near), *setting.pfw, *words)
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        assert self._running is not None
        return self._running

    @property
    def pid(self) -> int:
        return self.running.pid

    def up(self, text: str, *options: str) -> float:
        """How long it takes until it says that it is ready, in seconds. Raises BenchError where it does not."""
        self._rules.write_text(text)
        self._ready.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self._ready))
            ready.settimeout(START_S)
            began = time.perf_counter()
            self._running = Running((*self._words, *options), environment=self._environment)
            ready.settimeout(0.1)
            while time.perf_counter() - began < START_S and not self._running.has_ended:
                with suppress(TimeoutError):
                    if ready.recv(4096) == b"READY=1":
                        return time.perf_counter() - began
        raise BenchError(f"pfw daemon does not become ready: {self.end()}")

    def counts(self) -> dict[str, int]:
        """What it has counted, by its interface."""
        found: dict[str, int] = self.call("Status")["counts"]
        return found

    def need_labels(self) -> None:
        """Raises BenchError where it has none: what is measured then is something else."""
        says = self.call("Status")["labels"]
        if says.startswith("no"):
            raise BenchError(f"labels: {says}")

    def call(self, method: str) -> dict[str, Any]:
        """Ask it something by its interface (varlink: JSON, ended by a zero byte)."""
        with self.connected(method) as asked:
            data = b""
            while not data.endswith(b"\0"):
                more = asked.recv(1 << 16)
                if not more:
                    raise BenchError(f"pfw daemon does not answer {method}")
                data += more
        found: dict[str, Any] = json.loads(data[:-1])["parameters"]
        return found

    def connected(self, method: str, *, more: bool = False) -> socket.socket:
        """A connection on which a method has been called; with `more` the answers go on coming."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(START_S)
        made.connect(str(self.socket))
        question: dict[str, object] = {"method": f"org.pfw.Firewall.{method}", "parameters": {}}
        made.sendall(json.dumps(question | ({"more": True} if more else {})).encode() + b"\0")
        return made

    def end(self) -> str:
        """The last that it said."""
        running, self._running = self._running, None
        if running is None:
            return ""
        if not running.has_ended:
            os.kill(running.pid, signal.SIGTERM)
        return " ".join(running.wait().errors.split("\n")[-3:])

    def close(self) -> None:
        """End it, and let go of what it has pinned."""
        self.end()
        ctypes.CDLL(None).umount2(os.fsencode(self.run_folder / "bpf"), _MNT_DETACH)


class OpenSnitch:
    """OpenSnitch's daemon without its window, with one rule that allows everything."""

    def __init__(self, setting: Setting, pair: Pair) -> None:
        folder = fresh(setting, pair)
        self._rules, self._settings = folder / "rules", folder / "etc"
        self._pair = pair
        shutil.copytree("/etc/opensnitchd", self._settings)
        self._rules.mkdir()
        self._running: Running | None = None

    @staticmethod
    def is_there() -> bool:
        return shutil.which("opensnitchd") is not None

    @property
    def pid(self) -> int:
        assert self._running is not None
        return self._running.pid

    def up(self) -> float:
        """How long it takes until it reads its queue and the kernel fills it, in seconds."""
        (self._settings / "default-config.json").write_text(json.dumps(opensnitch_settings()))
        (self._settings / "system-fw.json").write_text('{"SystemRules": []}')
        (self._rules / "000-bench.json").write_text(json.dumps(opensnitch_rule()))
        mount = f'mount --bind {self._settings} /etc/opensnitchd && exec "$@"'
        daemon = ("opensnitchd", "-rules-path", str(self._rules), "-process-monitor-method", "proc", "-error")
        began = time.perf_counter()
        # `ip netns exec` gives its command a mount namespace of its own, whose mounts nobody else sees.
        self._running = Running((*self._pair.inside, "sh", "-c", mount, "sh", *daemon))
        while time.perf_counter() - began < START_S and not self._running.has_ended:
            if self._reads() and "queue num" in self.ruleset():
                return time.perf_counter() - began
            time.sleep(0.01)
        self._running.kill()
        raise BenchError("opensnitchd does not become ready")

    def ruleset(self) -> str:
        return run((*self._pair.inside, "nft", "list", "chain", "ip", "mangle", "OUTPUT"), good=(0, 1)).output

    def _reads(self) -> bool:
        with suppress(OSError):
            return bool(Path(f"/proc/{self.pid}/net/netfilter/nfnetlink_queue").read_text())
        return False

    def end(self) -> None:
        """It takes its rules away when it is asked to end; the namespace goes anyway."""
        if self._running is not None:
            self._running.kill()
        self._running = None

    def close(self) -> None:
        self.end()


@contextmanager
def far_end(setting: Setting, pair: Pair) -> Iterator[None]:
    """Somebody who takes every connection at the far end, and ends it."""
    _, core = setting.cores()
    run((*pair.outside, "sysctl", "-qw", "net.core.somaxconn=65535"))
    serving = Running((*inside(pair.far), *client(setting), "listen", f"{FAR}:{FIRST_PORT}", str(PORT_COUNT)), cpu=core)
    try:
        wait_until(lambda: _listens(serving), serving, "listens")
        yield
    finally:
        serving.kill()


def wait_until(true: Callable[[], bool], running: Running, what: str) -> None:
    until = time.monotonic() + START_S
    while not true():
        if running.has_ended:
            raise running.fail(running.wait())
        if time.monotonic() > until:
            raise BenchError(f"waited in vain until it {what}")
        time.sleep(0.01)


def _listens(serving: Running) -> bool:
    rows = Path(f"/proc/{serving.pid}/net/tcp").read_text().splitlines()
    return any(f":{FIRST_PORT + PORT_COUNT - 1:04X} " in row and " 0A " in row for row in rows)


def client(setting: Setting) -> tuple[str, ...]:
    """The program that connects: compiled where there is a compiler, else a script."""
    made = compiled(setting)
    return script(setting) if made is None else (str(made),)


def script(setting: Setting) -> tuple[str, ...]:
    """The script that connects, behind its interpreter."""
    return (os.path.realpath(setting.python), "-I", str(PROGRAMS / "connect.py"))


def compiled(setting: Setting) -> Path | None:
    """The program in C; None where there is no compiler."""
    source, made = PROGRAMS / "connect.c", setting.folder / "connect"
    if shutil.which("gcc") is None:
        return None
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        run(("gcc", "-O2", "-o", str(made), str(source)))
    return made
