"""A notification server for a bus without a screen: it keeps what it is given, and presses buttons when told to."""

from __future__ import annotations

import threading
from itertools import count

from jeepney import DBusAddress, HeaderFields, MessageType, new_error, new_method_return, new_signal
from jeepney.io.blocking import open_dbus_connection

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
FIELDS = ("app_name", "replaces_id", "icon", "summary", "body", "actions", "hints", "expires_ms")


class NotificationServer:
    def __init__(self, address: str, capabilities: tuple[str, ...]) -> None:
        self.capabilities = list(capabilities)
        self.shown: dict[int, dict] = {}
        self.most = 0
        """The greatest number that was shown at once."""
        self.notified = 0
        self.refuses = False
        self.held: list | None = None
        """Calls of Notify that wait for `release`; None where none is to wait."""
        self._ids = count(101)
        self._connection = open_dbus_connection(address)
        self._emitter = DBusAddress(PATH, interface=NAME)
        assert self._connection.bus_proxy.RequestName(NAME, 4) == (1,)
        self._over = False
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def summaries(self) -> list[str]:
        with self._lock:
            return [each["summary"] for each in self.shown.values()]

    def keys(self, notification_id: int) -> list[str]:
        return self.shown[notification_id]["actions"][::2]

    def press(self, notification_id: int, action: str, *, closes: bool = True) -> None:
        self._emit("ActionInvoked", "us", (notification_id, action))
        if closes:
            self.dismiss(notification_id)

    def dismiss(self, notification_id: int, reason: int = 2) -> None:
        with self._lock:
            self.shown.pop(notification_id, None)
        self._emit("NotificationClosed", "uu", (notification_id, reason))

    def release(self) -> None:
        """Answer those that wait now."""
        held, self.held = self.held, None
        for message in held:
            self._notify(message)

    def stop(self) -> None:
        if not self._over:
            self._over = True
            self._connection.sock.shutdown(2)
            self._thread.join()
            self._connection.close()

    def _emit(self, name: str, signature: str, body: tuple) -> None:
        with self._lock:
            self._connection.send(new_signal(self._emitter, name, signature, body))

    def _serve(self) -> None:
        while not self._over:
            try:
                message = self._connection.receive()
                if message.header.message_type is MessageType.method_call:
                    self._called(message)
            except OSError:
                return

    def _called(self, message) -> None:
        match message.header.fields[HeaderFields.member]:
            case "GetCapabilities":
                reply = new_method_return(message, "as", (self.capabilities,))
            case "Notify" if self.refuses:
                reply = new_error(message, "org.freedesktop.Notifications.Error.ExcessNotificationGeneration")
            case "Notify":
                if self.held is None:
                    self._notify(message)
                else:
                    self.held.append(message)
                return
            case "CloseNotification":
                reply = new_method_return(message)
                if message.body[0] in self.shown:
                    self.dismiss(message.body[0], 3)
            case _:
                return
        with self._lock:
            self._connection.send(reply)

    def _notify(self, message) -> None:
        with self._lock:
            self._show(message)

    def _show(self, message) -> None:
        given = dict(zip(FIELDS, message.body, strict=True))
        notification_id = given["replaces_id"] if given["replaces_id"] in self.shown else next(self._ids)
        # First the answer: a button can be pressed only after it.
        self._connection.send(new_method_return(message, "u", (notification_id,)))
        self.shown[notification_id] = given
        self.most = max(self.most, len(self.shown))
        self.notified += 1
