"""Which backend: the one that was named, the one in force, the first that works here."""

from __future__ import annotations

from pfw.daemon.backend import Backend
from pfw.daemon.iptables import Iptables
from pfw.daemon.nftables import Nftables
from pfw.daemon.state import Applied, State
from pfw.drivers.iptables import KINDS
from pfw.drivers.programs import RefusedError

BACKENDS = ("nftables", *KINDS)


def choose(name: str) -> Backend:
    """The backend of this name; for `auto` the first that works here. Raises RefusedError."""
    if name != "auto":
        backend = named(name)
        # One in whose kernel a generation of ours decides need not be tried.
        reason = None if backend.generation() else backend.unusable()
        if reason is not None:
            raise RefusedError(f"{name} cannot be used here: {reason}")
        return backend
    reasons = []
    for each in ("nftables", "iptables"):
        backend = named(each)
        reason = backend.unusable()
        if reason is None:
            return backend
        reasons.append(f"{each}: {reason}")
    raise RefusedError(f"nothing here can filter: {'; '.join(reasons)}")


def named(name: str) -> Backend:
    """The backend of this name, whether it works here or not."""
    return Nftables() if name == "nftables" else Iptables(name)


def in_force(state: State) -> tuple[Backend, Applied] | None:
    """What shall be in force: its backend and what was applied. Where the kernel has turned to a generation that we
    did not live to write down, it is that one; None where that is one of bans alone, which nobody remembers."""
    applied = state.applied(state.current())
    backend: Backend = Nftables() if applied is None else named(applied.backend)
    live = backend.generation()
    if live and (applied is None or live != applied.generation):
        applied = state.applied(live)
    return None if applied is None else (named(applied.backend), applied)


def any_active() -> Backend | None:
    """The first backend in whose kernel something of ours decides; what a crash left that hangs on nothing does not."""
    for name in BACKENDS:
        backend = named(name)
        if name != "iptables" and backend.generation():
            return backend
    return None
