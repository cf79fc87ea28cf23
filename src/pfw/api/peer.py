"""Who is at the other end of a Unix socket, as the kernel knows it (unix(7)), and what he may do."""

from __future__ import annotations

import socket
from struct import Struct as Layout
from struct import iter_unpack

from msgspec import Struct

from pfw.api.definition import Right

ROOT = 0
_CREDENTIALS = Layout("=iII")
"""struct ucred: pid, uid, gid."""
_SO_PEERGROUPS = 59
_GROUPS_BYTES_MAX = 1024
"""The most that Python's getsockopt takes: 256 groups. Whoever is in more counts as being in none but his first."""


class Peer(Struct, frozen=True):
    """What a process was when it connected (a server: when it began to listen). It may have gone since, and its pid may
    be another's: what it may do hangs on the user and the groups alone. `pid` is 0 where we cannot see the process."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def peer_of(sock: socket.socket) -> Peer:
    """Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        groups = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES_MAX)
    except OSError:
        # ERANGE: more groups than that. ENOPROTOOPT: Linux before 4.13.
        groups = b""
    return Peer(pid, uid, gid, tuple(group for (group,) in iter_unpack("=I", groups)))


def may(peer: Peer, right: Right, group: int | None) -> bool:
    """Whether a peer has a right; `group` is the number of the group that may read and answer."""
    if right is Right.ANYONE or peer.uid == ROOT:
        return True
    if right is Right.WRITE or group is None:
        return False
    return peer.gid == group or group in peer.groups
