"""Downloads from a real web server on loopback that behaves in every bad way, and files."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from pfw import __version__
from pfw.drivers.download import Fetched, fetch, version_of

BODY = b"1.10.16.0/20 ; SBL256894\n" * 4000


class Handler(BaseHTTPRequestHandler):
    """Answers as the function does that the test gave for the path; notes what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append(self)
        self.close_connection = True
        self.server.answers[self.path.partition("?")[0]](self)

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what is tested."""


@pytest.fixture
def web(monkeypatch) -> Iterator[SimpleNamespace]:
    """`on(path, answer)` gives the URL of a path; `asked` are the requests that came."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = Server(("127.0.0.1", 0), Handler)
    server.asked, server.answers = [], {}
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}"

    def on(path: str, answer: Callable[[Handler], None]) -> str:
        server.answers[path] = answer
        return base + path

    yield SimpleNamespace(on=on, asked=server.asked, base=base, port=server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def why(source: str, **options: object) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        fetch(source, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestWeb:
    def test_what_a_server_gives(self, web):
        url = web.on("/list", lambda it: it.say(200, BODY, ETag='"v1"', Last_Modified="Mon, 23 Nov 2026 04:24:02 GMT"))
        assert fetch(url) == Fetched(BODY, '"v1"', "Mon, 23 Nov 2026 04:24:02 GMT")
        assert web.asked[0].headers["User-Agent"] == f"pfw/{__version__}"
        assert web.asked[0].headers["If-None-Match"] is None

    def test_in_chunks(self, web):
        def answer(it):
            it.send_response(200)
            it.send_header("Transfer-Encoding", "chunked")
            it.end_headers()
            it.wfile.write(b"5\r\n1.2.3\r\n3\r\n.4\n\r\n0\r\n\r\n")

        assert fetch(web.on("/list", answer)).data == b"1.2.3.4\n"

    def test_of_the_old_protocol_whose_end_is_the_end(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n1.2.3.4\n")

        assert fetch(web.on("/list", answer)).data == b"1.2.3.4\n"

    def test_nothing_new(self, web):
        url = web.on("/list", lambda it: it.say(304, ETag='"v2"'))
        asked = {"etag": '"v1"', "modified": "Mon, 23 Nov 2026 04:24:02 GMT"}
        assert fetch(url, **asked) == Fetched(None, **asked)
        assert web.asked[0].headers["If-None-Match"] == asked["etag"]
        assert web.asked[0].headers["If-Modified-Since"] == asked["modified"]

    def test_nothing_new_though_nobody_asked(self, web):
        assert why(web.on("/list", lambda it: it.say(304))).endswith("/list: the server answered 304 (Not Modified)")

    def test_a_version_that_cannot_be_sent_back_is_none(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: a\r\n b\r\nLast-Modified: \xe4\r\n\r\nx")

        assert fetch(web.on("/list", answer)) == Fetched(b"x")
        url = web.on("/long", lambda it: it.say(200, b"x", ETag="x" * 300))
        assert fetch(url) == Fetched(b"x")

    @pytest.mark.parametrize(
        ("status", "text"),
        [(404, "404 (Not Found)"), (403, "403 (Forbidden)"), (500, "500 (Internal Server Error)"), (799, "799"),
         (204, "204 (No Content)"), (300, "300 (Multiple Choices)")],
    )  # fmt: skip
    def test_other_answers(self, web, status, text):
        url = web.on("/list", lambda it: it.say(status))
        assert why(url) == f"{url}: the server answered {text}"

    def test_passwords_go_to_the_server_and_nowhere_else(self, web):
        web.on("/list", lambda it: it.say(403))
        source = f"http://reader:p%40ss@127.0.0.1:{web.port}/list?key=secret"
        assert why(source) == f"http://127.0.0.1:{web.port}/list?…: the server answered 403 (Forbidden)"
        assert web.asked[0].headers["Authorization"] == "Basic cmVhZGVyOnBAc3M="
        assert web.asked[0].headers["Host"] == f"127.0.0.1:{web.port}"
        assert web.asked[0].path == "/list?key=secret"

    def test_cut_off(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"1.2.3.4\n")

        url = web.on("/list", answer)
        assert why(url) == f"{url}: was cut off after 8 of 1,000 bytes"

    def test_cut_off_between_chunks(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n1.2.3.4\n\r\n")

        url = web.on("/list", answer)
        assert why(url) == f"{url}: was cut off"

    def test_too_large_by_its_own_word(self, web):
        url = web.on("/list", lambda it: it.say(200, b"x" * 101))
        assert why(url, size_max=100) == f"{url}: is larger than 100 bytes"
        assert fetch(web.on("/fits", lambda it: it.say(200, b"x" * 100)), size_max=100).data == b"x" * 100

    def test_too_large_without_a_word(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                it.wfile.write(b"1.2.3.4\n" * 1000)

        url = web.on("/list", answer)
        assert why(url, size_max=1 << 20) == f"{url}: is larger than 1 MiB"

    @pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
    @pytest.mark.parametrize("drop", [b"x", b"x: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
    def test_drop_by_drop(self, web, begin, drop):
        ended = threading.Event()

        def answer(it):
            it.wfile.write(begin)
            try:
                while True:
                    it.wfile.write(drop)
                    time.sleep(0.02)
            finally:
                ended.set()

        url = web.on("/list", answer)
        begun = time.monotonic()
        assert why(url, timeout_s=0.4).startswith(f"{url}: ")
        assert time.monotonic() - begun < 3
        assert ended.wait(5), "the connection is still open"

    def test_silence(self, web):
        waiting = threading.Event()
        url = web.on("/list", lambda it: waiting.wait(5))
        begun = time.monotonic()
        said = why(url, timeout_s=0.3)
        waiting.set()
        assert said in (f"{url}: the server does not answer", f"{url}: took longer than 0.3 seconds")
        assert time.monotonic() - begun < 3

    def test_no_http(self, web):
        url = web.on("/list", lambda it: it.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"))
        assert why(url) == f"{url}: the server does not speak HTTP"

    def test_an_end_without_an_answer(self, web):
        url = web.on("/list", lambda it: None)
        assert why(url) == f"{url}: the server ended the connection without an answer"

    def test_endless_headers(self, web):
        url = web.on("/list", lambda it: it.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000))
        assert why(url) == f"{url}: the server does not speak HTTP"

    def test_nobody_there(self, web):
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        assert why(f"http://127.0.0.1:{port}/x") == f"http://127.0.0.1:{port}/x: Connection refused"

    def test_a_name_that_is_nobodys(self, web):
        assert "the name of the server is not found" in why("http://nobody.invalid/x")

    def test_no_url(self):
        assert why("gopher://x/") == "gopher://x/: unknown url type: gopher"
        assert why("http://[::/x").endswith(": is not a URL that can be asked")


class TestRedirections:
    def test_are_followed(self, web):
        web.on("/new/list", lambda it: it.say(200, BODY))
        web.on("/b", lambda it: it.say(308, b"x" * 100, Location="new/list"))
        url = web.on("/a", lambda it: it.say(302, Location=f"{web.base}/b"))
        assert fetch(url, etag='"v"').data == BODY
        assert [each.path for each in web.asked] == ["/a", "/b", "/new/list"]

    @pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,1.2.3.4", "https:///x", ""])
    def test_elsewhere_are_not(self, web, place):
        url = web.on("/list", lambda it: it.say(302, Location=place))
        assert why(url) == f"{url}: is redirected to something that is neither http nor https"
        assert len(web.asked) == 1

    def test_without_a_place_are_not(self, web):
        assert "is redirected to something" in why(web.on("/list", lambda it: it.say(301)))

    def test_end(self, web):
        url = web.on("/list", lambda it: it.say(301, Location="/list"))
        assert why(url) == f"{url}: is redirected more than 5 times"
        assert len(web.asked) == 6

    def test_have_bodies_that_nobody_waits_for(self, web):
        def answer(it):
            it.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n")
            while True:
                it.wfile.write(bytes(1 << 16))

        web.on("/b", lambda it: it.say(200, b"1.2.3.4\n"))
        assert fetch(web.on("/a", answer)).data == b"1.2.3.4\n"

    def test_take_no_password_to_another_server(self, web):
        web.on("/a", lambda it: it.say(302, Location="/b"))
        web.on("/b", lambda it: it.say(302, Location=f"http://localhost:{web.port}/c"))
        web.on("/c", lambda it: it.say(200, b"x"))
        fetch(f"http://u:p@127.0.0.1:{web.port}/a")
        assert [each.headers["Authorization"] is not None for each in web.asked] == [True, True, False]


class TestProxies:
    def test_of_the_environment(self, web, monkeypatch):
        web.on("http://lists.invalid/drop", lambda it: it.say(200, b"1.2.3.4\n"))
        monkeypatch.setenv("http_proxy", web.base)
        assert fetch("http://lists.invalid/drop").data == b"1.2.3.4\n"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
class TestSecure:
    @pytest.fixture
    def secure(self, tmp_path, monkeypatch):
        """The port of a server whose certificate is for 127.0.0.1, and the certificate."""
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        words = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=test"
        subprocess.run(
            ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = Server(("127.0.0.1", 0), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.asked = []
        server.answers = {
            "/list": lambda it: it.say(200, b"1.2.3.4\n"),
            "/down": lambda it: it.say(302, Location="http://127.0.0.1/list"),
        }
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}", certificate
        server.shutdown()
        thread.join()
        server.server_close()

    def test_a_certificate_of_somebody(self, web, secure):
        assert "/list: its certificate is not accepted (self-signed certificate)" in why(f"{secure[0]}/list")

    def test_a_certificate_that_is_trusted(self, web, secure, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
        assert fetch(f"{secure[0]}/list").data == b"1.2.3.4\n"
        assert "is redirected from https to http" in why(f"{secure[0]}/down")

    def test_no_tls_at_all(self, web):
        assert "/list: no secure connection can be made (" in why(f"https://127.0.0.1:{web.port}/list")


class TestFiles:
    def test_whole(self, tmp_path):
        path = tmp_path / "list"
        path.write_bytes(BODY)
        assert fetch(str(path), etag="x") == Fetched(BODY, modified=version_of(str(path)))
        assert fetch(str(path), size_max=len(BODY)).data == BODY
        link = tmp_path / "link"
        link.symlink_to(path)
        assert fetch(str(link)).data == BODY

    def test_too_large(self, tmp_path):
        path = tmp_path / "list"
        path.write_bytes(b"x" * 101)
        assert why(str(path), size_max=100) == f"{path}: is larger than 100 bytes"

    def test_not_there(self, tmp_path):
        assert why(str(tmp_path / "none")) == f"{tmp_path / 'none'}: No such file or directory"

    def test_no_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
            assert why(str(path)) in (f"{path}: is not a regular file", f"{path}: Is a directory")

    def test_files_that_claim_to_be_empty_are_bounded_too(self):
        assert why("/proc/self/maps", size_max=10) == "/proc/self/maps: is larger than 10 bytes"
