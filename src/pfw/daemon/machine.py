"""This machine, as a policy needs it: who its users are, whose addresses must never be banned, and the remote
sessions that must not be cut."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterable
from contextlib import suppress

from msgspec import Struct

from pfw.drivers import clock, leases, netlink, procfs
from pfw.enforce.owners import Group, Owners
from pfw.enforce.plan import Surroundings
from pfw.enforce.programs import Labelling
from pfw.enforce.schedules import Clock
from pfw.model.address import AddressSet, Range, as_int, format_endpoint, parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import TCP
from pfw.wire.error import WireError

_LOOPBACK = AddressSet([(0x7F000000, 0x7FFFFFFF), (1 << 128 | 1, 1 << 128 | 1)])


class Session(Struct, frozen=True):
    """A remote login: its TCP connection, the other end as the one that started it."""

    remote: bytes
    remote_port: int
    local: bytes
    port: int

    def __str__(self) -> str:
        return f"{format_endpoint(self.remote, self.remote_port)} -> {format_endpoint(self.local, self.port)}"

    def flow(self) -> Flow:
        """The connection as a policy is asked about it."""
        return Flow(
            direction=Direction.IN,
            protocol=TCP,
            source=self.remote,
            destination=self.local,
            source_port=self.remote_port,
            port=self.port,
            interface=_interface_to(self.remote),
        )


def surroundings(labelling: Labelling | None = None) -> Surroundings:
    """What this machine adds to a policy."""
    owners = Owners(_uid, _group, procfs.unit_path, procfs.unit_mount())
    return Surroundings(owners, Clock(clock.now(), clock.utc_offset_s), labelling)


def own_sessions() -> list[Session]:
    """The remote sessions through which this very command came: sockets of the processes that led to it, and what
    an ssh server says in their environment."""
    lineage = procfs.ancestors()
    inodes = {inode for pid in lineage for inode in procfs.socket_inodes(pid)}
    found = {each for each, inode in _accepted() if inode in inodes}
    for pid in lineage:
        said = (procfs.variable(pid, "SSH_CONNECTION") or "").split()
        if len(said) == 4:
            with suppress(ValueError):
                remote, local = (parse_address(text.partition("%")[0]) for text in (said[0], said[2]))
                found.add(Session(remote, int(said[1]), local, int(said[3])))
    return [each for each in sorted(found, key=str) if each.remote not in _LOOPBACK]


def login_sessions() -> list[Session]:
    """All remote logins that programs for them have accepted: whoever types in a tmux or screen that one of them
    began is no child of it."""
    logins = procfs.login_inodes()
    found = {each for each, inode in _accepted() if inode in logins}
    return [each for each in sorted(found, key=str) if each.remote not in _LOOPBACK]


def protected() -> list[tuple[str, AddressSet]]:
    """Addresses that must not be banned, by whose they are."""
    logins = procfs.session_inodes()
    remote = {each.remote for each, inode in _accepted() if inode in logins}
    remote |= {each.remote for each in own_sessions()} | procfs.logged_in_from()
    resolvers = set()
    for text in procfs.resolvers():
        with suppress(ValueError):
            resolvers.add(parse_address(text))
    return [
        ("loopback", _LOOPBACK),
        ("this machine's own", _told("own", netlink.local_addresses)),
        ("the gateway's", _told("gateways", lambda: _set(netlink.gateways()))),
        ("the resolver's", _set(resolvers)),
        ("the DHCP server's", _set(leases.dhcp_servers())),
        ("of somebody who is logged in", _set(remote)),
    ]


_last_told: dict[str, AddressSet] = {}


def _told(what: str, ask: Callable[[], AddressSet]) -> AddressSet:
    """What the kernel tells, or told the last time: who makes routes come and go must not make it forget whose they
    are (see `netlink.steadily`)."""
    with suppress(OSError, WireError):
        _last_told[what] = ask()
    return _last_told.get(what, AddressSet())


def _set(addresses: Iterable[bytes]) -> AddressSet:
    ranges: list[Range] = [(as_int(packed), as_int(packed)) for packed in addresses]
    return AddressSet(ranges)


def _accepted() -> list[tuple[Session, int]]:
    """The TCP connections that others started to this machine, each with its socket."""
    with suppress(OSError, WireError):
        return [
            (Session(each.destination, each.destination_port, each.source, each.source_port), each.inode)
            for each in netlink.tcp_sockets()
            if each.accepted
        ]
    return []


def _interface_to(remote: bytes) -> str | None:
    """The interface by which a session comes, as the way back to it tells."""
    with suppress(OSError, WireError):
        return netlink.route_interface(remote)
    return None


def _uid(name: str) -> int | None:
    if name.isdecimal():
        return int(name)
    with suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return None


def _group(name: str) -> Group | None:
    try:
        found = grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name)
    except (KeyError, OverflowError):
        return Group(int(name), frozenset()) if name.isdecimal() else None
    members = {each.pw_uid for each in pwd.getpwall() if each.pw_gid == found.gr_gid or each.pw_name in found.gr_mem}
    return Group(found.gr_gid, frozenset(members))
