"""Putting a policy in force, and taking it out again.

The order of the steps is the promise: what may fail is done before anything changes; what changes the verdict on
packets is one transaction; what can be wrong behind that is taken back; and whoever dies in between leaves the old
policy or the new one (`guard.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from pfw import __version__
from pfw.daemon import banning, boot, confirming, connections, listing, machine, panic, programs
from pfw.daemon.backend import Backend, Before, Change
from pfw.daemon.backends import BACKENDS, any_active, choose, in_force, named
from pfw.daemon.describing import describing
from pfw.daemon.guard import Guard, Order, take_back
from pfw.daemon.lockout import check_lockout
from pfw.daemon.nftables import Nftables
from pfw.daemon.state import CURRENT, GUARD_REPORT, PENDING, Applied, Named, Pending, State
from pfw.drivers import clock
from pfw.drivers.programs import RefusedError, run
from pfw.drivers.store import write
from pfw.enforce.conditions import Place, Plan
from pfw.enforce.plan import make_plan, only_bans
from pfw.model.address import AddressSet
from pfw.model.policy import Policy
from pfw.policy.blocking import with_lists
from pfw.policy.locate import top_values

_STALE_S = 180 * 86400
"""Schedules are laid out for years; one that was laid out so long ago is laid out anew, though nothing changed."""


class UnfinishedError(RefusedError):
    """The policy is in force, and something that should follow was refused."""


class PendingError(Exception):
    """Another policy waits for its confirmation."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be put in force. `confirm_s` takes it back unless confirmed; `force` cuts who asks; with `tell_all`
    the kernel tells also of what it allows, for somebody who watches. Once asked for, that stays until `pfw down`."""

    policy: Policy
    path: str
    content: bytes
    backend: str = "auto"
    confirm_s: float | None = None
    force: bool = False
    dry_run: bool = False
    tell_all: bool = False
    why: str = "up"


class Outcome(Struct, frozen=True, kw_only=True):
    """How it went. `before` is the text of the policy that was in force; `changed` is False where all was as wanted
    already."""

    changed: bool
    backend: str
    generation: int
    before: bytes | None
    rules: int
    cut: int = 0
    unknown: int = 0
    known: int = 0
    notes: tuple[str, ...] = ()
    until: float | None = None


class _Up:
    """One policy on its way into force."""

    def __init__(self, state: State, wanted: Wanted, tell: Callable[[str], None]) -> None:
        self._state = state
        self._wanted = wanted
        self._tell = tell
        self._before = in_force(state)
        self._backend = choose(wanted.backend if wanted.backend != "auto" or self._before is None
                               else self._before[0].name)  # fmt: skip
        self._lists = listing.of_policy(state, wanted.policy, tell)
        self._book = programs.book(state)
        self._policy = programs.resolved(wanted.policy) if self._book is not None else wanted.policy
        around = machine.surroundings(self._book.labelling() if self._book is not None else None)
        self._plan = make_plan(self._policy, around, self._lists)
        self._digest = _digest(wanted, self._backend.name, self._lists, self._plan)
        self._sha256 = hashlib.sha256(wanted.content).hexdigest()
        self._tell_all = wanted.tell_all or (self._before is not None and self._before[1].tell_all)
        self._created: list[str] = self._before[1].created if self._before is not None else []

    def run(self) -> Outcome:
        state, wanted = self._state, self._wanted
        confirming.drop_stale(state)
        if state.pending() is not None:
            raise PendingError("a policy waits for its confirmation: pfw confirm keeps it, pfw down takes all out")
        applied = self._before[1] if self._before is not None else None
        live = self._backend.live()
        changed_place = self._before is not None and self._before[0].kind != self._backend.kind
        same = (
            applied is not None
            and live is not None
            and not changed_place
            and (live.generation, live.fingerprint) == (applied.generation, applied.fingerprint)
            and applied.digest == self._digest
            and applied.tell_all == self._tell_all
            and clock.now() - applied.time < _STALE_S
        )
        text = state.rules_of(applied.generation) if applied is not None else None
        if same and applied is not None:
            if not wanted.dry_run:
                self._complete(applied)
            return self._outcome(applied.generation, text, changed=False)
        if not wanted.force:
            check_lockout(with_lists(self._policy, self._lists), describing(self._policy))
        if changed_place and wanted.confirm_s is not None:
            raise RefusedError("another backend cannot be taken back by itself; leave --confirm out, or --backend")
        generation = state.next_generation(live.generation if live is not None else None)
        change = self._backend.change(self._plan, generation, tell_all=self._tell_all)
        if wanted.dry_run:
            return self._outcome(generation, text, changed=True)
        old = self._in_kernel(applied, live.generation if live is not None else None)
        return self._apply(change, generation, old, text)

    def _complete(self, applied: Applied) -> None:
        """What is in force already, but was put there by another file of the same content, lost its boot files, or
        whoever put it there did not live to write them, or to end what another backend does."""
        beside = self._backend.kind != Nftables.name and Nftables().generation() is not None
        if beside or not applied.lasting or not boot.has_files(self._state):
            change = self._backend.change(self._plan, applied.generation, tell_all=applied.tell_all)
            self._make_lasting(change, applied.generation, applied.fingerprint)
        elif (applied.path, applied.sha256) != (self._wanted.path, self._sha256):
            self._keep(applied.generation, applied.fingerprint, lasting=True)
            self._remember()

    def _in_kernel(self, applied: Applied | None, live: int | None) -> Before | None:
        """What the kernel would be turned back to."""
        if live is None:
            return None
        known = applied if applied is not None and applied.generation == live else self._state.applied(live)
        # Of a generation that nobody remembers, what nothing decides is dropped.
        open_places = frozenset(Place(each) for each in known.open) if known is not None else frozenset[Place]()
        return Before(live, open_places)

    def _apply(self, change: Change, generation: int, old: Before | None, text: bytes | None) -> Outcome:
        known_before = self._before[1].created if self._before is not None and old is not None else None
        self._created = known_before if known_before is not None else change.created()
        self._keep(generation, "")
        if self._book is not None and self._plan.programs is not None:
            self._book.keep()
        change.load()
        everything = banning.active(self._state, clock.now(), self._wanted.policy.respond.never)
        # A table that was not there has no bans yet.
        self._backend.ban(everything if old is None else [], [], everything)
        guard = self._guard(change, old)
        # Bans alone (a generation that nobody remembers) look at no connection, so none is known yet.
        begins = old is None or self._state.applied(old.generation) is None
        known = connections.make_known() if begins else 0
        try:
            programs.prepare(self._plan.programs)
            change.switch()
            # First made known, then cut: else what was cut would be known again.
            known += connections.make_known() if begins else 0
            cut = connections.cut_forbidden(with_lists(self._policy, self._lists), describing(self._policy))
            fingerprint = change.verify()
            self._keep(generation, fingerprint)
            self._state.set_current(generation)
        except (RefusedError, OSError):
            take_back(change.undo(old))
            if guard is not None:
                guard.dropped()
            raise
        until = self._settle(change, guard, generation, fingerprint, old)
        return self._outcome(generation, text, changed=True, cut=cut, known=known, until=until)

    def _settle(
        self, change: Change, guard: Guard | None, generation: int, fingerprint: str, old: Before | None
    ) -> float | None:
        """All that follows once it is in force: it waits to be confirmed, or is here to stay."""
        wanted = self._wanted
        until = None
        if wanted.confirm_s is not None:
            until = clock.now() + wanted.confirm_s
            before = old.generation if old is not None else None
            boot.prepare_files(self._state, change)
            self._state.set_pending(Pending(generation, before, until))
        if guard is not None:
            guard.applied()
        if until is None:
            try:
                self._make_lasting(change, generation, fingerprint)
            except (RefusedError, OSError) as error:
                said = "it is in force, but not everything behind that could be done; pfw up tries again"
                raise UnfinishedError(f"{said}: {error}") from None
        return until

    def _make_lasting(self, change: Change, generation: int, fingerprint: str) -> None:
        self._remove_others()
        banning.spare(self._state, self._backend)
        boot.keep_files(self._state, self._backend, change)
        self._remember()
        change.sweep()
        self._keep(generation, fingerprint, lasting=True)

    def _remember(self) -> None:
        text, path, why = self._wanted.content, self._wanted.path, self._wanted.why
        self._state.remember(time=clock.now(), path=path, text=text, sha256=self._sha256, why=why)

    def _remove_others(self) -> None:
        """No other backend filters any more: not the one before, nor what somebody left who died on the way."""
        before = self._before
        for other in map(named, BACKENDS):
            was = before is not None and before[0].kind == other.kind
            left = isinstance(other, Nftables) or (before is not None and not before[1].lasting)
            if other.kind != self._backend.kind and (was or left) and other.unusable() is None:
                for job in other.removal(before[1].created if before is not None and was else ()):
                    run(job)

    def _guard(self, change: Change, old: Before | None) -> Guard | None:
        wanted, files = self._wanted, self._state.files
        if wanted.confirm_s is None and isinstance(self._backend, Nftables):
            return None  # its switch is one transaction: there is no half way
        current = self._state.current()
        content = None if current is None or old is None else b"%d\n" % current
        return Guard(
            Order(
                pending=str(files.path / PENDING),
                timeout_s=wanted.confirm_s,
                undo=change.undo(old),
                files={str(files.path / CURRENT): content},
                report=str(files.path / GUARD_REPORT),
                lock=files.lock,
                lock_file=str(files.path / "lock"),
            )
        )

    def _keep(self, generation: int, fingerprint: str, *, lasting: bool = False) -> None:
        wanted = self._wanted
        self._state.keep(
            Applied(
                generation=generation,
                backend=self._backend.name,
                path=wanted.path,
                sha256=self._sha256,
                digest=self._digest,
                time=clock.now(),
                verdicts=[
                    Named(each.name, each.action, each.counter, each.index, each.log) for each in self._plan.verdicts
                ],
                fingerprint=fingerprint,
                open=sorted(self._plan.open),
                created=self._created,
                tell_all=self._tell_all,
                notes=list(self._plan.notes),
                lasting=lasting,
            ),
            wanted.content,
        )

    def _outcome(
        self, generation: int, text: bytes | None, *, changed: bool, cut: connections.Cut | None = None,
        known: int = 0, until: float | None = None
    ) -> Outcome:  # fmt: skip
        cut = cut or connections.Cut()
        return Outcome(
            changed=changed,
            backend=self._backend.name,
            generation=generation,
            before=text,
            rules=len(self._wanted.policy.rules),
            cut=cut.cut,
            unknown=cut.unknown,
            known=known,
            notes=self._plan.notes,
            until=until,
        )


def up(state: State, wanted: Wanted, tell: Callable[[str], None]) -> Outcome:
    """Put a policy in force.

    Raises PlanError for what no kernel can do, LockoutError, PendingError, RefusedError, and OSError where the
    state cannot be written; then what was in force is in force.
    """
    with state.files.locked():
        return _Up(state, wanted, tell).run()


@contextmanager
def written(path: Path, before: bytes, content: bytes) -> Iterator[None]:
    """Within, a policy file has this content; afterwards too, unless it could not be put in force. Raises OSError."""
    real = Path(os.path.realpath(path))
    status = real.stat()
    write(real, content, status.st_mode & 0o7777, status)
    try:
        yield
    except UnfinishedError:
        raise  # what is in the file now is in force
    except BaseException:
        write(real, before, status.st_mode & 0o7777, status)
        raise


def _digest(wanted: Wanted, backend: str, lists: Mapping[str, AddressSet], plan: Plan) -> str:
    """The same for what would make the same ruleset: file, backend, lists, and the numbers that names stand for.
    What tests there are makes no difference."""
    numbers = sorted(
        {repr(condition) for chain in plan.chains.values() for step in chain.rules for condition in step.conditions
         if type(condition).__name__.startswith("Of")}
    )  # fmt: skip
    numbers += [repr(plan.programs)]
    listed = sorted((name, len(each), hash(each)) for name, each in lists.items())
    text = wanted.content.decode(errors="replace")
    said = [(key, text[begin:end]) for key, (begin, end) in top_values(text).items() if key != "tests"]
    parts = (__version__, backend, said, listed, numbers, plan.notes)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def down(state: State) -> list[str]:
    """Take everything of ours out of the kernel; the backends in which there was something."""
    with state.files.locked():
        state.take_pending()
        known = in_force(state)
        applied = known[1] if known is not None else state.applied(state.current())
        removed = []
        for name in BACKENDS:
            backend = named(name)
            if name == "iptables":
                continue
            reason = backend.unusable()
            if reason is not None:
                if backend.generation() is not None:
                    raise RefusedError(f"what is in force cannot be taken out: {reason}")
                continue
            ours = applied is not None and named(applied.backend).kind == backend.kind
            jobs = backend.removal(applied.created if applied is not None and ours else ())
            for job in jobs:
                run(job)
            removed += [name] if jobs else []
        for kind in panic.where():
            panic.stop(kind)
        state.set_current(None)
        programs.take_labels_away()
        boot.remove_files(state)
        boot.drop_prepared(state)
        return removed


def make_room_for_bans(state: State, tell: Callable[[str], None]) -> Backend:
    """A backend in whose kernel bans have a place, also where no policy is in force; all that are written down are
    there then."""
    known = in_force(state)
    backend = known[0] if known is not None else any_active() or choose("auto")
    if not backend.generation():
        change = backend.change(only_bans(), state.next_generation(None))
        change.load()
        change.switch()
        everything = banning.active(state, clock.now())
        if everything:
            backend.ban(everything, [], everything)
        lost = "the policy is gone from the kernel, pfw up puts it back: until then" if known is not None else None
        tell(f"{lost or 'no policy is in force:'} nothing is dropped but what is banned")
    return backend
