"""A connection with what is known of its owner, in the words in which a policy asks.

Nothing is said of an owner who is only guessed: rules for programs then do not match, and none of them allows.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from pfw.daemon import machine
from pfw.daemon.attribution import Attribution, Found, OpenSockets
from pfw.daemon.programs import Programs, content_sha256, running
from pfw.drivers import labels, procfs
from pfw.model.flow import Flow
from pfw.model.policy import Policy
from pfw.model.program import Program

HASHES_MAX = 256


class Describer:
    """For one policy. `hashed` are the paths of which some rule wants to know what the file holds; `programs` are the
    files that labels know."""

    def __init__(self, policy: Policy, hashed: frozenset[str], programs: Programs | None) -> None:
        self._policy = policy
        self._hashed = hashed
        self._programs = programs
        names = {unit for rule in policy.rules for unit in rule.units or ()}
        self._units = [(name, path) for name in sorted(names) if (path := procfs.unit_path(name)) is not None]
        self._hashes: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()
        self._named: dict[str, frozenset[int]] | None = None

    def path_of(self, owner: Found) -> str | None:
        """The path of the executable; that by which the kernel was told of the file where that is known."""
        if owner.file is not None and self._programs is not None:
            known = self._programs.known.get(owner.file)
            if known is not None:
                return known.path or None
        return owner.program.path if owner.program is not None else None

    def flow(self, flow: Flow, owner: Found) -> Flow:
        """A connection with what is known of its owner; nothing where that is not certain."""
        if not owner.is_sure:
            return flow
        program = owner.program
        path = self.path_of(owner)
        return replace(
            flow,
            app=path or "",
            app_sha256=self.sha256(owner) if path in self._hashed else None,
            script=(program.script or "") if program is not None else None,
            users=self._users(owner),
            unit=self._unit(program),
        )

    def _users(self, owner: Found) -> frozenset[str]:
        program = owner.program
        found = {str(owner.uid), f"group:{owner.gid}"}
        if program is not None and program.uid == owner.uid:
            found |= {program.user} if program.user else set()
        found |= {name for name, uids in self._named_users().items() if owner.uid in uids}
        return frozenset(found)

    def _named_users(self) -> dict[str, frozenset[int]]:
        """The users and groups that the policy names, as numbers."""
        if self._named is not None:
            return self._named
        found: dict[str, frozenset[int]] = {}
        owners = machine.surroundings().owners
        for rule in self._policy.rules:
            for name in rule.users or ():
                group = owners.group(name.removeprefix("group:")) if name.startswith("group:") else None
                uid = None if name.startswith("group:") else owners.user(name)
                found[name] = frozenset() if uid is None else frozenset({uid})
                if group is not None:
                    found[name] = group.members
        self._named = found
        return found

    def _unit(self, program: Program | None) -> str | None:
        if program is None or program.unit is None:
            return None
        own = program.unit.strip("/")
        for name, path in self._units:
            if own == path or own.startswith(f"{path}/"):
                return name
        return own

    def sha256(self, owner: Found) -> str | None:
        """What the program's file holds; remembered as long as the file is as it was."""
        if owner.file is not None and self._programs is not None and owner.file in self._programs.known:
            return self._programs.known[owner.file].sha256
        if owner.program is None:
            return None
        with suppress(OSError):
            descriptor = os.open(f"/proc/{owner.program.pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                key = (found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size)
                if key not in self._hashes:
                    self._hashes[key] = content_sha256(descriptor)
                    while len(self._hashes) > HASHES_MAX:
                        self._hashes.popitem(last=False)
                return self._hashes[key]
            finally:
                os.close(descriptor)
        return None


def describing(policy: Policy) -> Callable[[Flow], Flow] | None:
    """What says of open connections whose they are, where a policy asks for that."""
    if not any(rule.apps or rule.users or rule.units for rule in policy.rules):
        return None
    daemon = running()
    try:
        pinned = labels.find(Path(daemon.bpffs)) if daemon is not None and daemon.bpffs is not None else None
        sockets = OpenSockets(Attribution(pinned))
    except OSError:
        return None
    apps = [app for rule in policy.rules for app in rule.apps or ()]
    describer = Describer(policy, frozenset(app.path for app in apps if app.sha256 is not None), None)
    return lambda flow: describer.flow(flow, sockets.owner(flow))
