"""Self-healing: what is in force stays in force, whoever takes our table, our chains or our rules away.

The kernel tells of every change of our table, and by whom; of iptables it does not, so there we look. What we did
ourselves is no damage: whoever changes the policy has the lock of the state while he does, and the state says what he
did when he lets go of it. Times here are of a clock that nobody sets.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf

from pfw.daemon import banning, boot, confirming, connections, enforcing, listing, programs
from pfw.daemon.backends import named
from pfw.daemon.describing import describing
from pfw.daemon.loop import Loop
from pfw.daemon.nftables import Nftables
from pfw.daemon.state import Applied, State
from pfw.drivers import clock, netfilter, nft
from pfw.drivers.programs import RefusedError, run
from pfw.drivers.table_watch import Change, TableWatch
from pfw.enforce.conditions import CannotError
from pfw.enforce.nft_table import TABLE, base_chains
from pfw.enforce.plan import PlanError
from pfw.model.policy import Policy, PolicyError
from pfw.model.text import printable
from pfw.policy.blocking import with_lists
from pfw.policy.load import load
from pfw.wire.error import WireError

LOOK_S = 2.0
"""How often what tells of no changes is looked at."""
_BUSY_S = 0.1
"""Until the next look, while somebody of ours changes the policy."""
_QUICK, _QUICK_S, _SLOW_S = 10, 1.0, 60.0
"""So often what somebody takes away is rebuilt once a second; from then on, once a minute."""
_QUIET_S = 600.0
"""After so long without damage it counts from the beginning."""
_DORMANT = 1
"""NFT_TABLE_F_DORMANT: the table is there, and filters nothing."""
_CHANGES_MAX = 64
_RULESET = "boot.nft"
"""What a boot loads (`Change.boot`)."""
_GOES_TO = re.compile(rb"goto g([0-9]+)_in\b")


class Patience:
    """When the next repair may be made, if somebody undoes each."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_QUICK)

    def wait_s(self, now: float) -> float:
        """Seconds to wait before a repair; 0 for none."""
        if not self._times or now - self._times[-1] > _QUIET_S:
            self._times.clear()
            return 0.0
        return max(0.0, self._times[-1] + (_SLOW_S if self.is_out else _QUICK_S) - now)

    def repaired(self, now: float) -> None:
        self._times.append(now)

    @property
    def is_out(self) -> bool:
        """Whether it was needed so often that from now on it takes its time."""
        return len(self._times) == _QUICK


class Restoring:
    """Puts back what is in force when it is damaged. `restored` is called behind each time; `tell` gets lines for the
    person."""

    def __init__(self, state: State, tell: Callable[[str], None], restored: Callable[[], None]) -> None:
        self._state = state
        self._tell = tell
        self._restored = restored
        self._patience = Patience()
        self._changes: deque[Change] = deque(maxlen=_CHANGES_MAX)
        self._noticed: float | None = None
        self._due = inf
        self._is_told = False
        self._loop: Loop | None = None
        self._table: TableWatch | None = None

    def watch(self, loop: Loop) -> None:
        """From now on look, and be woken by changes."""
        self._loop = loop
        try:
            self._table = TableWatch(TABLE)
            loop.watch(self._table.fileno(), self._heard)
        except OSError as error:
            self._tell(f"changes of nftables are not told of ({error.strerror}); every {LOOK_S:.0f} s is looked at it")
        loop.every(LOOK_S, self._look_again)
        self.look()

    def close(self) -> None:
        if self._table is not None:
            self._table.close()

    def look(self) -> None:
        """Look whether what shall be in force is, and put it back if not, as soon as that may be."""
        with self._state.files.locked_at_once() as is_ours:
            if not is_ours:
                self._later(_BUSY_S)
                return
            try:
                damage = find_damage(self._state)
            except (OSError, RefusedError, WireError):
                self._later(_BUSY_S)  # it changes while it is read
                return
            if damage is None:
                self._changes.clear()
                self._noticed = None
                return
            now = time.monotonic()
            self._noticed = now if self._noticed is None else self._noticed
            wait_s = self._patience.wait_s(now)
            if wait_s:
                self._say_waiting(damage)
                self._later(wait_s)
                return
            self._repair(damage)

    def _heard(self) -> None:
        assert self._table is not None
        changes = self._table.read()
        if changes:
            self._changes.extend(changes)
            self.look()

    def _look_again(self) -> None:
        """Of what tells of no changes, everything; of nftables whether the table is there, should we not have heard."""
        applied = self._state.applied(self._state.current())
        if applied is None:
            return
        if self._table is None or applied.backend != Nftables.name:
            self.look()
            return
        with suppress(OSError):
            if netfilter.table_flags(TABLE) in (None, _DORMANT):
                self.look()

    def _later(self, delay_s: float) -> None:
        """Look again then, or before."""
        due = time.monotonic() + delay_s
        if self._loop is not None and due < self._due:
            self._due = due
            self._loop.after(delay_s, self._waited)

    def _waited(self) -> None:
        self._due = inf
        self.look()

    def _say_waiting(self, damage: str) -> None:
        if self._patience.is_out and not self._is_told:
            self._is_told = True
            self._tell(
                f"{self._culprit()} {damage}, for the {_QUICK + 1}th time: from now on it is rebuilt once a minute; "
                "pfw doctor says who else filters here"
            )

    def _repair(self, damage: str) -> None:
        begin = self._noticed if self._noticed is not None else time.monotonic()
        who = self._culprit()
        self._patience.repaired(time.monotonic())
        self._is_told = self._is_told and self._patience.is_out
        try:
            is_back = restore(self._state, self._tell)
        except (PlanError, CannotError, PolicyError, enforcing.PendingError, RefusedError, OSError, WireError) as error:
            self._tell(f"{who} {damage}, and it could not be rebuilt: {error}")
            self._later(_QUICK_S)
            return
        took_s = time.monotonic() - begin
        self._noticed = None
        self._changes.clear()
        self._tell(f"{who} {damage}; " + (f"rebuilt in {took_s:.2f} s" if is_back else "nothing is in force any more"))
        self._restored()

    def _culprit(self) -> str:
        """Who did it: the last who took something away, else the last who changed anything."""
        deleting = [each for each in self._changes if each.deleted]
        last = (deleting or list(self._changes))[-1:]
        if not last or not last[0].process:
            return "somebody"
        return f"{printable(last[0].name)} (process {last[0].process})"


def find_damage(state: State) -> str | None:
    """What somebody did to what shall be in force; None where it is as it was put there, or nothing shall be.

    Asked while nobody of ours changes anything. Raises OSError, RefusedError and WireError.
    """
    applied = state.applied(state.current())
    if applied is None:
        return None
    flags = netfilter.table_flags(TABLE) if applied.backend == Nftables.name else 0
    if flags is None:
        return "deleted our table"
    if flags & _DORMANT:
        return "switched our table off"
    live = named(applied.backend).live()
    if live is None:
        return "took our chains out"
    if live.generation == applied.generation and applied.fingerprint in ("", live.fingerprint):
        return None
    if live.generation is not None and live.generation > applied.generation and state.applied(live.generation):
        # Whoever put it in force did not live to write that down; it is in force all the same (`backends.py`).
        return None
    return _what_is_missing() if applied.backend == Nftables.name else "changed our chains"


def _what_is_missing() -> str:
    bases = [name for name, _, _ in base_chains(frozenset(), 0)]
    there = netfilter.read_chains(TABLE) or {}
    missing = [name for name in bases if name not in there]
    if missing:
        return f"deleted our chain {missing[0]}"
    rules = netfilter.read_rules(TABLE, bases)
    empty = [name for name in bases if not rules[name]]
    if len(empty) == len(bases):
        return "emptied our table"
    return f"emptied our chain {empty[0]}" if empty else "changed our rules"


def restore(state: State, tell: Callable[[str], None]) -> bool:
    """Put in force what was, bans with the time that they have left; False where that waited for a confirmation, and
    nothing was in force before. Nobody confirmed it, so it is what was before that comes back.

    Raises PlanError, CannotError, PolicyError, RefusedError and OSError.
    """
    with state.files.locked():
        _give_up_pending(state, tell)
        generation = state.current()
        applied = state.applied(generation)
        content = None if generation is None else state.rules_of(generation)
        if applied is None or content is None:
            return False
        policy = load(content, applied.path)
        if not _from_boot_file(state, applied, policy):
            wanted = enforcing.Wanted(
                policy=policy, path=applied.path, content=content, backend=applied.backend, force=True, why="restored"
            )
            enforcing.up(state, wanted, tell)
        return True


def _give_up_pending(state: State, tell: Callable[[str], None]) -> None:
    """A change that waits to be confirmed is over with what it was made of; its guard sees that and goes."""
    if (pending := state.pending()) is None:
        return
    confirming.drop_stale(state)
    if state.take_pending() is not None:
        boot.drop_prepared(state)
        state.set_current(pending.before)
    tell("the policy that waited to be confirmed went with it; what was in force before comes back")
    applied = state.applied(pending.generation)
    if pending.before is None and applied is not None:
        for job in named(applied.backend).removal(applied.created):
            run(job)


def _from_boot_file(state: State, applied: Applied, policy: Policy) -> bool:
    """Load the text that a boot would, in one transaction with the bans: no policy is compiled for it. Whether it is
    what was in force."""
    text = state.files.read(_RULESET) if applied.backend == Nftables.name else None
    goes_to = None if text is None else _GOES_TO.search(text)
    if text is None or goes_to is None or int(goes_to[1]) != applied.generation:
        return False
    backend = Nftables()
    bans = backend.boot_bans(banning.active(state, clock.now()))
    try:
        nft.load("".join([text.decode(errors="surrogateescape"), *bans.values()]))
    except RefusedError:
        return False
    # What went on meanwhile is known, and what began meanwhile and is forbidden ends.
    connections.make_known()
    stored = listing.load(state.files.path / "lists", policy.blocklists, None, state.trouble)
    known = with_lists(programs.resolved(policy), {name: each.addresses for name, each in stored.items()})
    connections.cut_forbidden(known, describing(known))
    live = backend.live()
    return live is not None and (live.generation, live.fingerprint) == (applied.generation, applied.fingerprint)
