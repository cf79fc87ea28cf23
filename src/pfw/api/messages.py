"""Varlink's messages as values: bytes in, messages out, and back. Knows no socket and no interface.

A message is one JSON object with a zero byte behind it. What they hold: varlink.org, "Method Call". JSON has no zero
byte of its own, so the frame needs no look at what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

MESSAGE_BYTES_MAX = 1 << 20
"""A list of 2,000 connections takes half of it. Without a bound the other side would decide how much memory we use."""
_NAME_CHARACTERS_MAX = 255
_UNSENT = Raw()

Value = TypeVar("Value", bound=Struct)


class ProtocolError(Exception):
    """The other side does not speak Varlink, or not so that it can be understood. Nothing can be answered."""


class ParameterError(ProtocolError):
    """A parameter is missing, unknown or of another kind; `parameter` is its name, empty where no one is to blame."""

    def __init__(self, parameter: str, text: str) -> None:
        super().__init__(text)
        self.parameter = parameter


class ApiError(Exception):
    """A call was answered with an error: its full name, and what it says besides."""

    def __init__(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        self.name = name
        self.parameters = dict(parameters or {})
        said = ", ".join(f"{key}: {value}" for key, value in self.parameters.items())
        super().__init__(f"{name} ({said})" if said else name)


class Call(Struct, frozen=True, omit_defaults=True):
    """What a client asks. A parameter that is null is one that is not there; so are the flags."""

    method: str
    parameters: Raw = _UNSENT
    oneway: bool | None = None
    more: bool | None = None
    upgrade: bool | None = None


class Reply(Struct, frozen=True, omit_defaults=True):
    """What a server answers, `continues` where more follows to the same call."""

    parameters: Raw = _UNSENT
    continues: bool | None = None
    error: str | None = None


class Framer:
    """Bytes as they come, messages as they were sent. Take all messages (`next`) before feeding again: what waits is
    never more than one message and one feed."""

    def __init__(self, bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._searched = 0
        """So far there is no end of a message. A message that comes byte by byte is not searched anew each time."""

    def feed(self, data: bytes) -> None:
        """Raises ProtocolError where more waits already than a message may be."""
        if len(self._buffer) > self._bytes_max + 1:
            raise self._too_much()
        self._buffer += data

    def next(self) -> bytes | None:
        """A message without its zero byte, None until one is whole. Raises ProtocolError for one that is too long."""
        end = self._end()
        if (len(self._buffer) if end < 0 else end) > self._bytes_max:
            raise self._too_much()
        if end < 0:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return message

    @property
    def whole(self) -> bool:
        """Whether a message waits to be taken."""
        return self._end() >= 0

    @property
    def waiting_bytes(self) -> int:
        return len(self._buffer)

    def _end(self) -> int:
        end = self._buffer.find(0, self._searched)
        self._searched = len(self._buffer) if end < 0 else end
        return end

    def _too_much(self) -> ProtocolError:
        return ProtocolError(f"a message of more than {self._bytes_max:,} bytes")


def decode_call(message: bytes) -> Call:
    """Raises ProtocolError."""
    return _decode(message, Call)


def decode_reply(message: bytes) -> Reply:
    """Raises ProtocolError."""
    return _decode(message, Reply)


def encode_call(call: Call) -> bytes:
    """With its zero byte."""
    return msgspec.json.encode(call) + b"\0"


def encode_reply(reply: Reply) -> bytes:
    """With its zero byte."""
    return msgspec.json.encode(reply) + b"\0"


def encode_parameters(value: Struct) -> Raw:
    """Paths and arguments are bytes to the system; where they are no text, and Python keeps them as surrogates, they
    are sent with escapes (`\\udcff`). Otherwise one file with a strange name would silence every list it is in."""
    try:
        return Raw(msgspec.json.encode(value))
    except UnicodeEncodeError:
        return Raw(msgspec.json.encode(_printable(msgspec.to_builtins(value))))


def encode_object(values: Mapping[str, object]) -> Raw:
    """What comes with an error."""
    return Raw(msgspec.json.encode(_printable(dict(values))))


def decode_parameters(parameters: Raw, kind: type[Value]) -> Value:
    """Raises ParameterError. Whether unknown ones are refused is what the Struct says (`forbid_unknown_fields`)."""
    given = bytes(parameters)
    try:
        return msgspec.json.decode(b"{}" if given in (b"", b"null") else given, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ParameterError(_blamed(str(error)), f"parameters: {error}") from None


def decode_object(parameters: Raw) -> dict[str, object]:
    """Any JSON object, as what comes with an error that is not ours. Raises ProtocolError."""
    given = bytes(parameters)
    return {} if given in (b"", b"null") else _decode(given, dict[str, object])


_Any = TypeVar("_Any")


def _decode(message: bytes, kind: type[_Any]) -> _Any:
    try:
        # As text: what msgspec skips, or keeps raw, it does not look at.
        return msgspec.json.decode(str(message, "utf-8"), type=kind)
    except UnicodeDecodeError:
        raise ProtocolError("a message that is not UTF-8") from None
    except RecursionError:
        # Its own bound on the depth of what it reads: Python's recursion limit.
        raise ProtocolError("a message with too many objects inside each other") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ProtocolError(f"a message that is no call or reply: {error}") from None


def _blamed(text: str) -> str:
    # "Expected `int`, got `str` - at `$.id`", "Object missing required field `id`", "... contains unknown field `id`"
    _, path, name = text.partition("`$.")
    if not path:
        _, _, name = text.partition(" field `")
        return name[:-1][:_NAME_CHARACTERS_MAX]
    return name.partition("`")[0].partition("[")[0].partition(".")[0]


def _printable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return value
