"""Clients that keep a pace, what a history holds of them, and what counts say was left out."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager

import pytest

from connecting import outcome
from pfw.model.flow import Direction
from pfw.model.history import Entry, Subject
from pfw.model.packet import TCP
from pfw.model.verdict import Action
from pfw.policy.load import load
from pfw.record.history import History
from recording import FIRST_PORT, LOADS, PORTS, RATE, Load, losses, recorded, ten_rules
from setting import PROGRAMS

PORT = 18_310


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> str:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    made = str(tmp_path_factory.mktemp("client") / "connect")
    words = ("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, str(PROGRAMS / "connect.c"))
    subprocess.run(words, check=True)
    return made


@contextmanager
def listening(client: str):
    with subprocess.Popen([client, "listen", f"0.0.0.0:{PORT}", "2"], stdout=subprocess.PIPE) as serving:
        try:
            assert serving.stdout.readline() == b"ready\n"
            yield
        finally:
            serving.kill()


def test_a_pace_is_kept(client):
    with listening(client):
        words = (client, "pace", "127.0.1.1", "3", f"127.0.2.1:{PORT}", "2", "2", "400", "0.5")
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, took_us = outcome(done.stdout)
    assert 0.3 < seconds < 2
    assert 20 < len(took_us) <= 200


def test_a_pace_goes_round_all_ends(client, tmp_path):
    """From each of the addresses, to each of the ports: a trace of the client says so."""
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    trace = tmp_path / "trace"
    with listening(client):
        words = (client, "pace", "127.0.1.1", "3", f"127.0.2.1:{PORT}", "2", "2", "100", "0.3")
        traced = ("strace", "-f", "-e", "trace=bind,connect", "-o", str(trace))
        subprocess.run((*traced, *words), capture_output=True, check=True)
    text = trace.read_text()
    assert all(f'inet_addr("127.0.1.{last}")' in text for last in (1, 2, 3))
    assert all(f'inet_addr("127.0.2.{last}")' in text for last in (1, 2))
    assert all(f"htons({port})" in text for port in (PORT, PORT + 1))
    assert f"htons({PORT + 2})" not in text


@pytest.mark.parametrize("words", [("x", "1"), ("127.0.0.1", "0")])
def test_a_pace_that_cannot_be(client, words):
    done = subprocess.run(
        (client, "pace", *words, f"127.0.0.1:{PORT}", "1", "1", "10", "0.1"), capture_output=True, check=False
    )
    assert done.returncode == 1


def test_loads_are_in_and_out():
    to = f"10.78.0.1:{FIRST_PORT}"
    assert Load(16, goes_out=False).words(5) == ("pace", "10.80.0.1", "16", to, "1", str(PORTS), str(RATE), "5")
    assert Load(16, goes_out=True).words(5)[1:6] == ("10.78.0.1", "1", f"10.80.0.1:{FIRST_PORT}", "16", str(PORTS))
    assert len({each.name for each in LOADS}) == len(LOADS)


def test_the_policy_lets_the_client_in():
    policy = load(ten_rules().encode(), "bench")
    assert len(policy.rules) == len(json.loads(ten_rules())["rules"]) == 10


def test_what_a_history_holds_of_the_client(tmp_path):
    path = tmp_path / "history.db"
    assert recorded(path) == 0
    history = History(str(path), tell=print)
    ports = (FIRST_PORT, FIRST_PORT + PORTS - 1, FIRST_PORT + PORTS, 443)
    subjects = [
        Subject(direction=Direction.IN, protocol=TCP, local=bytes(4), port=each, action=Action.ALLOW) for each in ports
    ]
    history.write(
        [
            Entry(id=number, subject=subject, remote=bytes((10, 80, 0, number)), start=number / 1e6, end=None)
            for number, subject in enumerate(subjects, 1)
        ]
    )
    history.commit()
    assert recorded(path) == 2
    history.close()


def test_counts_of_what_was_left_out():
    assert losses({"history_lost": 1200, "bans_refused": 0, "detectors_refused": 3, "alerts": 7}) == (
        "history_lost 1,200, detectors_refused 3"
    )
    assert losses({"connection_events": 9}) == "none"
