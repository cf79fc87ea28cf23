"""A policy that waits to be confirmed: what `pfw confirm` keeps, and what became of it where nobody did.

What a boot shall bring back if it is kept was written down when it was put in force (`pending-boot…`), so that to keep
it is to rename files: nothing is compiled anew, and nothing else can have come in between.
"""

from __future__ import annotations

from contextlib import suppress

from pfw.daemon import boot
from pfw.daemon.backend import Backend
from pfw.daemon.backends import named
from pfw.daemon.state import Applied, State
from pfw.drivers import clock
from pfw.drivers.programs import RefusedError

_LATE_S = 15.0
"""How much later than promised a guard may be."""


def drop_stale(state: State) -> None:
    """Forget a change that waits in vain: a boot or somebody else took it out, or whoever should have taken it back did
    not live to do so and its time is over long since."""
    pending = state.pending()
    if pending is None:
        return
    live = _live(state, pending.generation)
    if live == pending.generation and clock.now() < pending.until + _LATE_S:
        return
    state.take_pending()
    boot.drop_prepared(state)
    if live == pending.generation:
        what = "nobody confirmed the policy and its guard is gone: it is in force, but no boot brings it back"
        state.trouble.append(what)
    else:
        state.set_current(pending.before)


def confirm(state: State) -> Applied | None:
    """Keep the policy that waits; None where none does, or it was too late. Raises RefusedError and OSError."""
    with state.files.locked():
        drop_stale(state)
        pending = state.take_pending()
        applied = None if pending is None else state.applied(pending.generation)
        content = None if applied is None else state.rules_of(applied.generation)
        if applied is None or content is None:
            return None
        backend = named(applied.backend)
        boot.keep_prepared(state, backend)
        state.remember(time=clock.now(), path=applied.path, text=content, sha256=applied.sha256, why="confirmed")
        # What was before hangs on nothing any more; where it cannot be swept now, the next `pfw up` does it.
        with suppress(RefusedError, OSError):
            backend.sweep_others(applied.generation)
        return applied


def _live(state: State, generation: int) -> int | None:
    applied = state.applied(generation)
    backend: Backend | None = None if applied is None else named(applied.backend)
    return None if backend is None else backend.generation()
