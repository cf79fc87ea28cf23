"""Live capture: a ring that the kernel fills and this process reads in place (AF_PACKET, TPACKET_V3).

Source: Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h. Reading a packet from
Scapy's socket costs two system calls and a copy; from the ring it costs neither, which is what carries
200,000 packets/s. Frames are cut to SNAP_BYTES by the socket filter: headers and a name or two, which is
all that judging and logging need.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
from collections.abc import Iterator
from struct import Struct as Layout

from pfw.drivers.socket_filter import attach
from pfw.model.event import Source
from pfw.wire.classic_bpf import Program

SNAP_BYTES = 512
BLOCK_BYTES = 1 << 18
BLOCKS = 32
"""8 MiB in all: about 20,000 packets, a tenth of a second at 200,000 packets/s. Who has few taken needs less."""
BLOCK_TIMEOUT_MS = 50
"""A block that is not full is handed over after this time: how late a line can be on the screen."""
BATCH_FRAMES = 256

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_BLOCK_OF_USER = 1
_PACKET_OUTGOING = 4
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_WITH_ETHERNET_HEADER = frozenset({_ARPHRD_ETHER, _ARPHRD_LOOPBACK})
_LINKTYPE_ETHERNET, _LINKTYPE_RAW = 1, 101

_RING_REQUEST = Layout("=7I")
_BLOCK = Layout("=8xIII")
"""struct tpacket_block_desc: version and offset, then status, packets, offset of the first packet."""
_STATUS_AT = 8
_PACKET = Layout("=IIIII4xHH20x4xiHB")
"""struct tpacket3_hdr: offset of the next, seconds, nanoseconds, captured, size; offsets of the link and
the network header; then struct sockaddr_ll: interface index, hardware type, packet type."""
_STATISTICS = Layout("=III")

Frames = list[tuple[float, int, int, int]]
"""Time (s), where it begins and ends in the buffer, size on the wire (bytes)."""

SNAP: Program = [(0x06, 0, 0, SNAP_BYTES)]
"""`ret #SNAP_BYTES`: take everything, so much of it."""


class Capture:
    """An open capture on one interface, or on all of them with None.

    Raises PermissionError without CAP_NET_RAW and OSError for an interface that is not there.
    """

    def __init__(self, interface: str | None = None, program: Program | None = None, blocks: int = BLOCKS) -> None:
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            attach(self._sock, program or SNAP)
            self._sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            frames = BLOCK_BYTES * blocks // 2048
            ring = _RING_REQUEST.pack(BLOCK_BYTES, blocks, 2048, frames, BLOCK_TIMEOUT_MS, 0, 0)
            self._sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
            self._map = mmap.mmap(self._sock.fileno(), BLOCK_BYTES * blocks)
            self._ring = memoryview(self._map)
            self._index = socket.if_nametoindex(interface) if interface else 0
            _bind(self._sock.fileno(), self._index)
        except BaseException:
            self._sock.close()
            raise
        self._block = 0
        self._blocks = blocks
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN | select.POLLERR)
        self._went_down = False
        self.gone = False
        """Whether the one interface that was watched is no more."""
        self.received = 0
        """Packets that the kernel put into the ring."""
        self.lost = 0
        """Packets that did not fit into it."""

    @property
    def buffer(self) -> memoryview:
        """What the frames point into; a frame is good until the next one is asked for."""
        return self._ring

    def fileno(self) -> int:
        """Readable when there is something to read, or an error to take away (`wait` does)."""
        return self._sock.fileno()

    def wait(self, timeout_s: float) -> None:
        """Sleep until there is something to read, but not longer than this."""
        if self._ready():
            return
        for _, events in self._poll.poll(timeout_s * 1000):
            # An interface that goes down leaves an error, and until it is read no poll sleeps any more.
            if events & select.POLLERR and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._went_down = True
        if self._went_down and self._index:
            # It goes down first and is deleted a moment later, or never.
            self.gone = not _exists(self._index)

    def read(self) -> Iterator[tuple[Source, Frames, set[int]]]:
        """What is there now, in batches of one source each; of each also where those frames begin that
        this machine sent."""
        while self._ready():
            start = self._block * BLOCK_BYTES
            yield from self._batches(start)
            self._ring[start + _STATUS_AT : start + _STATUS_AT + 4] = b"\0\0\0\0"
            self._block = (self._block + 1) % self._blocks

    def count(self) -> None:
        """Bring `received` and `lost` up to date (the kernel's own counters start anew at each reading)."""
        packets, drops, _ = _STATISTICS.unpack(self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        # The kernel counts a dropped packet among the packets too.
        self.received += packets - drops
        self.lost += drops

    def close(self) -> None:
        self._sock.close()
        self._ring.release()
        self._map.close()

    def _ready(self) -> bool:
        return bool(self._ring[self._block * BLOCK_BYTES + _STATUS_AT] & _BLOCK_OF_USER)

    def _batches(self, start: int) -> Iterator[tuple[Source, Frames, set[int]]]:
        ring = self._ring
        unpack = _PACKET.unpack_from
        # Anew with each block: an interface may get another name, and its number another interface.
        sources: dict[tuple[int, int], Source] = {}
        _, packets, offset = _BLOCK.unpack_from(ring, start)
        at = start + offset
        frames: Frames = []
        sent: set[int] = set()
        current: tuple[int, int] | None = None
        for _ in range(packets):
            step, seconds, nanoseconds, captured, size, link, network, index, hardware, kind = unpack(ring, at)
            if kind == _PACKET_OUTGOING and hardware == _ARPHRD_LOOPBACK:
                # The loopback device shows every packet twice, leaving and arriving.
                at += step
                continue
            if current != (index, hardware) or len(frames) >= BATCH_FRAMES:
                if frames and current is not None:
                    yield sources[current], frames, sent
                frames, sent = [], set()
                current = (index, hardware)
                if current not in sources:
                    sources[current] = _source(index, hardware)
            # Of hardware without an Ethernet header only what is behind its own header is looked at.
            cut = 0 if hardware in _WITH_ETHERNET_HEADER else min(network - link, captured)
            first = at + link + cut
            frames.append((seconds + nanoseconds * 1e-9, first, first + captured - cut, size - cut))
            if kind == _PACKET_OUTGOING:
                sent.add(first)
            at += step
        if frames and current is not None:
            yield sources[current], frames, sent


def _source(index: int, hardware: int) -> Source:
    try:
        # A name may be any bytes; one that is no text could not be handed on.
        name = os.fsencode(socket.if_indextoname(index)).decode(errors="backslashreplace")
    except OSError:
        name = f"#{index}"
    ethernet = hardware in _WITH_ETHERNET_HEADER
    return Source(_LINKTYPE_ETHERNET if ethernet else _LINKTYPE_RAW, name)


def _exists(index: int) -> bool:
    try:
        socket.if_indextoname(index)
    except OSError:
        return False
    return True


def _bind(descriptor: int, index: int) -> None:
    """Begin to receive. Python's own bind() cannot say "all interfaces", which is index 0."""
    address = Layout("=HHiHBB8x").pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), index, 0, 0, 0)
    library = ctypes.CDLL(None, use_errno=True)
    if library.bind(descriptor, address, len(address)):
        number = ctypes.get_errno()
        raise OSError(number, "cannot capture")
