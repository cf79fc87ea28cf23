"""Hears of every change of one table of nftables, whoever makes it, from the kernel (nfnetlink, NFNLGRP_NFTABLES)."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

from msgspec import Struct

from pfw.drivers.netlink import NETLINK_NETFILTER, open_socket
from pfw.wire.error import WireError
from pfw.wire.netlink import parts
from pfw.wire.nftables_event import GROUP, Committed, read_event

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_ROOM_BYTES = 1 << 20
"""Some thousand messages: a bigger transaction overflows it, and is told of as lost."""
_READ_BYTES = 1 << 17
_READS_MAX = 256
"""After so many a call returns, so that a flood cannot keep its caller from all else."""


class Change(Struct, frozen=True):
    """A transaction that changed the structure of the table. `process` is 0 where nobody knows who made it: what was
    told of was more than there was room for."""

    process: int = 0
    name: str = ""
    deleted: bool = False


class TableWatch:
    """The changes of an inet table from now on. Raises OSError."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._touched = self._deleted = False
        self._sock = open_socket(NETLINK_NETFILTER)
        try:
            with suppress(PermissionError):
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM_BYTES)
            self._sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, GROUP)
            self._sock.settimeout(0)
        except BaseException:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """What becomes readable when something was changed."""
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def read(self) -> list[Change]:
        """The changes that were told of since the last call. Raises OSError."""
        found: list[Change] = []
        for _ in range(_READS_MAX):
            try:
                data, (port, _) = self._sock.recvfrom(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found.append(Change())
                continue
            if port == 0:
                found += self._changes(bytes(data))
        return found

    def _changes(self, data: bytes) -> list[Change]:
        found: list[Change] = []
        try:
            for kind, _, _, body in parts(data):
                event = read_event(kind, body)
                if isinstance(event, Committed):
                    if self._touched:
                        found.append(Change(event.process, event.name, self._deleted))
                    self._touched = self._deleted = False
                elif event is not None and event.table == self._table:
                    self._touched = True
                    self._deleted |= event.deleted
        except WireError:
            found.append(Change())
        return found
