"""Sockets of this machine, as sock_diag tells them (include/uapi/linux/inet_diag.h).

Two kinds of questions: for all sockets of a family and protocol, and for the one that the kernel itself would choose
for a packet with these addresses.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.error import WireError
from pfw.wire.netlink import NLM_F_REQUEST, attributes, request

SOCK_DIAG_BY_FAMILY = 20
AF_INET, AF_INET6 = 2, 10
TCP_ESTABLISHED, TCP_SYN_RECV, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LISTEN = 1, 3, 7, 8, 10
ALL_STATES = tuple(range(1, 13))
"""TCP_ESTABLISHED to TCP_NEW_SYN_RECV (include/net/tcp_states.h)."""

_UDP = 17
_REQUEST = Layout("=BBBxI2s46x")
"""Family, protocol, extensions, states as bits, then the socket's identity, in a dump empty but for its own port."""
_EXACT = Layout("=BBBxI2s2s16s16sI8s")
"""The same with the identity: source port, destination port, source, destination, interface index, cookie."""
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
"""INET_DIAG_NOCOOKIE: the number of the socket is not known yet."""
_ANSWER = Layout("=BBBB2s2s16s16sIQ12xII")
"""Family, state, timer, retransmits, source port, destination port (network order), source, destination,
interface index, cookie, (time and queues,) user, inode; attributes may follow."""
_IPV4_IN_IPV6 = bytes(10) + b"\xff\xff"
_MARK, _CGROUP_ID = 15, 21
"""INET_DIAG_MARK and INET_DIAG_CGROUP_ID. No bit of `idiag_ext` asks for them: a kernel that knows them sends them,
the mark only to those who may set it (CAP_NET_ADMIN)."""
_MARK_LAYOUT, _CGROUP_LAYOUT = Layout("=I"), Layout("=Q")


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
    """0 for a socket that no program holds (any more, or not yet)."""
    cookie: int = 0
    """The socket's number, never used again while the machine runs."""


class Traits(Struct, frozen=True, gc=False):
    """What the kernel tells of a socket besides; None where it does not."""

    mark: int | None = None
    cgroup: int | None = None
    """The number of its control group of cgroup v2, which is the inode of that folder."""


def socket_request(
    family: int, protocol: int, states: tuple[int, ...], sequence: int = 1, *, port: bytes = b"\0\0"
) -> bytes:
    """Ask for the sockets of a family and protocol in these states, at one port where that is not 0."""
    bits = sum(1 << state for state in states)
    return request(SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, protocol, 0, bits, port), sequence=sequence)


def receiver_request(
    protocol: int,
    local: bytes,
    local_port: int,
    remote: bytes,
    remote_port: int,
    interface_index: int = 0,
    sequence: int = 1,
) -> bytes:
    """Ask for the one TCP or UDP socket that gets a packet from `remote` to `local`: that of the connection, else one
    that waits on this port.

    By AF_INET the kernel finds IPv6 sockets too that talk IPv4. Without an interface it finds no socket that is bound
    to one. Raises ValueError for addresses of two families and for ports that are none.
    """
    if len(local) != len(remote) or len(local) not in (4, 16):
        raise ValueError(f"addresses of {len(local)} and {len(remote)} bytes")
    if not (0 <= local_port <= 0xFFFF and 0 <= remote_port <= 0xFFFF):
        raise ValueError(f"ports {local_port} and {remote_port}")
    own, other = (local_port.to_bytes(2, "big"), local), (remote_port.to_bytes(2, "big"), remote)
    if protocol == _UDP:
        # udp_dump_one() takes the source for that of the packet, inet_diag_find_one_icsk() for that of the socket.
        own, other = other, own
    family = AF_INET if len(local) == 4 else AF_INET6
    body = _EXACT.pack(family, protocol, 0, _ANY_STATE, own[0], other[0], own[1], other[1], interface_index, _NO_COOKIE)
    return request(SOCK_DIAG_BY_FAMILY, body, NLM_F_REQUEST, sequence)


def diag_socket(body: memoryview) -> DiagSocket:
    """Read one answer. An IPv4 connection of an IPv6 socket is given as IPv4.

    Raises WireError when the body is too short.
    """
    if len(body) < _ANSWER.size:
        raise WireError(f"socket message of {len(body)} bytes")
    family, state, _, _, source_port, port, source, destination, interface, cookie, uid, inode = _ANSWER.unpack_from(
        body
    )
    if family == AF_INET:
        source, destination = source[:4], destination[:4]
    elif source.startswith(_IPV4_IN_IPV6) and destination.startswith(_IPV4_IN_IPV6):
        source, destination = source[12:], destination[12:]
    return DiagSocket(state, source, source_port, destination, port, interface, uid, inode, cookie)


def socket_traits(body: memoryview) -> Traits:
    """Read what follows a socket in an answer. Raises WireError for what does not fit."""
    mark = cgroup = None
    for kind, value in attributes(body[_ANSWER.size :]):
        if kind == _MARK:
            mark = _number(_MARK_LAYOUT, value)
        elif kind == _CGROUP_ID:
            cgroup = _number(_CGROUP_LAYOUT, value)
    return Traits(mark, cgroup)


def _number(layout: Layout, value: memoryview) -> int:
    if len(value) < layout.size:
        raise WireError(f"socket attribute of {len(value)} bytes where {layout.size} are needed")
    return int(layout.unpack_from(value)[0])
