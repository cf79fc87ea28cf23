"""Syslog: RFC 5424 over UDP (RFC 5426), and the older form (RFC 3164) to the local socket, as libc writes it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from enum import IntEnum

from pfw.record.datagram import Address, DatagramSink
from pfw.record.timestamps import rfc3164_time, rfc5424_time

LOCAL_SOCKET = "/dev/log"
UDP_PORT = 514
TAG = "pfw"
_FACILITY_DAEMON = 3
_MOST_BYTES = 1200
"""Fits in one Ethernet frame, and in the 2048 bytes that RFC 5424 wants receivers to take."""


class Severity(IntEnum):
    """As syslog and the journal number them."""

    WARNING = 4
    NOTICE = 5


def parse_target(text: str) -> Address:
    """Where to: a path that begins with `/`, `HOST`, `HOST:PORT`, `ADDRESS`, or `[IPv6]:PORT`.

    Raises ValueError with a reason that can stand behind the text.
    """
    if text.startswith("/"):
        return text
    match = re.fullmatch(r"\[([0-9A-Fa-f:.%a-z]+)\](?::(\d+))?|([^\s:\[\]]+)(?::(\d+))?|([0-9A-Fa-f:.]+)", text, re.A)
    if match is None:
        raise ValueError("is neither the path of a socket nor HOST:PORT")
    port = match[2] or match[4]
    if port is not None and not (len(port) <= 5 and 0 < int(port) <= 65535):
        raise ValueError(f"has a port that is not 1-65535: {port[:20]}")
    return match[1] or match[3] or match[5], int(port or UDP_PORT)


def local_message(time: float, severity: Severity, pid: int, message: str) -> bytes:
    """`<28>Nov 23 02:05:00 pfw[123]: …`, time by the local clock."""
    head = f"<{_FACILITY_DAEMON * 8 + severity}>{rfc3164_time(time)} {TAG}[{pid}]: "
    return _encode(head + message)


def udp_message(time: float, severity: Severity, host: str, pid: int, kind: str, message: str) -> bytes:
    """`<28>1 2026-11-23T02:05:00.123456Z host pfw 123 blocked - …` (RFC 5424, section 6)."""
    host = re.sub("[^!-~]", "", host)[:255] or "-"
    head = f"<{_FACILITY_DAEMON * 8 + severity}>1 {rfc5424_time(time)} {host} {TAG} {pid} {kind} - "
    return _encode(head + message)


def _encode(text: str) -> bytes:
    data = text.encode("utf-8", "backslashreplace")
    return data if len(data) <= _MOST_BYTES else data[:_MOST_BYTES].decode("utf-8", "ignore").encode()


class Syslog:
    """Sends records to a syslog daemon. Raises ValueError for a target that is none."""

    def __init__(self, target: str, tell: Callable[[str], None]) -> None:
        address = parse_target(target)
        self._local = isinstance(address, str)
        self._host = "" if self._local else socket.gethostname()
        self._pid = os.getpid()
        self.sink = DatagramSink(f"syslog {target}", address, tell)

    def write(self, time: float, severity: Severity, kind: str, message: str, now: float) -> bool:
        """`kind` is one word, the MSGID: `blocked`, `suspicious`; the message is printable already."""
        if self._local:
            return self.sink.send(local_message(time, severity, self._pid, message), now)
        return self.sink.send(udp_message(time, severity, self._host, self._pid, kind, message), now)
