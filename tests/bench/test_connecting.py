"""What clients tell, and what becomes of it; the clients themselves, over loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from connecting import hundredths, outcome, share
from labelling import more
from setting import PROGRAMS
from table import NOTHING

# The ports are the same for all.
pytestmark = pytest.mark.xdist_group("connecting")
PORT, COUNT = 18_210, 3


@pytest.fixture(params=["C", "Python"])
def client(request, tmp_path) -> tuple[str, ...]:
    if request.param == "Python":
        return (sys.executable, str(PROGRAMS / "connect.py"))
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    made = tmp_path / "connect"
    words = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(made), str(PROGRAMS / "connect.c"))
    subprocess.run(words, check=True)
    return (str(made),)


@contextmanager
def listening(client):
    with subprocess.Popen([*client, "listen", f"127.0.0.1:{PORT}", str(COUNT)], stdout=subprocess.PIPE) as serving:
        try:
            assert serving.stdout.readline() == b"ready\n"
            yield
        finally:
            serving.kill()


def test_a_client_tells_of_every_connection(client):
    with listening(client):
        words = (*client, "out", f"127.0.0.1:{PORT}", str(COUNT), "0.2")
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, took_us = outcome(done.stdout)
    assert 0.2 <= seconds < 5
    assert len(took_us) > 20
    assert 0 < sum(took_us) / 1e6 < seconds


def test_a_client_that_is_refused_fails(client):
    words = (*client, "out", "127.0.0.1:1", "1", "0.2")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "refused" in done.stderr


def test_a_client_tells_what_a_socket_and_a_connection_cost(client):
    done = subprocess.run((*client, "labels", "200"), capture_output=True, text=True, check=True)
    socket_ns, connect_ns = map(float, done.stdout.split())
    assert 100 < socket_ns < 10_000_000
    assert 1_000 < connect_ns < 100_000_000


def test_connections_that_wait(tmp_path):
    """Each is to a port of its own, so that each is asked about."""
    path = tmp_path / "out"
    words = (sys.executable, str(PROGRAMS / "connect.py"), "wait", "192.0.2.1:80", "3")
    with path.open("wb") as file, subprocess.Popen(words, stdout=file, stderr=file) as waiting:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1)
        finally:
            waiting.kill()
    assert Path(path).read_text() == ""


def test_outcome_is_in_microseconds():
    assert outcome("0.5\n1500\n2500\n") == (0.5, [1.5, 2.5])


def test_shares_are_of_slices_of_the_same_turn():
    assert share([50, 10, 90], [100, 100, 100]) == "0.50"
    assert share([50, 100], [100, 50], 1) == "1.2"
    assert share([], [1.0]) == NOTHING


def test_hundredths():
    assert hundredths([float(each) for each in range(101)]) == (50.0, 99.0)


def test_differences_are_of_the_same_turn():
    assert more([110, 900, 120], [100, 890, 100]) == 10
