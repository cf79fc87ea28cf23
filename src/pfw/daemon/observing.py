"""The daemon's end of the observer (`observer.py`), and what both say to each other.

How messages travel says `messages.py`. The daemon says `Begin`, and then tells of the connections that it stopped by
itself; it never waits. An observer that ends is started again, with growing patience.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf

from msgspec import DecodeError, Struct, ValidationError, msgpack

from pfw.daemon.attribution import Found
from pfw.daemon.messages import Outbox, frames, start
from pfw.drivers import clock
from pfw.model.flow import Flow
from pfw.record.recorder import Options as Records

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
        self._outbox = Outbox(sock)
        self._encoder = msgpack.Encoder()
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        with self._lock:
            if len(self._outbox) < PENDING_BYTES_MAX:
                self._outbox.put(self._encoder.encode(message))
        self.flush()

    def flush(self) -> None:
        """Give what is taken now."""
        with self._lock, suppress(OSError):
            self._outbox.flush()  # where the daemon has ended, so will we


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
        self._outbox: Outbox | None = None
        self._received = bytearray()
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
        if self._outbox is None or len(self._outbox) >= PENDING_BYTES_MAX:
            self.untold += 1
            return
        self._outbox.put(msgpack.encode(Stopped(clock.now(), flow, owner, rule)))
        self._flush()

    def _flush(self) -> None:
        if self._outbox is not None:
            with suppress(OSError):
                self._outbox.flush()  # its end is heard of as well

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
        try:
            for payload in frames(self._received):
                with suppress(DecodeError, ValidationError):
                    self._heard(msgpack.decode(payload, type=Message))
        except ValueError:
            self._ended()

    def close(self) -> None:
        """Let it finish."""
        if self._sock is not None:
            self._let_go(self._sock)
        if self._process is not None:
            try:
                self._process.wait(_CLOSE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def start(self) -> None:
        """Begin, and take what it says as it comes."""
        try:
            self._process, ours = start("pfw.daemon.observer")
        except OSError as error:
            self._later(f"nothing is observed: {error.strerror or error}")
            return
        self._started = clock.now()
        self._received.clear()
        ours.setblocking(False)
        self._sock, self._outbox = ours, Outbox(ours)
        self._outbox.put(msgpack.encode(self._begin))
        self._flush()
        self._watch(ours.fileno(), self.take)

    def _let_go(self, sock: socket.socket) -> None:
        self._unwatch(sock.fileno())
        sock.close()
        self._sock = self._outbox = None

    def _ended(self) -> None:
        assert self._sock is not None
        self._let_go(self._sock)
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


def receive_begin(sock: socket.socket) -> tuple[Begin, bytearray]:
    """The first message, on the observer's side, and what has come behind it. Raises OSError, ValueError, DecodeError
    and ValidationError."""
    received = bytearray()
    while True:
        piece = sock.recv(_READ_BYTES)
        if not piece:
            raise OSError("the daemon has ended")
        received += piece
        for payload in frames(received):
            return msgpack.decode(payload, type=Begin), received
