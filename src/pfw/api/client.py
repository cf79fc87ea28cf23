"""A caller's end of the API: asks, and waits for the answer.

One call at a time; a stream has its client for itself. What comes from the other end is believed only because the
kernel says who that is: root, or the caller's own user.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from msgspec import Struct

from pfw.api.interface import FIREWALL
from pfw.api.messages import (
    ApiError,
    Call,
    Framer,
    ProtocolError,
    Reply,
    decode_object,
    decode_parameters,
    decode_reply,
    encode_call,
    encode_parameters,
)
from pfw.api.peer import ROOT, peer_of

_READ_BYTES = 1 << 16

Answer = TypeVar("Answer", bound=Struct)


class Client:
    """Raises FileNotFoundError or ConnectionError where nobody listens, PermissionError where somebody else than the
    system does, TimeoutError where he does not answer in time, ProtocolError where he speaks another language.

    After an error other than ApiError it is closed: what came later would be taken for the answer to something else.
    """

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._framer = Framer()
        self._streaming = False
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.settimeout(timeout_s)
            self._connect(path)
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        """What becomes readable when something has come; -1 when closed."""
        return self._sock.fileno()

    def call(self, method: str, parameters: Struct, answer: type[Answer]) -> Answer:
        """Call a method, of the firewall's interface where its name has no dot. Raises ApiError for what is answered
        with an error."""
        self._send(method, parameters)
        reply = self.receive(self._timeout_s)
        if reply.continues:
            raise self._broken("many answers to a call for one")
        return self.decoded(reply, answer)

    def stream(
        self, method: str, parameters: Struct, answer: type[Answer], timeout_s: float | None = None
    ) -> Stream[Answer]:
        """Call a method that goes on answering; `timeout_s` is how long to wait for each answer, None: for ever."""
        self._send(method, parameters, more=True)
        self._streaming = True
        return Stream(self, answer, timeout_s)

    def receive(self, timeout_s: float | None, *, keep: bool = False) -> Reply:
        """The next reply. `keep` is whether to stay open when the time is up."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while (message := self._framer.next()) is None:
                self._read(until)
            reply = decode_reply(message)
        except ProtocolError:
            self.close()
            raise
        except TimeoutError:
            if not keep:
                self.close()
            raise TimeoutError("no answer in time") from None
        except OSError:
            self.close()
            raise
        if not reply.continues:
            self._streaming = False
        return reply

    def decoded(self, reply: Reply, answer: type[Answer]) -> Answer:
        try:
            if reply.error is not None:
                raise ApiError(reply.error, decode_object(reply.parameters))
            return decode_parameters(reply.parameters, answer)
        except ProtocolError:
            self.close()
            raise

    def _connect(self, path: Path) -> None:
        try:
            self._sock.connect(str(path))
        except TimeoutError:
            raise TimeoutError(f"{path}: nobody takes the call") from None
        except OSError as error:
            error.filename = str(path)
            raise
        uid = peer_of(self._sock).uid
        if uid not in (ROOT, os.geteuid()):
            raise PermissionError(f"{path}: user {uid} listens there, who is neither root nor you; nothing was asked")

    def _send(self, method: str, parameters: Struct, *, more: bool = False) -> None:
        if self._streaming:
            raise RuntimeError("a stream has its connection for itself")
        if self._sock.fileno() < 0:
            raise ConnectionError("the connection is closed")
        name = method if "." in method else f"{FIREWALL.name}.{method}"
        try:
            self._sock.settimeout(self._timeout_s)
            data = encode_call(Call(name, encode_parameters(parameters), more=more or None))
            self._sock.sendall(data, socket.MSG_NOSIGNAL)
        except OSError:
            self.close()
            raise

    def _read(self, until: float | None) -> None:
        # With no time left it still takes what is there.
        self._sock.settimeout(None if until is None else max(0.0, until - time.monotonic()))
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            raise TimeoutError from None
        if not data:
            raise ConnectionResetError("the firewall's daemon has closed the connection")
        self._framer.feed(data)

    def _broken(self, text: str) -> ProtocolError:
        self.close()
        return ProtocolError(text)


class Stream(Generic[Answer]):
    """The answers to one call. A TimeoutError does not end it: the next may be asked for again. With a time-out of 0 it
    never waits; who watches `fileno` must then take answers until there are none, for several may come at once."""

    def __init__(self, client: Client, answer: type[Answer], timeout_s: float | None) -> None:
        self._client = client
        self._answer = answer
        self._timeout_s = timeout_s
        self._over = False

    def __iter__(self) -> Stream[Answer]:
        return self

    def __next__(self) -> Answer:
        if self._over:
            raise StopIteration
        try:
            reply = self._client.receive(self._timeout_s, keep=True)
        except TimeoutError:
            raise
        except (ProtocolError, OSError):
            self._over = True
            raise
        self._over = not reply.continues
        return self._client.decoded(reply, self._answer)

    def fileno(self) -> int:
        return self._client.fileno()
