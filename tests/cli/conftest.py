"""The command as people start it: a process of its own, in a folder of its own, and captures made for it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
SYN, ACK = 2, 16

RAW_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")
"""All that could steer a terminal, but the line break and the tab that our own lines have."""

Done = subprocess.CompletedProcess[str]

RULES = {
    "version": 2,
    "default": {"in": "block", "out": "allow"},
    "rules": [
        {"name": "web", "action": "allow", "direction": "in", "protocol": "tcp", "port": [80, 443]},
        {"name": "no mail from here", "action": "reject", "direction": "out", "protocol": "tcp", "port": 25},
        {"name": "browser", "action": "block", "direction": "out", "app": "/usr/bin/firefox", "port": 8080},
        {"name": "never", "action": "allow", "direction": "in", "from": "198.51.100.77"},
    ],
}


def environment(**more: str) -> dict[str, str]:
    """What a shell has, without what would change the answers."""
    unwanted = ("NO_COLOR", "TZ", "LC_ALL")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted and "PYTHON" not in name}
    return kept | {"PYTHONPATH": str(ROOT / "src"), "LANG": "C.UTF-8", "TERM": "xterm"} | more


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pfw", *map(str, words)]


@pytest.fixture
def pfw(tmp_path: Path) -> Callable[..., Done]:
    """Runs `pfw` in the test's folder and checks what holds for every run: no traceback, one line a message on
    standard error, nothing raw on either stream. Standard input is empty unless given."""

    def run(*words: object, more: dict[str, str] | None = None, **options: Any) -> Done:
        options = {"capture_output": True, "timeout": TIMEOUT_S} | options
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(command(*words), cwd=tmp_path, env=environment(**more or {}), **options)
        stdout, stderr = ((each or b"").decode() for each in (done.stdout, done.stderr))
        assert "Traceback" not in stdout + stderr
        assert not RAW_CONTROLS.search(stdout + stderr)
        assert done.returncode in (0, 1, 2, 3)
        return subprocess.CompletedProcess(done.args, done.returncode, stdout, stderr)

    return run


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """`RULES` as the `rules.json` of the test's folder."""
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RULES, indent=1))
    return path


def tcp(source: str, destination: str, source_port: int, port: int, flags: int = SYN) -> bytes:
    """An IP packet with a TCP segment that holds nothing."""
    return _ip(6, source, destination, struct.pack(">HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 9999, 0, 0))


def udp(source: str, destination: str, source_port: int, port: int, payload: bytes = b"x") -> bytes:
    return _ip(17, source, destination, struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload)


def _ip(protocol: int, source: str, destination: str, payload: bytes) -> bytes:
    here, there = ip_address(source).packed, ip_address(destination).packed
    if len(here) == 4:
        size = 20 + len(payload)
        return struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 7, 0, 64, protocol, 0, here, there) + payload
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, 64, here, there) + payload


def ethernet(packet: bytes) -> bytes:
    kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return bytes.fromhex("020000000001020000000002") + kind + packet


def pcap(frames: Iterable[bytes], began: float = 1795399500.25) -> bytes:
    """A capture file, Ethernet, a frame each tenth of a second from 2026-11-23 02:05:00.25 UTC on."""
    file = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for number, frame in enumerate(frames):
        at_us = round((began + number / 10) * 1e6)
        file += struct.pack("<IIII", at_us // 1_000_000, at_us % 1_000_000, len(frame), len(frame)) + frame
    return bytes(file)


def pcapng(frames: Iterable[bytes], interface: bytes) -> bytes:
    """The same in the other format, which names the interface."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + size + body + size

    option = struct.pack("<HH", 2, len(interface)) + interface + bytes(-len(interface) % 4) + bytes(4)
    file = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    file += block(1, struct.pack("<HHI", 1, 0, 0) + option)
    for frame in frames:
        at_us = 1795399500_250000
        file += block(6, struct.pack("<IIIII", 0, at_us >> 32, at_us & 0xFFFFFFFF, len(frame), len(frame)) + frame)
    return file


TRAFFIC = [
    ethernet(tcp("203.0.113.9", "192.168.1.5", 50000, 80)),
    ethernet(tcp("192.168.1.5", "203.0.113.9", 80, 50000, SYN | ACK)),
    ethernet(tcp("203.0.113.9", "192.168.1.5", 50001, 22)),
    ethernet(tcp("203.0.113.8", "192.168.1.5", 50002, 22)),
    ethernet(tcp("192.168.1.5", "203.0.113.9", 40000, 25)),
    ethernet(tcp("192.168.1.5", "203.0.113.9", 40001, 8080)),
    ethernet(udp("2001:db8::5", "2001:db8::9", 40002, 53)),
    bytes.fromhex("ffffffffffff02000000000208060001080006040001020000000002c0a80105000000000000c0a80101"),
    bytes.fromhex("02000000000102000000000208004500"),
    ethernet(tcp("203.0.113.66", "192.168.1.5", 1, 443, 0)),
]
"""Six connections of 192.168.1.5 and 2001:db8::5, one of them answered, an ARP question, a frame that is cut, and a
packet without any TCP flag, which begins nothing."""
LOCAL = ("--local", "192.168.1.5", "--local", "2001:db8::5")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """`TRAFFIC` as a capture file in the test's folder."""
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap(TRAFFIC))
    return path


def on_a_terminal(folder: Path, *words: object, **more: str) -> bytes:
    """What `pfw` shows on a terminal, standard error with it, until it ends."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execve(sys.executable, command(*words), environment(**more))
    shown = b""
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 65536)
            except OSError:  # the other side has ended
                break
            shown += piece
    os.close(terminal)
    os.waitpid(process, 0)
    return shown


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """What captures are made of, and what starts a process where the fixture `pfw` is not enough."""
    return SimpleNamespace(
        tcp=tcp,
        udp=udp,
        ethernet=ethernet,
        pcap=pcap,
        pcapng=pcapng,
        traffic=TRAFFIC,
        local=LOCAL,
        command=command,
        environment=environment,
        on_a_terminal=on_a_terminal,
        raw_controls=RAW_CONTROLS,
    )
