"""A thread with a foot in both namespaces: it is the far end and the near end of what it sends, by turns.

    both_ends.py connections NEAR FAR SECONDS       new TCP connections: made, accepted, reset
    both_ends.py exchanges NEAR FAR SECONDS         the same with a request, an answer and an orderly end
    both_ends.py packets NEAR FAR SECONDS           datagrams of 64 bytes in one flow, to and fro
    both_ends.py probe NEAR FAR [listed]            new flows to a closed and to an open port, until its input ends

The first three print {"count": …, "wall_s": …, "cpu_s": …}. A packet is through the kernel when the call that sends
it is back, so nobody waits for anybody: the thread is busy all the time, with what the kernel does for the packets
and little else. `probe` says `ready`, and at its end {"sent": …, "passed": …, "lost": …, "listed": …} in packets of
each kind: those to the closed port that came through, those to the open one that did not, and those from an address
on a block list that came through.
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
_CHECK_EVERY = 64
_RESET = struct.pack("@ii", 1, 0)
"""SO_LINGER: nothing is waited for, a close is a reset."""
_REQUEST, _ANSWER = b"q" * 200, b"a" * 1200
_PROBE_EVERY_S = 0.0005


def enter(namespace: str) -> None:
    with open(f"/run/netns/{namespace}") as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)


def connections(near: str, far: str) -> Callable[[], None]:
    listening = _listening(near)
    enter(far)

    def one() -> None:
        ours = socket.socket()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        ours.connect((NEAR, PORT))
        theirs = listening.accept()[0]
        ours.close()
        theirs.close()

    return one


def exchanges(near: str, far: str) -> Callable[[], None]:
    listening = _listening(near)
    enter(far)

    def one() -> None:
        with socket.socket() as ours:
            ours.connect((NEAR, PORT))
            theirs = listening.accept()[0]
            ours.sendall(_REQUEST)
            theirs.recv(4096)
            theirs.sendall(_ANSWER)
            theirs.close()
            ours.recv(4096)

    return one


def packets(near: str, far: str) -> Callable[[], None]:
    theirs = _datagrams(near, NEAR, PORT)
    ours = _datagrams(far, FAR, PORT)
    ours.connect((NEAR, PORT))
    theirs.connect((FAR, PORT))
    data = bytes(64)

    def one() -> None:
        ours.send(data)
        theirs.recv(2048)
        theirs.send(data)
        ours.recv(2048)

    return one


def measure(one: Callable[[], None], seconds: float) -> None:
    one()
    count = 0
    began, began_cpu = time.perf_counter(), time.process_time()
    until = began + seconds
    while time.perf_counter() < until:
        for _ in range(_CHECK_EVERY):
            one()
        count += _CHECK_EVERY
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    print(json.dumps({"count": count, "wall_s": wall_s, "cpu_s": cpu_s}))


def probe(near: str, far: str, listed: bool) -> None:
    enter(near)
    open_port, closed_port = (_datagrams(near, NEAR, port) for port in (PORT, CLOSED_PORT))
    for each in (open_port, closed_port):
        each.setblocking(False)
    enter(far)
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


def _listening(namespace: str) -> socket.socket:
    enter(namespace)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((NEAR, PORT))
    sock.listen(1024)
    return sock


def _datagrams(namespace: str, address: str, port: int) -> socket.socket:
    enter(namespace)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(5)
    return sock


KINDS = {"connections": connections, "exchanges": exchanges, "packets": packets}


def main(kind: str, near: str, far: str, last: str = "") -> None:
    if kind == "probe":
        probe(near, far, last == "listed")
    else:
        measure(KINDS[kind](near, far), float(last))


if __name__ == "__main__":
    main(*sys.argv[1:])
