"""A datagram socket that records go out by: it never waits, opens itself again, and counts what is lost."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from pfw.record.trouble import Trouble

Address = str | tuple[str, int]
"""The path of a Unix socket, or host and port for UDP."""

_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.EMSGSIZE})
"""Errors after which the socket is as good as before."""


def _connect(address: Address) -> socket.socket:
    if isinstance(address, str):
        family: int = socket.AF_UNIX
        target: object = address
    else:
        # A name is looked up each time it is connected; that may take as long as the resolver takes.
        family, _, _, _, target = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        opened.connect(target)  # type: ignore[arg-type]
    except OSError:
        opened.close()
        raise
    return opened


class DatagramSink:
    """Sends to one address. `written` counts datagrams; losses are in `trouble`. Nothing is raised."""

    def __init__(self, name: str, address: Address, tell: Callable[[str], None]) -> None:
        self.trouble = Trouble(name, tell)
        self.written = 0
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, data: bytes, now: float) -> bool:
        """Send one datagram or lose it; False when it is lost."""
        if self.trouble.waits(now):
            self.trouble.lose(len(data))
            return False
        try:
            self._send(data)
        except (OSError, UnicodeError) as error:  # a host name may be none that IDNA can write
            reason = error if isinstance(error, OSError) else OSError(errno.EINVAL, "is not a host name")
            if reason.errno not in _FULL:
                self.close()
            self.trouble.fail(reason, len(data), now)
            return False
        self.written += 1
        self.trouble.work()
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        if self._socket is not None:
            try:
                self._socket.send(data)
                return
            except OSError as error:
                if error.errno in _FULL:
                    raise
                # The receiver was started anew, or an ICMP error came back for an earlier datagram.
                self.close()
        self._socket = _connect(self._address)
        self._socket.send(data)
