"""Reads what the kernel tells of connections: that one is new, has changed, is gone.

The network namespace is that of the thread that opens the reader. Connections are tracked only where a rule asks for
their state. With nf_conntrack_events at 2, as it is on newer kernels, the kernel tells of those that began while
somebody listened (in any namespace, Linux 6.18), with 1 of all, with 0 of none (`procfs.tell_connections`). One that it
does not tell of ends without a word.

Waking up costs as much as ten events do: under load let some come together before reading.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Collection, Iterator, Sequence
from struct import Struct as Layout

from pfw.drivers.netlink import NETLINK_NETFILTER, make_room, open_socket, receive
from pfw.drivers.socket_filter import attach
from pfw.wire.conntrack import TCP_ESTABLISHED, Tuple, dump_request, get_request
from pfw.wire.conntrack_decoder import EventDecoder
from pfw.wire.conntrack_event import DESTROY, NEW, TCP_CLOSE, TCP_TIME_WAIT, UPDATE, Event
from pfw.wire.conntrack_filter import event_filter
from pfw.wire.netlink import NLMSG_DONE, NLMSG_ERROR, error_number

RECEIVE_BUFFER_BYTES = 32 << 20
"""52,000 events: more than a second of 10,000 new connections a second, in which all that is tracked can be read. The
kernel takes the memory when it is needed."""
STATES = frozenset({TCP_ESTABLISHED, TCP_TIME_WAIT, TCP_CLOSE})
"""That the other end is who it says, and that a connection is over."""
EVENTS_MAX = 10_000
"""After so many a call returns, so that a flood cannot keep its caller from all else."""

_MESSAGES, _MESSAGE_BYTES = 64, 2048
"""Read at once, and room for each: an event has some 200 bytes, with all that can be told about 1,000."""
_MSG_DONTWAIT = 0x40
_SO_MEMINFO = 55
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NAME, _VECTOR = Layout("=4xI4x"), Layout("@PN")
"""struct sockaddr_nl: the sender's port, 0 for the kernel; struct iovec."""
_IN_FLIGHT = 64
"""Questions whose answers are waited for together: the answers fit into a receive buffer of any size."""
_MESSAGE, _HEADER_BYTES = Layout("=IH"), 16
"""struct nlmsghdr: length and type, and how long it is."""
_MEMINFO = Layout("=9I")
_DROPS = 8
"""SK_MEMINFO_DROPS (include/uapi/linux/sock_diag.h)."""


class EventReader:
    """The events of connections from now on. Raises OSError: EPERM without CAP_NET_ADMIN.

    Of changes only those that `wire/conntrack_filter.py` takes: of TCP to one of `states`, of others the first reply;
    without `loopback` nothing of connections within it.
    """

    def __init__(
        self, room_bytes: int = RECEIVE_BUFFER_BYTES, states: Collection[int] = STATES, *, loopback: bool = False
    ) -> None:
        self.lost = 0
        """Events for which there was no room."""
        self.overrun = False
        """Whether some were lost. Whoever takes this back reads the table anew (`netfilter.connections`)."""
        self._decoder = EventDecoder()
        self._drops = 0
        self._messages = _Messages()
        self._sock = open_socket(NETLINK_NETFILTER)
        try:
            self._sock.settimeout(0)
            # Not before the filter: what comes in until then would come out.
            attach(self._sock, event_filter(states, loopback=loopback))
            make_room(self._sock, room_bytes)
            for group in (NEW, UPDATE, DESTROY):
                self._sock.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except BaseException:
            self._sock.close()
            raise

    @property
    def unreadable(self) -> int:
        """Messages that could not be read."""
        return self._decoder.unreadable

    def fileno(self) -> int:
        """What becomes readable when events have come."""
        return self._sock.fileno()

    def read(self, limit: int = EVENTS_MAX) -> list[Event]:
        """The events that have come since the last call, not many more than `limit`, none if none. Raises OSError."""
        found: list[Event] = []
        for _ in range(0, limit, _MESSAGES):
            received = self._messages.receive(self._sock.fileno())
            found += self._decoder.read(received)
            if len(received) < _MESSAGES:
                break
        self._count_lost()
        return found

    def close(self) -> None:
        self._sock.close()

    def _count_lost(self) -> None:
        drops = _MEMINFO.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS]
        if drops != self._drops:
            self.lost += (drops - self._drops) & 0xFFFFFFFF
            self._drops = drops
            self.overrun = True


def tracked() -> Iterator[Event]:
    """All connections that the kernel tracks, each as if it had just changed. One that begins or ends meanwhile may be
    among them or not. Nothing is kept of those that were taken. Raises OSError, also in between."""
    decoder = EventDecoder()
    with open_socket(NETLINK_NETFILTER) as sock:
        sock.send(dump_request())
        is_over = False
        while not is_over:
            messages, is_over = _split(receive(sock))
            yield from decoder.read(messages)


class LookUp:
    """Asks for connections that events told of."""

    def __init__(self) -> None:
        self._decoder = EventDecoder()

    def now(self, events: Sequence[Event]) -> dict[int, Event]:
        """As they stand now, by the kernel's ids; without those that have gone. Raises OSError."""
        tuples = [Tuple(each.protocol, each.source, each.destination, each.source_port, each.port) for each in events]
        requests = [get_request(each, number) for number, each in enumerate(tuples)]
        answers: list[bytes] = []
        with open_socket(NETLINK_NETFILTER) as sock:
            for start in range(0, len(requests), _IN_FLIGHT):
                sent = requests[start : start + _IN_FLIGHT]
                sock.send(b"".join(sent))
                # An entry or an error each, in a datagram of its own.
                answers += [receive(sock) for _ in sent]
        return {found.id: found for found in self._decoder.read(answers)}


def _split(data: bytes) -> tuple[list[bytes], bool]:
    """The messages in a read of a dump, and whether it is over. Raises OSError where it has failed."""
    found: list[bytes] = []
    at = 0
    while at + _MESSAGE.size <= len(data):
        size, kind = _MESSAGE.unpack_from(data, at)
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            number = error_number(memoryview(data)[at + _HEADER_BYTES : at + size])
            if number > 0:
                raise OSError(number, os.strerror(number))
            return found, True
        found.append(data[at : at + size])
        at += max(_HEADER_BYTES, size + 3 & ~3)
    return found, False


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Slot(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


class _Messages:
    """Room for many messages, which one call fills: half the price of a call for each."""

    def __init__(self) -> None:
        self._room = bytearray(_MESSAGES * _MESSAGE_BYTES)
        self._names = bytearray(_MESSAGES * _NAME.size)
        self._slots = (_Slot * _MESSAGES)()
        first = _address(self._room)
        places = [_VECTOR.pack(first + at * _MESSAGE_BYTES, _MESSAGE_BYTES) for at in range(_MESSAGES)]
        self._vectors = bytearray(b"".join(places))
        for at, slot in enumerate(self._slots):
            slot.header.name, slot.header.name_size = _address(self._names) + at * _NAME.size, _NAME.size
            slot.header.vectors, slot.header.vector_count = _address(self._vectors) + at * _VECTOR.size, 1
        padding = ctypes.sizeof(_Slot) - _Slot.size.offset - 4
        self._sizes = Layout(f"={_Slot.size.offset}xI{padding}x")
        self._call = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)

    def receive(self, descriptor: int) -> list[bytes]:
        """What has come, message by message; of what other processes sent nothing but b"". Raises OSError."""
        count = self._call(descriptor, self._slots, _MESSAGES, _MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        end = count * _MESSAGE_BYTES
        room = bytes(memoryview(self._room)[:end])
        sizes, ports = self._sizes.iter_unpack(self._slots), _NAME.iter_unpack(self._names)
        return [
            room[at : at + size] if port == 0 else b""
            for at, (size,), (port,) in zip(range(0, end, _MESSAGE_BYTES), sizes, ports, strict=False)
        ]


def _address(room: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))
