"""Names in prompts: a server of DNS at the other end, a program that asks it and connects, and what is shown."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.netns.programs_lab import WEB, Lab, Watcher, lab  # noqa: F401

from pfw.api import interface as told
from pfw.daemon.naming import Naming
from pfw.drivers.nflog import LogReader
from pfw.enforce.nft_table import NAMES_GROUP
from pfw.enforce.render_nftables import TELL_NAMES

HOST = "www.example.com"
SERVICE = 8053
LOOKING_UP = {"name": "look up", "action": "allow", "direction": "out", "protocol": "udp", "port": 53}
POLICY = {
    "version": 2,
    "default": {"in": "block", "out": "ask"},
    "rules": [
        LOOKING_UP,
        {"name": "service", "action": "allow", "direction": "in", "protocol": "udp", "port": SERVICE},
    ],
}
PROGRAM = """
import socket, sys
server, target, question = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
family = socket.AF_INET6 if ":" in target else socket.AF_INET
with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(5)
    asking.sendto(question, (server, 53))
    asking.recvfrom(2048)
with socket.create_connection((target, PORT), 15) as connection:
    connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(connection.recv(2048)[-3:].decode())
""".replace("PORT", str(WEB))
"""Asks, and connects as soon as it has got the answer."""
MODES = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])


def question(host: str, kind: int) -> bytes:
    name = b"".join(bytes((len(label),)) + label.encode() for label in host.split(".")) + b"\0"
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", kind, 1)


def answer(asked: bytes, address: str) -> bytes:
    packed = ipaddress.ip_address(address).packed
    kind = 28 if len(packed) == 16 else 1
    record = struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(packed)) + packed
    return asked[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + asked[12:] + record


class Resolver:
    """Answers every question at port 53 with `address`, over both families."""

    def __init__(self, at: Any) -> None:
        self.address = ""
        self.sock: socket.socket = at.call(_bound)
        self._closed = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                asked, peer = self.sock.recvfrom(2048)
                if self.address:
                    self.sock.sendto(answer(asked, self.address), peer)

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self.sock.close()


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.settimeout(0.2)
    sock.bind(("::", 53))
    return sock


@pytest.fixture
def resolver(pair: Any) -> Iterator[Resolver]:
    made = Resolver(pair.there)
    yield made
    made.close()


def connect(lab: Lab, *words: str) -> Any:  # noqa: F811
    return lab.start(sys.executable, "-c", PROGRAM, *words)


def counts(lab: Lab) -> dict[str, int]:  # noqa: F811
    status = lab.status_or_none()
    assert status is not None
    return status.counts


def about_the_web(lab: Lab, watcher: Watcher) -> told.Prompt:  # noqa: F811
    """The prompt about a connection to the other end's web server; a kernel talks of its own accord, too."""

    def found() -> list[told.Prompt]:
        return [each for each in watcher.prompts.values() if each.port == WEB and each.state == "waiting"]

    lab.until(found, "somebody is asked")
    return found()[0]


@MODES
@pytest.mark.parametrize("family", [4, 6])
def test_a_prompt_shows_the_name_that_was_looked_up(
    lab: Lab, net: Any, resolver: Resolver, options: tuple[str, ...], family: int  # noqa: F811
) -> None:  # fmt: skip
    there = net.there if family == 4 else net.there6
    resolver.address = there
    lab.up(POLICY, *options)
    with lab.watching() as watcher:
        program = connect(lab, net.there, there, question(HOST.upper(), 28 if family == 6 else 1).hex())
        prompt = about_the_web(lab, watcher)
        assert (prompt.remote, prompt.host) == (there, HOST)
        assert [each.host for each in lab.prompts() if each.port == WEB] == [HOST]
        assert HOST in lab.pfw("ask", "--list").stdout
        lab.answer(prompt.id, "allow")
        assert program.communicate(timeout=10)[0] == "yes\n"
    assert (counts(lab)["names_learnt"], counts(lab)["names_lost"]) == (1, 0)


@pytest.mark.parametrize("server", ["there", "there6"])
def test_a_name_is_known_before_the_program_has_it(pair: Any, net: Any, resolver: Resolver, server: str) -> None:
    """Nothing waits until there are more answers, nor for the loop's next turn."""
    pair.here.run("nft", "-f", "-", input="table inet pfw {\nchain in {\ntype filter hook input priority filter\n"
                  f"{TELL_NAMES}\n}}\n}}\n")  # fmt: skip
    resolver.address = "192.0.2.7"
    naming = pair.here.call(lambda: Naming(pytest.fail))
    family = socket.AF_INET if server == "there" else socket.AF_INET6
    asking = pair.here.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
    with contextlib.closing(naming), asking:
        asking.settimeout(5)
        for number in range(5):
            asking.sendto(question(f"{number}.example", 1), (getattr(net, server), 53))
            asking.recvfrom(2048)
            assert naming.of(bytes((192, 0, 2, 7))) == f"{number}.example"
            assert naming.of(bytes((192, 0, 2, 8))) is None


def test_what_nobody_asked_teaches_no_name(lab: Lab, net: Any, pair: Any, resolver: Resolver) -> None:  # noqa: F811
    """A packet from port 53 in a connection that the other end began is no answer, though it is "established"."""
    lab.up(POLICY)
    forged = answer(question("bank.example", 1), net.there)
    with pair.here.call(lambda: _service(SERVICE)) as service, lab.watching() as watcher:
        for _ in range(3):
            resolver.sock.sendto(forged, (f"::ffff:{net.here}", SERVICE))
            data, peer = service.recvfrom(2048)
            assert (data, peer) == (forged, (net.there, 53))
            service.sendto(b"so what", peer)
        program = lab.start(
            sys.executable, "-c", f"import socket; socket.create_connection(('{net.there}', {WEB}), 15)"
        )
        prompt = about_the_web(lab, watcher)
        assert (prompt.remote, prompt.host) == (net.there, None)
        lab.answer(prompt.id, "allow")
        assert program.wait(10) == 0
    assert counts(lab)["names_learnt"] == 0


def _service(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind(("", port))
    return sock


def test_without_names_where_somebody_else_reads_the_answers(
    lab: Lab, net: Any, pair: Any, resolver: Resolver  # noqa: F811
) -> None:  # fmt: skip
    resolver.address = net.there
    with contextlib.closing(pair.here.call(lambda: LogReader([NAMES_GROUP]))) as other:
        lab.up(POLICY)
        with lab.watching() as watcher:
            program = connect(lab, net.there, net.there, question(HOST, 1).hex())
            prompt = about_the_web(lab, watcher)
            assert (prompt.remote, prompt.host) == (net.there, None)
            lab.answer(prompt.id, "allow")
            assert program.communicate(timeout=10)[0] == "yes\n"
        assert len(other.read()) == 1
    said = [line for line in lab.said if "without names" in line]
    assert len(said) == 1
    assert "somebody else reads it" in said[0]


def test_a_flood_of_answers_is_read_no_faster_than_that(
    lab: Lab, net: Any, pair: Any, resolver: Resolver  # noqa: F811
) -> None:  # fmt: skip
    """The limit is the kernel's: whoever answers cannot keep the daemon busy, and nothing is lost on the way."""
    lab.up(POLICY)
    asking: socket.socket = pair.here.call(lambda: _service(40_000))
    resolver.address = net.there
    with asking:
        asking.sendto(question(HOST, 1), (net.there, 53))
        asking.recvfrom(2048)
        began = time.monotonic()
        for number in range(3000):
            resolver.sock.sendto(answer(question(f"{number}.example", 1), net.there), (f"::ffff:{net.here}", 40_000))
        took_s = time.monotonic() - began
    lab.until(lambda: counts(lab)["names_learnt"] >= 450, "most of a burst is read")
    assert counts(lab)["names_learnt"] <= 510 + 200 * (took_s + 1)
    assert counts(lab)["names_lost"] == 0
