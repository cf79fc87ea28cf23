"""Capture files made by hand, policies and the command itself, for the tests of what puts it all together."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.verdict import Action

SOURCE = Path(__file__).resolve().parents[2] / "src"
RAW_IP = 101
NOON = 1_795_392_000


def udp(source: str, destination: str, port: int, payload: bytes = b"") -> bytes:
    """An IPv4 packet."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0)
    ends = ip_address(source).packed + ip_address(destination).packed
    return head + ends + struct.pack(">HHHH", 40000, port, 8 + len(payload), 0) + payload


def pcap(*frames: bytes, linktype: int = RAW_IP) -> bytes:
    """A capture file, a packet a second."""
    records = [struct.pack("<IIII", NOON + at, 0, len(each), len(each)) + each for at, each in enumerate(frames)]
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype) + b"".join(records)


FRAMES = tuple(udp("192.0.2.1", f"198.51.100.{number}", 50 + number) for number in range(1, 6))


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    return SimpleNamespace(udp=udp, pcap=pcap, frames=FRAMES, noon=NOON, raw_ip=RAW_IP, source=SOURCE)


@pytest.fixture
def capture_file(tmp_path: Path) -> Callable[..., str]:
    """Writes a capture of five datagrams to five addresses and ports, or of other frames."""

    def write(*frames: bytes, name: str = "some.pcap", cut: int = 0, **options: Any) -> str:
        content = pcap(*(frames or FRAMES), **options)
        (tmp_path / name).write_bytes(content[: len(content) - cut])
        return str(tmp_path / name)

    return write


@pytest.fixture
def policy() -> Policy:
    """Allows what goes out and blocks the rest."""
    return Policy(defaults={Direction.IN: Action.BLOCK, Direction.OUT: Action.ALLOW, Direction.FORWARD: Action.BLOCK})


@pytest.fixture
def pfw(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command in a folder with a policy that blocks port 53."""
    rule = {"name": "no names", "action": "block", "protocol": "udp", "port": 53}
    everything = {"in": "allow", "out": "allow", "forward": "allow"}
    (tmp_path / "rules.json").write_text(json.dumps({"version": 2, "default": everything, "rules": [rule]}))

    def start(*words: str, **options: Any) -> subprocess.Popen[str]:
        given = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        } | options
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen([sys.executable, "-m", "pfw", *words], cwd=tmp_path, env=environment, **given)

    return start
