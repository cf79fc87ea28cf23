"""One client's connection: what came in and is not answered yet, and what goes out and is not read yet.

It never waits. Calls are answered in their order, one after the other: the next is looked at when the answer to the one
before has been taken by the kernel. So a client that asks and does not read costs one answer, and then is not read
either. During a stream nothing is answered, and reading serves only to notice the end.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Protocol

from pfw.api.messages import Framer, ProtocolError
from pfw.api.peer import Peer

BEHIND_BYTES_MAX = 256 << 10
"""What may wait behind the message that is being sent, besides what the kernel holds (208 KiB). An alert has 200 bytes:
a reader is some two thousand of them behind. One message may wait whatever its length."""
_READ_BYTES = 1 << 16
_CALLS_PER_TURN = 16
"""Then others have their turn, whatever a client has sent in one go."""
_MESSAGES_PER_TURN = 64
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


class Loop(Protocol):
    """Who waits for us: any `selectors.BaseSelector`. The owner calls the callback with the events that it found."""

    def register(self, fd: int, events: int, callback: Callable[[int], None], /) -> object: ...

    def unregister(self, fd: int, /) -> object: ...


class Connection:
    """`perform` is called with each message, and sends what there is to be answered. `ended` is called once, when
    nothing is left of the connection, with why the server ended it (empty: the client has gone)."""

    def __init__(
        self,
        sock: socket.socket,
        peer: Peer,
        loop: Loop,
        perform: Callable[[Connection, bytes], None],
        ended: Callable[[Connection, str], None],
        call_bytes_max: int,
    ) -> None:
        self.peer = peer
        self.closed = False
        self.streaming = False
        """As long as it is, no further call is answered."""
        self._sock = sock
        self._loop = loop
        self._perform = perform
        self._ended = ended
        self._framer = Framer(call_bytes_max)
        self._sending = memoryview(b"")
        self._first: Iterator[bytes] | None = None
        """What goes out before what is behind, each when it is its turn."""
        self._behind: deque[bytes] = deque()
        self._behind_bytes = 0
        self._events = 0
        sock.setblocking(False)
        self.watch()

    @property
    def outgoing_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return len(self._sending) + self._behind_bytes

    @property
    def incoming_bytes(self) -> int:
        """What has been read and not been answered yet."""
        return self._framer.waiting_bytes

    def send(self, message: bytes) -> bool:
        """Send a message, now or when the client reads; whether it was taken. One that has too much behind is not."""
        if self.closed or (self._behind and self._behind_bytes + len(message) > BEHIND_BYTES_MAX):
            return False
        self._behind.append(message)
        self._behind_bytes += len(message)
        self._flush()
        self.watch()
        return True

    def send_first(self, messages: Iterator[bytes]) -> None:
        """Send these before all that is sent from now on. Each is made only when the client has read those before."""
        if self.closed:
            return
        self._first = messages
        self._flush()
        self.watch()

    def close(self, why: str = "") -> None:
        if self.closed:
            return
        self.closed = True
        self.streaming = False
        if self._events:
            self._loop.unregister(self._sock.fileno())
        self._sock.close()
        self._sending, self._first = memoryview(b""), None
        self._behind.clear()
        self._behind_bytes = 0
        self._ended(self, why)

    def _ready(self, events: int) -> None:
        # An event may come of a connection that was closed after the loop had found it.
        if not self.closed and events & EVENT_WRITE:
            self._flush()
        if not self.closed and events & self._events & EVENT_READ:
            self._read()
        self._answer()
        self.watch()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES, _FLAGS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            # All that came before has been answered, for there is no reading before that; and a stream has no listener.
            self.close()
            return
        try:
            self._framer.feed(data)
        except ProtocolError:
            self.close("malformed")

    def _answer(self) -> None:
        for _ in range(_CALLS_PER_TURN):
            if self.closed or self.streaming or self._busy:
                return
            try:
                message = self._framer.next()
            except ProtocolError:
                self.close("malformed")
                return
            if message is None:
                return
            self._perform(self, message)

    def _flush(self) -> None:
        try:
            for _ in range(_MESSAGES_PER_TURN):
                if self.closed or not (self._sending or self._next()):
                    return
                self._sending = self._sending[self._sock.send(self._sending, _FLAGS) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()

    def _next(self) -> bool:
        """Whether there is another message to send."""
        message = None if self._first is None else next(self._first, None)
        if message is None:
            self._first = None
            if not self._behind:
                return False
            message = self._behind.popleft()
            self._behind_bytes -= len(message)
        self._sending = memoryview(message)
        return True

    @property
    def _busy(self) -> bool:
        return bool(self._sending or self._first is not None or self._behind)

    def watch(self) -> None:
        """Say to the loop what is waited for. To be called when a stream was ended: calls may have waited for that."""
        if self.closed:
            return
        whole = self._framer.whole and not self.streaming
        # A call that has been read makes no event; that one can write makes one in the next turn.
        events = EVENT_WRITE if self._busy or whole else 0
        if self.streaming or not events:
            events |= EVENT_READ
        if events == self._events:
            return
        if self._events:
            self._loop.unregister(self._sock.fileno())
        self._events = 0
        try:
            self._loop.register(self._sock.fileno(), events, self._ready)
        except OSError:  # the system has no room for another that is waited for
            self.close()
            return
        self._events = events
