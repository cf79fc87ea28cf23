"""DHCP servers: who gave this machine its addresses, as the clients of DHCP write it down.

systemd-networkd and NetworkManager (its own client) keep files of `NAME=VALUE` lines, ISC dhclient a file of leases in
which the last counts, dhcpcd packets as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FOLDERS = (
    ("run/systemd/netif/leases", "*"),
    ("var/lib/NetworkManager", "*.lease"),
    ("var/lib/dhcp", "dhclient*.leases"),
    ("var/lib/dhclient", "*.leases"),
    ("var/lib/dhcpcd", "*.lease"),
    ("var/db/dhcpcd", "*.lease"),
)
_FILES_MAX = 64
_BYTES_MAX = 1 << 20
_TEXT = re.compile(rb"(?:SERVER_ADDRESS=|dhcp-server-identifier )([0-9]{1,3}(?:\.[0-9]{1,3}){3})\b")
_COOKIE = b"\x63\x82\x53\x63"
"""Behind it are the options of a DHCP packet (RFC 2131)."""
_SERVER, _PAD, _END = 54, 0, 255


def dhcp_servers(root: Path = Path("/")) -> set[bytes]:
    """Their packed addresses; none for what cannot be read."""
    found: set[bytes] = set()
    for folder, pattern in _FOLDERS:
        with suppress(OSError):
            for path in sorted((root / folder).glob(pattern))[:_FILES_MAX]:
                with suppress(OSError):
                    found.update(_servers(_read(path)))
    return found


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BYTES_MAX)


def _servers(content: bytes) -> Iterator[bytes]:
    cookie = content.find(_COOKIE)
    if cookie >= 0:
        yield from _of_packet(content[cookie + len(_COOKIE) :])
        return
    for match in _TEXT.finditer(content):
        numbers = [int(each) for each in match[1].split(b".")]
        if max(numbers) < 256:
            yield bytes(numbers)


def _of_packet(options: bytes) -> Iterator[bytes]:
    at = 0
    while at + 1 < len(options) and options[at] != _END:
        if options[at] == _PAD:
            at += 1
            continue
        kind, size = options[at], options[at + 1]
        if kind == _SERVER and size == 4 and at + 6 <= len(options):
            yield options[at + 2 : at + 6]
        at += 2 + size
