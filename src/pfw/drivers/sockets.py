"""Sockets of this machine: which one the kernel would give a packet to, which one sent it, and all of them.

The network namespace is that of the thread that makes a `SocketFinder` or starts a listing. TCP and UDP alone: the
kernel has no such question for ICMP and raw sockets, so of those nothing is found.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from pfw.drivers.netlink import NETLINK_SOCK_DIAG, ask, open_socket, receive
from pfw.model.packet import ICMP, ICMPV6, TCP, UDP
from pfw.wire.netlink import NLMSG_ERROR, error_number, parts
from pfw.wire.sockdiag import (
    AF_INET,
    AF_INET6,
    ALL_STATES,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_RECV,
    DiagSocket,
    Traits,
    diag_socket,
    receiver_request,
    socket_request,
    socket_traits,
)

SENDERS_MAX = 256
_ANY_PROTOCOL = 255
"""IPPROTO_RAW: such a socket sends whatever protocol its headers say."""

_NOT_YET_ACCEPTED = frozenset({TCP_ESTABLISHED, TCP_SYN_RECV, TCP_CLOSE_WAIT})
"""States in which a TCP socket that no program holds waits for the program that listens; in others it was closed."""
_NONE = frozenset({errno.ENOENT, errno.EADDRNOTAVAIL})
_UNKNOWN = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL})
"""What a kernel answers that was built without the family, or without the module that tells of the protocol."""


class SocketFinder:
    """Asks for one socket after the other over a netlink socket that stays open. Not for several threads at once.

    `interface_index` is that by which the packet comes or goes. Where it is 0, no socket is found that is bound to an
    interface, as every connection to a link-local address is.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = open_socket(NETLINK_SOCK_DIAG)
        self._number = 0

    def find(
        self, protocol: int, local: bytes, local_port: int, remote: bytes, remote_port: int, interface_index: int = 0
    ) -> DiagSocket | None:
        """The socket that receives packets from `remote` at `local`: that of the connection, else one that listens.

        A connection that no program has accepted yet is the listener's. None where nothing would receive them, and for
        protocols without such sockets. Raises OSError for a kernel that does not answer.
        """
        if protocol not in (TCP, UDP):
            return None
        found = self._ask(protocol, local, local_port, remote, remote_port, interface_index)
        if found is None or found.inode or protocol != TCP or found.state not in _NOT_YET_ACCEPTED:
            return found
        # No connection has the port 0, so this finds a listener or nothing.
        listener = self._ask(protocol, local, local_port, remote, 0, interface_index)
        return found if listener is None else listener

    def find_senders(
        self, protocol: int, local: bytes, local_port: int, remote: bytes, remote_port: int, interface_index: int = 0
    ) -> tuple[DiagSocket, ...]:
        """The sockets that may have sent a packet from `local` to `remote`, the likeliest first. Raises OSError.

        A TCP connection has one; a socket that listens sends nothing of its own. A UDP socket may give each datagram
        another destination, and another source address, whatever it is connected with and bound to: where several
        share the port, each may have sent it. None of them is named where they are more than SENDERS_MAX.
        """
        found = self.find(protocol, local, local_port, remote, remote_port, interface_index)
        if protocol != UDP:
            return () if found is None or found.state == TCP_LISTEN else (found,)
        senders = {} if found is None else {found.cookie: found}
        port = local_port.to_bytes(2, "big")
        for _, each, _ in _listed(UDP, port=port):
            if each.source_port == port:
                senders.setdefault(each.cookie, each)
                if len(senders) > SENDERS_MAX:
                    return ()
        return tuple(senders.values())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> SocketFinder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(
        self, protocol: int, local: bytes, local_port: int, remote: bytes, remote_port: int, interface_index: int
    ) -> DiagSocket | None:
        number = self._number = (self._number + 1) & 0xFFFFFFFF
        self._socket.send(receiver_request(protocol, local, local_port, remote, remote_port, interface_index, number))
        while True:
            for kind, _, sequence, body in parts(receive(self._socket)):
                if sequence != number:
                    continue  # the late answer to a question that was given up
                if kind != NLMSG_ERROR:
                    return diag_socket(body)
                refusal = error_number(body)
                if refusal in _NONE:
                    return None
                if refusal:
                    raise OSError(refusal, f"the kernel does not tell of sockets: {os.strerror(refusal)}")


def portless_sockets(protocol: int, identifier: int | None, family_bytes: int) -> tuple[DiagSocket, ...]:
    """The sockets that may have sent a packet of a protocol without ports: raw ones, and those for echo requests with
    this identifier. Of them only user and inode are told. `family_bytes` is the size of an address."""
    six = "6" if family_bytes == 16 else ""
    found = [each for number, each in _in_file(f"raw{six}") if number in (protocol, _ANY_PROTOCOL)]
    if identifier is not None and protocol in (ICMP, ICMPV6):
        found += [each for number, each in _in_file(f"icmp{six}") if number == identifier]
    return tuple(found[:SENDERS_MAX])


def _in_file(name: str) -> Iterator[tuple[int, DiagSocket]]:
    """What stands where a port would, and the socket, of each line of a file in /proc/net (net/ipv4/raw.c, ping.c)."""
    with suppress(OSError), open(f"/proc/thread-self/net/{name}", errors="replace") as file:
        next(file, None)
        for line in file:
            words = line.split()
            with suppress(ValueError, IndexError):
                number = int(words[1].rpartition(":")[2], 16)
                yield number, DiagSocket(0, b"", b"", b"", b"", 0, int(words[7]), int(words[9]))


def all_sockets() -> Iterator[tuple[int, DiagSocket, Traits]]:
    """Protocol, socket, mark and control group of every TCP and UDP socket that has a port. Raises OSError.

    They are asked for while they are read: what opens or closes meanwhile may be in it or not. So may a UDP socket that
    stays, where many others open and close at ports of the same hash (net/ipv4/udp_diag.c counts them anew for each
    message).
    """
    for protocol in (TCP, UDP):
        with suppress(InterruptedError):
            yield from _listed(protocol)


def listening_sockets() -> Iterator[tuple[int, DiagSocket]]:
    """Protocol and socket of each TCP socket that listens, and each UDP socket that has a port and is connected with
    nobody. Raises OSError."""
    for protocol, states in ((TCP, (TCP_LISTEN,)), (UDP, (TCP_CLOSE,))):
        with suppress(InterruptedError):
            for _, sock, _ in _listed(protocol, states):
                if any(sock.source_port) and not any(sock.destination_port):
                    yield protocol, sock


def _listed(
    protocol: int, states: tuple[int, ...] = ALL_STATES, port: bytes = b"\0\0"
) -> Iterator[tuple[int, DiagSocket, Traits]]:
    for family in (AF_INET, AF_INET6):
        try:
            for _, body in ask(NETLINK_SOCK_DIAG, socket_request(family, protocol, states, port=port)):
                yield protocol, diag_socket(body), socket_traits(body)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
