"""Netlink sockets, and the questions asked over them: this machine's addresses, its open sockets.

All questions are dumps: nothing is changed in the kernel. The network namespace is that of the process.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from pfw.model.address import AddressSet, as_int
from pfw.model.flow import make_key
from pfw.model.packet import TCP, UDP
from pfw.wire.netlink import NLMSG_DONE, messages
from pfw.wire.rtnetlink import RTM_NEWADDR, address_request, addresses
from pfw.wire.sockdiag import (
    AF_INET,
    AF_INET6,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    DiagSocket,
    diag_socket,
    socket_request,
)

NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
_READ_BYTES = 1 << 17
_TIMEOUT_S = 2.0
_UDP_UNCONNECTED = 7
"""TCP_CLOSE, which the kernel uses for UDP sockets that have no fixed other end."""


def _ask(family: int, question: bytes) -> Iterator[tuple[int, memoryview]]:
    """Type and body of every message of a dump. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.bind((0, 0))
        sock.send(question)
        while True:
            for kind, body in messages(sock.recv(_READ_BYTES)):
                if kind == NLMSG_DONE:
                    return
                yield kind, body


def local_addresses() -> AddressSet:
    """This machine's addresses, broadcast addresses and loopback's networks with them. Raises OSError."""
    found = [(0x7F000000, 0x7FFFFFFF)]
    for kind, body in _ask(NETLINK_ROUTE, address_request()):
        if kind == RTM_NEWADDR:
            found += [(as_int(address), as_int(address)) for address in addresses(body)]
    return AddressSet(found)


def open_sockets() -> list[bytes]:
    """The flow keys of the connections that are open now, each by the packet that must have begun it.

    A connection to a port that something listens on was begun by the other side. Raises OSError.
    """
    keys = []
    for protocol, states in ((TCP, (TCP_ESTABLISHED, TCP_LISTEN)), (UDP, (TCP_ESTABLISHED, _UDP_UNCONNECTED))):
        found = list(_sockets(protocol, states))
        listening = {each.source_port for each in found if each.state != TCP_ESTABLISHED}
        for each in found:
            if each.state != TCP_ESTABLISHED:
                continue
            forth = make_key(protocol, each.source, each.destination, each.source_port + each.destination_port)
            back = make_key(protocol, each.destination, each.source, each.destination_port + each.source_port)
            keys.append(back if each.source_port in listening else forth)
    return keys


def _sockets(protocol: int, states: tuple[int, ...]) -> Iterator[DiagSocket]:
    for family in (AF_INET, AF_INET6):
        for _, body in _ask(NETLINK_SOCK_DIAG, socket_request(family, protocol, states)):
            yield diag_socket(body)
