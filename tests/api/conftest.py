"""A server with handlers that say little, in a loop that the tests turn, or that turns in a thread."""

from __future__ import annotations

import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pfw.api import interface as api
from pfw.api.client import Client
from pfw.api.server import Info, Server

WAIT_S = 10.0
GROUP = 4242

PROGRAM = api.Program(
    pid=7, path="/usr/bin/curl", shown="curl", command=("curl", "x"), user="root", uid=0, parents=("bash",)
)


def prompt(number: int) -> api.Prompt:
    return api.Prompt(
        id=number, asked=1.5, direction="out", protocol="tcp", remote="192.0.2.1", port=443, program=PROGRAM,
        certainty="label", rule="ask", held=1, state="waiting",
    )  # fmt: skip


def status(*_: object) -> api.StatusResult:
    return api.StatusResult(
        version="1", pid=1, started=0.5, policy="rules.json", generation=3, labels="on", queue="on", counts={"asked": 2}
    )


def answer(given: api.AnswerParameters, _: object) -> api.AnswerResult:
    if given.id == 13:
        raise RuntimeError("a mistake")
    if given.id != 1:
        raise api.failure(api.NoSuchPrompt(id=given.id))
    return api.AnswerResult(done=f"{given.action} {given.lasting} {given.scope} {given.seconds}")


class Service:
    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path
        self.loop = selectors.DefaultSelector()
        self.subscriptions: list = []
        self.failures: list[tuple[str, Exception]] = []
        self.apps: tuple[api.App, ...] = ()
        self._stop = threading.Event()
        handlers = {
            "Status": status,
            "Answer": answer,
            "Prompts": lambda *_: api.PromptsResult(prompts=(prompt(1),), gone=()),
            "Apps": lambda *_: api.AppsResult(apps=self.apps),
            "Reload": lambda *_: api.ReloadResult(generation=4),
            "Why": lambda given, _: api.WhyResult(program=PROGRAM, reasons=(), says=f"{given.pid} {given.path}"),
        }
        streams = {"Prompts": self.prompts, "Alerts": lambda _, __, one: self.subscriptions.append(one)}
        self.server = Server(
            path, handlers, streams, loop=self.loop, info=Info("1", url="https://example.net"),
            failed=lambda *what: self.failures.append(what), **{"group": GROUP, **settings},
        )  # fmt: skip

    def prompts(self, _: object, __: object, subscription) -> None:
        self.subscriptions.append(subscription)
        subscription.send(api.PromptsResult(prompts=(prompt(1), prompt(2)), gone=()))

    def turn(self, timeout_s: float = 0.0) -> int:
        """One turn of the loop; how many events there were."""
        events = self.loop.select(timeout_s)
        for key, mask in events:
            key.data(mask)
        return len(events)

    def settle(self) -> None:
        while self.turn():
            pass

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end
            self.turn(0.01)

    @contextmanager
    def turning(self) -> Iterator[None]:
        self._stop.clear()
        thread = threading.Thread(target=self._turn_on)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _turn_on(self) -> None:
        while not self._stop.is_set():
            self.turn(0.01)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(WAIT_S)
        sock.connect(str(self.path))
        return sock

    def received(self, sock: socket.socket, messages: int) -> list[bytes]:
        """So many messages, while the loop turns; fewer where the server closes before."""
        sock.setblocking(False)
        data, open_ = bytearray(), True

        def enough() -> bool:
            nonlocal open_
            try:
                while data.count(0) < messages and open_:
                    more = sock.recv(1 << 16)
                    data.extend(more)
                    open_ = bool(more)
            except BlockingIOError:
                pass
            except ConnectionResetError:
                open_ = False
            return not open_ or data.count(0) >= messages

        self.until(enough)
        return bytes(data).split(b"\0")[:-1]

    def close(self) -> None:
        self.server.close()
        assert not self.loop.get_map()
        self.loop.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Everybody may look into it, and its name is short enough for a socket's."""
    path = Path(tempfile.mkdtemp(prefix="pfw-api-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def service(folder) -> Iterator[Service]:
    made = Service(folder / "api")
    yield made
    made.close()


@pytest.fixture
def client(service) -> Iterator[Client]:
    """Of a server that turns by itself."""
    with service.turning(), Client(service.path, WAIT_S) as made:
        yield made
