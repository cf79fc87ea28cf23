"""A script that makes connections: what `connect.c` is as a program, in Python. It is measured where a firewall has
rules for scripts, and everywhere where there is no compiler.

    connect.py listen ADDRESS:PORT COUNT
    connect.py out ADDRESS:PORT COUNT SECONDS
    connect.py labels COUNT
    connect.py wait ADDRESS:PORT COUNT            COUNT connections at once, each to another port, until killed
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from statistics import median

Address = tuple[str, int]
_RESET = struct.pack("@ii", 1, 0)
_BACKLOG, _PATIENCE_S = 65_535, 5.0
_LOOPBACK = ("127.0.0.1", 0)


def listen(first: Address, count: int) -> None:
    waiting = select.poll()
    listeners = {each.fileno(): each for each in (_listener((first[0], first[1] + at)) for at in range(count))}
    for descriptor in listeners:
        waiting.register(descriptor, select.POLLIN)
    print("ready", flush=True)
    while True:
        for descriptor, _ in waiting.poll():
            _take_all(listeners[descriptor])


def go_out(first: Address, count: int, seconds: float) -> None:
    _connect_once(first)
    took: list[int] = []
    addresses = [(first[0], first[1] + at) for at in range(count)]
    began = time.perf_counter()
    until = began + seconds
    while time.perf_counter() < until:
        took.append(_connect_once(addresses[len(took) % count]))
    print(f"{time.perf_counter() - began:.6f}", *took, sep="\n")


def cost_of_labels(count: int) -> None:
    listener = _listener(_LOOPBACK)
    address = listener.getsockname()
    took = []
    for _ in range(count):
        began = time.perf_counter_ns()
        socket.socket().close()
        took.append(time.perf_counter_ns() - began)
    print(median(took))
    took = []
    for _ in range(count):
        took.append(_connect_once(address))
        _take_all(listener)
    print(median(took))


def wait(first: Address, count: int) -> None:
    made = [socket.socket() for _ in range(count)]
    for at, each in enumerate(made):
        each.setblocking(False)
        each.connect_ex((first[0], first[1] + at))
    signal.pause()


def _connect_once(address: Address) -> int:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        made.settimeout(None)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(_PATIENCE_S), 0))
        began = time.perf_counter_ns()
        made.connect(address)
        return time.perf_counter_ns() - began


def _listener(address: Address) -> socket.socket:
    made = socket.create_server(address, backlog=_BACKLOG)
    made.setblocking(False)
    return made


def _take_all(listener: socket.socket) -> None:
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


def _address(text: str) -> Address:
    address, _, port = text.rpartition(":")
    return address, int(port)


def main(kind: str, *words: str) -> None:
    match kind:
        case "listen":
            listen(_address(words[0]), int(words[1]))
        case "out":
            go_out(_address(words[0]), int(words[1]), float(words[2]))
        case "labels":
            cost_of_labels(int(words[0]))
        case "wait":
            wait(_address(words[0]), int(words[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
