"""The daemon's end of the API: a Varlink service on a Unix socket, in a loop that somebody else turns.

Nothing here waits, and nothing that a client does raises. Bounded: the connections, what each may send, what waits to
be read by it. What was turned away is counted (`Server.counts`). A call that cannot be understood ends its connection,
for there is nothing to which an answer would belong. Handlers are called in the loop and must not wait either.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from selectors import EVENT_READ
from typing import Any

from msgspec import Struct

from pfw.api.connection import Connection, Loop
from pfw.api.definition import Method, Result, Right, Streams
from pfw.api.interface import FIREWALL, Refused
from pfw.api.listening import listen
from pfw.api.messages import (
    MESSAGE_BYTES_MAX,
    ApiError,
    Call,
    ParameterError,
    ProtocolError,
    decode_call,
    decode_parameters,
)
from pfw.api.peer import ROOT, Peer, may, peer_of
from pfw.api.service import (
    SERVICE,
    ExpectedMore,
    GetInfoResult,
    GetInterfaceDescriptionParameters,
    GetInterfaceDescriptionResult,
    InterfaceNotFound,
    InvalidParameter,
    MethodNotFound,
    MethodNotImplemented,
    PermissionDenied,
)
from pfw.api.subscription import Subscription, encoded, encoded_failure

CONNECTIONS_MAX = 64
CONNECTIONS_BESIDES_ROOT_MAX = 48
"""The others are root's, so that many users together cannot keep him out."""
CONNECTIONS_A_USER_MAX = 16
STRANGER_CALL_BYTES_MAX = 64 << 10
"""Who may do nothing has nothing long to say."""
_ACCEPTED_PER_TURN = 16
_NAME_CHARACTERS_MAX = 255
_INTERFACES = {interface.name: interface for interface in (SERVICE, FIREWALL)}

Handler = Callable[[Any, Peer], Result]
"""Takes a method's parameters and the caller, gives its result, or raises ApiError (`interface.failure`)."""
StreamHandler = Callable[[Any, Peer, Subscription], None]
"""Sends the first of a stream, or keeps the subscription for later, or both; may raise ApiError to end it."""


class Info(Struct, frozen=True):
    """What GetInfo says."""

    version: str
    vendor: str = "Personal Firewall"
    product: str = "pfw"
    url: str = ""


class Server:
    """Listens at `path`, or on `listener` where systemd has opened one; `group` is the number of the group that may
    read and answer, None where there is no such group. `handlers` and `streams` go by the name of the method.
    `failed` is told of what a handler raised that is not ApiError. Raises OSError, and ValueError for a handler of no
    method.
    """

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        streams: Mapping[str, StreamHandler] | None = None,
        *,
        loop: Loop,
        group: int | None,
        info: Info,
        failed: Callable[[str, Exception], None] | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.counts = dict.fromkeys(("accepted", "refused", "malformed", "denied", "slow", "failed"), 0)
        """`refused` connections, above a bound; `slow` readers of a stream; `failed` handlers."""
        self._handlers = dict(handlers)
        self._streams = dict(streams or {})
        _check(self._handlers, self._streams)
        self._info = info
        self._texts = {interface.name: interface.description() for interface in _INTERFACES.values()}
        self._loop = loop
        self._group = group
        self._failed = failed
        self._path = path if listener is None else None
        self._connections: dict[Connection, Subscription | None] = {}
        self._listener = listen(path) if listener is None else listener
        self._listener.setblocking(False)
        self._made = None if self._path is None else _identity(path)
        self._closed = False
        self._spare: int | None = _spare_descriptor()
        loop.register(self._listener.fileno(), EVENT_READ, self._accept)

    @property
    def connections(self) -> int:
        return len(self._connections)

    @property
    def waiting_bytes(self) -> int:
        """What is kept for clients, in both directions."""
        return sum(one.incoming_bytes + one.outgoing_bytes for one in self._connections)

    def publish(self, method: str, result: Result) -> int:
        """Send to all who listen to a method; to how many. Raises ApiError for one that is too long for a message."""
        listening = [one for one in self._connections.values() if one is not None and one.method.name == method]
        if not listening:
            return 0
        message = encoded(FIREWALL.methods[method], result, continues=True)
        for subscription in listening:
            subscription.send_encoded(message)
        return sum(not subscription.closed for subscription in listening)

    def close(self) -> None:
        """End all connections, and remove the socket's file where it is ours."""
        if self._closed:
            return
        self._closed = True
        self._loop.unregister(self._listener.fileno())
        self._listener.close()
        if self._spare is not None:
            os.close(self._spare)
        for connection in list(self._connections):
            connection.close()
        # Another server may have come in our place.
        if self._path is not None and _identity(self._path) == self._made:
            with suppress(OSError):
                self._path.unlink()

    def _accept(self, _: int) -> None:
        for _ in range(_ACCEPTED_PER_TURN):
            if self._closed:
                return
            try:
                sock, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._turn_away(error)
                return
            self._admit(sock)

    def _admit(self, sock: socket.socket) -> None:
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        if not self._has_room(peer):
            self.counts["refused"] += 1
            sock.close()
            return
        self.counts["accepted"] += 1
        limit = MESSAGE_BYTES_MAX if may(peer, Right.READ, self._group) else STRANGER_CALL_BYTES_MAX
        connection = Connection(sock, peer, self._loop, self._perform, self._ended, limit)
        if not connection.closed:
            self._connections[connection] = None

    def _has_room(self, peer: Peer) -> bool:
        if len(self._connections) >= CONNECTIONS_MAX:
            return False
        if peer.uid == ROOT:
            return True
        others = [one.peer.uid for one in self._connections if one.peer.uid != ROOT]
        return len(others) < CONNECTIONS_BESIDES_ROOT_MAX and others.count(peer.uid) < CONNECTIONS_A_USER_MAX

    def _turn_away(self, error: OSError) -> None:
        """No descriptor is left for another connection. It would be announced again and again, and the loop would turn
        for nothing else: with the descriptor that is kept for this it is taken and closed."""
        if error.errno not in (errno.EMFILE, errno.ENFILE) or self._spare is None:
            return
        os.close(self._spare)
        with suppress(OSError):
            self._listener.accept()[0].close()
            self.counts["refused"] += 1
        self._spare = _spare_descriptor()

    def _ended(self, connection: Connection, why: str) -> None:
        self._connections.pop(connection, None)
        if why:
            self.counts[why] += 1

    def _perform(self, connection: Connection, message: bytes) -> None:
        try:
            call = decode_call(message)
        except ProtocolError:
            connection.close("malformed")
            return
        try:
            reply = self._answered(connection, call)
        except Exception as error:  # a handler's mistake must not end the firewall
            reply = self._mistaken(call.method, error)
        if reply is not None and not call.oneway:
            connection.send(reply)

    def _answered(self, connection: Connection, call: Call) -> bytes | None:
        method = self._permitted(connection.peer, call)
        more = bool(call.more) and not call.oneway
        if method.streams is Streams.ALWAYS and not more:
            raise SERVICE.failure(ExpectedMore())
        try:
            parameters = decode_parameters(call.parameters, method.parameters)
        except ParameterError as error:
            raise SERVICE.failure(InvalidParameter(parameter=error.parameter)) from None
        if more and method.name in self._streams and not call.method.startswith(SERVICE.name):
            self._stream(connection, method, parameters)
            return None
        return encoded(method, self._handler(call.method, method.name)(parameters, connection.peer))

    def _permitted(self, peer: Peer, call: Call) -> Method:
        name, _, member = call.method.rpartition(".")
        interface = _INTERFACES.get(name)
        if interface is None:
            raise SERVICE.failure(InterfaceNotFound(interface=name[:_NAME_CHARACTERS_MAX]))
        method = interface.methods.get(member)
        if method is None:
            raise SERVICE.failure(MethodNotFound(method=call.method[:_NAME_CHARACTERS_MAX]))
        if not may(peer, method.right, self._group):
            self.counts["denied"] += 1
            raise SERVICE.failure(PermissionDenied())
        if call.upgrade:
            # To hand the connection over to another protocol.
            raise SERVICE.failure(MethodNotImplemented(method=call.method))
        return method

    def _handler(self, full_name: str, name: str) -> Handler:
        if full_name == f"{SERVICE.name}.GetInfo":
            return self._get_info
        if full_name == f"{SERVICE.name}.GetInterfaceDescription":
            return self._describe
        try:
            return self._handlers[name]
        except KeyError:
            raise SERVICE.failure(MethodNotImplemented(method=full_name)) from None

    def _stream(self, connection: Connection, method: Method, parameters: Any) -> None:
        subscription = Subscription(connection, method, partial(self._mistaken, f"{FIREWALL.name}.{method.name}"))
        connection.streaming = True
        self._connections[connection] = subscription
        try:
            self._streams[method.name](parameters, connection.peer, subscription)
        except BaseException:
            subscription.stop()
            raise

    def _mistaken(self, method: str, error: Exception) -> bytes:
        if isinstance(error, ApiError):
            return encoded_failure(error)
        self.counts["failed"] += 1
        if self._failed is not None:
            self._failed(method, error)
        return encoded_failure(FIREWALL.failure(Refused(says="the firewall failed at this call; its log says more")))

    def _get_info(self, _: Any, __: Peer) -> GetInfoResult:
        info = self._info
        return GetInfoResult(
            vendor=info.vendor,
            product=info.product,
            version=info.version,
            url=info.url,
            interfaces=tuple(_INTERFACES),
        )

    def _describe(self, asked: GetInterfaceDescriptionParameters, _: Peer) -> GetInterfaceDescriptionResult:
        text = self._texts.get(asked.interface)
        if text is None:
            raise SERVICE.failure(InterfaceNotFound(interface=asked.interface[:_NAME_CHARACTERS_MAX]))
        return GetInterfaceDescriptionResult(description=text)


def _check(handlers: Mapping[str, Handler], streams: Mapping[str, StreamHandler]) -> None:
    for name in handlers:
        if name not in FIREWALL.methods or FIREWALL.methods[name].streams is Streams.ALWAYS:
            raise ValueError(f"{FIREWALL.name} has no method {name} that gives one answer")
    for name in streams:
        if name not in FIREWALL.methods or FIREWALL.methods[name].streams is Streams.NEVER:
            raise ValueError(f"{FIREWALL.name} has no method {name} that streams")


def _spare_descriptor() -> int | None:
    with suppress(OSError):
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    return None


def _identity(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None
