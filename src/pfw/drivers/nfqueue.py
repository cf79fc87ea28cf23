"""Reads the packets that rules give to a queue (nfqueue), and tells the kernel what becomes of each."""

from __future__ import annotations

import errno

from msgspec import Struct

from pfw.drivers.netlink import PacketSocket
from pfw.wire.netlink import NLMSG_ERROR, parts
from pfw.wire.nfqueue import ACCEPT, DROP, PACKET, REPEAT, Queued, bind_request, queued, verdict_request

RECEIVE_BUFFER_BYTES = 16 << 20
"""The kernel reckons about 1 KiB for a packet of 256 bytes, so this holds a whole queue."""
_PACKETS_MAX = 256
"""After so many a call returns, so that the first of a flood need not wait until all of it has been read."""
_QUEUE_DROPPED, _USER_DROPPED = 5, 6
"""Where the numbers stand in a line of /proc/net/netfilter/nfnetlink_queue."""


class Dropped(Struct, frozen=True):
    """Packets that the kernel dropped before they were read: the queue was full, or the socket's buffer was."""

    queue_full: int
    buffer_full: int


class QueueReader(PacketSocket):
    """The packets that are given to this queue from now on. Each waits in the kernel until there is a verdict on it.

    Closed, or with its process gone, the kernel drops what waits and what comes. Raises OSError: EBUSY where somebody
    else reads the queue, EPERM without CAP_NET_ADMIN.
    """

    def __init__(self, queue: int, copy_bytes: int = 256, length_max: int = 8192) -> None:
        super().__init__(RECEIVE_BUFFER_BYTES, "nfnetlink_queue", "queue")
        self.refused = 0
        """Verdicts that came too late: the kernel no longer had the packet, say because its interface went down."""
        self._queue = queue
        self._next = 1
        try:
            self._bind(queue, bind_request(queue, copy_bytes, length_max))
            self._sock.settimeout(0)
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Queued]:
        """Packets that have come, oldest first, none if none; when many have, more calls are needed to get all.

        Raises OSError and WireError.
        """
        self._names.clear()
        found: list[Queued] = []
        while len(found) < _PACKETS_MAX and (data := self._received()) is not None:
            for kind, _, _, body in parts(data):
                if kind == PACKET:
                    packet = queued(body)
                    self._next = self._follow(self._next, packet.id)
                    found.append(packet)
                elif kind == NLMSG_ERROR:
                    self.refused += 1
        return found

    def verdict(self, packet_id: int, accept: bool, mark: int | None = None) -> None:
        """Let a packet pass, with a mark if one is given, or drop it. Raises OSError.

        The kernel does not acknowledge it; what it refuses counts as `refused` at the next read.
        """
        self._sock.send(verdict_request(self._queue, packet_id, ACCEPT if accept else DROP, mark))

    def repeat(self, packet_id: int, mark: int) -> None:
        """Give a packet this mark and let the rules of its hook decide anew. Raises OSError."""
        self._sock.send(verdict_request(self._queue, packet_id, REPEAT, mark))

    def dropped(self) -> Dropped:
        """What the kernel has counted. It has to be asked for in the queue's network namespace. Raises OSError."""
        counters = self._counters(self._queue)
        if len(counters) <= _USER_DROPPED:
            raise OSError(errno.ENOENT, f"queue {self._queue}: the kernel does not list it in this network namespace")
        return Dropped(int(counters[_QUEUE_DROPPED]), int(counters[_USER_DROPPED]))
