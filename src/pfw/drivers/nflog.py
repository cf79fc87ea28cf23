"""Reads the packets that rules log to netlink groups (nflog)."""

from __future__ import annotations

from pfw.drivers.netlink import PacketSocket
from pfw.wire.netlink import parts
from pfw.wire.nflog import PACKET, Logged, bind_request, logged

RECEIVE_BUFFER_BYTES = 8 << 20
"""About 20,000 packets of 256 bytes. With the default of 208 KiB a burst was lost before it was read."""
_KERNEL_BUFFER_BYTES = 32 << 10
_THRESHOLD_PACKETS = 50
DELAY_MS = 50
"""A packet is on its way after 50 ms at the latest, even when no others follow."""
_PACKETS_MAX = 10_000
"""After so many a call returns, so that a flood cannot keep its caller from all else."""


class LogReader(PacketSocket):
    """The packets that are logged to these groups from now on.

    Raises OSError: EBUSY where somebody else reads one of the groups, EPERM without CAP_NET_ADMIN.
    """

    def __init__(self, groups: list[int], copy_bytes: int = 256) -> None:
        super().__init__(RECEIVE_BUFFER_BYTES, "nfnetlink_log", "log group")
        self._next = dict.fromkeys(groups, 0)
        try:
            for group in groups:
                question = bind_request(group, copy_bytes, _KERNEL_BUFFER_BYTES, _THRESHOLD_PACKETS, DELAY_MS // 10)
                self._bind(group, question)
            self._sock.settimeout(0)
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Logged]:
        """All packets that have come since the last call, none if none. Raises OSError and WireError."""
        self._names.clear()
        found: list[Logged] = []
        while len(found) < _PACKETS_MAX and (data := self._received()) is not None:
            for kind, _, _, body in parts(data):
                if kind == PACKET:
                    found.append(logged(body))
                    self._count(found[-1])
        return found

    def _count(self, packet: Logged) -> None:
        expected = self._next.get(packet.group)
        if packet.sequence is not None and expected is not None:
            self._next[packet.group] = self._follow(expected, packet.sequence)
