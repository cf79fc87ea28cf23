"""A call that is answered more than once, and how a result becomes a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pfw.api.connection import Connection
from pfw.api.definition import Method, Result
from pfw.api.interface import Refused, failure
from pfw.api.messages import (
    MESSAGE_BYTES_MAX,
    ApiError,
    Reply,
    encode_object,
    encode_parameters,
    encode_reply,
)


class Subscription:
    """A call with `more`. Whatever is sent after its end is not sent. `failed` makes of a mistake the last answer."""

    def __init__(self, connection: Connection, method: Method, failed: Callable[[Exception], bytes]) -> None:
        self.method = method
        self._connection = connection
        self._failed = failed
        self._over = False

    @property
    def closed(self) -> bool:
        """Whether nobody listens any more."""
        return self._over or self._connection.closed

    def send(self, result: Result) -> None:
        """Send one of many. Raises ApiError for one that is too long for a message."""
        if not self.closed:
            self.send_encoded(encoded(self.method, result, continues=True))

    def send_all(self, results: Iterable[Result]) -> None:
        """Send these before everything that is sent from now on; each is asked for when the client has read those
        before it. So a list may be longer than what may wait for a client, in pieces that fit into a message."""
        if not self.closed:
            self._connection.send_first(self._pieces(results))

    def end(self, result: Result) -> None:
        """Send the last one. The client may call again."""
        if not self.closed:
            message = encoded(self.method, result)
            self.stop()
            self._deliver(message)

    def send_encoded(self, message: bytes) -> None:
        if not self.closed:
            self._deliver(message)

    def stop(self) -> None:
        """No more is sent; the connection is free for other calls."""
        self._over = True
        self._connection.streaming = False

    def _deliver(self, message: bytes) -> None:
        if not self._connection.send(message):
            # To leave out some would be to tell something that is not so; a new call begins with all there is.
            self._connection.close("slow")

    def _pieces(self, results: Iterable[Result]) -> Iterator[bytes]:
        try:
            for result in results:
                if self.closed:
                    return
                yield encoded(self.method, result, continues=True)
        except Exception as error:  # it is the loop that asks for the next one
            message = self._failed(error)
            self.stop()
            yield message


def encoded(method: Method, result: Result, *, continues: bool = False) -> bytes:
    """A result as a message. Raises ApiError for one that is too long, TypeError for one that is not the method's."""
    if type(result) is not method.result:
        raise TypeError(f"{method.name} gives {method.result.__name__}, not {type(result).__name__}")
    message = encode_reply(Reply(encode_parameters(result), continues or None))
    if len(message) > MESSAGE_BYTES_MAX:
        raise failure(Refused(says=f"the answer has {len(message):,} bytes, too many for a message: ask with `more`"))
    return message


def encoded_failure(error: ApiError) -> bytes:
    return encode_reply(Reply(encode_object(error.parameters), error=error.name))
