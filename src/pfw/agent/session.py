"""The agent at work: one loop that waits for the bus, for the daemon and for the end.

The daemon is listened to only while there is a server that shows notifications: whoever listens to its prompts counts
as somebody who can be asked. Where the daemon goes away it is looked for again; where the bus does, the person's
session is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from pfw.agent.agent import Agent, Close, Command, Key, Show
from pfw.agent.bus import BusError
from pfw.agent.daemon import Daemon, GoneError, NotTakenError
from pfw.agent.notifications import Closed, Event, Notifications, Pressed, ServerFound, ServerGone

_FIRST_DELAY_S = 1.0
_LAST_DELAY_S = 60.0
_SHOWING_PAUSE_S = 0.2
"""Between changes of what is shown: a thousand prompts at once are one change."""


class Session:
    """`path` is the daemon's socket. `tell` is called with a line for the person."""

    def __init__(self, path: Path, notifications: Notifications, tell: Callable[[str], None]) -> None:
        self._path = path
        self._notifications = notifications
        self._tell = tell
        self._agent = Agent()
        self._selector = DefaultSelector()
        self._daemon: Daemon | None = None
        self._registered: tuple[int, ...] = ()
        self._has_server = False
        self._delay_s = _FIRST_DELAY_S
        self._connect_at = 0.0
        self._told_gone = False
        self._show_at = 0.0
        self._changed = False

    def run(self, stop: int) -> None:
        """Until the descriptor `stop` is readable. Raises BusError, and DeniedError where the person may not answer."""
        self._selector.register(stop, EVENT_READ)
        self._selector.register(self._notifications, EVENT_READ)
        try:
            while not self._turn(stop):
                pass
        finally:
            with suppress(BusError):
                self._perform(self._agent.close_all())
            self._leave()
            self._selector.close()

    def _turn(self, stop: int) -> bool:
        """Whether it is over."""
        ready = {key.fd for key, _ in self._selector.select(self._timeout_s(time.monotonic()))}
        if stop in ready:
            return True
        if self._notifications.fileno() in ready:
            for event in self._notifications.receive():
                self._desktop(event)
            self._changed = True
        if self._daemon is not None and ready.intersection(self._daemon.filenos()):
            self._listen(self._daemon)
        now = time.monotonic()
        if self._has_server and self._daemon is None and now >= self._connect_at:
            self._connect()
        if self._changed and now >= self._show_at:
            self._perform(self._agent.settle())
            self._changed, self._show_at = False, now + _SHOWING_PAUSE_S
        return False

    def _timeout_s(self, now: float) -> float | None:
        times = [self._show_at] if self._changed else []
        if self._has_server and self._daemon is None:
            times.append(self._connect_at)
        return max(0.0, min(times) - now) if times else None

    def _desktop(self, event: Event) -> None:
        match event:
            case ServerFound(capabilities):
                self._agent.server(capabilities)
                self._has_server = True
            case ServerGone(says):
                self._agent.server(None)
                self._has_server = False
                self._leave()
                if says:
                    self._tell(f"nothing shows notifications here ({says}); waiting until something does")
            case Pressed(key, action):
                self._answer(key, action)
            case Closed(key):
                self._agent.closed(key)

    def _connect(self) -> None:
        try:
            self._daemon = Daemon(self._path)
        except GoneError as error:
            self._lost(error)
            return
        self._registered = self._daemon.filenos()
        for fileno in self._registered:
            self._selector.register(fileno, EVENT_READ)

    def _listen(self, daemon: Daemon) -> None:
        try:
            for news in daemon.prompts():
                self._agent.prompts(news)
                self._found()
            for alert in daemon.alerts():
                self._agent.alert(alert, time.monotonic())
            daemon.check()
        except GoneError as error:
            self._lost(error)
        self._changed = True

    def _answer(self, key: Key, action: str) -> None:
        parameters = self._agent.pressed(key, action)
        if parameters is None or self._daemon is None:
            return
        try:
            self._daemon.answer(parameters)
        except NotTakenError as error:
            self._agent.refused(parameters.id, str(error), gone=error.gone)
        except GoneError as error:
            self._agent.refused(parameters.id, str(error), gone=True)
            self._lost(error)

    def _found(self) -> None:
        self._delay_s = _FIRST_DELAY_S
        if self._told_gone:
            self._told_gone = False
            self._tell("the firewall's daemon is there again")

    def _lost(self, error: GoneError) -> None:
        self._leave()
        self._connect_at = time.monotonic() + self._delay_s
        self._delay_s = min(2 * self._delay_s, _LAST_DELAY_S)
        if not self._told_gone:
            self._told_gone = True
            self._tell(f"the firewall's daemon is not there ({error}); looking for it again and again")

    def _leave(self) -> None:
        if self._daemon is None:
            return
        for fileno in self._registered:
            self._selector.unregister(fileno)
        self._registered = ()
        self._daemon.close()
        self._daemon = None
        self._agent.daemon_gone()

    def _perform(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Show(key, notification):
                    self._notifications.show(key, notification)
                case Close(key):
                    self._notifications.close(key)
