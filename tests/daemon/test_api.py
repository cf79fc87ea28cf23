"""The daemon's interface, as far as it can be asked without a kernel that filters."""

from __future__ import annotations

import json
import selectors
import socket
from contextlib import suppress
from types import SimpleNamespace

import pytest

from pfw.daemon.api import Api


class Asked:
    """The interface of a daemon without a policy, and what it told its log."""

    def __init__(self, folder) -> None:
        self.logged: list[str] = []
        self._loop = selectors.DefaultSelector()
        service = SimpleNamespace(loop=self._loop, tell=self.logged.append, force=SimpleNamespace(policy=None))
        self._path = folder / "pfw.sock"
        self._api = Api(service, self._path, None)

    def call(self, method: str, **parameters: object) -> dict:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(0.01)
            sock.connect(str(self._path))
            sock.sendall(
                json.dumps({"method": f"org.pfw.Firewall.{method}", "parameters": parameters}).encode() + b"\0"
            )
            for _ in range(100):
                for key, mask in self._loop.select(0.1):
                    key.data(mask)
                with suppress(TimeoutError):
                    return json.loads(sock.recv(65536).rstrip(b"\0"))
        raise AssertionError("no answer")

    def close(self) -> None:
        self._api.close()
        self._loop.close()


@pytest.fixture
def asked(tmp_path):
    made = Asked(tmp_path)
    yield made
    made.close()


class TestWhy:
    def test_a_program(self, asked):
        answer = asked.call("Why", path="/bin/sh")["parameters"]
        assert answer["says"] == "no policy is in force: it may do anything"

    @pytest.mark.parametrize("path", ["\0", "/bin/sh\0", "/bin/\0/sh"])
    def test_a_path_that_no_file_can_have(self, asked, path):
        assert asked.call("Why", path=path) == {
            "error": "org.varlink.service.InvalidParameter",
            "parameters": {"parameter": "path"},
        }
        assert asked.logged == []

    @pytest.mark.parametrize("given", [{"path": "/none"}, {"path": "/" + "x" * 4000}, {"path": "\U0001f600"}, {}])
    def test_no_such_program(self, asked, given):
        assert asked.call("Why", **given)["error"] == "org.pfw.Firewall.NoSuchProgram"
        assert asked.logged == []
