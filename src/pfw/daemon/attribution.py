"""Whose a connection is: the socket that sends or would receive it, and the program that holds that.

Where labels are, the kernel noted who used each socket last; elsewhere /proc tells who holds it now. What is not
certain says so (`Certainty.GUESS`).
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct
from msgspec.structs import replace

from pfw.drivers import processes
from pfw.drivers.holders import SocketOwners
from pfw.drivers.labels import Labels, Owner
from pfw.drivers.sockets import SocketFinder
from pfw.model.flow import Direction, Flow
from pfw.model.program import Certainty, File, Program
from pfw.wire.sockdiag import DiagSocket

PROGRAMS_MAX = 1024
"""Processes whose arguments and parents are remembered: some 2 kB each."""


class Found(Struct, frozen=True, kw_only=True):
    """Whose a connection is. `file` is the executable as the kernel noted it, where labels are. `uid` and `gid` are
    those of whoever used the socket last."""

    program: Program | None = None
    certainty: Certainty = Certainty.GUESS
    file: File | None = None
    uid: int = 0
    gid: int = 0

    @property
    def is_sure(self) -> bool:
        return self.certainty is not Certainty.GUESS


class Attribution:
    """Finds owners. Raises OSError where the kernel does not answer."""

    def __init__(self, pinned: Labels | None) -> None:
        self._labels = pinned
        self._finder = SocketFinder()
        self._holders = SocketOwners()
        self._programs: OrderedDict[tuple[int, int, File | None], Program] = OrderedDict()

    def close(self) -> None:
        self._finder.close()

    def of(self, flow: Flow, interface_index: int, uid: int | None) -> Found:
        """Whose a connection is by its first packet. `uid` is whose socket sent it, where the kernel told."""
        found = [self.of_socket(each) for each in self._sockets(flow, interface_index, uid)]
        if not found:
            return Found(uid=uid or 0)
        if len(found) == 1:
            return found[0]
        first = found[0]
        same = all(each.is_sure and _identity(each) == _identity(first) for each in found)
        return Found(
            program=first.program,
            certainty=Certainty.PROC if same else Certainty.GUESS,
            file=first.file,
            uid=first.uid,
            gid=first.gid,
        )

    def knows(self, sock: DiagSocket) -> bool:
        """Whether the kernel noted who used a socket."""
        return self._labels is not None and self._labels.owner(sock.cookie) is not None

    def of_socket(self, sock: DiagSocket) -> Found:
        """Whose a socket is."""
        noted = self._labels.owner(sock.cookie) if self._labels is not None else None
        if noted is not None:
            return Found(
                program=self._noted(noted),
                certainty=Certainty.LABEL,
                file=noted.file,
                uid=noted.uid,
                gid=noted.gid,
            )
        program, certainty = self._holders.owner(sock)
        gid = program.gid if program is not None else 0
        return Found(program=program, certainty=certainty, uid=sock.uid, gid=gid)

    def _sockets(self, flow: Flow, interface_index: int, uid: int | None) -> tuple[DiagSocket, ...]:
        if flow.port is None or flow.source_port is None:
            return ()
        if flow.direction is Direction.IN:
            receiver = self._finder.find(
                flow.protocol, flow.destination, flow.port, flow.source, flow.source_port, interface_index
            )
            return () if receiver is None else (receiver,)
        senders = self._finder.find_senders(
            flow.protocol, flow.source, flow.source_port, flow.destination, flow.port, interface_index
        )
        return tuple(each for each in senders if uid is None or each.uid == uid)

    def _noted(self, owner: Owner) -> Program:
        """The process that the kernel noted; where it has ended, what was noted of it."""
        key = (owner.pid, owner.started, owner.file)
        known = self._programs.get(key)
        if known is not None:
            self._programs.move_to_end(key)
            return known
        program = processes.program(owner.pid)
        if program is None or abs(program.started - owner.started) > 1:
            return Program(
                pid=owner.pid, started=owner.started, shown=owner.name, uid=owner.uid, gid=owner.gid, file=owner.file
            )  # fmt: skip
        program = replace(program, file=owner.file)
        self._programs[key] = program
        if len(self._programs) > PROGRAMS_MAX:
            self._programs.popitem(last=False)
        return program


def _identity(found: Found) -> object:
    if found.file is not None:
        return found.file
    return found.program.path or found.program.shown if found.program is not None else None
