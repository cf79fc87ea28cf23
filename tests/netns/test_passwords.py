"""Passwords are tried at a service that no log tells of, over both families; and in somebody else's name, who is not
banned for it."""

# ruff: noqa: F811

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from tests.netns.observer_lab import (
    CABLE,
    HERE,
    HERE6,
    THERE,
    THERE6,
    Namespace,
    Observed,
    ip,
    observed,  # noqa: F401
    serving,
)
from tests.netns.probes import CLIENT, Probe, checksum, frame, packet
from tests.netns.programs_lab import lab  # noqa: F401

from pfw.model.address import format_address, parse_address
from pfw.model.observation import Kind
from pfw.model.packet import RST, SYN, TCP

pytestmark = pytest.mark.xdist_group("passwords")
FTP = 21
VICTIM = "10.77.0.99"
FORGED = 12
OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")
"""As Linux sends them: segment size, SACK, timestamps, window scale."""
POLICY: dict[str, Any] = {
    "version": 2,
    "default": {"in": "block", "out": "allow", "forward": "block"},
    "rules": [{"name": "ftp", "action": "allow", "direction": "in", "protocol": "tcp", "port": FTP}],
    "respond": {"when": [{"alert": "all", "score": 0, "do": "ban", "time": "60s"}]},
}
ASKED = ((b"USER admin\r\n", b"331 Please specify the password.\r\n"), (b"PASS %08d\r\n", b"530 Login incorrect.\r\n"))
GREETING, GONE = b"220 (FTP)\r\n", b"221 Goodbye.\r\n"


@contextmanager
def refusing(at: Namespace) -> Iterator[None]:
    """An FTP server that lets nobody in, at both addresses."""
    with ExitStack() as stack:
        stop = threading.Event()
        for address in (HERE, HERE6):
            server = stack.enter_context(serving(at, address, FTP))
            server.settimeout(0.1)
            thread = threading.Thread(target=_serve, args=(server, stop))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        yield


def _serve(server: socket.socket, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            with server.accept()[0] as session:
                session.settimeout(1)
                session.sendall(GREETING)
                for answer in (*(each for _, each in ASKED), GONE):
                    session.recv(100)
                    session.sendall(answer)
        except OSError:
            continue


def tried(at: Namespace, address: str, number: int) -> bool:
    """Whether the server still answers."""
    try:
        with at.call(lambda: socket.create_connection((address, FTP), timeout=1)) as session:
            session.recv(100)
            for said in (ASKED[0][0], ASKED[1][0] % number, b"QUIT\r\n"):
                session.sendall(said)
                session.recv(100)
    except OSError:
        return False
    return True


def forged(source_port: int, flags: int) -> bytes:
    """A packet in the victim's name: a SYN with options, or with something in it what comes next. Whoever sends it
    knows its number."""
    number, offset, rest = (1, 0xA0, OPTIONS) if flags == SYN else (2, 0x50, bytes(12))
    sent = packet(Probe(CLIENT, TCP, VICTIM, HERE, source_port, FTP, flags=flags), rest)
    header, ports, window = sent[:20], sent[20:24], sent[34:36]
    content = ports + pack(">IIBB", number, 0, offset, flags) + window + bytes(4) + rest
    summed = checksum(header[12:] + pack(">BBH", 0, TCP, len(content)) + content)
    return header + content[:16] + pack(">H", summed) + content[18:]


def banned(observed: Observed) -> dict[str, str]:
    """By whom brute force was noticed, and what was done."""
    return {
        format_address(each.source): each.response or ""
        for each in observed.alerts() if each.kind == Kind.BRUTE_FORCE and each.source is not None
    }  # fmt: skip


@pytest.mark.parametrize(("server", "source"), [(HERE, THERE), (HERE6, THERE6)], ids=["IPv4", "IPv6"])
def test_who_tries_passwords_is_banned(observed: Observed, server: str, source: str) -> None:
    """Faster than all sessions are looked at: those that are were opened by a handshake that the kernel told of."""
    observed.up(POLICY)
    with refusing(observed.here):
        begun = time.monotonic()
        count = 0
        while time.monotonic() - begun < 20 and tried(observed.there, server, count):
            count += 1
        observed.lab.until(lambda: source in banned(observed), f"{source} is noticed after {count} tries")
    observed.lab.until(lambda: "banned" in banned(observed)[source], "it is banned")
    assert not tried(observed.there, server, 0)
    assert count > 20


def test_nobody_is_banned_for_what_others_send_in_his_name(observed: Observed) -> None:
    """SYNs that are answered again and again, then resets with something in them: as much as a session carries, without
    a number that only who gets the answers knows."""
    mac = Path("/sys/class/net") / CABLE / "address"
    here_mac, there_mac = (
        bytes.fromhex(each.run("cat", mac).stdout.strip().replace(":", "")) for each in (observed.here, observed.there)
    )
    ip("-n", observed.here.name, "neigh", "add", VICTIM, "lladdr", there_mac.hex(":"), "dev", CABLE)
    observed.up(POLICY)
    with refusing(observed.here), observed.there.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind((CABLE, 0))
        for flags in (SYN, SYN, SYN, RST):
            for number in range(FORGED):
                for _ in range(4 if flags == RST else 1):
                    sock.send(frame(forged(40_000 + number, flags), here_mac, there_mac))
            time.sleep(0.6)  # Linux answers the same SYN twice a second
        observed.lab.until(
            lambda: len(observed.rows(port=FTP)) >= FORGED and all(each.end for each in observed.rows(port=FTP)),
            "they are over",
        )
        carried = [each.traffic for each in observed.rows(port=FTP)]
        begun = time.monotonic()
        while time.monotonic() - begun < 10 and tried(observed.there, HERE, 0):
            pass
        observed.lab.until(lambda: THERE in banned(observed), "the real one is noticed")
    assert set(banned(observed)) == {THERE}
    assert max(min(each.sent_packets, each.received_packets) for each in carried) >= 3
    assert not [each for each in observed.alerts() if each.source == parse_address(VICTIM) and each.response]
