"""The socket's place: made whole, taken from nobody, and left as it was found."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pfw.api import listening
from pfw.api.listening import given, listen

from .conftest import Service


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_folder_and_socket(folder, strict_umask):
    path = folder / "run" / "api"
    with listen(path) as sock:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert os.listdir(path.parent) == ["api"]
        assert not sock.getblocking()
        assert not sock.get_inheritable()


def test_a_folder_that_is_there_stays_as_it_is(folder):
    folder.chmod(0o700)
    listen(folder / "api").close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_place_of_a_dead_one_is_taken(folder):
    listen(folder / "api").close()
    old = (folder / "api").stat().st_ino
    (folder / f".api.{os.getpid()}").write_text("of a crash")
    with listen(folder / "api"), socket.socket(socket.AF_UNIX) as sock:
        assert (folder / "api").stat().st_ino != old
        sock.connect(str(folder / "api"))


def test_the_place_of_a_living_one_is_not(folder):
    with listen(folder / "api") as first:
        with pytest.raises(OSError, match="somebody answers there") as caught:
            listen(folder / "api")
        assert caught.value.errno == errno.EADDRINUSE
        first.accept()
    assert os.listdir(folder) == ["api"]


def test_one_who_listens_and_does_not_answer_is_alive(folder):
    with socket.socket(socket.AF_UNIX) as hung, socket.socket(socket.AF_UNIX) as waiting:
        hung.bind(str(folder / "api"))
        hung.listen(0)
        waiting.connect(str(folder / "api"))
        with pytest.raises(OSError, match="somebody answers there"):
            listen(folder / "api")


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_touched(folder, kind):
    path = folder / "api"
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(folder / "elsewhere")
    before = path.lstat()
    with pytest.raises(FileExistsError, match="is no socket"):
        listen(path)
    assert path.lstat().st_ino == before.st_ino
    assert os.listdir(folder) == ["api"]


def test_failing_leaves_nothing(folder):
    with pytest.raises(OSError, match="too long"):
        listen(folder / ("x" * 120))
    assert os.listdir(folder) == []


class TestServer:
    def test_the_file_goes_with_it(self, folder):
        service = Service(folder / "api")
        service.close()
        assert os.listdir(folder) == []

    def test_but_not_that_of_its_successor(self, folder):
        service = Service(folder / "api")
        (folder / "api").unlink()
        with listen(folder / "api"):
            service.close()
            assert os.listdir(folder) == ["api"]


CHILD = """
import os, sys
from pfw.api.listening import given
try:
    sock = given({**os.environ, "LISTEN_PID": str(os.getpid())}, os.getpid())
    print(sock.get_inheritable(), sock.getblocking())
except ValueError as error:
    print("refused:", error)
"""


class TestGiven:
    def start(self, sock: socket.socket, count: str = "1") -> str:
        def as_third() -> None:
            os.dup2(sock.fileno(), 3)

        source = str(Path(listening.__file__).parents[2])
        result = subprocess.run(
            [sys.executable, "-c", CHILD], preexec_fn=as_third, close_fds=False, capture_output=True, text=True,
            env={"LISTEN_FDS": count, "PYTHONPATH": source}, check=True,
        )  # fmt: skip
        return result.stdout.strip()

    def test_taken_over(self, folder):
        with listen(folder / "api") as sock:
            assert self.start(sock) == "False False"

    def test_not_for_us(self):
        assert given({}, 7) is None
        assert given({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, 7) is None

    @pytest.mark.parametrize("kind", ["two", "connected", "datagram", "internet"])
    def test_refused(self, folder, kind):
        if kind == "connected":
            sock, other = socket.socketpair()
            other.close()
        elif kind == "datagram":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        elif kind == "internet":
            sock = socket.create_server(("127.0.0.1", 0))
        else:
            sock = listen(folder / "api")
        with sock:
            assert self.start(sock, "2" if kind == "two" else "1").startswith("refused: the socket unit must give")

    def test_its_path_is_left(self, folder):
        service = Service(Path("unused"), listener=listen(folder / "api"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(folder / "api"))
            service.until(lambda: service.server.connections)
        service.close()
        assert os.listdir(folder) == ["api"]
