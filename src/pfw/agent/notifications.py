"""Notifications on the desktop: shown, replaced and closed, and what the person did with them.

The interface `org.freedesktop.Notifications` (Desktop Notifications Specification 1.2). Only what the owner of that
name says is believed: everybody on the bus can send a signal that looks like the press of a button.
"""

from __future__ import annotations

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageFlag, MessageType, new_method_call
from jeepney.bus_messages import message_bus
from msgspec import Struct

from pfw.agent.agent import Key
from pfw.agent.bus import BUS_NAME, Bus, error_name, reply_to, sender
from pfw.agent.wording import Notification, Urgency
from pfw.model.text import printable

OWN_NAME = "org.pfw.Agent"
SERVER_NAME = "org.freedesktop.Notifications"
_PATH = "/org/freedesktop/Notifications"
_APP_NAME = "Personal Firewall"
_DESKTOP_ENTRY = "pfw-agent"
_AS_THE_SERVER_LIKES = -1
_NEVER = 0
_WHEN_GONE = {f"{BUS_NAME}.Error.{name}" for name in ("NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected")}
"""Errors that a server makes by going away."""


class ServerFound(Struct, frozen=True):
    capabilities: frozenset[str]


class ServerGone(Struct, frozen=True):
    """`says` is empty where it has just gone, else why there is none."""

    says: str


class Pressed(Struct, frozen=True):
    key: Key
    action: str


class Closed(Struct, frozen=True):
    """By the person, by the server, or it was not shown at all."""

    key: Key


Event = ServerFound | ServerGone | Pressed | Closed


class Notifications:
    """Notifications by key. Everything raises BusError. The server is asked and not waited for: what is wished for one
    that it has not answered about is done when it has."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._address = DBusAddress(_PATH, bus_name=SERVER_NAME, interface=SERVER_NAME)
        self._owner: str | None = None
        """As the bus says: the server's own name."""
        self._asked = 0
        """The serial number of the call for the capabilities."""
        self._ids: dict[Key, int] = {}
        self._keys: dict[int, Key] = {}
        self._sent: dict[int, Key] = {}
        """Those that the server has not answered about, by serial number."""
        self._next: dict[Key, Notification | None] = {}
        """What is to become of them then; None: close it."""
        changes = MatchRule(type="signal", sender=BUS_NAME, interface=BUS_NAME, member="NameOwnerChanged")
        changes.add_arg_condition(0, SERVER_NAME)
        bus.ask(message_bus.AddMatch(changes))
        bus.ask(message_bus.AddMatch(MatchRule(type="signal", sender=SERVER_NAME, interface=SERVER_NAME, path=_PATH)))
        self._owner = bus.owner_of(SERVER_NAME)
        self._meet()

    def fileno(self) -> int:
        return self._bus.fileno()

    def show(self, key: Key, notification: Notification) -> None:
        """Show it, in the place of what is shown for this key."""
        if key in self._sent.values():
            self._next[key] = notification
        else:
            self._notify(key, notification)

    def close(self, key: Key) -> None:
        if key in self._sent.values():
            self._next[key] = None
        notification_id = self._forget(key)
        if notification_id is not None:
            self._close(notification_id)

    def receive(self) -> list[Event]:
        """What has happened, when the descriptor is readable."""
        events: list[Event] = []
        for message in self._bus.receive():
            if message.header.message_type is MessageType.signal:
                events += self._signal(message)
            elif sender(message) not in (BUS_NAME, self._owner):
                continue
            elif reply_to(message) == self._asked:
                events += self._met(message)
            elif (key := self._sent.pop(reply_to(message) or 0, None)) is not None:
                events += self._answered(key, message)
        return events

    def _meet(self) -> None:
        # The bus starts a server where there is none and it knows one.
        self._asked = self._bus.send(new_method_call(self._address, "GetCapabilities"))

    def _met(self, message: Message) -> list[Event]:
        if message.header.message_type is MessageType.error or _signature(message) != "as":
            return [ServerGone(printable(error_name(message)) or "it does not say what it can")]
        return [ServerFound(frozenset(message.body[0]))]

    def _signal(self, message: Message) -> list[Event]:
        member = message.header.fields.get(HeaderFields.member)
        if sender(message) == BUS_NAME:
            return self._owner_changed(message.body) if member == "NameOwnerChanged" else []
        if sender(message) != self._owner or message.header.fields.get(HeaderFields.interface) != SERVER_NAME:
            return []
        if member == "ActionInvoked" and _signature(message) == "us":
            key = self._keys.get(message.body[0])
            return [] if key is None else [Pressed(key, message.body[1])]
        if member == "NotificationClosed" and _signature(message) == "uu":
            key = self._keys.get(message.body[0])
            if key is not None:
                if key in self._sent.values():
                    # It is about to be replaced, and would come back.
                    self._next[key] = None
                self._forget(key)
                return [Closed(key)]
        return []

    def _owner_changed(self, change: tuple[str, str, str]) -> list[Event]:
        name, _, owner = change
        if name != SERVER_NAME or owner == self._owner:
            return []
        self._owner = owner or None
        self._ids.clear()
        self._keys.clear()
        self._sent.clear()
        self._next.clear()
        if owner:
            self._meet()
        return [ServerGone("")]

    def _answered(self, key: Key, message: Message) -> list[Event]:
        """The server has shown it, or has not."""
        waits = key in self._next
        wish = self._next.pop(key, None)
        if message.header.message_type is MessageType.error or _signature(message) != "u":
            if wish is not None:
                self._notify(key, wish)
                return []
            if waits or error_name(message) in _WHEN_GONE:
                return []
            self.close(key)
            return [Closed(key)]
        self._forget(key)
        notification_id = message.body[0]
        if waits and wish is None:
            self._close(notification_id)
            return []
        self._ids[key], self._keys[notification_id] = notification_id, key
        if wish is not None:
            self._notify(key, wish)
        return []

    def _notify(self, key: Key, shown: Notification) -> None:
        hints = {"urgency": ("y", shown.urgency.value), "desktop-entry": ("s", _DESKTOP_ENTRY)}
        expires_ms = _NEVER if shown.urgency is Urgency.CRITICAL else _AS_THE_SERVER_LIKES
        actions = [word for button in shown.buttons for word in button]
        body = (_APP_NAME, self._ids.get(key, 0), shown.icon, shown.summary, shown.body, actions, hints, expires_ms)
        self._sent[self._bus.send(new_method_call(self._address, "Notify", "susssasa{sv}i", body))] = key

    def _close(self, notification_id: int) -> None:
        message = new_method_call(self._address, "CloseNotification", "u", (notification_id,))
        # It has no answer that would tell more.
        message.header.flags |= MessageFlag.no_reply_expected
        self._bus.send(message)

    def _forget(self, key: Key) -> int | None:
        notification_id = self._ids.pop(key, None)
        if notification_id is not None:
            self._keys.pop(notification_id, None)
        return notification_id


def _signature(message: Message) -> str:
    return str(message.header.fields.get(HeaderFields.signature, ""))
