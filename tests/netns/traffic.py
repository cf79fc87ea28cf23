"""Traffic that never stops, each kind a program of its own: told to begin by being started, to end by the end of its
standard input; it answers with one line of JSON.

    flood INTERFACE MAC SOURCE,… TARGET,… RATE   datagrams, half of them allowed, half forbidden
    sink TARGET,…                                where they arrive
    ask ADDRESS PORT (tcp|udp)                   a question and its answer, every 6 ms
    answer ADDRESS,… PORT (tcp|udp)              who answers

Each allowed datagram of the flood carries a number, and its complement, so that checksums hold without being computed
anew. Frames are made beforehand and handed over many at a time: Python alone sends 250,000 a second so.
"""

from __future__ import annotations

import ctypes
import json
import select
import socket
import struct
import sys
import time

ALLOWED_PORT, FORBIDDEN_PORT = 5000, 6000
FRAMES = 8192
"""So many forbidden flows, until the first comes again: another source port each, or another source address."""
BURST_MAX = 128
SO_RCVBUFFORCE, SO_SNDBUFFORCE, SO_TIMESTAMPNS = 33, 32, 35
TCP_INFO, TOTAL_RETRANSMITS_AT = 11, 100
PAYLOAD = struct.Struct(">4sIIH")


class Slice(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("slices", ctypes.POINTER(Slice)),
        ("slice_count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int), ("sent", ctypes.c_uint),
    )  # fmt: skip


def ended() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def checksum(content: bytes) -> int:
    total = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(macs: bytes, source: str, target: str, source_port: int, port: int, kind: bytes) -> bytes:
    """An Ethernet frame with a datagram, numbered 0."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    payload = PAYLOAD.pack(kind, 0, 0xFFFFFFFF, 0)
    size = 8 + len(payload)
    pseudo = ends + struct.pack(">HH", size, 17) + struct.pack(">HHH", source_port, port, size) + payload
    datagram = struct.pack(">HHHH", source_port, port, size, checksum(pseudo) or 0xFFFF) + payload
    if family == socket.AF_INET6:
        return macs + struct.pack(">HIHBB", 0x86DD, 6 << 28, size, 17, 64) + ends + datagram
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size, 0, 0x4000, 64, 17, 0) + ends
    header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
    return macs + b"\x08\x00" + header + datagram


class Frames:
    """Frames in one buffer, as the system call wants to see them."""

    def __init__(self, frames: list[bytes]) -> None:
        self.content = bytearray(b"".join(frames))
        self._held = (ctypes.c_char * len(self.content)).from_buffer(self.content)
        self.starts = []
        self.headers = (Header * len(frames))()
        self._slices = (Slice * len(frames))()
        at, base = 0, ctypes.addressof(self._held)
        for index, each in enumerate(frames):
            self.starts.append(at)
            self._slices[index] = Slice(base + at, len(each))
            self.headers[index].slices = ctypes.pointer(self._slices[index])
            self.headers[index].slice_count = 1
            at += len(each)
        self.ends = [*self.starts[1:], at]


def made(interface: str, mac: str, sources: list[str], targets: list[str]) -> tuple[Frames, list[bool]]:
    """Allowed and forbidden in turn; forbidden ones go to a port that is not open, or come from a bad address."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        macs = bytes.fromhex(mac.replace(":", "")) + sock.getsockname()[4]
    good = {":" in each: each for each in sources[:2]}
    bad = {":" in each: each for each in sources[2:]}
    frames, allowed = [], []
    for number in range(FRAMES):
        target = targets[number // 2 % len(targets)]
        six = ":" in target
        port = 10000 + number
        if number % 2:
            frames.append(frame(macs, good[six], target, 2000 + number % 64, ALLOWED_PORT, b"GOOD"))
        elif bad and number // 4 % 2:
            source = bad[six].replace("X", f"{number:x}" if six else f"{number >> 8}.{number & 255}")
            frames.append(frame(macs, source, target, port, ALLOWED_PORT, b"EVIL"))
        else:
            frames.append(frame(macs, good[six], target, port, FORBIDDEN_PORT, b"EVIL"))
        allowed.append(bool(number % 2))
    return Frames(frames), allowed


def flood(interface: str, mac: str, sources: str, targets: str, rate: str) -> None:
    frames, allowed = made(interface, mac, sources.split(","), targets.split(","))
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    size, stride, per_s = len(allowed), ctypes.sizeof(Header), int(rate)
    counts, base = [0, 0], ctypes.addressof(frames.headers)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        sock.bind((interface, 0))
        say(ready=True)
        begin, at = time.monotonic(), 0
        while not ended():
            due = int((time.monotonic() - begin) * per_s) - sum(counts)
            for _ in range(max(0, due) // BURST_MAX + 1):
                burst = min(BURST_MAX, due, size - at)
                if burst <= 0:
                    break
                for index in range(at, at + burst):
                    if allowed[index]:
                        number = counts[0]
                        struct.pack_into(">II", frames.content, frames.ends[index] - 10, number, number ^ 0xFFFFFFFF)
                        counts[0] += 1
                    else:
                        counts[1] += 1
                done = 0
                while done < burst:
                    sent = send(sock.fileno(), base + (at + done) * stride, burst - done, 0)
                    if sent < 0:
                        raise OSError(ctypes.get_errno(), "sendmmsg")
                    done += sent
                due -= burst
                at = (at + burst) % size
            time.sleep(0.001)
        say(allowed=counts[0], forbidden=counts[1], seconds=time.monotonic() - begin)


def sink(targets: str) -> None:
    sockets = []
    for address in targets.split(","):
        for port in (ALLOWED_PORT, FORBIDDEN_PORT):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            sock.bind((address, port))
            sock.setblocking(False)
            sockets.append(sock)
    say(ready=True)
    seen, evil = bytearray(), []
    last, stop = time.monotonic(), False
    while not stop or time.monotonic() - last < 0.3:
        stop = stop or ended()
        for sock in select.select(sockets, [], [], 0.05)[0]:
            last = time.monotonic()
            _drain(sock, seen, evil)
    say(
        allowed=seen.count(1), twice=len(seen) - seen.count(1) - seen.count(0), highest=len(seen) - 1,
        missing=_missing(seen), forbidden=len(evil), first=min(evil, default=None), last=max(evil, default=None),
    )  # fmt: skip


def _drain(sock: socket.socket, seen: bytearray, evil: list[float]) -> None:
    for _ in range(2000):
        try:
            content, told, _, _ = sock.recvmsg(64, 64)
        except BlockingIOError:
            return
        kind, number, complement, _ = PAYLOAD.unpack(content)
        if kind == b"EVIL":
            seconds, nanoseconds = struct.unpack("qq", told[0][2])
            evil.append(seconds + nanoseconds / 1e9)
            continue
        assert number ^ complement == 0xFFFFFFFF
        if number >= len(seen):
            seen.extend(bytes(number + 1 - len(seen)))
        seen[number] = min(2, seen[number] + 1)


def _missing(seen: bytearray) -> list[tuple[int, int]]:
    """The first runs of numbers that did not come: where, and how many."""
    runs, at = [], seen.find(0)
    while at >= 0 and len(runs) < 20:
        end = at
        while end < len(seen) and not seen[end]:
            end += 1
        runs.append((at, end - at))
        at = seen.find(0, end)
    return runs


def ask(address: str, port: str, protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.settimeout(10 if protocol == "tcp" else 1)
    sock.connect((address, int(port)))
    asked = lost = 0
    trouble = ""
    longest_s = 0.0
    began = False
    while not ended():
        question = struct.pack(">I", asked) * 64
        before = time.monotonic()
        try:
            sock.sendall(question)
            lost += not _answered(sock, question)
        except OSError as error:
            trouble = str(error)
            if protocol == "tcp":
                break
        longest_s = max(longest_s, time.monotonic() - before)
        asked += 1
        if not began:
            say(ready=True)
            began = True
        time.sleep(0.006)
    again = 0
    if protocol == "tcp":
        again = int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 104)[TOTAL_RETRANSMITS_AT:104], "little")
    say(asked=asked, lost=lost, trouble=trouble, longest_s=longest_s, again=again)


def _answered(sock: socket.socket, question: bytes) -> bool:
    if sock.type == socket.SOCK_STREAM:
        content = b""
        while len(content) < len(question):
            piece = sock.recv(len(question) - len(content))
            if not piece:
                raise OSError("the other end has closed")
            content += piece
        return content == question
    while True:
        try:
            if sock.recv(len(question)) == question:
                return True  # an older answer that comes late is a lost one
        except TimeoutError:
            return False


def answer(addresses: str, port: str, protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    listening, talking = [], []
    for address in addresses.split(","):
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, int(port)))
        if protocol == "tcp":
            sock.listen()
        listening.append(sock)
    say(ready=True)
    while not ended():
        for sock in select.select([*listening, *talking], [], [], 0.05)[0]:
            if sock in listening and protocol == "tcp":
                talking.append(sock.accept()[0])
            elif protocol == "udp":
                content, whose = sock.recvfrom(2000)
                sock.sendto(content, whose)
            else:
                try:
                    content = sock.recv(4096)
                    sock.sendall(content)
                except OSError:
                    content = b""
                if not content:
                    talking.remove(sock)
    say(open=len(talking))


if __name__ == "__main__":
    {"flood": flood, "sink": sink, "ask": ask, "answer": answer}[sys.argv[1]](*sys.argv[2:])
