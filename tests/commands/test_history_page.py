"""The screens of docs/history.md are what the commands print."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.history import FirstSeen, New, Traffic
from pfw.model.verdict import Action

from .made_up import environment as environment
from .made_up import pfw as pfw
from .made_up import run_folder as run_folder
from .past import DROPPED, Past, alert, entry, subject

PAGE = Path(__file__).resolve().parents[2] / "docs" / "history.md"
BEGAN = datetime(2026, 11, 24, 14, tzinfo=UTC).timestamp()

FIREFOX = "/usr/lib/firefox-esr/firefox-esr"
BROWSER = subject(program=FIREFOX, rule="browser")
NAMES = subject(program="/usr/sbin/unbound", uid=112, user="unbound", protocol=17, port=53, rule="names")
SSH = subject(direction=Direction.IN, program="/usr/sbin/sshd", uid=0, user="root", port=22, rule="ssh")
MAIL = subject(program="/usr/bin/mailer", port=25, action=Action.REJECT, rule="no mail from here")

CONNECTIONS = (
    (3.1, NAMES, "192.168.1.1", None, 0.021, (74, 180), 41522, 1),
    (3.2, BROWSER, "192.0.2.80", "www.example.net", 65.2, (48_212, 2_391_004), 50112, 1),
    (9.4, DROPPED, "203.0.113.9", None, None, (0, 0), 61000, 1),
    (11.9, SSH, "192.168.1.20", None, None, (8_104, 22_530), 50022, 1),
    (15.2, DROPPED, "203.0.113.9", None, None, (0, 0), 61001, 12),
    (31.7, MAIL, "198.51.100.25", "mx.example.org", None, (0, 0), 40110, 1),
    (44.0, BROWSER, "2001:db8::80", "cdn.example.net", None, (1_204, 90_113), 50120, 1),
    (4000.0, BROWSER, "2001:db8::80", "cdn.example.net", 2.5, (800, 12_000), 50130, 1),
)


@pytest.fixture(autouse=True)
def history(tmp_path, monkeypatch):
    monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("LC_CTYPE", raising=False)
    rows = [
        entry(
            0, about, remote=parse_address(remote), name=name, start=BEGAN + at, from_port=port, count=count,
            end=None if took is None else BEGAN + at + took,
            traffic=Traffic(sent, -(-sent // 500), received, -(-received // 1400)),
        )
        for at, about, remote, name, took, (sent, received), port, count in CONNECTIONS
    ]  # fmt: skip
    evidence = "24 ports of 192.168.1.5 within 10 s"
    scan = alert(0, time=BEGAN + 20, first=BEGAN + 9, last=BEGAN + 19, evidence=evidence, response="banned for 1 h")
    firsts = [
        FirstSeen(BEGAN + 3.1, New.PROGRAM, FIREFOX),
        FirstSeen(BEGAN + 3.2, New.REMOTE, "www.example.net", FIREFOX),
        FirstSeen(BEGAN + 700, New.LISTENER, "tcp [::]:8080", "/usr/bin/python3.11"),
    ]
    Past(tmp_path / "state").write(rows, alerts=[scan], first_seen=firsts)


def screens() -> list[tuple[str, str]]:
    blocks = re.findall(r"^```console\n\$ (.*?)\n(.*?)```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(typed, shown) for typed, shown in blocks]


def test_there_are_some():
    assert len(screens()) >= 4


@pytest.mark.parametrize(("typed", "shown"), screens(), ids=[typed for typed, _ in screens()])
def test_what_is_shown_is_what_is_printed(pfw, environment, typed, shown):
    environment["TZ"] = "UTC"
    done = pfw(*shlex.split(typed)[2:])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shown
