"""The sender, a process of its own: the frames of a capture onto an interface, again and again, at a rate.

    send.py CAPTURE INTERFACE RATE PACKETS [fresh]      prints {"packets": …, "seconds": …}

With `fresh` every lap is one with other hosts, so that all of its connections are new ones. Frames go out by
sendmmsg(2) past the queueing discipline: one system call a millisecond, under a microsecond a packet.
"""

from __future__ import annotations

import ctypes
import json
import socket
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from ends import LOCAL4, LOCAL6
from traffic import read_capture

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
BURST_S = 0.001
BURST_MOST = 1024  # UIO_MAXIOV, what one call takes

_IOVEC = struct.Struct("@PN")
_MESSAGE = struct.Struct("@PIxxxxPNPNixxxxIxxxx")
"""struct mmsghdr: struct msghdr (name, its length, iovec, how many, control, its length, flags), bytes sent."""
_HERE = (ip_address(LOCAL4).packed, ip_address(LOCAL6).packed)


class Frames:
    """Frames in memory, laid out as the system call wants them."""

    def __init__(self, frames: list[bytes]) -> None:
        self.count = len(frames)
        self.bytes = bytearray(b"".join(frames))
        self._view = (ctypes.c_char * len(self.bytes)).from_buffer(self.bytes)
        at = ctypes.addressof(self._view)
        places = bytearray()
        for frame in frames:
            places += _IOVEC.pack(at, len(frame))
            at += len(frame)
        self._places = ctypes.create_string_buffer(bytes(places), len(places))
        first = ctypes.addressof(self._places)
        messages = b"".join(
            _MESSAGE.pack(0, 0, first + number * _IOVEC.size, 1, 0, 0, 0, 0) for number in range(self.count)
        )
        self._messages = ctypes.create_string_buffer(messages, len(messages))
        self.messages = ctypes.addressof(self._messages)
        self._strangers = strangers(frames)

    def renew(self, first: int, count: int, lap: int) -> None:
        """Other hosts in these frames, the same for both ways through a connection."""
        data = self.bytes
        for place, original in self._strangers[first : first + count]:
            data[place] = (original + lap) & 0xFF


def strangers(frames: list[bytes]) -> list[tuple[int, int]]:
    """Where in the joined frames the second byte of the other end's address is (IPv6: the last), and that byte."""
    found = []
    at = 0
    for frame in frames:
        source, size, byte = (22, 16, 15) if frame[12:14] == b"\x86\xdd" else (26, 4, 1)
        is_sent = frame[source : source + size] in _HERE
        place = source + byte + (size if is_sent else 0)
        found.append((at + place, frame[place]))
        at += len(frame)
    return found


def send(frames: Frames, interface: str, rate: int, packets: int, *, fresh: bool) -> float:
    """Send; how long it took, in seconds. It falls behind where the machine cannot do that rate."""
    library = ctypes.CDLL(None, use_errno=True)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    sock.bind((interface, 0))
    burst = max(1, min(BURST_MOST, int(rate * BURST_S)))
    began = time.perf_counter()
    sent = 0
    while sent < packets:
        lap, first = divmod(sent, frames.count)
        count = min(burst, packets - sent, frames.count - first)
        if fresh and lap:
            frames.renew(first, count, lap)
        early = began + sent / rate - time.perf_counter()
        if early > 0:
            time.sleep(early)
        done = library.sendmmsg(sock.fileno(), ctypes.c_void_p(frames.messages + first * _MESSAGE.size), count, 0)
        if done < 0:
            number = ctypes.get_errno()
            raise OSError(number, "cannot send")
        sent += done
    took = time.perf_counter() - began
    sock.close()
    return took


def main(capture: str, interface: str, rate: str, packets: str, fresh: str = "") -> None:
    frames = Frames(read_capture(Path(capture)))
    took = send(frames, interface, int(rate), int(packets), fresh=fresh == "fresh")
    print(json.dumps({"packets": int(packets), "seconds": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
