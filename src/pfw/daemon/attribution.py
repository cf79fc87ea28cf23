"""Whose a connection is: the socket that sends or would receive it, and the program that holds that.

Where labels are, the kernel noted who used each socket last; elsewhere /proc tells who holds it now. What is not
certain says so (`Certainty.GUESS`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from pfw.drivers import handles, processes
from pfw.drivers.holders import SocketOwners, find_holders, owners
from pfw.drivers.labels import Labels, Owner, network_namespace
from pfw.drivers.sockets import SocketFinder, all_sockets, portless_sockets
from pfw.model.flow import Direction, Flow
from pfw.model.packet import TCP
from pfw.model.program import Certainty, File, Program
from pfw.wire.sockdiag import DiagSocket

PROGRAMS_MAX = 1024
"""Processes whose arguments and parents are remembered: some 2 kB each."""
_PLACES = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/usr/lib/apt/methods")
UNCHECKED_S = 1.0
"""So long it is not looked again, for eyes, whether a process still runs with the same arguments."""


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

    @classmethod
    def held(cls, program: Program | None, certainty: Certainty, uid: int) -> Found:
        """Whose a socket of this user is, as those tell who hold it."""
        gid = program.gid if program is not None else 0
        return cls(program=program, certainty=certainty, uid=uid, gid=gid)

    @classmethod
    def of_process(cls, program: Program) -> Found:
        """Whose the sockets of a process are."""
        return cls.held(program, Certainty.PROC, program.uid)


class _Known(Struct):
    """A process, and when (monotonic) it was seen to be that."""

    program: Program
    checked: float


class Attribution:
    """Finds owners. Raises OSError where the kernel does not answer."""

    def __init__(self, pinned: Labels | None) -> None:
        self._labels = pinned
        self._finder = SocketFinder()
        self._holders = SocketOwners()
        self._programs: OrderedDict[tuple[int, int, File | None], _Known] = OrderedDict()
        # The last process that was seen to run a file.
        self._last: OrderedDict[File, Program] = OrderedDict()
        self._namespace: int | None = None
        with suppress(OSError):
            self._namespace = network_namespace()

    def close(self) -> None:
        self._finder.close()

    def of(self, flow: Flow, interface_index: int, uid: int | None, identifier: int | None = None) -> Found:
        """Whose a connection is by its first packet. `uid` is whose socket sent it, where the kernel told; `identifier`
        is that of an echo request."""
        if flow.port is None and flow.direction is Direction.OUT:
            return self._portless(flow, uid, identifier)
        found = [self.of_socket(each) for each in self._sockets(flow, interface_index, uid)]
        return _common(found) or Found(uid=uid or 0)

    def quickly(self, flow: Flow) -> Found:
        """Whose a connection is, for eyes only: as the kernel noted it, else whoever holds its socket is a guess. What
        comes in is whose the port is that it comes to. To be asked once of each connection."""
        connecting = self._connecting(flow)
        if connecting is not None:
            return _noted_found(connecting, self._lately(connecting))
        # No connection has the port 0, so this finds who listens, whatever has become of the connection.
        sock = self._socket(flow if flow.direction is not Direction.IN else replace(flow, source_port=0), 0)
        if sock is None:
            return Found()
        noted = self.noted(sock)
        return noted or Found.held(*self._holders.guess(sock), sock.uid)

    def _portless(self, flow: Flow, uid: int | None, identifier: int | None) -> Found:
        """Whose a packet without ports is: that of all sockets that may have sent it, if they are one program's."""
        sockets = portless_sockets(flow.protocol, identifier, len(flow.source))
        mine = [each for each in sockets if uid is None or each.uid == uid]
        if not mine:
            return Found(uid=uid or 0)
        if self._labels is None:
            return Found.held(*self._holders.owner(*mine), mine[0].uid)
        # Who holds one by now need not be who made it and sent: a program may become another in between.
        held = find_holders(each.inode for each in mine).pids
        return _common([self._maker(each, held.get(each.inode, ())) for each in mine]) or Found(uid=mine[0].uid)

    def _maker(self, sock: DiagSocket, holders: tuple[int, ...]) -> Found | None:
        """Who made a socket without ports, as the kernel noted it. Such sockets are listed without their cookies: one
        of their holders lends it."""
        for pid in holders:
            cookie = handles.cookie_of(pid, sock.inode)
            if cookie is not None:
                return self.noted(replace(sock, cookie=cookie))
        return None

    def of_socket(self, sock: DiagSocket) -> Found:
        """Whose a socket is."""
        return self.noted(sock) or Found.held(*self._holders.owner(sock), sock.uid)

    def noted(self, sock: DiagSocket) -> Found | None:
        """Whose a socket is, as the kernel noted it; None where it did not."""
        noted = self._labels.owner(sock.cookie) if self._labels is not None else None
        return None if noted is None else _noted_found(noted, self._noted(noted))

    def _connecting(self, flow: Flow) -> Owner | None:
        """Who began a TCP connection, as the kernel noted it: also of one that is over, without a look at sockets."""
        if (
            self._labels is None
            or self._namespace is None
            or flow.protocol != TCP
            or flow.direction is not Direction.OUT
        ):
            return None
        return self._labels.take_connecting(
            self._namespace, flow.source, flow.source_port or 0, flow.destination, flow.port or 0
        )

    def _sockets(self, flow: Flow, interface_index: int, uid: int | None) -> tuple[DiagSocket, ...]:
        if flow.port is None or flow.source_port is None:
            return ()
        if flow.direction is Direction.IN:
            receiver = self._socket(flow, interface_index)
            return () if receiver is None else (receiver,)
        senders = self._finder.find_senders(
            flow.protocol, flow.source, flow.source_port, flow.destination, flow.port, interface_index
        )
        return tuple(each for each in senders if uid is None or each.uid == uid)

    def _socket(self, flow: Flow, interface_index: int) -> DiagSocket | None:
        """The socket at this machine's end of a connection with ports."""
        local, local_port, remote, remote_port = flow.source, flow.source_port, flow.destination, flow.port
        if flow.direction is Direction.IN:
            local, local_port, remote, remote_port = remote, remote_port, local, local_port
        return self._finder.find(
            flow.protocol, local, local_port or 0, remote, remote_port or 0, interface_index
        )  # fmt: skip

    def _noted(self, owner: Owner) -> Program:
        """The process that the kernel noted; where it has ended, what was noted of it."""
        key = (owner.pid, owner.started, owner.file)
        known = self._programs.get(key)
        # Who begins another script with the same interpreter is the same process, started when it was.
        if known is not None and processes.command(owner.pid) == known.program.command:
            self._programs.move_to_end(key)
            known.checked = monotonic()
            return known.program
        assert self._labels is not None
        program = running_program(self._labels, owner.pid, owner.file)
        if program is None or abs(program.started - owner.started) > 1:
            if known is not None:
                return replace(known.program, script=None)
            return Program(
                pid=owner.pid, started=owner.started, shown=owner.name, uid=owner.uid, gid=owner.gid, file=owner.file
            )  # fmt: skip
        program = replace(program, file=owner.file)
        self._programs[key] = _Known(program, monotonic())
        if len(self._programs) > PROGRAMS_MAX:
            self._programs.popitem(last=False)
        self._remember(program, owner.file)
        return program

    def _lately(self, owner: Owner) -> Program:
        """The same for eyes only: as it was a moment ago, and where the process has ended, with what is known of the
        last one that ran this file."""
        key = (owner.pid, owner.started, owner.file)
        known = self._programs.get(key)
        if known is not None and monotonic() - known.checked < UNCHECKED_S:
            return known.program
        program = self._noted(owner)
        if key in self._programs:
            return program
        last = self._last.get(owner.file)
        if last is None:
            path = self._place(owner)
            last = replace(program, path=path, shown=path or program.shown)
            self._remember(last, owner.file)
        return replace(
            program, path=last.path, shown=last.shown, user=last.user if last.uid == owner.uid else ""
        )  # fmt: skip

    def _place(self, owner: Owner) -> str | None:
        """Where the file is that a process ran which has ended, if it is called like that and is at a usual place."""
        assert self._labels is not None
        if "/" in owner.name:
            return None
        opened: dict[int, str] = {}
        try:
            for folder in _PLACES:
                with suppress(OSError, ValueError):
                    opened[os.open(f"{folder}/{owner.name}", os.O_PATH | os.O_CLOEXEC)] = f"{folder}/{owner.name}"
            files = self._labels.identify(opened) if opened else {}
        except OSError:
            return None
        finally:
            for each in opened:
                os.close(each)
        return next((path for each, path in opened.items() if files.get(each) == owner.file), None)

    def _remember(self, program: Program, file: File) -> None:
        self._last[file] = program
        self._last.move_to_end(file)
        if len(self._last) > PROGRAMS_MAX:
            self._last.popitem(last=False)


def _noted_found(owner: Owner, program: Program) -> Found:
    return Found(program=program, certainty=Certainty.LABEL, file=owner.file, uid=owner.uid, gid=owner.gid)


def running_program(pinned: Labels, pid: int, file: File) -> Program | None:
    """The program of a process that runs what the kernel calls `file`; None where it is another one by now. Who has
    begun to connect may become a program that is allowed more before anybody looks."""
    with suppress(OSError):
        descriptor = os.open(f"/proc/{pid}/exe", os.O_PATH | os.O_CLOEXEC)
        try:
            if pinned.identify((descriptor,)).get(descriptor) == file:
                found = os.fstat(descriptor)
                return processes.program(pid, (found.st_dev, found.st_ino))
        finally:
            os.close(descriptor)
    return None


class OpenSockets:
    """All sockets at one moment, to find the owners of many connections. Raises OSError."""

    def __init__(self, attribution: Attribution) -> None:
        self._attribution = attribution
        self._by_end: dict[tuple[object, ...], DiagSocket] = {}
        self._held: dict[int, tuple[Program | None, Certainty]] | None = None
        for protocol, sock, _ in all_sockets():
            self._add(protocol, sock)

    def owner(self, flow: Flow) -> Found:
        """Whose a connection is; a guess that names nobody for one that is forwarded, or over."""
        if flow.direction is Direction.FORWARD or flow.port is None:
            return Found()
        local, local_port, remote, remote_port = flow.source, flow.source_port, flow.destination, flow.port
        if flow.direction is Direction.IN:
            local, local_port, remote, remote_port = remote, remote_port, local, local_port
        for key in ((flow.protocol, local, local_port, remote, remote_port), (flow.protocol, local, local_port),
                    (flow.protocol, None, local_port)):  # fmt: skip
            sock = self._by_end.get(key)
            noted = self._attribution.noted(sock) if sock is not None else None
            if noted is not None:
                return noted
            if sock is not None and sock.inode:
                return self._of_holders(sock)
        return Found()

    def _of_holders(self, sock: DiagSocket) -> Found:
        if self._held is None:
            self._held = owners(self._by_end.values())
        return Found.held(*self._held.get(sock.inode, (None, Certainty.GUESS)), sock.uid)

    def _add(self, protocol: int, sock: DiagSocket) -> None:
        """By both ends, by its own end, or by its port, as far as it has them."""
        port, other = int.from_bytes(sock.source_port, "big"), int.from_bytes(sock.destination_port, "big")
        if other:
            self._by_end[protocol, sock.source, port, sock.destination, other] = sock
        elif any(sock.source):
            self._by_end[protocol, sock.source, port] = sock
        else:
            self._by_end.setdefault((protocol, None, port), sock)


def _common(found: Sequence[Found | None]) -> Found | None:
    """Whose several sockets are that are as likely to be meant: surely only if all are one program's. None where there
    is none, or one of them is nobody's that is known."""
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    first = known[0]
    if len(known) == 1:
        return first
    same = all(each.is_sure and _identity(each) == _identity(first) for each in known)
    return replace(first, certainty=Certainty.PROC if same else Certainty.GUESS)


def _identity(found: Found) -> object:
    if found.file is not None:
        return found.file
    return found.program.path or found.program.shown if found.program is not None else None
