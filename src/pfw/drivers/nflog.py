"""Reads the packets that rules log to netlink groups (nflog)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from contextlib import suppress
from struct import Struct as Layout

from pfw.drivers.netlink import NETLINK_NETFILTER, TIMEOUT_S, open_socket, receive
from pfw.wire.netlink import NLMSG_ERROR, error_number, parts
from pfw.wire.nflog import PACKET, Logged, bind_request, logged

RECEIVE_BUFFER_BYTES = 8 << 20
"""About 20,000 packets of 256 bytes. With the default of 208 KiB a burst was lost before it was read."""
_KERNEL_BUFFER_BYTES = 32 << 10
_THRESHOLD_PACKETS = 50
_DELAY_CS = 5
"""A packet is on its way after 50 ms at the latest, even when no others follow."""
_PACKETS_MAX = 10_000
"""After so many a call returns, so that a flood cannot keep its caller from all else."""

_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_SO_RCVBUFFORCE = 33
_SIOCGIFNAME = 0x8910
_REQUEST = Layout("=16si20x")
"""struct ifreq: name, index."""
_READ_BYTES = 1 << 17
_BOUND = "/proc/thread-self/net/netfilter/nfnetlink_log"


class LogReader:
    """The packets that are logged to these groups from now on.

    Raises OSError: EBUSY where somebody else reads one of the groups, EPERM without CAP_NET_ADMIN.
    """

    def __init__(self, groups: list[int], copy_bytes: int = 256) -> None:
        self.lost = 0
        """Packets that the kernel could not hand over; where it does not tell how many, each time counts as one."""
        self._waiting: list[bytes] = []
        self._names: dict[int, str] = {}
        self._next = dict.fromkeys(groups, 0)
        self._sock = open_socket(NETLINK_NETFILTER)
        try:
            _enlarge(self._sock)
            for group in groups:
                self._bind(group, copy_bytes)
            self._sock.settimeout(0)
        except BaseException:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """What becomes readable when packets have come."""
        return self._sock.fileno()

    def read(self) -> list[Logged]:
        """All packets that have come since the last call, none if none. Raises OSError and WireError."""
        self._names.clear()
        found: list[Logged] = []
        while len(found) < _PACKETS_MAX:
            data = self._waiting.pop(0) if self._waiting else self._received()
            if data is None:
                break
            for kind, _, _, body in parts(data):
                if kind == PACKET:
                    found.append(logged(body))
                    self._count(found[-1])
        return found

    def interface(self, index: int) -> str:
        """The name of an interface where the packets come from; `#7` for one that has gone."""
        name = self._names.get(index)
        if name is None:
            # A rename takes effect at the next read, so the names are kept no longer than that.
            name = self._names[index] = self._interface(index)
        return name

    def close(self) -> None:
        self._sock.close()

    def _interface(self, index: int) -> str:
        try:
            # Of the namespace that the socket belongs to, whatever the thread is in by now.
            answer = fcntl.ioctl(self._sock.fileno(), _SIOCGIFNAME, _REQUEST.pack(b"", index))
        except OSError:
            return f"#{index}"
        return str(_REQUEST.unpack(answer)[0].partition(b"\0")[0].decode(errors="backslashreplace"))

    def _received(self) -> bytes | None:
        while True:
            try:
                data, (port, _) = self._sock.recvfrom(_READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            if port == 0:
                return bytes(data)

    def _count(self, packet: Logged) -> None:
        expected = self._next.get(packet.group)
        if packet.sequence is None or expected is None:
            return
        missing = (packet.sequence - expected) & 0xFFFFFFFF
        if missing < 1 << 31:
            self.lost += missing
        self._next[packet.group] = (packet.sequence + 1) & 0xFFFFFFFF

    def _bind(self, group: int, copy_bytes: int) -> None:
        question = bind_request(group, copy_bytes, _KERNEL_BUFFER_BYTES, _THRESHOLD_PACKETS, _DELAY_CS)
        self._sock.send(question)
        while True:
            data = receive(self._sock)
            answers = [error_number(body) for kind, _, _, body in parts(data) if kind == NLMSG_ERROR]
            if answers:
                break
            # Packets of a group that is bound already.
            self._waiting.append(data)
        if answers[0]:
            raise _refused(answers[0], group)


def _enlarge(sock: socket.socket) -> None:
    sock.settimeout(TIMEOUT_S)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    # Without this the kernel, once the buffer was full, drops all until it has been read empty. What is lost
    # shows in the sequence numbers.
    with suppress(OSError):
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)


def _refused(number: int, group: int) -> OSError:
    # The kernel says EPERM for a group that is taken, as it does for want of privileges.
    if number == errno.EPERM and _is_bound(group):
        number = errno.EBUSY
    text = "somebody else reads it" if number == errno.EBUSY else os.strerror(number)
    return OSError(number, f"log group {group}: {text}")


def _is_bound(group: int) -> bool:
    try:
        with open(_BOUND) as file:
            return any(line.split()[:1] == [str(group)] for line in file)
    except OSError:
        return False
