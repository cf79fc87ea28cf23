"""Messages between our own processes, over a pair of sockets of which the one that is started has its end as standard
input. A message is its length (4 bytes, little endian) and a MessagePack array; what it says is told where both ends
stand (`recording.py`, `observing.py`)."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

MESSAGE_BYTES_MAX = 64 << 20
_SIZE_BYTES = 4


def start(module: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a module of ours as a process of its own; our end of the connection. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                # -P: the folder that one happens to be in does not decide what is imported.
                [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", module],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                # Signals are for whoever starts it; when that ends, the closed connection ends this one.
                start_new_session=True,
            )
    except OSError:
        ours.close()
        raise
    return process, ours


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(_SIZE_BYTES, "little") + payload


def frames(received: bytearray) -> Iterator[bytes]:
    """Take out the messages that have come whole. Raises ValueError for one that is too long."""
    while len(received) >= _SIZE_BYTES:
        end = _SIZE_BYTES + int.from_bytes(received[:_SIZE_BYTES], "little")
        if end > _SIZE_BYTES + MESSAGE_BYTES_MAX:
            raise ValueError("a message that is too long")
        if len(received) < end:
            return
        payload = bytes(received[_SIZE_BYTES:end])
        del received[:end]
        yield payload


class Outbox:
    """What is on its way. Whoever puts into it bounds it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pending = bytearray()

    def __len__(self) -> int:
        """Bytes."""
        return len(self._pending)

    def put(self, payload: bytes) -> None:
        self._pending += framed(payload)

    def flush(self) -> None:
        """Give what is taken now. Raises OSError where nobody is there any more; nothing is on its way then."""
        while self._pending:
            try:
                sent = self._sock.send(self._pending)
            except BlockingIOError:
                return
            except OSError:
                self._pending.clear()
                raise
            del self._pending[:sent]
