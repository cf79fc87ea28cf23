from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.record.syslog import Severity, Syslog, parse_target, udp_message

Tell = Callable[[str], None]
NOON = 1795399500.123456


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/dev/log", "/dev/log"),
        ("192.0.2.1", ("192.0.2.1", 514)),
        ("192.0.2.1:5514", ("192.0.2.1", 5514)),
        ("logs.example.org:514", ("logs.example.org", 514)),
        ("[2001:db8::1]:6514", ("2001:db8::1", 6514)),
        ("[2001:db8::1]", ("2001:db8::1", 514)),
        ("2001:db8::1", ("2001:db8::1", 514)),
    ],
)
def test_targets(text: str, address: object) -> None:
    assert parse_target(text) == address


@pytest.mark.parametrize(
    "text", ["", "host:", "host:x", "host:0", "host:70000", "host:" + "9" * 5000, "a b", "[::1", "]:1"]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is neither|has a port)"):
        parse_target(text)


@given(st.text())
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        address = parse_target(text)
    except ValueError:
        return
    assert address == text or isinstance(address, tuple)


def test_local(tmp_path: Path, tell: Tell) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "log"))
        receiver.settimeout(5)
        syslog = Syslog(str(tmp_path / "log"), tell)
        assert syslog.write(NOON, Severity.WARNING, "blocked", "TCP a > b - Blocked …", 1.0)
        data = receiver.recv(2000).decode()
    syslog.sink.close()
    pattern = r"<28>Nov 2\d \d\d:\d\d:00 pfw\[%d\]: TCP a > b - Blocked …"
    assert re.fullmatch(pattern % os.getpid(), data)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_udp(tell: Tell, family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        try:
            receiver.bind((host, 0))
        except OSError:
            pytest.skip(f"{host} is not there")
        receiver.settimeout(5)
        port = receiver.getsockname()[1]
        syslog = Syslog(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", tell)
        assert syslog.write(NOON, Severity.NOTICE, "suspicious", "TCP - Suspicious: null scan", 1.0)
        data = receiver.recv(2000).decode()
    syslog.sink.close()
    head, _, message = data.partition(" - ")
    version, time, name, tag, pid, kind = head.split(" ")
    assert (version, time, tag) == ("<29>1", "2026-11-23T02:05:00.123456Z", "pfw")
    assert re.fullmatch("[!-~]+", name)
    assert (pid, kind, message) == (str(os.getpid()), "suspicious", "TCP - Suspicious: null scan")


def test_a_long_message_is_cut_between_characters() -> None:
    data = udp_message(NOON, Severity.WARNING, "höst name", 1, "blocked", "…" * 2000)
    assert len(data) <= 1200
    assert data.decode().split(" ")[2] == "hstname"
