"""Waiting for many things at once, in one thread: descriptors and times. What fails is told, and the loop goes on."""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

_WAIT_MAX_S = 60.0


class Loop:
    """Calls what was registered. `failed` is told of what a callback raised."""

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._failed = failed
        self._times: list[tuple[float, int, float, Callable[[], None]]] = []
        self._number = 0
        self._stopped = False

    def register(self, fd: int, events: int, callback: Callable[[int], None], /) -> None:
        self._selector.register(fd, events, callback)

    def unregister(self, fd: int, /) -> None:
        with suppress(KeyError):
            self._selector.unregister(fd)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever a descriptor is readable."""
        self.register(fd, selectors.EVENT_READ, lambda _: callback())

    def every(self, period_s: float, callback: Callable[[], None]) -> None:
        self._at(time.monotonic() + period_s, period_s, callback)

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call once, then."""
        self._at(time.monotonic() + delay_s, 0.0, callback)

    def _at(self, when: float, period_s: float, callback: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._times, (when, self._number, period_s, callback))

    def stop(self) -> None:
        self._stopped = True

    def stop_on(self, signals: Iterable[signal.Signals]) -> None:
        """End at a signal, also while nothing else happens."""
        ours, kernels = socket.socketpair()
        for each in (ours, kernels):
            each.setblocking(False)
        signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: self.stop())
        self.watch(ours.fileno(), lambda: _drain(ours))
        self._kept = ours, kernels

    def run(self, deadline: Callable[[], float | None], due: Callable[[], None]) -> None:
        """Until it is stopped. `deadline` is the next time (s since 1970) at which `due` has something to do."""
        while not self._stopped:
            wait_s = _WAIT_MAX_S
            if self._times:
                wait_s = min(wait_s, self._times[0][0] - time.monotonic())
            following = deadline()
            if following is not None:
                wait_s = min(wait_s, following - time.time())
            for key, events in self._selector.select(max(0.0, wait_s)):
                # One that was called before may have closed it.
                if key.fd in self._selector.get_map():
                    self._call(lambda key=key, events=events: key.data(events))  # type: ignore[misc]
            self._call(due)
            while self._times and self._times[0][0] <= time.monotonic():
                _, _, period_s, callback = heapq.heappop(self._times)
                if period_s:
                    self._at(time.monotonic() + period_s, period_s, callback)
                self._call(callback)

    def close(self) -> None:
        self._selector.close()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            # Whatever it is, packets wait for the next turn.
            self._failed(error)


def _drain(sock: socket.socket) -> None:
    with suppress(BlockingIOError):
        while sock.recv(4096):
            pass
