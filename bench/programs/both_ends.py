"""A thread with a foot in several namespaces: it is the far end and the near end of what it sends, by turns.

    both_ends.py KIND SLICES NEAR:FAR…      prints [[…], …]: how many in a second of processor time, slice by slice

        connections     new TCP connections: made, accepted, reset
        exchanges       the same with a request, an answer and an orderly end
        stream          bytes through one TCP connection
        packets         datagrams of 64 bytes in one flow, to and fro

    both_ends.py probe NEAR:FAR [listed]    new flows to a closed and to an open port, until its input ends

A packet is through the kernel when the call that sends it is back, so nobody waits for anybody: the thread is busy
all the time, with what the kernel does for the packets and little else. The pairs of namespaces have a slice of time
each, in turn, so that what else is going on meets them all alike.

`probe` says `ready`, and at its end {"sent": …, "passed": …, "lost": …, "listed": …} in packets of each kind: those
to the closed port that came through, those to the open one that did not, and those from an address on a block list
that came through.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

NEAR, FAR, LISTED = "10.78.0.1", "10.78.0.2", "203.0.113.77"
PORT, CLOSED_PORT = 5202, 5999
_CLONE_NEWNET = 0x40000000
_LIBRARY = ctypes.CDLL(None, use_errno=True)
_SLICE_S, _CHECK_EVERY = 0.03, 16
_STREAM_BYTES = 1 << 17
_RESET = struct.pack("@ii", 1, 0)
"""SO_LINGER: nothing is waited for, a close is a reset."""
_REQUEST, _ANSWER = b"q" * 200, b"a" * 1200
_PROBE_EVERY_S = 0.0005


class Place:
    """A pair of namespaces."""

    def __init__(self, names: str) -> None:
        near, _, far = names.partition(":")
        self._near, self._far = (os.open(f"/run/netns/{name}", os.O_RDONLY) for name in (near, far))

    def enter_near(self) -> None:
        _enter(self._near)

    def enter_far(self) -> None:
        _enter(self._far)


def _enter(namespace: int) -> None:
    if _LIBRARY.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def connections(place: Place) -> Callable[[], int]:
    listening = _listening(place)

    def one() -> int:
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        ours.connect((NEAR, PORT))
        theirs = listening.accept()[0]
        ours.close()
        theirs.close()
        return 1

    return one


def exchanges(place: Place) -> Callable[[], int]:
    listening = _listening(place)

    def one() -> int:
        with socket.socket() as ours:
            ours.connect((NEAR, PORT))
            theirs = listening.accept()[0]
            ours.sendall(_REQUEST)
            theirs.recv(4096)
            theirs.sendall(_ANSWER)
            theirs.close()
            ours.recv(4096)
        return 1

    return one


def stream(place: Place) -> Callable[[], int]:
    listening = _listening(place)
    place.enter_far()
    ours = socket.create_connection((NEAR, PORT))
    theirs = listening.accept()[0]
    data = bytes(_STREAM_BYTES)

    def one() -> int:
        ours.sendall(data)
        left = len(data)
        while left:
            left -= len(theirs.recv(left))
        return len(data)

    return one


def packets(place: Place) -> Callable[[], int]:
    place.enter_near()
    theirs = _datagrams(NEAR, PORT)
    place.enter_far()
    ours = _datagrams(FAR, PORT)
    ours.connect((NEAR, PORT))
    theirs.connect((FAR, PORT))
    data = bytes(64)

    def one() -> int:
        ours.send(data)
        theirs.recv(2048)
        theirs.send(data)
        ours.recv(2048)
        return 2

    return one


def measure(kind: Callable[[Place], Callable[[], int]], slices: int, names: list[str]) -> None:
    places = [Place(each) for each in names]
    everyone = [(place, kind(place)) for place in places]
    rates: list[list[float]] = [[] for _ in everyone]
    for _ in range(slices):
        for (place, one), found in zip(everyone, rates, strict=True):
            place.enter_far()
            one()
            found.append(_slice(one))
    print(json.dumps(rates))


def _slice(one: Callable[[], int]) -> float:
    count = 0
    began, until = time.process_time(), time.perf_counter() + _SLICE_S
    while time.perf_counter() < until:
        for _ in range(_CHECK_EVERY):
            count += one()
    return count / (time.process_time() - began)


def probe(place: Place, *, listed: bool) -> None:
    place.enter_near()
    open_port, closed_port = (_datagrams(NEAR, port) for port in (PORT, CLOSED_PORT))
    for each in (open_port, closed_port):
        each.setblocking(False)
    place.enter_far()
    found = {"sent": 0, "passed": 0, "lost": 0, "listed": 0}
    # The first packets make the two ends known to each other (ARP), and are none of the probes.
    for _ in range(20):
        _send(FAR, PORT)
        time.sleep(0.01)
    _arrived(open_port)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], _PROBE_EVERY_S)[0]:
        found["sent"] += 1
        _send(FAR, CLOSED_PORT)
        found["passed"] += _arrived(closed_port)
        _send(FAR, PORT)
        found["lost"] += 1 - _arrived(open_port)
        if listed:
            _send(LISTED, PORT)
            found["listed"] += _arrived(open_port)
    print(json.dumps(found))


def _send(source: str, port: int) -> None:
    """One datagram from a port that was not used for long: for a firewall a new connection."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        # What is rejected is told to nobody here.
        with suppress(OSError):
            sock.sendto(b"probe", (NEAR, port))


def _arrived(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.recv(2048)
        except BlockingIOError:
            return count
        count += 1


def _listening(place: Place) -> socket.socket:
    place.enter_near()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((NEAR, PORT))
    sock.listen(1024)
    return sock


def _datagrams(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(5)
    return sock


KINDS = {"connections": connections, "exchanges": exchanges, "stream": stream, "packets": packets}


def main(kind: str, *words: str) -> None:
    if kind == "probe":
        probe(Place(words[0]), listed="listed" in words[1:])
    else:
        measure(KINDS[kind], int(words[0]), list(words[1:]))


if __name__ == "__main__":
    main(*sys.argv[1:])
