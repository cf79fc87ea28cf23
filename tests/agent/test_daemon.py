"""The three connections to the daemon: they end together, and an answer reaches none but the daemon that asked."""

from __future__ import annotations

import select
import socket

import pytest

from pfw.agent.daemon import Daemon, GoneError, NotTakenError
from pfw.agent.session import Session
from pfw.api import interface as api

from .conftest import WAIT_S, Firewall, prompt, until

ANSWER = api.AnswerParameters(id=7, action="allow", lasting="always", scope="exact")


@pytest.fixture
def firewall(folder):
    made = Firewall(folder)
    made.prompts[7] = prompt(7)
    yield made
    made.stop()


@pytest.fixture
def daemon(firewall):
    made = Daemon(firewall.path)
    yield made
    made.close()


def first_news(daemon: Daemon) -> list:
    assert select.select(daemon.filenos(), [], [], WAIT_S)[0]
    return list(daemon.prompts())


def test_prompts_and_an_answer(firewall, daemon):
    assert first_news(daemon) == [api.PromptsResult(prompts=(prompt(7),), gone=())]
    daemon.check()
    daemon.answer(ANSWER)
    assert firewall.answers == [ANSWER]


def test_another_daemon_with_a_prompt_of_the_same_number(firewall, daemon):
    first_news(daemon)
    firewall.stop()
    firewall.start()
    with pytest.raises(GoneError):
        daemon.answer(ANSWER)
    with pytest.raises(GoneError):
        daemon.check()
    with pytest.raises(GoneError):
        list(daemon.prompts())
    assert firewall.answers == []


def test_the_connection_for_answers_alone_ends(firewall, daemon):
    first_news(daemon)
    connection, *others = firewall.server._connections
    assert others
    firewall._jobs.append(connection.close)
    until(lambda: select.select([daemon._answers], [], [], 0)[0])
    with pytest.raises(GoneError, match="closed"):
        daemon.check()


@pytest.mark.parametrize(
    ("refusal", "says", "gone"),
    [
        (api.Refused(says="the disk is full"), "the disk is full", False),
        (api.NoSuchPrompt(id=7), "It was answered already, or given up.", True),
    ],
)
def test_not_taken(firewall, daemon, refusal, says, gone):
    firewall.refusal = refusal
    with pytest.raises(NotTakenError, match=says) as caught:
        daemon.answer(ANSWER)
    assert caught.value.gone is gone
    firewall.refusal = None
    daemon.answer(ANSWER)


def test_nobody_listens(folder):
    with pytest.raises(GoneError, match=r"pfw\.sock: No such file"):
        Daemon(folder / "pfw.sock")


@pytest.mark.parametrize(("reply", "error"), [(b"nonsense\0", GoneError), (b"", GoneError)])
def test_somebody_who_speaks_otherwise(folder, reply, error):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "pfw.sock"))
        listener.listen()
        daemon = Daemon(folder / "pfw.sock")
        for _ in daemon.filenos():
            peer, _address = listener.accept()
            peer.sendall(reply)
            peer.close()
        with pytest.raises(error):
            first_news(daemon)
        daemon.close()


def test_the_delay_grows_to_a_minute(folder, monkeypatch):
    monkeypatch.setattr("pfw.agent.session.time.monotonic", lambda: 1000.0)
    lines: list[str] = []
    session = Session(folder / "pfw.sock", None, lines.append)
    delays = []
    for _ in range(8):
        session._lost(GoneError("no"))
        delays.append(session._connect_at - 1000.0)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(lines) == 1
    session._found()
    session._lost(GoneError("no"))
    assert session._connect_at == 1001.0
    assert len(lines) == 3
