"""Rules for programs, attributed: thousands of short-lived processes, each judged as the program that it is.

A program that may and one that may not take turns, so that whoever looks too late sees the wrong one.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.programs_lab import WEB, Lab, lab  # noqa: F401
from tests.netns.talkers import Conversation, Workshop, allow, rules, serve, talks, workshop  # noqa: F401

from pfw.api import interface as told
from pfw.api.definition import Nothing

CURL = "/usr/bin/curl"
PORT = 8090
STREAMS = 4
BOTH = pytest.mark.parametrize("options", [(), ("--no-labels",)], ids=["labels", "no-labels"])
CURLS = """
for n in $(seq $3); do
    for who in "$1" "$2"; do
        "$who" -s -m 5 -o /dev/null "http://$0/$who"
        echo "$who $?"
    done
done
"""
TALKERS = """
from=$6
for n in $(seq $3); do
    for who in "$1" "$2"; do
        from=$((from + 1))
        echo "$who $(FROM=$from "$who" $5 $0 $4)"
    done
done
"""


class Server:
    """Answers at the other end, and counts who came: the paths that were asked for."""

    def __init__(self, lab: Lab) -> None:  # noqa: F811
        self.came: Counter[str] = Counter()
        self._socket = lab.there.call(
            lambda: socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        )
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                words = connection.recv(2048).split()
                self.came[words[1].decode().removeprefix("/")] += 1
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@pytest.fixture
def server(lab: Lab) -> Iterator[Server]:  # noqa: F811
    made = Server(lab)
    yield made
    made.close()


def counts(lab: Lab) -> dict[str, int]:  # noqa: F811
    status = lab.status_or_none()
    assert status is not None
    # What the observer counts beside it goes on by itself.
    return {name: status.counts[name] for name in ("queued", "labelled", "decided", "asked", "unsure", "failed")}


def streams(lab: Lab, script: str, *words: list[str]) -> Counter[str]:  # noqa: F811
    """What processes said that ran in as many loops at once as there are lists of words."""
    running = [lab.start("sh", "-c", script, *each) for each in words]
    said: Counter[str] = Counter()
    for each in running:
        out, errors = each.communicate(timeout=60)
        assert each.returncode == 0, errors
        said.update(out.splitlines())
    return said


def test_a_thousand_curls_with_labels(lab: Lab, net: Any, workshop: Workshop, server: Server) -> None:  # noqa: F811
    """The kernel alone decides them: not one packet is handed over once both programs are known."""
    bad = str(workshop.copy("curl", CURL))
    lab.up(rules(allow("out", CURL)))
    ends = (f"{net.there}:{PORT}", f"[{net.there6}]:{PORT}")
    streams(lab, CURLS, *([end, CURL, bad, "1"] for end in ends))
    server.came.clear()
    before = counts(lab)
    said = streams(lab, CURLS, *([ends[at % 2], CURL, bad, "125"] for at in range(STREAMS)))
    assert said == {f"{CURL} 0": 500, f"{bad} 7": 500}
    assert server.came == {CURL: 500}
    assert counts(lab) == before


def test_a_thousand_processes_that_connect_at_once(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """A thousand for each transport. Each has a port of its own: to the kernel, what comes from the port of another
    belongs to that one's connection."""
    good, bad = str(workshop.copy("good")), str(workshop.copy("bad"))
    lab.up(rules(allow("out", good)))
    ends = (net.there, net.there6)
    streams(lab, TALKERS, *([end, good, bad, "1", str(WEB), "tcp", "20000"] for end in ends))
    before = counts(lab)
    for first, how in ((20_100, "tcp"), (30_100, "udp"), (40_100, "udp-connected")):
        words = ([ends[at % 2], good, bad, "125", str(WEB), how, str(first + at * 1000)] for at in range(STREAMS))
        said = streams(lab, TALKERS, *words)
        assert said == {f"{good} yes": 500, f"{bad} refused": 500}
    assert counts(lab) == before


@pytest.mark.xfail(
    reason="a connection is its addresses and ports, as long as the kernel remembers it",
    raises=AssertionError,
    strict=True,
)
def test_the_port_of_another_program(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """Who takes the UDP port of a program that may, within half a minute, reaches the very same other end."""
    good, bad = workshop.copy("good"), workshop.copy("bad")
    lab.up(rules(allow("out", str(good))))
    before = ("env", "FROM=5353")
    if talks(lab, good, "udp", net.there, before=before).said != "yes":
        pytest.fail("not even the program that may is let out")
    assert talks(lab, bad, "udp", net.there, before=before).said != "yes"


def test_a_hundred_without_labels(lab: Lab, net: Any, workshop: Workshop, server: Server) -> None:  # noqa: F811
    """Each is looked up, and found: who waits for an answer is still there."""
    bad = str(workshop.copy("curl", CURL))
    lab.up(rules(allow("out", CURL)), "--no-labels")
    ends = (f"{net.there}:{PORT}", f"[{net.there6}]:{PORT}")
    said = streams(lab, CURLS, *([ends[at % 2], CURL, bad, "25"] for at in range(2)))
    assert said == {f"{CURL} 0": 50, f"{bad} 7": 50}
    assert server.came == {CURL: 50}
    found = counts(lab)
    assert found["labelled"] >= 100
    # On a busy machine a packet that was sent again is looked up when its socket is gone.
    assert found["unsure"] < 10


def test_every_start_of_a_new_program(lab: Lab, net: Any, workshop: Workshop) -> None:  # noqa: F811
    """A file that nobody has ever seen is judged right the first time: whether it stands in a folder that is named."""
    lab.up(rules(allow("out", f"{workshop.folder}/in/*")))
    wanted = {workshop.copy(f"{name}/new{at}"): name == "in" for at in range(40) for name in ("in", "out")}
    talk = {talks(lab, each, "tcp", (net.there, net.there6)[at % 2]): each for at, each in enumerate(wanted)}
    assert {each: talking.said == "yes" for talking, each in talk.items()} == wanted


@BOTH
def test_the_connections_are_shown_with_their_programs(
    lab: Lab, net: Any, workshop: Workshop, options: tuple[str, ...]  # noqa: F811
) -> None:  # fmt: skip
    program = workshop.copy("good")
    lab.up(rules(allow("out", [str(program), "/usr/bin/nc"]), allow("in", str(program))), *options)
    serve(lab, program, "serve", PORT)
    out = Conversation(lab, program, net.there)
    assert out.ask("udp-kept") == "yes"
    with waiting(lab, net), lab.client() as client:
        shown = client.call("Connections", Nothing(), told.ConnectionsResult).connections
        wanted = {
            ("out", "UDP", WEB, str(program)),
            ("out", "TCP", PORT, str(Path("/usr/bin/nc").resolve())),
            ("in", "TCP", PORT, str(program)),
        }
        found = {
            (each.direction, each.protocol, each.local_port if each.direction == "in" else each.remote_port, path): each
            for each in shown
            if (path := each.program.path if each.program is not None else None)
        }
        assert wanted <= set(found), shown
        # An accepted connection is a socket that nobody made: it is whose process holds it.
        by_way = {each: "socket" if options or each[0] == "in" else "label" for each in wanted}
        assert {each: found[each].certainty for each in wanted} == by_way
        assert {found[each].rule for each in wanted} == {"allow out", "allow in"}


@contextmanager
def waiting(lab: Lab, net: Any) -> Iterator[None]:  # noqa: F811
    """Two connections that are open: one out, one in, of which nobody says anything."""
    with lab.there.call(lambda: socket.create_server((net.there, PORT))) as server:
        lab.start("sh", "-c", f"sleep 60 | nc {net.there} {PORT}")
        connection, _ = server.accept()
        with connection, lab.there.call(lambda: socket.create_connection((net.here, PORT), 5)):
            yield
