"""The client: what it gives, what it raises, and that it is left in no doubt whose answer it has."""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pfw.api import client as module
from pfw.api import interface as api
from pfw.api.client import Client
from pfw.api.definition import Nothing
from pfw.api.messages import ApiError, ProtocolError
from pfw.api.service import GetInfoResult

from .conftest import WAIT_S, prompt, status

ANSWER = api.AnswerParameters(id=1, action="block", lasting="time", scope="anywhere", seconds=60)


@contextmanager
def speaking(path: Path, *said: bytes, hold: bool = False) -> Iterator[None]:
    """A server that says these to whoever asks something, and goes."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            for data in said:
                sock.sendall(data)
            done.wait(WAIT_S if hold else 0)

    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        done.set()
        thread.join()


class TestCalls:
    def test_values_come_back(self, client):
        assert client.call("Status", Nothing(), api.StatusResult) == status()
        assert client.call("Answer", ANSWER, api.AnswerResult).done == "block time anywhere 60"
        assert client.call("org.varlink.service.GetInfo", Nothing(), GetInfoResult).version == "1"

    def test_an_error(self, client):
        with pytest.raises(ApiError, match=r"^org.pfw.Firewall.NoSuchPrompt \(id: 9\)$") as caught:
            client.call("Answer", api.AnswerParameters(id=9, action="allow", lasting="once", scope="port"), Nothing)
        assert caught.value.parameters == {"id": 9}
        assert client.call("Reload", Nothing(), api.ReloadResult).generation == 4

    def test_nobody_there(self, folder):
        with pytest.raises(FileNotFoundError) as caught:
            Client(folder / "api")
        assert caught.value.filename == str(folder / "api")

    def test_nobody_there_any_more(self, folder):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / "api"))
        with pytest.raises(ConnectionRefusedError):
            Client(folder / "api")

    def test_no_answer_in_time(self, folder):
        with speaking(folder / "api", b'{"parameters":', hold=True), Client(folder / "api", 0.1) as client:
            with pytest.raises(TimeoutError, match="no answer in time"):
                client.call("Status", Nothing(), api.StatusResult)
            assert client.fileno() == -1
            with pytest.raises(ConnectionError, match="is closed"):
                client.call("Status", Nothing(), api.StatusResult)

    def test_drops_do_not_make_the_time_longer(self, folder):
        began = time.monotonic()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "api"))
        listener.listen()
        client = Client(folder / "api", 0.3)
        sock, _ = listener.accept()
        stop = threading.Event()

        def drip() -> None:
            for _ in range(100):
                try:
                    sock.send(b" ")
                except OSError:
                    return
                if stop.wait(0.05):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(TimeoutError):
            client.call("Status", Nothing(), api.StatusResult)
        stop.set()
        thread.join()
        assert 0.25 < time.monotonic() - began < 5
        sock.close()
        listener.close()

    @pytest.mark.parametrize(
        ("said", "error"),
        [
            (b"", ConnectionError),
            (b'{"parameters":{"generation":4}}', ConnectionError),
            (b"\0", ProtocolError),
            (b"[]\0", ProtocolError),
            (b'{"parameters":{"generation":"x"}}\0', ProtocolError),
            (b'{"parameters":{}}\0', ProtocolError),
            (b'{"parameters":{"generation":1},"continues":true}\0', ProtocolError),
            (b'{"error":"a.B","parameters":[]}\0', ProtocolError),
            (b"x" * (1 << 20) + b"xx", ProtocolError),
            (b'{"error":"a.B"}\0', ApiError),
        ],
        ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else value.__name__,
    )
    def test_a_server_of_another_kind(self, folder, said, error):
        with speaking(folder / "api", said), Client(folder / "api", WAIT_S) as client:
            with pytest.raises(error):
                client.call("Reload", Nothing(), api.ReloadResult)
            assert (client.fileno() == -1) == (error is not ApiError)

    def test_a_newer_server(self, folder):
        said = b'{"parameters":{"generation":4,"new":[1]},"later":1}\0'
        with speaking(folder / "api", said), Client(folder / "api", WAIT_S) as client:
            assert client.call("Reload", Nothing(), api.ReloadResult).generation == 4


class TestStreams:
    def test_one_after_the_other(self, service, client):
        stream = client.stream("Prompts", Nothing(), api.PromptsResult, WAIT_S)
        assert [one.id for one in next(stream).prompts] == [1, 2]
        service.subscriptions[0].send(api.PromptsResult(prompts=(prompt(3),), gone=(1,)))
        assert next(stream) == api.PromptsResult(prompts=(prompt(3),), gone=(1,))
        with pytest.raises(RuntimeError, match="for itself"):
            client.call("Status", Nothing(), api.StatusResult)
        service.subscriptions[0].end(api.PromptsResult(prompts=(), gone=(2,)))
        assert [one.gone for one in stream] == [(2,)]
        assert list(stream) == []
        assert client.call("Status", Nothing(), api.StatusResult) == status()

    def test_patience(self, service, client):
        stream = client.stream("Alerts", Nothing(), api.AlertsResult, 0.05)
        with pytest.raises(TimeoutError):
            next(stream)
        service.subscriptions[0].send(api.AlertsResult(time=1.0, kind="ban", says="x"))
        assert next(stream).says == "x"

    def test_half_an_answer_is_kept_for_the_next_time(self, folder):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "api"))
        listener.listen()
        with listener, Client(folder / "api", WAIT_S) as client:
            sock, _ = listener.accept()
            stream = client.stream("Reload", Nothing(), api.ReloadResult, 0.0)
            sock.sendall(b'{"parameters":{"gener')
            with pytest.raises(TimeoutError):
                next(stream)
            sock.sendall(b'ation":1},"continues":true}\0{"parameters":{"generation":2}}\0')
            assert [one.generation for one in stream] == [1, 2]
            sock.close()

    def test_watched_by_a_selector(self, service, client):
        stream = client.stream("Alerts", Nothing(), api.AlertsResult, 0.0)
        with pytest.raises(TimeoutError):
            next(stream)
        with selectors.DefaultSelector() as watch:
            watch.register(stream, selectors.EVENT_READ)
            end = time.monotonic() + WAIT_S
            while not service.subscriptions:
                assert time.monotonic() < end
                time.sleep(0.001)
            for says in "abc":
                service.subscriptions[0].send(api.AlertsResult(time=1.0, kind="ban", says=says))
            heard = []
            while len(heard) < 3:
                assert watch.select(WAIT_S)
                try:
                    while True:
                        heard.append(next(stream).says)
                except TimeoutError:
                    continue
        assert heard == ["a", "b", "c"]

    def test_an_error_ends_it(self, client):
        stream = client.stream("Nothing", Nothing(), api.AlertsResult, WAIT_S)
        with pytest.raises(ApiError, match="MethodNotFound"):
            next(stream)
        assert list(stream) == []
        assert client.call("Status", Nothing(), api.StatusResult) == status()

    def test_the_server_goes(self, service, client):
        stream = client.stream("Alerts", Nothing(), api.AlertsResult, WAIT_S)
        end = time.monotonic() + WAIT_S
        while not service.subscriptions:
            assert time.monotonic() < end
            time.sleep(0.001)
        service.subscriptions[0]._connection.close()
        with pytest.raises(ConnectionResetError, match="has closed the connection"):
            next(stream)
        assert list(stream) == []

    def test_many_at_once(self, service):
        heard: list[list[str]] = [[] for _ in range(20)]

        def listen(number: int) -> None:
            with Client(service.path, WAIT_S) as client:
                for alert in client.stream("Alerts", Nothing(), api.AlertsResult, WAIT_S):
                    heard[number].append(alert.says)
                    if len(heard[number]) == 200 - number:
                        return

        threads = [threading.Thread(target=listen, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        service.until(lambda: len(service.subscriptions) == 20)
        for number in range(200):
            service.server.publish("Alerts", api.AlertsResult(time=1.0, kind="x", says=str(number)))
            service.turn()
        service.until(lambda: not any(thread.is_alive() for thread in threads))
        for number in range(20):
            assert heard[number] == [str(said) for said in range(200 - number)]


def test_cheap_to_import():
    """What every `pfw status` pays for."""
    source = str(Path(module.__file__).parents[2])
    code = "import sys; import pfw.api.client; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": source}
    )
    loaded = set(result.stdout.split())
    assert not loaded & {"json", "asyncio", "logging", "subprocess", "threading", "tempfile", "pfw.api.server"}
