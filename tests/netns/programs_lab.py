"""`pfw daemon` in a namespace, programs in a control group of the test's own, and what its interface says."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import SOURCE, Firewall

from pfw.api import interface as told
from pfw.api.client import Client
from pfw.api.definition import Nothing
from pfw.drivers import labels

MASK = 0xFF003F00
WEB = 8080
"""What listens at the other end, on every address, whatever is asked there."""
_DEADLINE_S = 90.0 if os.environ.get("PFW_IN_VM") else 15.0
"""In emulation Python alone takes some ten seconds to start."""
_numbers = itertools.count(1)


class Lab:
    """The daemon at `here`; `there` is the rest of the world. Programs run by `run` and `start` are in its control
    group, and in the namespace `here`."""

    def __init__(self, here: Any, there: Any, folder: Path) -> None:
        root = labels.root_cgroup()
        if root is None:
            pytest.skip("no cgroup v2 is mounted here")
        self.here, self.there, self.folder = here, there, folder
        self.cgroup = root / f"pfw-test-{os.getpid()}-{next(_numbers)}"
        self.cgroup.mkdir()
        self.firewall = Firewall(here, folder)
        self.runtime = folder / "run"
        self.firewall.environment["PFW_RUN_DIR"] = str(self.runtime)
        self.daemon: subprocess.Popen[str] | None = None
        self.said: list[str] = []
        self._web = _Web(there)

    # -- the daemon

    def daemon_words(self, *options: str) -> list[str]:
        return [
            *_inside(self.here), sys.executable, "-P", "-m", "pfw", "daemon", "--rules", str(self.firewall.path),
            "--cgroup", str(self.cgroup), *options,
        ]  # fmt: skip

    def up(self, wanted: dict[str, Any], *options: str) -> None:
        """Write a policy, and start the daemon with it."""
        self.firewall.write(wanted)
        self.begin(*options)

    def begin(self, *options: str) -> None:
        """Start the daemon, and wait until it serves, with the policy in force."""
        self.daemon = subprocess.Popen(
            self.daemon_words(*options), env=self.firewall.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(self.daemon,), daemon=True).start()
        self.until(lambda: bool(self.status_or_none()), "the daemon serves")

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line.rstrip("\n"))

    def status_or_none(self) -> told.StatusResult | None:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            pytest.fail(f"the daemon ended with {self.daemon.returncode}: {self.said}")
        try:
            with self.client() as client:
                status = client.call("Status", Nothing(), told.StatusResult)
        except OSError:
            return None
        return status if status.generation and status.policy else None

    def client(self) -> Client:
        return Client(self.runtime / "pfw.sock")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the daemon; its exit status."""
        assert self.daemon is not None
        self.daemon.send_signal(how)
        return self.daemon.wait(_DEADLINE_S)

    def pfw(self, *words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Another command of ours, beside the daemon."""
        words = (*_inside(self.here), sys.executable, "-P", "-m", "pfw", *words)
        return self.firewall.run(list(words), status=status, cwd=self.folder)

    # -- prompts

    def prompts(self) -> list[told.Prompt]:
        with self.client() as client:
            return list(client.call("Prompts", Nothing(), told.PromptsResult).prompts)

    def answer(self, number: int, action: str, lasting: str = "once", scope: str = "exact",
               seconds: int | None = None) -> None:  # fmt: skip
        parameters = told.AnswerParameters(id=number, action=action, lasting=lasting, scope=scope, seconds=seconds)  # type: ignore[arg-type]
        with self.client() as client:
            client.call("Answer", parameters, told.AnswerResult)

    def watching(self) -> Watcher:
        """Somebody who is there to be asked, as long as it is open."""
        return Watcher(self)

    # -- programs

    def words(self, *words: str | Path) -> list[str]:
        """The command line of a program in the daemon's control group, at `here`."""
        join = f'echo $$ > {self.cgroup}/cgroup.procs; exec "$@"'
        return ["sh", "-c", join, "sh", *_inside(self.here), *map(str, words)]

    def run(self, *words: str | Path, timeout_s: float = 20, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | options
        return subprocess.run(self.words(*words), check=False, timeout=timeout_s, **options)

    def start(self, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        } | options
        return subprocess.Popen(self.words(*words), **options)

    def fetches(self, program: str | Path, address: str, wait_s: float = 1.5) -> bool:
        """Whether a program that is curl, or a copy of it, gets an answer from the other end."""
        url = f"http://[{address}]:{WEB}/" if ":" in address else f"http://{address}:{WEB}/"
        done = self.run(program, "-sS", "-m", str(wait_s), "-o", "/dev/null", url)
        assert done.returncode in (0, 7, 28), done.stderr
        return done.returncode == 0

    def copy(self, program: str | Path, name: str) -> Path:
        """A copy of a program, in a place of its own."""
        place = self.folder / name
        shutil.copy2(program, place)
        return place

    def until(self, true: Any, what: str) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not true():
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain until {what}; the daemon said: {self.said}")
            time.sleep(0.02)

    def remove(self) -> None:
        """Everything goes: the daemon, programs, labels, the control group."""
        if self.daemon is not None and self.daemon.poll() is None:
            time.sleep(0.3)
            self.daemon.send_signal(signal.SIGCONT)
            number = self.daemon.pid
            observers = Path(f"/proc/{number}/task/{number}/children").read_text().split()
            self.daemon.kill()
            self.daemon.wait()
            # They end with it, and write in our folder until then.
            self.until(lambda: not any(Path(f"/proc/{each}/exe").exists() for each in observers), "they have ended")
        print("\n".join(self.said))
        self._web.close()
        for pid in (self.cgroup / "cgroup.procs").read_text().split():
            with _gone():
                os.kill(int(pid), signal.SIGKILL)
        bpffs = self.runtime / "bpf"
        if bpffs.is_dir():
            labels.detach(bpffs)
            ctypes.CDLL(None).umount2(os.fsencode(bpffs), 2)
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            try:
                self.cgroup.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


class Watcher:
    """Watches prompts, so that somebody is there to be asked; what it hears is in `prompts`, by number."""

    def __init__(self, lab: Lab) -> None:
        self.prompts: dict[int, told.Prompt] = {}
        self.gone: set[int] = set()
        self._lab = lab
        self._client = lab.client()
        self._stream = self._client.stream("Prompts", Nothing(), told.PromptsResult, timeout_s=0.2)
        self._closed = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        time.sleep(0.1)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join()
        self._client.close()

    def _listen(self) -> None:
        while not self._closed:
            try:
                for heard in self._stream:
                    self.prompts.update((each.id, each) for each in heard.prompts)
                    self.gone.update(heard.gone)
                    if self._closed:
                        return
            except TimeoutError:
                continue
            except OSError:
                return

    def next(self) -> told.Prompt:
        """A prompt that waits, waited for."""
        self._lab.until(lambda: self._waiting(), "somebody is asked")
        return self._waiting()[0]

    def _waiting(self) -> list[told.Prompt]:
        return [
            each for number, each in sorted(self.prompts.items()) if number not in self.gone and each.state == "waiting"
        ]


class _Web:
    """Answers at port WEB of a namespace, TCP with a few bytes and UDP with the same datagram, over both families."""

    def __init__(self, at: Any) -> None:
        self._closed = False
        self._sockets: list[socket.socket] = at.call(self._open)
        self._threads = [threading.Thread(target=self._serve, args=(each,), daemon=True) for each in self._sockets]
        for thread in self._threads:
            thread.start()

    def _open(self) -> list[socket.socket]:
        stream = socket.create_server(("::", WEB), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        packets = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        packets.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        packets.bind(("::", WEB))
        for each in (stream, packets):
            each.settimeout(0.2)
        return [stream, packets]

    def _serve(self, sock: socket.socket) -> None:
        while not self._closed:
            try:
                if sock.type == socket.SOCK_DGRAM:
                    data, peer = sock.recvfrom(2048)
                    sock.sendto(data, peer)
                else:
                    connection, _ = sock.accept()
                    with connection:
                        connection.settimeout(2)
                        connection.recv(2048)
                        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes")
            except OSError:
                continue

    def close(self) -> None:
        self._closed = True
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()


def _inside(at: Any) -> Sequence[str]:
    """`ip netns exec` would mount another /sys, without control groups."""
    return ("nsenter", f"--net=/run/netns/{at.name}", "--")


def _gone() -> Any:
    import contextlib

    return contextlib.suppress(ProcessLookupError)


@pytest.fixture
def lab(pair: Any, tmp_path: Path) -> Iterator[Lab]:
    """The daemon's laboratory; nothing runs yet. Skips where sockets cannot be labelled."""
    reason = labels.usable()
    if reason is not None:
        pytest.skip(reason)
    tmp_path.chmod(0o755)
    made = Lab(pair.here, pair.there, tmp_path)
    yield made
    made.remove()


assert SOURCE.is_dir()
