"""A daemon that is made up: the real server of its interface, in a thread, with handlers that say what a test wants."""

from __future__ import annotations

import os
import pty
import re
import select
import selectors
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from pfw.api import interface as api
from pfw.api.server import Info, Server

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")
EVIL = "/tmp/\x1b]0;owned\x07\x1b[2J\nA\u202egro"

CURL = api.Program(
    pid=4711, path="/usr/bin/curl", shown="curl", command=("curl", "-s", "https://example.net/a b"), user="alice",
    uid=1000, unit="user.slice", parents=("/bin/bash", "/usr/sbin/sshd"),
)  # fmt: skip
SSHD = api.Program(pid=99, path="/usr/sbin/sshd", shown="sshd", command=(), user="root", uid=0, parents=())


def prompt(number: int, **more: Any) -> api.Prompt:
    settings = {
        "id": number, "asked": time.time(), "until": time.time() + 60, "direction": "out", "protocol": "tcp",
        "remote": "192.0.2.1", "port": 443, "service": "https", "program": CURL, "certainty": "label",
        "rule": "ask for the rest", "held": 1, "state": "waiting",
    }  # fmt: skip
    return api.Prompt(**settings | more)


def connection(port: int = 443, **more: Any) -> api.Connection:
    settings = {
        "direction": "out", "protocol": "tcp", "local": "192.168.1.5", "local_port": 40000, "remote": "192.0.2.1",
        "remote_port": port, "state": "established", "program": CURL, "certainty": "label", "sent_bytes": 1500,
        "received_bytes": 2_000_000, "rule": "web",
    }  # fmt: skip
    return api.Connection(**settings | more)


class Daemon:
    """What it tells is in `prompts`, `apps`, `connections` and `reasons`; what it was answered, in `answers`."""

    def __init__(self, path: Path) -> None:
        self.prompts: dict[int, api.Prompt] = {}
        self.apps: tuple[api.App, ...] = ()
        self.connections: tuple[api.Connection, ...] = ()
        self.reasons: tuple[api.Reason, ...] = ()
        self.answers: list[api.AnswerParameters] = []
        self.asked: list[api.WhyParameters] = []
        self.refuses: str | None = None
        self.answering: Callable[[], None] = lambda: None
        self.watchers: list = []
        self._loop = selectors.DefaultSelector()
        self._stop = threading.Event()
        self._calls: list[Callable[[], object]] = []
        handlers = {
            "Prompts": lambda *_: api.PromptsResult(prompts=tuple(self.prompts.values()), gone=()),
            "Answer": self._answer,
            "Apps": lambda *_: api.AppsResult(apps=self.apps),
            "Why": self._why,
        }
        streams = {"Prompts": self._watch, "Connections": self._connections}
        self.server = Server(path, handlers, streams, loop=self._loop, group=None, info=Info("1"))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def do(self, what: Callable[[], object]) -> None:
        """Have it done between two turns of the loop."""
        done = threading.Event()
        self._calls.append(lambda: (what(), done.set()))
        assert done.wait(WAIT_S)

    def ask(self, *prompts: api.Prompt) -> None:
        def publish() -> None:
            self.prompts.update({each.id: each for each in prompts})
            self.server.publish("Prompts", api.PromptsResult(prompts=prompts, gone=()))

        self.do(publish)

    def withdraw(self, number: int) -> None:
        def publish() -> None:
            self.prompts.pop(number, None)
            self.server.publish("Prompts", api.PromptsResult(prompts=(), gone=(number,)))

        self.do(publish)

    @property
    def attended(self) -> bool:
        return any(not each.closed for each in self.watchers)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()
        self._loop.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, mask in self._loop.select(0.01):
                key.data(mask)
            while self._calls:
                self._calls.pop(0)()

    def _watch(self, _: object, __: object, subscription) -> None:
        self.watchers.append(subscription)
        subscription.send(api.PromptsResult(prompts=tuple(self.prompts.values()), gone=()))

    def _connections(self, _: object, __: object, subscription) -> None:
        pieces = [self.connections[at : at + 200] for at in range(0, len(self.connections), 200)]
        subscription.send_all(api.ConnectionsResult(connections=piece) for piece in [*pieces, ()])

    def _answer(self, given: api.AnswerParameters, _: object) -> api.AnswerResult:
        self.answering()
        if self.refuses is not None:
            raise api.failure(api.Refused(says=self.refuses))
        if given.id not in self.prompts:
            raise api.failure(api.NoSuchPrompt(id=given.id))
        self.answers.append(given)
        del self.prompts[given.id]
        self.server.publish("Prompts", api.PromptsResult(prompts=(), gone=(given.id,)))
        return api.AnswerResult(done="allowed" if given.action == "allow" else "blocked")

    def _why(self, given: api.WhyParameters, _: object) -> api.WhyResult:
        self.asked.append(given)
        if given.pid == 404:
            raise api.failure(api.NoSuchProgram())
        return api.WhyResult(program=CURL if given.pid else None, reasons=self.reasons, says="what else: in blocked")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def daemon(run_folder):
    run_folder.mkdir()
    made = Daemon(run_folder / "pfw.sock")
    yield made
    made.close()


@pytest.fixture
def environment(run_folder) -> dict[str, str]:
    unwanted = ("NO_COLOR", "TZ", "LC_ALL", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and "PYTHON" not in name}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "LANG": "C.UTF-8", "TERM": "xterm", "PFW_RUN_DIR": str(run_folder)}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pfw", *map(str, words)]


@pytest.fixture
def pfw(environment):
    """Runs `pfw` without a terminal; nothing raw comes out of it, and never a traceback."""

    def run(*words: object, given: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*words), env=environment, input=given, capture_output=True, text=True, timeout=WAIT_S, **more
        )
        assert "Traceback" not in done.stderr
        assert not RAW.search(done.stdout + done.stderr)
        return done

    return run


class Terminal:
    """A `pfw` on a terminal of its own, as a shell's job would be."""

    def __init__(self, environment: dict[str, str], words: list[str], columns: int, lines: int) -> None:
        self.shown = ""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execvpe(words[0], words, environment)
        self._status: int | None = None

    def read(self, timeout_s: float = 0.05) -> bool:
        """Take in what is shown; False at the end."""
        if not select.select([self.descriptor], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def until(self, text: str | Callable[[], object], times: int = 1) -> None:
        """Wait until it is shown (so often), or true."""
        end = time.monotonic() + WAIT_S
        while not (self.shown.count(text) >= times if isinstance(text, str) else text()):
            assert time.monotonic() < end, self.shown
            assert self.read() or isinstance(text, str) is False, self.shown

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def press(self, keys: str, text: str | Callable[[], object], times: int = 1) -> None:
        """Type, when whoever reads has had the time to read, until the answer to it is there."""
        time.sleep(0.5)
        self.type(keys)
        self.until(text, times)

    @property
    def lines(self) -> list[str]:
        """The lines as they stand there: what was written over another text is in its place."""
        found = []
        for line in self.shown.replace("\r\n", "\n").split("\n"):
            text = ""
            for piece in line.split("\r"):
                text = piece + text[len(piece) :]
            found.append(text.rstrip())
        return found

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.descriptor)[3] & termios.ECHO)

    def end(self) -> int:
        """The exit status, the negative number of a signal that ended it."""
        end = time.monotonic() + WAIT_S
        while self._status is None:
            assert time.monotonic() < end, self.shown
            self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        while self.read():
            if not select.select([self.descriptor], [], [], 0)[0]:
                break
        return self._status

    def close(self) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@pytest.fixture
def terminal(environment):
    """Starts `pfw` on a terminal, by itself or by a line of bash, with job control, in which "$@" is `pfw`."""
    started: list[Terminal] = []

    def start(*words: object, columns: int = 100, lines: int = 30, shell: str = "", **more: str) -> Terminal:
        whole = [*(["bash", "-m", "-c", shell, "bash"] if shell else []), *command(*words)]
        started.append(Terminal(environment | more, whole, columns, lines))
        return started[-1]

    yield start
    for each in started:
        each.close()
