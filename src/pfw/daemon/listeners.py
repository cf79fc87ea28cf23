"""Who waits for connections and datagrams on this machine: one look at all sockets, owners only of new ones.

A listener is known by its socket, which has a number of its own (its cookie), so that what stays costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from pfw.drivers.holders import owners
from pfw.drivers.processes import is_same
from pfw.drivers.sockets import listening_sockets
from pfw.model.packet import UDP
from pfw.model.program import Certainty, Program
from pfw.wire.sockdiag import DiagSocket

LISTENERS_MAX = 4_096
TRIES_MAX = 3
"""So often the owner of a socket is looked for that nobody seems to hold; a walk through /proc takes some ms."""
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"

Owners = Callable[[Iterable[DiagSocket]], Mapping[int, tuple[Program | None, Certainty]]]


class Listener(Struct, frozen=True, kw_only=True):
    """A socket that waits. `address` is all zeros where it waits at all of them (an IPv6 one for IPv4, too, as a rule).

    `uid` is whose socket it is. `program` is a path, or what the kernel calls what has none; None where nobody is known
    to hold it, and `pid` and `started` (clock ticks after boot) are 0 then. `is_ephemeral` tells a datagram socket at a
    port such as the kernel gives to those that do not ask for one: that of a program that asked something, as a rule.
    """

    protocol: int
    address: bytes
    port: int
    program: str | None = None
    pid: int = 0
    started: int = 0
    uid: int = 0
    unit: str | None = None
    interface_index: int = 0
    certainty: Certainty = Certainty.GUESS
    is_ephemeral: bool = False


class _Known(Struct):
    listener: Listener
    holder: Program | None
    tries: int = 1


class Listeners:
    """Those of the network namespace of the thread that looks."""

    def __init__(self, find_owners: Owners = owners) -> None:
        self.refused = 0
        """Sockets that were too many in the last look."""
        self._find_owners = find_owners
        self._known: dict[tuple[int, int], _Known] = {}

    def look(self) -> frozenset[Listener]:
        """Those that wait now. Raises OSError where the kernel does not tell."""
        there: dict[tuple[int, int], tuple[int, DiagSocket]] = {}
        self.refused = 0
        for protocol, sock in listening_sockets():
            if len(there) >= LISTENERS_MAX:
                self.refused += 1
            else:
                there[sock.cookie, sock.inode] = protocol, sock
        kept = {key: known for key, known in self._known.items() if key in there}
        unsure = {key: each for key, each in there.items() if not _is_settled(kept.get(key))}
        if unsure:
            held = self._find_owners([sock for _, sock in unsure.values()])
            first, last = _ephemeral_ports()
            for key, (protocol, sock) in unsure.items():
                holder, certainty = held.get(sock.inode, (None, Certainty.GUESS))
                before = kept.get(key)
                kept[key] = _Known(
                    listener=_listener(protocol, sock, holder, certainty, range(first, last + 1)),
                    holder=holder,
                    tries=before.tries + 1 if before is not None and before.holder is None else 1,
                )
        self._known = kept
        return frozenset(known.listener for known in kept.values())


def _is_settled(known: _Known | None) -> bool:
    """Whether there is no need to look for the owner (again): whoever had it may have handed it on, and ended."""
    if known is None:
        return False
    return known.tries >= TRIES_MAX if known.holder is None else is_same(known.holder)


def _listener(
    protocol: int, sock: DiagSocket, holder: Program | None, certainty: Certainty, ephemeral: range
) -> Listener:
    port = int.from_bytes(sock.source_port)
    return Listener(
        protocol=protocol,
        address=sock.source,
        port=port,
        program=(holder.path or holder.shown or None) if holder is not None else None,
        pid=holder.pid if holder is not None else 0,
        started=holder.started if holder is not None else 0,
        uid=sock.uid,
        unit=holder.unit if holder is not None else None,
        interface_index=sock.interface_index,
        certainty=certainty,
        is_ephemeral=protocol == UDP and port in ephemeral,
    )


def _ephemeral_ports() -> tuple[int, int]:
    """The kernel's range for who does not ask for a port (ip-sysctl.rst); its default where it does not tell."""
    try:
        with open(_EPHEMERAL) as file:
            first, last = file.read(64).split()
            return int(first), int(last)
    except (OSError, ValueError):
        return 32_768, 60_999
