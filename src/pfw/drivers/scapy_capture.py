"""Live capture through Scapy's sockets, for kernels that refuse the ring of `capture.py`.

Slower (two system calls and a copy a packet, about 100,000 packets/s) but without demands: any kernel with
packet sockets does. Scapy also knows the link types of more kinds of devices. It is imported
only when needed; it gives bytes, which are decoded like all others.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from struct import Struct as Layout
from typing import Any

from pfw.drivers.capture import BATCH_FRAMES, Frames
from pfw.model.event import Source

_SOL_PACKET = 263
_PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 6, 23
_STATISTICS = Layout("=II")
_LINKTYPE_ETHERNET = 1


class ScapyCapture:
    """As `Capture`; `filter_text` is compiled and attached by Scapy.

    Raises PermissionError without CAP_NET_RAW and OSError for an interface that is not there.
    """

    def __init__(self, interface: str | None = None, filter_text: str | None = None) -> None:
        from scapy.arch.linux import L2ListenSocket
        from scapy.config import conf
        from scapy.layers import inet, inet6, l2  # noqa: F401  (they register their link types)

        self._numbers: Any = conf.l2types.layer2num
        self._sources: dict[Any, Source] = {}
        self._sockets: list[Any] = []
        names = [interface] if interface is not None else [name for _, name in socket.if_nameindex()]
        try:
            for name in names:
                opened = L2ListenSocket(iface=name, filter=filter_text, promisc=False)
                self._sockets.append(opened)
                number = self._numbers.get(opened.LL, _LINKTYPE_ETHERNET)
                self._sources[opened] = Source(number, name)
                if name == "lo":
                    # The loopback device shows every packet twice, leaving and arriving.
                    opened.ins.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        except BaseException:
            self.close()
            raise
        self.buffer = memoryview(b"")
        """What the frames of the last batch point into."""
        self.gone = False
        self.received = 0
        self.lost = 0

    def wait(self, timeout_s: float) -> None:
        """Sleep until there is something to read, but not longer than this."""
        select.select(self._sockets, [], [], timeout_s)

    def read(self) -> Iterator[tuple[Source, Frames, None]]:
        """What is there now, at most a batch of each interface. Who sent a packet is not known here."""
        for ready in select.select(self._sockets, [], [], 0)[0]:
            frames: Frames = []
            data = bytearray()
            try:
                for _ in range(BATCH_FRAMES):
                    _, packet, time = ready.recv_raw()
                    frames.append((time, len(data), len(data) + len(packet), len(packet)))
                    data += packet
                    if not select.select([ready], [], [], 0)[0]:
                        break
            except OSError:
                # The interface went down or away; with others left the watch goes on.
                self._sockets.remove(ready)
                ready.close()
                self.gone = not self._sockets
            self.received += len(frames)
            if frames:
                self.buffer = memoryview(bytes(data))
                yield self._sources[ready], frames, None

    def count(self) -> None:
        """Bring `lost` up to date (the kernel's own counters start anew at each reading)."""
        for each in self._sockets:
            self.lost += _STATISTICS.unpack(each.ins.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))[1]

    def close(self) -> None:
        for each in self._sockets:
            each.close()
