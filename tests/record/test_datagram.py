from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from pfw.record.datagram import DatagramSink
from pfw.record.trouble import RETRY_S

Tell = Callable[[str], None]


def listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(path))
    receiver.settimeout(5)
    return receiver


def test_it_sends(tmp_path: Path, told: list[str], tell: Tell) -> None:
    sink = DatagramSink("log", str(tmp_path / "log"), tell)
    with listen(tmp_path / "log") as receiver:
        assert sink.send(b"one", 1.0)
        assert receiver.recv(100) == b"one"
    sink.close()
    assert (sink.written, told) == (1, [])


def test_a_receiver_that_starts_anew_loses_nothing(tmp_path: Path, told: list[str], tell: Tell) -> None:
    sink = DatagramSink("log", str(tmp_path / "log"), tell)
    with listen(tmp_path / "log"):
        assert sink.send(b"one", 1.0)
    with listen(tmp_path / "log") as receiver:
        assert sink.send(b"two", 1.0)
        assert receiver.recv(100) == b"two"
    assert told == []
    sink.close()


def test_nobody_there_is_told_once_and_tried_again(tmp_path: Path, told: list[str], tell: Tell) -> None:
    sink = DatagramSink("syslog", str(tmp_path / "log"), tell)
    assert not sink.send(b"one", 1.0)
    assert not sink.send(b"two", 2.0)
    with listen(tmp_path / "log") as receiver:
        assert not sink.send(b"three", 3.0)
        assert sink.send(b"four", 1.0 + RETRY_S)
        assert receiver.recv(100) == b"four"
    assert told == [
        "syslog: cannot write: No such file or directory; what is lost is counted",
        "syslog: writing again, 3 lines were lost",
    ]
    assert (sink.trouble.lost_lines, sink.trouble.lost_bytes) == (3, 11)
    sink.close()


def test_a_full_receiver_is_not_waited_for(tmp_path: Path, told: list[str], tell: Tell) -> None:
    sink = DatagramSink("syslog", str(tmp_path / "log"), tell)
    with listen(tmp_path / "log") as receiver:
        results = [sink.send(b"x" * 1000, 1.0) for _ in range(5000)]
        assert not results[-1]
        assert sink.written + sink.trouble.lost_lines == 5000
        assert sink.trouble.reasons.keys() == {"Resource temporarily unavailable"}
        for _ in range(sink.written):
            receiver.recv(2000)
        assert sink.send(b"again", 1.0 + RETRY_S)
        assert receiver.recv(2000) == b"again"
    assert len(told) == 2
    sink.close()


def test_a_name_that_is_none_is_counted(told: list[str], tell: Tell) -> None:
    sink = DatagramSink("syslog", ("x" * 300 + ".invalid", 514), tell)
    assert not sink.send(b"one", 1.0)
    assert sink.trouble.lost_lines == 1
    assert len(told) == 1
