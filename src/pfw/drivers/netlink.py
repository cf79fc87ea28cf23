"""Netlink sockets, those that packets come in by too, and the questions asked over them: this machine's addresses,
routes, and open sockets.

All questions here leave the kernel as it is. The network namespace is that of the thread that asks. A kernel that
does not answer ends in an OSError after TIMEOUT_S.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from struct import Struct as Layout
from typing import TypeVar

from msgspec import Struct

from pfw.model.address import AddressSet, as_int
from pfw.model.flow import make_key
from pfw.model.packet import TCP, UDP
from pfw.wire.netlink import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, error_number, parts
from pfw.wire.rtnetlink import (
    RTM_NEWADDR,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    address_request,
    addresses,
    default_gateways,
    interface_address,
    route_index,
    route_request,
    routes_request,
    rule_mark,
    rules_request,
)
from pfw.wire.sockdiag import (
    AF_INET,
    AF_INET6,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    DiagSocket,
    diag_socket,
    socket_request,
)

NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 0, 4, 12
TIMEOUT_S = 5.0
_READ_BYTES = 1 << 17
_ATTEMPTS = 10
_SOL_NETLINK, _NETLINK_NO_ENOBUFS, _NETLINK_CAP_ACK = 270, 5, 10
_SO_RCVBUFFORCE = 33
_SIOCGIFNAME = 0x8910
_REQUEST = Layout("=16si20x")
"""struct ifreq: name, index."""
_UDP_UNCONNECTED = 7
"""TCP_CLOSE, which the kernel uses for UDP sockets that have no fixed other end."""
_NETFILTER = "/proc/thread-self/net/netfilter"
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
"""What the kernel answers for want of a route, and for unreachable, prohibit and blackhole routes."""
_PORT = Layout(">H")

T = TypeVar("T")


class TcpSocket(Struct, frozen=True, gc=False):
    """An established TCP socket: this machine's end (`source`), the other one, and whose it is.

    `accepted` says that the other side began: the local port is being listened on.
    """

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    uid: int
    inode: int
    accepted: bool

    @property
    def tuple(self) -> tuple[int, bytes, bytes, int, int]:
        """Protocol, source, destination, source port and port of the packet that must have begun it."""
        if self.accepted:
            return TCP, self.destination, self.source, self.destination_port, self.source_port
        return TCP, self.source, self.destination, self.source_port, self.destination_port


class PacketSocket:
    """A socket by which netfilter hands packets over, with room for `room_bytes` of them.

    `listed` is the file in which the kernel lists what is read already, `what` the word for it.
    """

    def __init__(self, room_bytes: int, listed: str, what: str) -> None:
        self.lost = 0
        """Packets that the kernel could not hand over; where it does not tell how many, each time counts as one."""
        self._listed = f"{_NETFILTER}/{listed}"
        self._what = what
        self._waiting: list[bytes] = []
        self._names: dict[int, str] = {}
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._sock = open_socket(NETLINK_NETFILTER)
        try:
            make_room(self._sock, room_bytes)
        except BaseException:
            self._sock.close()
            raise

    def fileno(self) -> int:
        """What becomes readable when packets have come."""
        return self._sock.fileno()

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

    def _bind(self, number: int, question: bytes) -> None:
        """Ask for the packets of a group or queue. Raises OSError: EBUSY where somebody else reads it."""
        self._sock.send(question)
        while True:
            data = receive(self._sock)
            answers = [error_number(body) for kind, _, _, body in parts(data) if kind == NLMSG_ERROR]
            if answers:
                break
            # Packets of what is bound already.
            self._waiting.append(data)
        if answers[0]:
            raise self._refused(answers[0], number)

    def _refused(self, refusal: int, number: int) -> OSError:
        # The kernel says EPERM for what is taken, as it does for want of privileges.
        if refusal == errno.EPERM and self._counters(number):
            refusal = errno.EBUSY
        text = "somebody else reads it" if refusal == errno.EBUSY else os.strerror(refusal)
        return OSError(refusal, f"{self._what} {number}: {text}")

    def _counters(self, number: int) -> list[str]:
        """What the kernel lists of a group or queue; nothing where nobody reads it."""
        try:
            with open(self._listed) as file:
                return next((words for words in map(str.split, file) if words[:1] == [str(number)]), [])
        except OSError:
            return []

    def _received(self) -> bytes | None:
        """What the kernel sent next, None if nothing, once the socket no longer waits. Raises OSError."""
        if self._waiting:
            return self._waiting.pop(0)
        while True:
            try:
                size, (port, _) = self._sock.recvfrom_into(self._buffer)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.lost += 1
                continue
            if port == 0:
                return bytes(self._buffer[:size])

    def _follow(self, expected: int, number: int) -> int:
        """Count the packets that are missing before this one; the number that should come next."""
        missing = (number - expected) & 0xFFFFFFFF
        if missing < 1 << 31:
            self.lost += missing
        return (number + 1) & 0xFFFFFFFF


def make_room(sock: socket.socket, room_bytes: int) -> None:
    """Room for so many bytes that have come and were not read. What does not fit the kernel drops and counts."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
    # Without this the kernel, once the buffer was full, drops all until it has been read empty. What is lost
    # shows in the numbers of the packets.
    with suppress(OSError):
        sock.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)


def open_socket(protocol: int) -> socket.socket:
    """A netlink socket that waits no longer than TIMEOUT_S. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.settimeout(TIMEOUT_S)
        # An answer to a big message need not repeat it.
        sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        sock.bind((0, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> bytes:
    """What the kernel sent next; what other processes sent is passed over. Raises OSError."""
    while True:
        try:
            data, (port, _) = sock.recvfrom(_READ_BYTES)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"the kernel did not answer within {TIMEOUT_S:.0f} s") from None
        if port == 0:
            return bytes(data)


def ask(protocol: int, question: bytes) -> Iterator[tuple[int, memoryview]]:
    """Type and body of every message of a dump.

    Raises OSError; InterruptedError, at the end, where what was listed changed meanwhile (see `steadily`).
    """
    changed = 0
    with open_socket(protocol) as sock:
        sock.send(question)
        while True:
            for kind, flags, _, body in parts(receive(sock)):
                changed |= flags & NLM_F_DUMP_INTR
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    _check(body)
                if kind == NLMSG_DONE:
                    if changed:
                        raise InterruptedError(errno.EINTR, "it changed again and again while it was listed")
                    return
                if kind != NLMSG_ERROR:
                    yield kind, body


def ask_one(protocol: int, question: bytes) -> tuple[int, memoryview]:
    """Type and body of the one message that answers a question which is no dump. Raises OSError."""
    with open_socket(protocol) as sock:
        sock.send(question)
        while True:
            for kind, _, _, body in parts(receive(sock)):
                if kind == NLMSG_ERROR:
                    _check(body)
                else:
                    return kind, body


def steadily(read: Callable[[], T]) -> T:
    """What a reader gives that was not interrupted by a change. Raises OSError, after a number of attempts too."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return read()
        except InterruptedError:
            continue
    return read()


def _check(body: memoryview) -> None:
    number = error_number(body)
    if number > 0:
        raise OSError(number, os.strerror(number))


def local_addresses() -> AddressSet:
    """This machine's addresses, broadcast addresses and loopback's networks with them. Raises OSError."""
    found = [(0x7F000000, 0x7FFFFFFF)]
    for body in _routing(RTM_NEWADDR, address_request()):
        found += [(as_int(address), as_int(address)) for address in addresses(body)]
    return AddressSet(found)


def interface_addresses() -> list[tuple[str, bytes, int]]:
    """Interface, packed address and prefix length of each address of this machine. Raises OSError."""
    found = [interface_address(body) for body in _routing(RTM_NEWADDR, address_request())]
    names: dict[int, str | None] = {}
    listed = []
    for each in found:
        if each is None:
            continue
        if each.interface_index not in names:
            names[each.interface_index] = _interface(each.interface_index)
        name = names[each.interface_index]
        if name is not None:
            listed.append((name, each.address, each.prefix_length))
    return listed


def gateways() -> set[bytes]:
    """The packed next hops of all default routes, of all tables and both families. Raises OSError."""
    return {hop for body in _routing(RTM_NEWROUTE, routes_request()) for hop in default_gateways(body)}


def rule_marks() -> set[tuple[int, int]]:
    """The marks by which routing rules go, each with the bits that count. Raises OSError."""
    return {found for body in _routing(RTM_NEWRULE, rules_request()) if (found := rule_mark(body)) is not None}


def route_interface(destination: bytes) -> str | None:
    """The interface by which a packet to this packed address leaves; None where there is no way. Raises OSError."""
    try:
        _, body = ask_one(NETLINK_ROUTE, route_request(destination))
    except OSError as error:
        if error.errno in _NO_WAY:
            return None
        raise
    index = route_index(body)
    return None if index is None else _interface(index)


def _routing(kind: int, question: bytes) -> list[memoryview]:
    return steadily(lambda: [body for each, body in ask(NETLINK_ROUTE, question) if each == kind])


def _interface(index: int) -> str | None:
    try:
        return os.fsencode(socket.if_indextoname(index)).decode(errors="backslashreplace")
    except OSError:
        return None


def open_sockets() -> list[bytes]:
    """The flow keys of the connections that are open now, each by the packet that must have begun it.

    A connection to a port that something listens on was begun by the other side. Raises OSError.
    """
    keys = []
    for protocol, states in ((TCP, (TCP_ESTABLISHED, TCP_LISTEN)), (UDP, (TCP_ESTABLISHED, _UDP_UNCONNECTED))):
        for each, accepted in _connected(protocol, states):
            forth = make_key(protocol, each.source, each.destination, each.source_port + each.destination_port)
            back = make_key(protocol, each.destination, each.source, each.destination_port + each.source_port)
            keys.append(back if accepted else forth)
    return keys


def tcp_sockets() -> list[TcpSocket]:
    """The established TCP sockets. Raises OSError."""
    return [
        TcpSocket(
            source=each.source,
            source_port=_PORT.unpack(each.source_port)[0],
            destination=each.destination,
            destination_port=_PORT.unpack(each.destination_port)[0],
            uid=each.uid,
            inode=each.inode,
            accepted=accepted,
        )
        for each, accepted in _connected(TCP, (TCP_ESTABLISHED, TCP_LISTEN))
    ]


def _connected(protocol: int, states: tuple[int, ...]) -> Iterator[tuple[DiagSocket, bool]]:
    """The sockets that have another end, and whether something listens on their own port."""
    found = list(_sockets(protocol, states))
    listening = {each.source_port for each in found if each.state != TCP_ESTABLISHED}
    for each in found:
        if each.state == TCP_ESTABLISHED:
            yield each, each.source_port in listening


def _sockets(protocol: int, states: tuple[int, ...]) -> Iterator[DiagSocket]:
    for family in (AF_INET, AF_INET6):
        for _, body in ask(NETLINK_SOCK_DIAG, socket_request(family, protocol, states)):
            yield diag_socket(body)
