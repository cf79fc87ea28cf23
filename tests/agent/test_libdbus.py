"""With a server of other makers: what the agent sends is D-Bus to libdbus, and what libdbus sends is D-Bus to us."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pfw.api import interface as api

from .conftest import prompt, until

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("libdbus_server.py")


@pytest.fixture
def server(desk):
    can = Path(PYTHON).exists() and subprocess.run(
        [PYTHON, "-c", "import dbus.mainloop.glib"], capture_output=True, check=False
    )
    if not can or can.returncode:
        pytest.skip("no dbus-python in the system's Python")
    with subprocess.Popen(
        [PYTHON, SCRIPT, desk.bus.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert json.loads(process.stdout.readline()) == ["ready"]
        yield process
        process.kill()


def test_shown_pressed_and_closed(desk, server):
    firewall = desk.daemon()
    firewall.prompts[7] = prompt(7, host="exämple.org")
    desk.agent()
    method, number, replaces, summary, body, actions, urgency, expires_ms = json.loads(server.stdout.readline())
    assert (method, replaces, summary) == ("Notify", 0, "curl wants to connect to 192.0.2.1")
    assert "exämple.org" in body
    assert actions[:2] == ["allow-once", "Allow once"]
    assert (urgency, expires_ms) == (["Byte", 2], 0)
    server.stdin.write(f"{number} allow-always\n")
    until(lambda: firewall.answers)
    assert firewall.answers == [api.AnswerParameters(id=7, action="allow", lasting="always", scope="exact")]
    assert json.loads(server.stdout.readline()) == ["CloseNotification", number]
