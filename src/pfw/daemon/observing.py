"""The daemon's end of the observer (`observer.py`), and what both say to each other.

A message is its length (4 bytes, little endian) and a MessagePack array. The daemon says `Begin`, and then tells of the
connections that it stopped by itself; it never waits. An observer that ends is started again, with growing patience.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf

from msgspec import DecodeError, Struct, ValidationError, msgpack

from pfw.daemon.attribution import Found
from pfw.drivers import clock
from pfw.model.flow import Flow
from pfw.record.recorder import Options as Records

MESSAGE_BYTES_MAX = 1 << 20
PENDING_BYTES_MAX = 1 << 20
_READ_BYTES = 1 << 16
_CLOSE_S = 10.0
_PATIENCE_MAX_S = 60.0
_SETTLED_S = 60.0
"""One that ran so long is started again at once."""


class Begin(Struct, tag=True):
    """Where labels are pinned (None where there are none), and which logs are kept."""

    bpffs: str | None
    records: Records


class Stopped(Struct, tag=True):
    """The daemon stopped a connection that the kernel had handed over; `rule` is as in `model/history.py`."""

    time: float
    flow: Flow
    owner: Found
    rule: str | None


class Said(Struct, tag=True):
    """A line for the person."""

    text: str


class Raised(Struct, tag=True):
    """An alert, for whoever listens at the interface: its kind and what is to be said."""

    kind: str
    says: str


class Counted(Struct, tag=True):
    """What was counted since the observer began."""

    counts: dict[str, int]


Message = Said | Raised | Counted


class Sender:
    """The observer's way to say something, for all its threads. What the daemon does not take in time is dropped."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._encoder = msgpack.Encoder()
        self._pending = bytearray()
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock:
            if len(self._pending) < PENDING_BYTES_MAX:
                self._pending += _framed(self._encoder.encode(message))
        self.flush()

    def flush(self) -> None:
        """Give what is taken now."""
        with self._lock:
            while self._pending:
                try:
                    sent = self._sock.send(self._pending)
                except BlockingIOError:
                    return
                except OSError:
                    self._pending.clear()  # the daemon has ended, and so will we
                    return
                del self._pending[:sent]


class ObserverProcess:
    """Starts the observer, and starts it again. `heard` gets what it says, `watch` has a function called whenever a
    descriptor is readable, until `unwatch`."""

    def __init__(
        self,
        begin: Begin,
        heard: Callable[[Message], None],
        tell: Callable[[str], None],
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
    ) -> None:
        self.restarts = self.untold = 0
        self._begin = begin
        self._heard = heard
        self._tell = tell
        self._watch = watch
        self._unwatch = unwatch
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._received, self._pending = bytearray(), bytearray()
        self._started = 0.0
        self._due = inf
        self._patience_s = 1.0

    def check(self, now: float) -> None:
        """Start it again where it has ended and it is time. Call it every few seconds."""
        # Where it is far away, the clock was set back.
        if self._sock is None and (now >= self._due or _PATIENCE_MAX_S < self._due - now < inf):
            self.restarts += 1
            self.start()
        self._flush()

    def stopped(self, flow: Flow, owner: Found, rule: str | None) -> None:
        """Tell of a connection that was stopped; where the observer does not listen, it is counted."""
        if self._sock is None or len(self._pending) >= PENDING_BYTES_MAX:
            self.untold += 1
            return
        self._pending += _framed(msgpack.encode(Stopped(clock.now(), flow, owner, rule)))
        self._flush()

    def _flush(self) -> None:
        while self._pending and self._sock is not None:
            try:
                del self._pending[: self._sock.send(self._pending)]
            except BlockingIOError:
                return
            except OSError:
                self._pending.clear()  # its end is heard of as well

    def take(self) -> None:
        """Hear what it has said."""
        assert self._sock is not None
        try:
            piece = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._ended()
            return
        self._received += piece
        for payload in frames(self._received):
            with suppress(DecodeError, ValidationError):
                self._heard(msgpack.decode(payload, type=Message))

    def close(self) -> None:
        """Let it finish."""
        if self._sock is not None:
            self._unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._process is not None:
            try:
                self._process.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def start(self) -> None:
        """Begin, and take what it says as it comes."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    # -P: the folder that one happens to be in does not decide what is imported.
                    [sys.executable, "-I" if sys.flags.isolated else "-P", "-m", "pfw.daemon.observer"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    # Signals are for the daemon; when it ends, the closed connection ends this one.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                self._later(f"nothing is observed: {error.strerror or error}")
                return
        self._started = clock.now()
        self._received.clear()
        self._pending.clear()
        ours.sendall(_framed(msgpack.encode(self._begin)))
        ours.setblocking(False)
        self._sock = ours
        self._watch(ours.fileno(), self.take)

    def _ended(self) -> None:
        assert self._sock is not None
        self._unwatch(self._sock.fileno())
        self._sock.close()
        self._sock = None
        status: int | None = None
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                status = self._process.wait(1.0)
            if status is None:
                self._process.kill()
                self._process.wait()
        if clock.now() - self._started > _SETTLED_S:
            self._patience_s = 1.0
        self._later(f"the observer has ended (status {status}), so nothing is recorded or noticed")

    def _later(self, what: str) -> None:
        self._tell(f"{what}; it is started again in {self._patience_s:.0f} s")
        self._due = clock.now() + self._patience_s
        self._patience_s = min(self._patience_s * 2, _PATIENCE_MAX_S)


def receive_begin(sock: socket.socket) -> Begin:
    """The first message, on the observer's side. Raises OSError, DecodeError and ValidationError."""
    size = int.from_bytes(_exactly(sock, 4), "little")
    if size > MESSAGE_BYTES_MAX:
        raise OSError("a message that is too long")
    return msgpack.decode(_exactly(sock, size), type=Begin)


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = sock.recv(size - len(found))
        if not piece:
            raise OSError("the daemon has ended")
        found += piece
    return found


def _framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "little") + payload


def frames(received: bytearray) -> Iterator[bytes]:
    """Take out the messages that have come whole."""
    while len(received) >= 4:
        size = int.from_bytes(received[:4], "little")
        if len(received) < 4 + size:
            return
        payload = bytes(received[4 : 4 + size])
        del received[: 4 + size]
        yield payload
