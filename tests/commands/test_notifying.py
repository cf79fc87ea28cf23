"""`pfw agent` where it cannot begin; the rest is in tests/agent/test_session.py."""

from __future__ import annotations

import os
import socket
import sys
from argparse import Namespace

import pytest

from pfw.commands.notifying import agent


@pytest.fixture(autouse=True)
def no_desktop(monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def told(capsys) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_without_jeepney(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jeepney", None)
    assert agent(Namespace()) == 3
    assert told(capsys) == "pfw: this needs the package jeepney; type: pip install 'pfw[agent]'"


@pytest.mark.parametrize("folder", [None, "empty"])
def test_without_a_session(monkeypatch, capsys, tmp_path, folder):
    if folder is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert agent(Namespace()) == 3
    assert told(capsys).startswith("pfw: there is no session bus here")


def test_the_bus_is_found_where_systemd_puts_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", ".")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("bus")
    assert os.path.exists("bus")
    assert agent(Namespace()) == 3
    assert told(capsys).startswith("pfw: the session bus at unix:path=./bus cannot be used: ")
