"""Sockets of this machine, as sock_diag tells them (include/uapi/linux/inet_diag.h)."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError
from pfw.wire.netlink import request

SOCK_DIAG_BY_FAMILY = 20
AF_INET, AF_INET6 = 2, 10
TCP_ESTABLISHED, TCP_LISTEN = 1, 10

_REQUEST = Layout("=BBBxI48x")
"""Family, protocol, extensions, states as bits, then the socket's identity, empty in a dump."""
_ANSWER = Layout("=BBBB2s2s16s16sI8s12xII")
"""Family, state, timer, retransmits, source port, destination port (network order), source, destination,
interface index, cookie, (time and queues,) user, inode; attributes may follow."""
_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"


class DiagSocket(Struct, frozen=True, gc=False):
    """A socket: its state, its own end and the other one, addresses packed, ports in network order."""

    state: int
    source: bytes
    source_port: bytes
    destination: bytes
    destination_port: bytes
    interface_index: int
    uid: int
    inode: int
    """0 for a socket that no program holds (any more)."""


def socket_request(family: int, protocol: int, states: tuple[int, ...]) -> bytes:
    """Ask for the sockets of a family and protocol in these states."""
    bits = sum(1 << state for state in states)
    return request(SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, protocol, 0, bits))


def diag_socket(body: memoryview) -> DiagSocket:
    """Read one answer. An IPv4 connection of an IPv6 socket is given as IPv4.

    Raises WireError when the body is too short.
    """
    if len(body) < _ANSWER.size:
        raise WireError(f"socket message of {len(body)} bytes")
    family, state, _, _, source_port, port, source, destination, interface, _, uid, inode = _ANSWER.unpack_from(body)
    if family == AF_INET:
        source, destination = source[:4], destination[:4]
    elif source.startswith(_IPV4_IN_IPV6) and destination.startswith(_IPV4_IN_IPV6):
        source, destination = source[12:], destination[12:]
    return DiagSocket(state, source, source_port, destination, port, interface, uid, inode)
