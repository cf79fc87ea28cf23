"""Programs that make connections, each told to begin by being started, to end by the end of its standard input. Run by
copies of Python, which are programs of their own to the firewall; only the standard library is needed.

    same ADDRESS,… PORT WAIT_S PERIOD_S         all the time, TCP and UDP in turn, each from a socket of its own
    fresh PROGRAM FOLDER ADDRESS PORT WAIT_S    by a copy of curl that nobody has seen before, each time
    many ADDRESS,… PORT,… WAIT_S (tcp|udp)      all at once; then it says which were answered
    serve ADDRESS PORT,…                        answers

`same` and `fresh` print what became of each attempt: when it began (CLOCK_MONOTONIC), how long it took, "" or why it
was lost; `many` the indexes of the connections that were made. A datagram counts when its answer comes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SO_MARK = 36
_over = threading.Event()


def _wait_for_the_end() -> None:
    sys.stdin.read()
    _over.set()


def made(address: str, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, kind)
    mark = int(os.environ.get("DIALLER_MARK", "0"), 0)
    if mark:
        found.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
    return found


def tried(address: str, port: int, kind: socket.SocketKind, wait_s: float) -> str:
    """One connection, or one datagram and its answer: "" where it went well, else why not."""
    with made(address, kind) as sock:
        sock.settimeout(wait_s)
        try:
            sock.connect((address, port))
            sock.send(b"GET / HTTP/1.0\r\n\r\n")
            if kind == socket.SOCK_DGRAM:
                sock.recv(100)
        except OSError as error:
            return str(error) or type(error).__name__
    return ""


def same(addresses: str, port: str, wait_s: str, period_s: str) -> None:
    found = []
    while not _over.is_set():
        for address in addresses.split(","):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                begin = time.monotonic()
                trouble = tried(address, int(port), kind, float(wait_s))
                found.append((begin, time.monotonic() - begin, trouble))
                _over.wait(float(period_s))
    print(json.dumps(found), flush=True)


def fresh(program: str, folder: str, address: str, port: str, wait_s: str) -> None:
    found: list[tuple[float, float, str]] = []
    running: list[threading.Thread] = []
    Path(folder).mkdir(exist_ok=True)

    def one(copy: Path) -> None:
        begin = time.monotonic()
        words = [str(copy), "-sS", "-m", wait_s, "-o", "/dev/null", f"http://{address}:{port}/"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        copy.unlink()
        found.append((begin, time.monotonic() - begin, done.stderr.strip() if done.returncode else ""))

    number = 0
    while not _over.is_set():
        copy = Path(folder) / f"copy{number}"
        number += 1
        shutil.copy2(program, copy)
        running.append(threading.Thread(target=one, args=(copy,)))
        running[-1].start()
        _over.wait(0.15)
    for each in running:
        each.join()
    print(json.dumps(sorted(found)), flush=True)


def many(addresses: str, ports: str, wait_s: str, protocol: str) -> None:
    """`ports` may be a range."""
    first, _, last = ports.partition("-")
    places = [(each, port) for each in addresses.split(",") for port in range(int(first), int(last or first) + 1)]
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    poll, waiting, answered = select.poll(), {}, []
    for index, place in enumerate(places):
        sock = made(place[0], kind)
        sock.setblocking(False)
        sock.connect_ex(place)
        if kind == socket.SOCK_DGRAM:
            with suppress(PermissionError):  # so a datagram is told that is blocked
                sock.send(b"question")
        poll.register(sock, select.POLLIN if kind == socket.SOCK_DGRAM else select.POLLOUT)
        waiting[sock.fileno()] = index, sock
    print(json.dumps("asked"), flush=True)
    deadline = time.monotonic() + float(wait_s)
    while waiting and time.monotonic() < deadline and not _over.is_set():
        for fd, _ in poll.poll(50):
            index, sock = waiting.pop(fd)
            poll.unregister(fd)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                answered.append(index)
            sock.close()
    print(json.dumps(sorted(answered)), flush=True)


def serve(address: str, ports: str) -> None:
    def answers(port: int) -> None:
        with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as ear:
            print(json.dumps("listens"), flush=True)
            while True:
                connection, _ = ear.accept()
                with connection:
                    connection.sendall(b"yes")

    for port in ports.split(","):
        threading.Thread(target=answers, args=(int(port),), daemon=True).start()
    _over.wait()


if __name__ == "__main__":
    threading.Thread(target=_wait_for_the_end, daemon=True).start()
    kinds: dict[str, Callable[..., None]] = {"same": same, "fresh": fresh, "many": many, "serve": serve}
    kinds[sys.argv[1]](*sys.argv[2:])
