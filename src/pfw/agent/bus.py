"""The session bus: messages out, messages in. What they mean is in `notifications.py`.

Jeepney makes and reads the messages (D-Bus Specification, "Message Protocol"); the framing is here, for a message that
it cannot read must not be the end. Whoever is on the bus may send us one.
"""

from __future__ import annotations

import socket
import time
from itertools import count
from types import TracebackType
from typing import Any

from jeepney import HeaderFields, Message, MessageFlag, MessageType, new_error
from jeepney.bus import get_bus
from jeepney.bus_messages import DBusNameFlags, message_bus
from jeepney.io.blocking import prep_socket
from jeepney.low_level import calc_msg_size

BUS_NAME = "org.freedesktop.DBus"
MESSAGE_BYTES_MAX = 1 << 20
"""Nothing that a notification server has to say comes near. Longer ones are read over as they come."""
_FIRST_BYTES = 16
"""So much of a message says how long it is."""
_READ_BYTES = 1 << 16


class BusError(Exception):
    """The session bus is not there, or is there no more; says so."""


class Bus:
    """A connection to the bus at an address of D-Bus's own kind (`unix:path=...`). Everything raises BusError, after
    which it is of no use any more. It waits for the bus itself, `timeout_s` at most, and for nobody else on it."""

    def __init__(self, address: str, timeout_s: float = 5.0) -> None:
        self._timeout_s = timeout_s
        self._serials = count(1)
        self._buffer = bytearray()
        self._skip_bytes = 0
        self.unread = 0
        """Messages that were left out."""
        self._kept: list[Message] = []
        """What came while we waited for an answer of the bus."""
        try:
            self._sock: socket.socket = prep_socket(get_bus(address), timeout=timeout_s)
        except (OSError, ValueError, RuntimeError, StopIteration) as error:
            raise BusError(f"the session bus at {address} cannot be used: {error}") from None
        self._sock.settimeout(timeout_s)
        try:
            self.name: str = self.ask(message_bus.Hello())[0]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Bus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Message) -> int:
        """Its serial number, which the reply will name."""
        serial = next(self._serials)
        try:
            self._sock.sendall(message.serialise(serial=serial))
        except OSError as error:
            raise BusError(f"the session bus has gone: {error}") from None
        return serial

    def ask(self, message: Message) -> tuple[Any, ...]:
        """Ask the bus itself, and wait for what it answers."""
        reply = self._reply(message)
        if reply.header.message_type is MessageType.error:
            raise BusError(f"the session bus refuses: {error_name(reply)}")
        return tuple(reply.body)

    def owner_of(self, name: str) -> str | None:
        """The unique name of who has this one."""
        reply = self._reply(message_bus.GetNameOwner(name))
        return None if reply.header.message_type is MessageType.error else str(reply.body[0])

    def claim(self, name: str) -> bool:
        """Own a name on the bus; False where somebody else does."""
        return self.ask(message_bus.RequestName(name, DBusNameFlags.do_not_queue))[0] in (1, 4)

    def receive(self) -> list[Message]:
        """What has come, when the descriptor is readable. Calls are answered here: nothing can be called."""
        kept, self._kept = self._kept, []
        messages = kept or self._read()
        for message in messages:
            wants_reply = not message.header.flags & MessageFlag.no_reply_expected
            if message.header.message_type is MessageType.method_call and wants_reply:
                self.send(new_error(message, f"{BUS_NAME}.Error.UnknownMethod"))
        return messages

    def _reply(self, message: Message) -> Message:
        until = time.monotonic() + self._timeout_s
        serial = self.send(message)
        while time.monotonic() < until:
            messages = self._read()
            for place, each in enumerate(messages):
                if reply_to(each) == serial and sender(each) == BUS_NAME:
                    self._kept += messages[place + 1 :]
                    return each
                self._kept.append(each)
        raise BusError("the session bus does not answer")

    def _read(self) -> list[Message]:
        try:
            data = self._sock.recv(_READ_BYTES)
        except OSError as error:
            raise BusError(f"the session bus has gone: {error}") from None
        if not data:
            raise BusError("the session bus has gone")
        self._buffer += data
        messages = []
        while (message := self._next()) is not None:
            messages += message
        return messages

    def _next(self) -> list[Message] | None:
        """A message, or none for one that is left out; None where there is not enough for one."""
        skipped = min(self._skip_bytes, len(self._buffer))
        del self._buffer[:skipped]
        self._skip_bytes -= skipped
        if len(self._buffer) < _FIRST_BYTES:
            return None
        try:
            size = int(calc_msg_size(bytes(self._buffer[:_FIRST_BYTES])))
        except (KeyError, ValueError):
            raise BusError("the session bus sends what is not D-Bus") from None
        if size > MESSAGE_BYTES_MAX:
            self._skip_bytes = size
            self.unread += 1
            return []
        if len(self._buffer) < size:
            return None
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        try:
            return [Message.from_buffer(data)]
        except Exception:  # jeepney has no error of its own for what it cannot read
            self.unread += 1
            return []


def reply_to(message: Message) -> int | None:
    serial: int | None = message.header.fields.get(HeaderFields.reply_serial)
    return serial


def sender(message: Message) -> str | None:
    """The bus fills it in: nobody can send in another's name."""
    name: str | None = message.header.fields.get(HeaderFields.sender)
    return name


def error_name(message: Message) -> str:
    return str(message.header.fields.get(HeaderFields.error_name, ""))
