"""Watches an interface and a set of banned addresses of the kernel's: how long lies between a source's first packet and
its ban.

    until_banned.py INTERFACE TABLE SET PATIENCE        an address a line is read; to each a line is said:
                                                        {"banned_s": 0.123, "after_reset_s": 0.007, "packets": 42}

`banned_s` is null where nothing came of it in PATIENCE seconds. `after_reset_s` begins with the first reset that came
of it, and is null where none did. `packets` came until then. The time of a packet is the
kernel's; the set is read every EVERY_S.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress
from ipaddress import IPv4Address
from struct import Struct

from pfw.drivers.netfilter import read_elements

EVERY_S = 0.005
_ETH_P_IP, _PROTOCOL, _TCP, _SOURCE, _FLAGS, _RESET = 0x0800, 23, 6, slice(26, 30), 47, 0x04
"""Of Ethernet, IPv4 without options and TCP, which is all that a scan sends."""
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIME = Struct("@qq")
_ROOM_BYTES = 16 << 20


def main(interface: str, table: str, name: str, patience: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
        packets.bind((interface, _ETH_P_IP))
        packets.setblocking(False)
        print("ready", flush=True)
        for line in sys.stdin:
            watched = _Watched(packets, IPv4Address(line.strip()).packed)
            print(json.dumps(watched.until_banned(table, name, float(patience))), flush=True)


class _Watched:
    """A source: when its packets came, and the first that said that it does not want an answer."""

    def __init__(self, packets: socket.socket, source: bytes) -> None:
        self._packets = packets
        self._source = source
        self._times: list[float] = []
        self._reset: float | None = None

    def until_banned(self, table: str, name: str, patience_s: float) -> dict[str, float | None]:
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            is_banned = any(each.key == self._source for each in read_elements(table, name))
            now = time.time()
            self._take()
            if is_banned and self._times:
                return {
                    "banned_s": now - self._times[0],
                    "after_reset_s": None if self._reset is None else now - self._reset,
                    "packets": sum(each <= now for each in self._times),
                }
            time.sleep(EVERY_S)
        return {"banned_s": None, "after_reset_s": None, "packets": len(self._times)}

    def _take(self) -> None:
        with suppress(BlockingIOError):
            while True:
                data, told, _, _ = self._packets.recvmsg(64, _TIME.size + 32)
                if data[_SOURCE] == self._source and told:
                    seconds, ns = _TIME.unpack(told[0][2])
                    self._times.append(seconds + ns / 1e9)
                    if self._reset is None and data[_PROTOCOL] == _TCP and data[_FLAGS] & _RESET:
                        self._reset = self._times[-1]


if __name__ == "__main__":
    main(*sys.argv[1:])
