"""Downloads from web servers, and short messages to them. They are trusted with nothing: not with time, size,
redirections or text.

A download runs in a thread of its own, because nothing else bounds how long a name lookup takes, or headers that
come byte by byte. At the deadline its connections are shut down, which ends the thread too.
"""

from __future__ import annotations

import socket
import ssl
import string
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead, RemoteDisconnected
from typing import Any
from urllib.error import URLError
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

from pfw import __version__
from pfw.drivers.download import Fetched, size_text
from pfw.model.text import printable

REDIRECTS_MAX = 5
_SILENCE_S = 20.0
"""How long a server may say nothing."""
_PIECE_BYTES = 1 << 16
_REASON_CHARACTERS_MAX = 200
_TAG_CHARACTERS_MAX = 256
_REDIRECTS = (301, 302, 303, 307, 308)


def get(url: str, etag: str | None, modified: str | None, size_max: int, timeout_s: float) -> Fetched:
    """Raises OSError with the reason."""
    return _carried_out(_Download(url, etag, modified, size_max, min(timeout_s, _SILENCE_S)), timeout_s)


def post(url: str, content: bytes, timeout_s: float) -> None:
    """Send a JSON value. A redirection is not followed: who asks for it could have it sent anywhere. Raises OSError
    with the reason, in which there is nothing of the URL."""
    _carried_out(_Message(url, content, timeout_s), timeout_s)


def _carried_out(download: _Download, timeout_s: float) -> Fetched:
    thread = threading.Thread(target=download.run, name="download", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        download.stop()
        raise OSError(f"took longer than {timeout_s:g} seconds")
    if download.fetched is None:
        raise OSError(_reason(download.error))
    return download.fetched


class _Download:
    """One download, its redirections with it."""

    def __init__(self, url: str, etag: str | None, modified: str | None, size_max: int, silence_s: float) -> None:
        self.fetched: Fetched | None = None
        self.error: Exception | None = None
        self._url = url
        self._etag = etag
        self._modified = modified
        self._size_max = size_max
        self._silence_s = silence_s
        self._sockets: list[socket.socket] = []
        self._opener = OpenerDirector()
        # No handler for files, FTP, redirections or errors: urllib's own would read an endless body for them.
        for handler in (ProxyHandler(), _Http(self._sockets), _Https(self._sockets), UnknownHandler()):
            self._opener.add_handler(handler)

    def run(self) -> None:
        try:
            self.fetched = self._follow()
        except Exception as error:  # whatever it was, whoever waits tells it; here nobody would see it
            self.error = error

    def stop(self) -> None:
        for each in self._sockets:
            with suppress(OSError, ValueError):
                each.shutdown(socket.SHUT_RDWR)

    def _follow(self) -> Fetched:
        url = self._url
        for _ in range(REDIRECTS_MAX + 1):
            with self._ask(url) as answer:
                if answer.status not in _REDIRECTS:
                    return self._take(answer)
                url = _redirected(url, answer.headers.get("Location"))
        raise OSError(f"is redirected more than {REDIRECTS_MAX} times")

    def _ask(self, url: str) -> HTTPResponse:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        request = self._request(urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")))
        request.add_header("User-Agent", f"pfw/{__version__}")
        if self._etag is not None:
            request.add_header("If-None-Match", self._etag)
        if self._modified is not None:
            request.add_header("If-Modified-Since", self._modified)
        own = urlsplit(self._url)
        credentials, _, own_host = own.netloc.rpartition("@")
        if credentials and (parts.scheme, host) == (own.scheme, own_host):
            request.add_header("Authorization", f"Basic {b64encode(unquote(credentials).encode()).decode()}")
        answer: HTTPResponse = self._opener.open(request, timeout=self._silence_s)
        return answer

    def _request(self, url: str) -> Request:
        return Request(url)

    def _take(self, answer: HTTPResponse) -> Fetched:
        if answer.status == HTTPStatus.NOT_MODIFIED and (self._etag or self._modified) is not None:
            return Fetched(None, self._etag, self._modified)
        if answer.status != HTTPStatus.OK:
            raise OSError(f"the server answered {_status(answer.status)}")
        return Fetched(self._body(answer), _tag(answer.headers.get("ETag")), _tag(answer.headers.get("Last-Modified")))

    def _body(self, answer: HTTPResponse) -> bytes:
        promised = answer.length
        body = bytearray()
        if promised is None or promised <= self._size_max:
            while piece := answer.read(_PIECE_BYTES):
                body += piece
                if len(body) > self._size_max:
                    break
            else:
                if promised is not None and len(body) < promised:
                    raise OSError(f"was cut off after {len(body):,} of {promised:,} bytes")
                return bytes(body)
        raise OSError(f"is larger than {size_text(self._size_max)}")


class _Message(_Download):
    """Sends instead; what the server says in its answer is not read."""

    def __init__(self, url: str, content: bytes, timeout_s: float) -> None:
        super().__init__(url, None, None, 0, timeout_s)
        self._content = content

    def _follow(self) -> Fetched:
        with self._ask(self._url) as answer:
            if answer.status in _REDIRECTS:
                raise OSError("wants to be asked elsewhere, which is not followed")
            if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                raise OSError(f"the server answered {_status(answer.status)}")
        return Fetched(b"")

    def _request(self, url: str) -> Request:
        return Request(url, data=self._content, headers={"Content-Type": "application/json"}, method="POST")


class _Connection(HTTPConnection):
    """Notes its socket where whoever waits can shut it down."""

    def __init__(self, sockets: list[socket.socket], host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._sockets = sockets

    def connect(self) -> None:
        super().connect()
        self._sockets.append(self.sock)


class _SecureConnection(HTTPSConnection):
    def __init__(self, sockets: list[socket.socket], host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._sockets = sockets

    def connect(self) -> None:
        super().connect()
        self._sockets.append(self.sock)


class _Http(HTTPHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_maker(_Connection, self._sockets), req)


class _Https(HTTPSHandler):
    def __init__(self, sockets: list[socket.socket]) -> None:
        super().__init__()
        self._sockets = sockets

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(_maker(_SecureConnection, self._sockets), req, context=ssl.create_default_context())


def _maker(kind: Callable[..., HTTPConnection], sockets: list[socket.socket]) -> Any:
    return lambda host, **options: kind(sockets, host, **options)


def _redirected(url: str, location: str | None) -> str:
    """Where a server sends us; http and https alone, and never from the second to the first."""
    target = urljoin(url, quote(location or "", encoding="latin-1", safe=string.punctuation))
    parts = urlsplit(target)
    if not location or parts.scheme not in ("http", "https") or not parts.hostname:
        raise OSError("is redirected to something that is neither http nor https")
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise OSError("is redirected from https to http, where anybody on the way could change it")
    return target


def _tag(value: str | None) -> str | None:
    """A version as the server calls it, if it can be sent back."""
    fits = value is not None and value.isascii() and value.isprintable() and 0 < len(value) <= _TAG_CHARACTERS_MAX
    return value if fits else None


def _status(number: int) -> str:
    try:
        return f"{number} ({HTTPStatus(number).phrase})"
    except ValueError:
        return str(number)


def _reason(error: Exception | None) -> str:
    """What went wrong, on one line that holds no text of the server's own."""
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    match error:
        case ssl.SSLCertVerificationError():
            text = f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            text = f"no secure connection can be made ({(error.reason or 'unknown').replace('_', ' ').lower()})"
        case socket.gaierror():
            text = f"the name of the server is not found ({error.strerror})"
        case TimeoutError():
            text = "the server does not answer"
        case RemoteDisconnected():
            text = "the server ended the connection without an answer"
        case IncompleteRead():
            text = "was cut off"
        case HTTPException():
            text = "the server does not speak HTTP"
        case URLError():
            text = str(error.reason)
        case OSError():
            text = error.strerror or str(error)
        case ValueError():
            text = "is not a URL that can be asked"
        case _:
            text = f"failed ({type(error).__name__})"
    return printable(text)[:_REASON_CHARACTERS_MAX]
