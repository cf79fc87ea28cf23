"""Connections as the history wants them: whose they are, what decided them, how the other end is called.

The kernel has decided already; which rule that was is reckoned again here, with what is known of the owner. Owners are
looked up while sockets are there, so a connection is described when it begins. Where more begin than can be looked up,
the owner is left out, and counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from pfw.daemon.attribution import Attribution, Found
from pfw.daemon.describing import Describer
from pfw.daemon.programs import resolved
from pfw.daemon.rule_log import Told
from pfw.daemon.state import State
from pfw.drivers import clock, netlink
from pfw.enforce.plan import ANSWERED_NAME
from pfw.engine.names import Names
from pfw.model.address import AddressSet, format_address
from pfw.model.flow import Direction, Flow
from pfw.model.history import Entry, FirstSeen, New, Subject
from pfw.model.policy import Policy, PolicyError
from pfw.model.program import Program
from pfw.model.verdict import Action, Verdict
from pfw.policy.decide import Decider
from pfw.policy.load import load
from pfw.wire.error import WireError

LOOK_UPS_S = 0.2
"""How much of a second it may take to look up owners: 10 µs for a TCP connection where labels are, 0.1 ms for others,
and without labels it can be a walk through all processes."""
LISTENER_S = 5.0
"""So long whoever listens on a port is taken for its listener still."""
SUBJECTS_MAX = 8192
DESCRIBED_MAX = 32_768
"""Kinds of connections, of some 300 bytes each: 4,000 hosts that come to 4 ports are 16,000."""
NOTED_MAX = 65_536
_ADDRESSES_S = 0.2
"""How old what is known of this machine's addresses may be, where something seems to pass by."""
_NOT_LOOKED_UP = Found()


Talks = Callable[[Program, bytes, int | None, float], None]
"""Is told of a program that sends something: to which address and port, and when."""


class InForce:
    """The policy in force, to say which rule decided. `changed` is called behind each change."""

    def __init__(self, state: State, changed: Callable[[], None]) -> None:
        self._state = state
        self._changed = changed
        self._generation: int | None = -1
        self._decider: Decider | None = None
        self.describer: Describer | None = None
        self.policy: Policy | None = None

    def refresh(self) -> None:
        generation = self._state.current()
        if generation == self._generation:
            return
        self._generation = generation
        self.policy = self._decider = self.describer = None
        content = self._state.rules_of(generation) if generation is not None else None
        if content is not None:
            try:
                self.policy = resolved(load(content))
            except PolicyError:
                self.policy = None  # the daemon tells it
        if self.policy is not None:
            self._decider = Decider(self.policy)
            hashed = frozenset(
                app.path for rule in self.policy.rules for app in rule.apps or () if app.sha256 is not None
            )
            self.describer = Describer(self.policy, hashed, None)
        self._changed()

    def verdict(self, flow: Flow, owner: Found) -> Verdict:
        """What decided a connection that passed. Limits are not used up by being asked."""
        if self._decider is None or self.describer is None:
            return _NO_POLICY
        return self._decider.decide(self.describer.flow(flow, owner), clock.moment(), lambda _: False)


_NO_POLICY = Verdict(Action.ALLOW, reason="no policy is in force")


class _Described(Struct, frozen=True, gc=False):
    """What connections of the same kind have in common; `until` is when that has to be looked at again."""

    subject: Subject
    until: float


class Chronicle:
    """Describes connections. `next_id` gives the number of an entry by its start, `changed` is called behind each
    change of the policy in force. Raises OSError where the kernel does not tell of sockets at all."""

    def __init__(
        self,
        state: State,
        attribution: Attribution,
        names: Names,
        next_id: Callable[[float], int],
        changed: Callable[[], None] = lambda: None,
        talks: Talks = lambda *_: None,
    ) -> None:
        self.not_looked_up = 0
        self._attribution = attribution
        self._names = names
        self._next_id = next_id
        self._local = AddressSet()
        self._looked_at = 0.0
        self._is_local: dict[bytes, bool] = {}
        self._described: OrderedDict[tuple[object, ...], _Described] = OrderedDict()
        # The same for all of them that are equal: what differs is the other end, which is not part of it.
        self._subjects: dict[Subject, Subject] = {}
        # Who listens on a port of an address, and until when that need not be looked up again.
        self._listeners: OrderedDict[tuple[int, bytes, int | None], tuple[Found, float]] = OrderedDict()
        self.first: list[FirstSeen] = []
        """What may be new to the history; whoever writes it takes it out."""
        self._noted: OrderedDict[tuple[New, str], None] = OrderedDict()
        # The program that last sent something to each address.
        self._talked: OrderedDict[bytes, str] = OrderedDict()
        self._second = 0.0
        self._took_s = 0.0
        self._changed = changed
        self._talks = talks
        self.in_force = InForce(state, self._policy_changed)

    def refresh(self) -> None:
        """Look at the policy and at this machine's addresses anew. Call it every few seconds."""
        self.in_force.refresh()
        self._look_at_addresses()

    def _look_at_addresses(self) -> None:
        self._looked_at = monotonic()
        try:
            local = netlink.local_addresses()
        except (OSError, WireError):
            return
        if local != self._local:
            self._local = local
            self._is_local.clear()
            self._described.clear()

    def _policy_changed(self) -> None:
        self._described.clear()
        self._changed()

    def is_local(self, address: bytes) -> bool:
        found = self._is_local.get(address)
        if found is None:
            if len(self._is_local) >= SUBJECTS_MAX:
                self._is_local.clear()
            found = self._is_local[address] = address in self._local
        return found

    def direction(self, source: bytes, answering: bytes) -> Direction:
        """Of a connection from `source` whose answers come from `answering`."""
        if not (self.is_local(source) or self.is_local(answering)) and monotonic() - self._looked_at >= _ADDRESSES_S:
            self._look_at_addresses()  # one of them may be an address that this machine has just got
        if self.is_local(source):
            return Direction.OUT
        return Direction.IN if self.is_local(answering) else Direction.FORWARD

    def began(self, flow: Flow, now: float, sent: Flow | None = None) -> Entry:
        """A connection that passed. `sent` is it as its socket knows it, where its destination was rewritten."""
        entry = self._entry(self._subject(flow, now, sent or flow), flow, now)
        subject = entry.subject
        if subject.program is not None:
            self.note_first(New.PROGRAM, subject.program, None, now)
        if subject.direction is Direction.OUT:
            self.note_first(New.REMOTE, entry.name or format_address(entry.remote), subject.program, now)
        return entry

    def note_first(self, new: New, what: str, by: str | None, now: float) -> None:
        """Something was seen: it is told of once, as far as is remembered here; the history knows whether it is new."""
        name = new, what
        if name in self._noted:
            self._noted.move_to_end(name)
            return
        self._noted[name] = None
        self.first.append(FirstSeen(now, new, what, by))
        if len(self._noted) > NOTED_MAX:
            self._noted.popitem(last=False)

    def stopped(self, told: Told) -> Entry:
        """A connection that a rule stopped."""
        flow = told.flow
        owner = self._owner(flow, told.time) if flow.direction is Direction.OUT else _NOT_LOOKED_UP
        decided = told.verdict.action, told.verdict.rule
        return self._entry(_subject(flow, owner, self._path(owner), *decided), flow, told.time, is_over=True)

    def not_allowed(self, flow: Flow, owner: Found, rule: str | None, time: float) -> Entry:
        """A connection that the daemon stopped, after the kernel had handed it over."""
        return self._entry(_subject(flow, owner, self._path(owner), Action.BLOCK, rule), flow, time, is_over=True)

    def program_of(self, source: bytes | None, target: bytes | None) -> str | None:
        """The program here that lately had to do with a connection from `source` to `target`."""
        if source is None or target is None or not self.is_local(source):
            return None
        return self._talked.get(target)

    def _entry(self, subject: Subject, flow: Flow, now: float, *, is_over: bool = False) -> Entry:
        remote = flow.source if flow.direction is Direction.IN else flow.destination
        return Entry(
            id=self._next_id(now),
            subject=subject,
            remote=remote,
            start=now,
            end=now if is_over else None,
            from_port=flow.source_port,
            name=self._names.of(remote, now),
        )

    def _subject(self, flow: Flow, now: float, sent: Flow) -> Subject:
        """What is known of a connection that passed. What comes in to the same port from the same address is the same
        for some seconds; what goes out may be any program's."""
        if flow.direction is Direction.OUT:
            owner = self._owner(sent, now)
            path = self._path(owner)
            if owner.program is not None and path is not None:
                self._remember(flow.destination, path)
                self._talks(owner.program, flow.destination, flow.port, now)
            key: tuple[object, ...] = (flow.protocol, flow.source, flow.destination, flow.port, flow.icmp_type, path,
                                       owner.uid, owner.certainty, owner.program and owner.program.unit)  # fmt: skip
        else:
            owner, path = None, None
            key = (flow.protocol, flow.source, flow.destination, flow.port, flow.icmp_type)
        known = self._described.get(key)
        if known is not None and 0 <= known.until - now <= LISTENER_S:
            return known.subject
        if owner is None:
            owner = self._listener(flow, now) if flow.direction is Direction.IN else _NOT_LOOKED_UP
            path = self._path(owner)
        verdict = self.in_force.verdict(flow, owner)
        # It passed. Where that is not what the policy says of what is known here, nobody knows what let it.
        rule = verdict.rule if verdict.action is Action.ALLOW else ANSWERED_NAME if verdict.action is Action.ASK else ""
        subject = _subject(flow, owner, path, Action.ALLOW, rule)
        if flow.direction is Direction.IN and owner.program is None:
            return subject  # perhaps it is known next time
        if len(self._subjects) >= SUBJECTS_MAX:
            self._subjects.clear()
        subject = self._subjects.setdefault(subject, subject)
        self._described[key] = _Described(subject, now + LISTENER_S)
        self._described.move_to_end(key)
        if len(self._described) > DESCRIBED_MAX:
            self._described.popitem(last=False)
        return subject

    def _listener(self, flow: Flow, now: float) -> Found:
        """Whose the port is that a connection comes to. Many may come at once, from as many addresses."""
        place = flow.protocol, flow.destination, flow.port
        owner, until = self._listeners.get(place, (_NOT_LOOKED_UP, 0.0))
        if not 0 <= until - now <= LISTENER_S:
            owner = self._owner(flow, now)
            if owner.program is not None:
                self._listeners[place] = owner, now + LISTENER_S
                self._listeners.move_to_end(place)
                if len(self._listeners) > SUBJECTS_MAX:
                    self._listeners.popitem(last=False)
        return owner

    def _remember(self, remote: bytes, path: str) -> None:
        self._talked[remote] = path
        self._talked.move_to_end(remote)
        if len(self._talked) > SUBJECTS_MAX:
            self._talked.popitem(last=False)

    def _path(self, owner: Found) -> str | None:
        if owner.program is None:
            return None
        return owner.program.path or owner.program.shown or None

    def _owner(self, flow: Flow, now: float) -> Found:
        if flow.port is None:
            return _NOT_LOOKED_UP
        second = now // 1
        if second != self._second:
            self._second, self._took_s = second, 0.0
        if self._took_s >= LOOK_UPS_S:
            self.not_looked_up += 1
            return _NOT_LOOKED_UP
        began = monotonic()
        try:
            return self._attribution.quickly(flow)
        except (OSError, WireError):
            return _NOT_LOOKED_UP
        finally:
            self._took_s += monotonic() - began


def _subject(flow: Flow, owner: Found, path: str | None, action: Action, rule: str | None) -> Subject:
    incoming = flow.direction is Direction.IN
    program = owner.program
    known = program is not None
    return Subject(
        direction=flow.direction,
        protocol=flow.protocol,
        local=flow.destination if incoming else flow.source,
        port=flow.port,
        icmp_type=flow.icmp_type,
        interface=flow.interface,
        program=path,
        uid=owner.uid if known else None,
        user=program.user or None if program is not None and program.uid == owner.uid else None,
        unit=program.unit if program is not None else None,
        certainty=owner.certainty if known else None,
        action=action,
        rule=rule,
    )
