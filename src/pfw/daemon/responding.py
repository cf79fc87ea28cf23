"""What is done about alerts: bans and limits in the kernel, a program and a webhook that are told.

`Performer` is the observer's. Deciding is `engine/respond.py`'s. A thread of its own does what takes longer than an
observer may wait: it writes bans to the disk once a second, and every few seconds looks anew at who must not be banned
(this machine's addresses, its gateway, who is logged in …) and lifts what hits one of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from pfw.daemon import backends, banning, offending, sparing
from pfw.daemon.alerting import Alerting, alert_facts
from pfw.daemon.backend import Backend
from pfw.daemon.ban_batch import Batch, record_of
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.programs import RefusedError
from pfw.drivers.store import Store
from pfw.enforce.bans import protected
from pfw.enforce.nft_table import Ban as KernelBan
from pfw.engine import respond as decided
from pfw.engine.respond import BANS_A_MINUTE, LIMITS_A_MINUTE, PROTECTED, Responder, of_last_minute
from pfw.model.address import AddressSet, Range, as_int, format_range
from pfw.model.observation import Alert
from pfw.model.policy import Doing, Respond
from pfw.model.text import counted, printable
from pfw.wire.error import WireError

WRITE_S = 1.0
LOOK_S = 5.0
"""How old what is known of protected addresses may be."""
LOOK_SHARE = 0.2
"""Of the time: who makes routes come and go makes it long."""
KEEP_S = 60.0
"""How often it is written down who offended how often, and looked whether anybody is still limited."""
_JUMP_S = 10.0
_EVIDENCE_CHARACTERS_MAX = 500
_SYSTEM = (RefusedError, OSError, WireError)


class Performer:
    """Give it each alert, also those that are folded with earlier ones (`quiet`): a source that goes on when its ban is
    over is banned again, and banning somebody twice does nothing. `tell` gets lines for the daemon's own log, by any
    thread. `chance` gives numbers from 0 to 1."""

    def __init__(
        self, state: State, respond: Respond, tell: Callable[[str], None], chance: Callable[[], float]
    ) -> None:
        self._tell = tell
        # Another descriptor for the lock than the caller's: the thread's is its own.
        self._state = State(Store(state.files.path))
        self._responder = Responder(respond, chance, offending.remembered(self._state))
        self._lock = threading.Lock()
        """Of what both threads use: the responder, who is limited, and the kernel's set of those."""
        self._batch = Batch(self._state)
        self._limited: dict[int, float] = {}
        self._tried_to_limit: deque[float] = deque()
        self._kept: sparing.Kept = []
        self._protected = AddressSet()
        self._forgiven: frozenset[Range] = frozenset()
        self._forgiven_version: object = None
        self._looked_at: float | None = None
        self._look_took_s = 0.0
        self._to_spare = False
        self._kept_at = clock.now()
        self._ahead_s = _ahead_s()
        self._said: set[str] = set()
        self._backend: Backend | None = None
        self._off_at: float | None = None
        self._alerting = Alerting((), "", tell)
        self._respond = Respond()
        self.use(respond)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="responding", daemon=True)
        self._thread.start()

    @property
    def untold(self) -> int:
        """Alerts that neither program nor webhook were told of, because too many waited."""
        return self._alerting.lost

    @property
    def too_many(self) -> int:
        """Bans that were due and not given, because there were more than there may be in a minute."""
        return self._responder.too_many

    def use(self, respond: Respond) -> None:
        """From now on another policy's."""
        before, self._respond = self._respond, respond
        with self._lock:
            self._responder.use(respond)
        if (before.command, before.webhook) != (respond.command, respond.webhook):
            self._alerting.close()
            self._alerting = Alerting(respond.command, respond.webhook, self._tell)
        self._looked_at = None
        if self._acts:
            self._look()

    def perform(self, alert: Alert, *, quiet: bool = False) -> str:
        """What is done about an alert, and what that was, for people; empty where nothing was. With `quiet` nobody is
        told of it."""
        if self._acts and alert.ban and sparing.version(self._state) != self._forgiven_version:
            self._look()  # somebody has just lifted a ban by hand
        with self._lock:
            answers = self._responder.decide(alert, clock.now(), self._protected)
        done: list[str] = []
        told = False
        for each in answers:
            match each:
                case decided.Ban():
                    done.append(self._ban(each))
                case decided.Limit():
                    done.append(self._limit(each))
                case decided.TooMany():
                    self._tell(f"too many bans: {counted(each.untold, 'ban')} more than {BANS_A_MINUTE} a minute")
                case decided.Tell():
                    told = True
                    done.append(self._whose(alert) if each.held_back == PROTECTED else each.held_back)
        response = "; ".join(filter(None, done))
        if told and not quiet:
            self._alerting.alert(alert_facts(alert, response))
        return response

    def close(self) -> None:
        """Write down what is left to write."""
        self._stop.set()
        self._thread.join()
        self._alerting.close()
        self._tend_once(last=True)

    @property
    def _acts(self) -> bool:
        return any(each.do in (Doing.BAN, Doing.LIMIT) for each in self._respond.reactions)

    def _whose(self, alert: Alert) -> str:
        """Who of those that an alert is about is protected, and why."""
        about = alert.ban or ((alert.source,) if alert.source is not None else ())
        reasons = (protected((as_int(each), as_int(each)), self._kept) for each in about)
        return f"left alone: {next(filter(None, reasons), 'protected')}"

    def _ban(self, ban: decided.Ban) -> str:
        name = format_range(*ban.range)
        evidence = printable(ban.evidence)[:_EVIDENCE_CHARACTERS_MAX]
        record = record_of(ban.range, ban.seconds, why=ban.why, by=ban.kind, evidence=evidence, count=ban.count)
        try:
            with self._in_kernel() as backend:
                done = self._batch.add(backend, ban.range, record)
        except _SYSTEM as error:
            with self._lock:
                self._responder.pardon(ban.range)
            self._say(f"the ban of {name} failed: {error}")
            return f"the ban of {name} failed"
        self._said.clear()
        return f"banned {name} for {span(ban.seconds)}" if done else f"{name} is banned already"

    def _limit(self, limit: decided.Limit) -> str:
        host, name, now = limit.range[0], format_range(*limit.range), clock.now()
        try:
            with self._lock, self._in_kernel() as backend:
                if now < self._limited.get(host, 0.0) <= now + decided.LONGEST_S:
                    return ""
                if of_last_minute(self._tried_to_limit, now) >= LIMITS_A_MINUTE:
                    return f"left alone: more than {LIMITS_A_MINUTE} limits a minute"
                self._tried_to_limit.append(now)
                backend.limit([KernelBan(limit.range, max(1, int(limit.seconds)))])
                self._limited[host] = now + limit.seconds
        except _SYSTEM as error:
            self._say(f"the limit of {name} failed: {error}")
            return f"the limit of {name} failed"
        return f"limited {name} for {span(limit.seconds)}"

    @contextmanager
    def _in_kernel(self) -> Iterator[Backend]:
        """The backend in force, looked up anew when something went wrong."""
        if self._backend is None:
            self._backend = self._found()
        try:
            yield self._backend
        except _SYSTEM:
            self._backend = None
            raise

    def _found(self) -> Backend:
        # To look for one that is not there means to start programs.
        if self._off_at is None or not 0 <= clock.now() - self._off_at < LOOK_S:
            self._off_at = None
            known = backends.in_force(self._state)
            found = known[0] if known is not None else backends.any_active()
            if found is not None:
                return found
            self._off_at = clock.now()
        raise RefusedError("the firewall is off")

    def _say(self, line: str) -> None:
        """Tell once, until something goes well again."""
        if line not in self._said and len(self._said) < 100:
            self._said.add(line)
            self._tell(line)

    def _tend(self) -> None:
        while not self._stop.wait(WRITE_S):
            self._tend_once()

    def _tend_once(self, *, last: bool = False) -> None:
        try:
            if self._acts and not last and self._is_due():
                self._look()
            if self._batch.waits or last:
                with self._in_kernel() as backend:
                    self._batch.write(backend, last=last)
            if self._to_spare:
                self._spare()
            if last or clock.now() >= self._kept_at + KEEP_S:
                self._keep()
            if not last:
                self._set_timers()
        except _SYSTEM as error:
            if self._batch.waits:
                self._say(f"bans could not be written down: {error}")
        except Exception as error:  # the thread must not end
            self._say(f"bans could not be looked after: {type(error).__name__}: {error}")
        for line in self._state.trouble:
            self._say(line)
        self._state.trouble.clear()

    def _is_due(self) -> bool:
        pause_s = max(LOOK_S, self._look_took_s / LOOK_SHARE)
        return self._looked_at is None or not 0 <= clock.now() - self._looked_at < pause_s

    def _look(self) -> None:
        """Look who must not be banned."""
        now, began = clock.now(), perf_counter()
        version = sparing.version(self._state)
        kept = sparing.spared(self._state, now, self._respond.never)
        forgiven = frozenset(sparing.forgiven(self._state, now))
        everyone = AddressSet().union(*(addresses for _, addresses in kept))
        with self._lock:
            for pair in forgiven - self._forgiven:
                self._responder.pardon(pair)
            self._to_spare |= everyone != self._protected
            self._kept, self._protected, self._forgiven = kept, everyone, forgiven
            self._forgiven_version, self._looked_at = version, now
        self._look_took_s = perf_counter() - began

    def _spare(self) -> None:
        """Lift the bans that hit somebody who must not be banned by now."""
        self._to_spare = False
        with self._in_kernel() as backend:
            lifted = banning.spare(self._state, backend, self._respond.never)
        for pair, whose in lifted.items():
            self._tell(f"the ban on {format_range(*pair)} is lifted: {whose}")
            with self._lock:
                self._responder.pardon(pair)

    def _set_timers(self) -> None:
        """Give bans the time that they have left, if the clock was set or the machine slept: the kernel's timers do not
        know of that."""
        ahead_s = _ahead_s()
        if abs(ahead_s - self._ahead_s) > _JUMP_S:
            with self._in_kernel() as backend:
                banning.reload(self._state, backend)
            self._ahead_s = ahead_s

    def _keep(self) -> None:
        self._kept_at = clock.now()
        with self._lock:
            offences = self._responder.offences()
        offending.keep(self._state, offences)
        with self._in_kernel() as backend, self._lock:
            now = clock.now()
            self._limited = {host: until for host, until in self._limited.items() if until > now}
            if not self._limited and not backend.limited():
                backend.unlimit()


def _ahead_s() -> float:
    """How far the clock is ahead of the kernel's timers."""
    return clock.now() - clock.awake_s()


def span(seconds: float) -> str:
    """Roughly how long: `45 s`, `11 min`, `3 h`, `7 d`."""
    for size_s, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"
