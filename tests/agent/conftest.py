"""A desktop of its own for each test: a real bus, a notification server on it, a firewall's daemon, and the agent."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pfw.api import interface as api
from pfw.api.server import Info, Server

WAIT_S = 15.0
ALL = ("actions", "body", "body-markup", "persistence")
PROGRAM = api.Program(
    pid=7, path="/usr/bin/curl", shown="curl", command=("curl", "x"), user="alice", uid=1000, parents=("/bin/bash",)
)
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


def prompt(number: int, **changes: object) -> api.Prompt:
    values = {
        "id": number, "asked": 1.5, "until": 61.5, "direction": "out", "protocol": "tcp", "remote": "192.0.2.1",
        "port": 443, "service": "https", "host": "example.org", "program": PROGRAM, "certainty": "label",
        "rule": "ask", "held": 1, "state": "waiting",
    }  # fmt: skip
    return api.Prompt(**{**values, **changes})


def until(true: Callable[[], object], what: object = "") -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class SessionBus:
    def __init__(self, folder: Path) -> None:
        if shutil.which("dbus-daemon") is None:
            pytest.skip("no dbus-daemon here")
        config = folder / "bus.conf"
        config.write_text(_CONFIG.format(path=folder / "bus"))
        self.address = f"unix:path={folder}/bus"
        self._process = subprocess.Popen(["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile"])
        until(self._listens)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(self.address.partition("=")[2]) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Firewall:
    """The daemon's end of the API, with a list of prompts and what was answered to them."""

    def __init__(self, folder: Path, group: int | None = None) -> None:
        self.path = folder / "pfw.sock"
        self.prompts: dict[int, api.Prompt] = {}
        self.answers: list[api.AnswerParameters] = []
        self.refusal: api.Fault | None = None
        self.listeners: list = []
        self.alerted: list = []
        self._jobs: deque[Callable[[], object]] = deque()
        self._group = group
        self.start()

    def start(self) -> None:
        self._loop = selectors.DefaultSelector()
        self._over = threading.Event()
        self.server = Server(
            self.path, {"Answer": self._answer}, {"Prompts": self._listen, "Alerts": self._alert_listen},
            loop=self._loop, group=self._group, info=Info("1"),
        )  # fmt: skip
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self.server.close()
        self._loop.close()
        self.listeners.clear()
        self.alerted.clear()

    def publish(self, *prompts: api.Prompt, gone: tuple[int, ...] = ()) -> None:
        def job() -> None:
            self.prompts.update({each.id: each for each in prompts})
            for each in gone:
                self.prompts.pop(each, None)
            self.server.publish("Prompts", api.PromptsResult(prompts=prompts, gone=gone))

        self._jobs.append(job)

    def alert(self, kind: str, says: str) -> None:
        self._jobs.append(lambda: self.server.publish("Alerts", api.AlertsResult(time=1.0, kind=kind, says=says)))

    def _turn(self) -> None:
        while not self._over.is_set():
            for key, mask in self._loop.select(0.01):
                key.data(mask)
            while self._jobs:
                self._jobs.popleft()()

    def _answer(self, given: api.AnswerParameters, _: object) -> api.AnswerResult:
        self.answers.append(given)
        if self.refusal is not None:
            raise api.failure(self.refusal)
        if self.prompts.pop(given.id, None) is None:
            raise api.failure(api.NoSuchPrompt(id=given.id))
        self._jobs.append(lambda: self.server.publish("Prompts", api.PromptsResult(prompts=(), gone=(given.id,))))
        return api.AnswerResult(done="done")

    def _listen(self, _: object, __: object, subscription) -> None:
        self.listeners.append(subscription)
        subscription.send(api.PromptsResult(prompts=tuple(self.prompts.values()), gone=()))

    def _alert_listen(self, _: object, __: object, subscription) -> None:
        self.alerted.append(subscription)


class Desk:
    """The whole of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bus = SessionBus(folder)
        self.firewall: Firewall | None = None
        self._processes: list[subprocess.Popen] = []
        self._ends: list[Callable[[], object]] = [self.bus.stop]

    def server(self, capabilities: tuple[str, ...] = ALL):
        from .notification_server import NotificationServer

        made = NotificationServer(self.bus.address, capabilities)
        self._ends.append(made.stop)
        return made

    def daemon(self, group: int | None = None) -> Firewall:
        self.firewall = Firewall(self.folder, group)
        return self.firewall

    def agent(self, uid: int = 0) -> subprocess.Popen:
        """A process of its own, of a user who has no groups."""
        code = (
            "import os, sys, pfw.agent.session; from argparse import Namespace;"
            "from pfw.commands.notifying import agent;"
            f"os.setgroups([]); os.setgid({uid}); os.setuid({uid}); sys.exit(agent(Namespace()))"
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.bus.address, "PFW_RUN_DIR": str(self.folder)},
            stderr=(self.folder / "agent.err").open("wb"),
        )
        self._processes.append(process)
        return process

    @property
    def told(self) -> list[str]:
        return (self.folder / "agent.err").read_text().splitlines()

    def close(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
            process.wait(WAIT_S)
        for end in reversed(self._ends):
            end()
        if self.firewall is not None:
            self.firewall.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket's name, and everybody may look into it."""
    path = Path(tempfile.mkdtemp(prefix="pfw-agent-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def desk(folder) -> Iterator[Desk]:
    made = Desk(folder)
    yield made
    made.close()
