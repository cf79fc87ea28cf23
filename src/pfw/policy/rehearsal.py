"""What a policy would have done with the connections of the history, beside what was done.

Groups of connections are decided at once. Where the policy makes a difference within a group, by the time or by a
source port, the group asks for its entries (`group` says so), which are decided one by one. `limit` is taken as never
reached, since nobody counts; `expires` by the clock of now, since a rule that has ended will not hold any more. What
stopped connections before any policy is asked (bans) would do so again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.flow import Flow, Moment
from pfw.model.history import Entry, Group, Subject
from pfw.model.policy import Policy
from pfw.model.program import Certainty
from pfw.model.rule import Rule
from pfw.model.verdict import Action, Verdict
from pfw.policy.apart import Apart
from pfw.policy.base import rules_in_order
from pfw.policy.decide import Decider
from pfw.policy.match import answer, clock_for
from pfw.policy.recalled import Recall
from pfw.policy.rehearsed import Outcome, Rehearsed, Row, Sum, danger

ROWS_MAX = 20_000
"""Rows that are kept apart; what is beyond is counted by its outcome alone."""
DETAILS_MAX = 100_000
"""Groups whose entries are asked for."""
KINDS_MAX = 100_000
"""Rows that differ in more than the remote end; what is beyond is told without program and port."""
SUBJECTS_MAX = 65_536
"""Subjects whose decisions are remembered."""
_UNKNOWNS_MAX = 1024

_ANY_MOMENT = Moment(0.0)
_SIZES = (4, 16)
_NO_ADDRESS = "an address is not known"
_NO_VERDICT = Verdict(Action.UNKNOWN)
_STOPS = frozenset((Action.BLOCK, Action.REJECT))

_WHY: dict[str, str] = {
    "from_port": "the source port is not kept",
    "port": "the port is not known",
    "icmp_type": "the ICMP type is not known",
    "interface": "the interface is not known",
    "app": "which program it was is not known",
    "script": "which script it was is not kept",
    "user": "whose it was is not known",
    "unit": "which unit it was is not known",
}
"""What the history does not tell, by the field of a rule that asks for it."""
_GUESSED = "which program it was is only a guess"
_HASH = "what the program's file held is not kept"
_OWNERS = frozenset(("app", "user", "unit"))


class World(Struct, frozen=True, kw_only=True):
    """What a rehearsal is told of the machine. `named` are the users and groups that the policy names, as numbers;
    `before` are the names of what stops connections before a policy is asked, `answered` those of people's answers."""

    now: Moment
    utc_offset_s: Callable[[float], int]
    named: Mapping[str, frozenset[int]] = {}
    before: frozenset[str] = frozenset()
    answered: frozenset[str] = frozenset()


class _Decision(Struct, frozen=True, gc=False):
    """What the policy does with some connection, by the time: `kind` says what its row begins with."""

    outcome: Outcome
    kind: int
    verdicts: tuple[Verdict, ...] = ()
    limited: str | None = None
    wants_port: bool = False


_Ends = set[tuple[bytes, str | None]]


class _Known(Struct):
    """What was found out of a subject: decisions by what the policy tells apart, and the ends of groups that want their
    entries."""

    subject: Subject
    decisions: dict[tuple[int, int, tuple[int, ...]], _Decision]
    wanting: _Ends | None


class Rehearsal:
    """One policy against one past: first all groups, then the entries where any group asked for them."""

    def __init__(self, policy: Policy, world: World) -> None:
        self.policy, self._expired = _as_of_now(policy, world.now)
        self._world = world
        self._recall = Recall(self.policy, world.named)
        self._decider = Decider(self.policy)
        self._apart = Apart(self.policy, world.utc_offset_s)
        self._always = {rule.name: rule for index, rule in rules_in_order(self.policy) if index is None}
        self._known: dict[Subject, _Known] = {}
        self._at_hand: dict[int, tuple[Subject, _Known]] = {}
        self._unknowns: dict[tuple[str, str], frozenset[str]] = {}
        self._wanting: dict[Subject, _Ends] = {}
        self._details = 0
        self._counts = dict.fromkeys(Outcome, 0)
        self._kinds: dict[tuple[object, ...], int] = {}
        self._sums: list[list[float]] = []
        self._rows: dict[tuple[int, bytes, str | None], list[float]] = {}
        self._limited: dict[str, int] = {}
        self._left_out = self._before = 0

    @property
    def wants_entries(self) -> bool:
        """Whether some group can only be decided by its entries: give all of them to `entry`."""
        return self._details > 0

    def group(self, group: Group) -> None:
        """Decide a group, or remember that its entries are wanted."""
        if group.subject.rule in self._world.before:
            self._before += group.count
            return
        known = self._of(group.subject)
        decision = self._decide(known, group.remote, None, group.first, group.last)
        wants = decision.wants_port or decision.outcome is Outcome.TIME
        if not wants or self._details >= DETAILS_MAX:
            self._note(decision, group, group.first, group.last)
            return
        self._details += 1
        known.wanting = self._wanting.setdefault(group.subject, set())
        known.wanting.add((group.remote, group.name))

    def entry(self, entry: Entry) -> None:
        """Decide an entry of a group that wanted its entries; others were decided with their group."""
        known = self._of(entry.subject)
        if known.wanting is None or (entry.remote, entry.name) not in known.wanting:
            return
        last = entry.start + max(0, entry.period_s - 1)
        self._note(self._decide(known, entry.remote, entry.from_port, entry.start, last), entry, entry.start, last)

    def verdicts(self, group: Group) -> tuple[Verdict, ...]:
        """What the policy does with connections of a group, which may differ by the time; nothing where that changes
        too often, or the addresses are not known."""
        return self._decide(self._of(group.subject), group.remote, None, group.first, group.last).verdicts

    def result(self) -> Rehearsed:
        """What was found so far, the worst first."""
        kinds = list(self._kinds)
        rows_of: list[list[Row]] = [[] for _ in kinds]
        for (kind, remote, name), figures in self._rows.items():
            rows_of[kind].append(_row(kinds[kind], remote, name, *figures))
        sums = [_sum(kinds[kind], rows, self._sums[kind]) for kind, rows in enumerate(rows_of) if self._sums[kind]]
        return Rehearsed(
            connections=sum(self._counts.values()) + self._before,
            counts={**self._counts, Outcome.SAME: self._counts[Outcome.SAME] + self._before},
            rows=tuple(sorted(chain.from_iterable(rows_of), key=danger)),
            sums=tuple(sorted(sums, key=lambda each: danger(each.row))),
            left_out=self._left_out,
            limited=dict(sorted(self._limited.items())),
            expired=self._expired,
            before=self._before,
        )

    def _of(self, subject: Subject) -> _Known:
        """Whoever reads a history gives the same object for the same subject: that is found without a look into it."""
        found = self._at_hand.get(id(subject))
        if found is not None and found[0] is subject:
            return found[1]
        if len(self._at_hand) >= SUBJECTS_MAX:
            self._at_hand.clear()
            self._known.clear()
        known = self._known.get(subject)
        if known is None:
            known = self._known[subject] = _Known(subject, {}, self._wanting.get(subject))
        self._at_hand[id(subject)] = subject, known
        return known

    def _decide(self, known: _Known, remote: bytes, from_port: int | None, first: float, last: float) -> _Decision:
        """Connections of a subject that no rule tells apart are decided once."""
        phases = self._apart.phases(first, last)
        key = self._apart.address(remote), self._apart.port(from_port), phases
        decision = known.decisions.get(key)
        if decision is None:
            decision = known.decisions[key] = self._decision(known.subject, remote, from_port, phases)
        return decision

    def _decision(self, subject: Subject, remote: bytes, from_port: int | None, phases: tuple[int, ...]) -> _Decision:
        if len(remote) not in _SIZES or len(subject.local) not in _SIZES:
            return _Decision(Outcome.UNKNOWN, self._kind(Outcome.UNKNOWN, subject, _NO_VERDICT, _NO_ADDRESS))
        flow = self._recall.flow(subject, remote, from_port)
        verdicts = tuple(self._decider.decide(flow, self._apart.moment(phase)) for phase in phases)
        if not verdicts or any(verdict.action is not verdicts[0].action for verdict in verdicts):
            verdict = verdicts[0] if verdicts else _NO_VERDICT
            return _Decision(Outcome.TIME, self._kind(Outcome.TIME, subject, verdict, _times(verdicts)), verdicts)
        verdict = verdicts[0]
        outcome = self._outcome(subject, verdict)
        if outcome is Outcome.UNKNOWN:
            fields = self._unknown_fields(flow, verdict)
            kind = self._kind(outcome, subject, verdict, _why(fields, subject, flow))
            return _Decision(outcome, kind, verdicts, None, flow.source_port is None and "from_port" in fields)
        rule = self._rule(verdict)
        limited = rule.name if rule is not None and rule.limit is not None else None
        return _Decision(outcome, self._kind(outcome, subject, verdict, ""), verdicts, limited)

    def _outcome(self, subject: Subject, verdict: Verdict) -> Outcome:
        old, new = subject.action, verdict.action
        if new is Action.UNKNOWN:
            return Outcome.UNKNOWN
        if new is old:
            return Outcome.SAME
        if new is Action.ASK:
            by_same = subject.rule is not None and subject.rule == verdict.rule
            return Outcome.SAME if by_same or subject.rule in self._world.answered else Outcome.ASKED
        if new is Action.ALLOW:
            return Outcome.ALLOWED
        return Outcome.OTHERWISE if old in _STOPS else Outcome.BLOCKED

    def _unknown_fields(self, flow: Flow, verdict: Verdict) -> frozenset[str]:
        """Of the rule that may match: what it asks for that the history does not tell."""
        key = verdict.rule or "", verdict.reason
        found = self._unknowns.get(key)
        if found is None:
            if len(self._unknowns) >= _UNKNOWNS_MAX:
                self._unknowns.clear()
            rule = self._rule(verdict)
            always = None if rule is None else replace(rule, schedule=None)
            found = frozenset() if always is None else frozenset(answer(always, flow, _ANY_MOMENT)[1])
            self._unknowns[key] = found
        return found

    def _rule(self, verdict: Verdict) -> Rule | None:
        return self._always.get(verdict.rule or "") if verdict.index is None else self.policy.rules[verdict.index]

    def _kind(self, outcome: Outcome, subject: Subject, verdict: Verdict, why: str) -> int:
        """The number of what rows have in common; a row of its own is what differs in one of these."""
        if outcome is Outcome.SAME:
            return -1
        is_guess = subject.certainty is Certainty.GUESS
        service = subject.protocol, subject.port, subject.icmp_type
        old, new = (subject.action, subject.rule), (verdict.action, verdict.rule)
        key = (outcome, subject.direction, *service, subject.program, is_guess, *old, *new, why)
        if key not in self._kinds and len(self._kinds) >= KINDS_MAX:
            key = (
                outcome,
                subject.direction,
                subject.protocol,
                None,
                None,
                None,
                False,
                *old,
                verdict.action,
                None,
                why,
            )
        number = self._kinds.setdefault(key, len(self._kinds))
        if number == len(self._sums):
            self._sums.append([])
        return number

    def _note(self, decision: _Decision, what: Group | Entry, first: float, last: float) -> None:
        self._counts[decision.outcome] += what.count
        if decision.limited is not None:
            self._limited[decision.limited] = self._limited.get(decision.limited, 0) + what.count
        if decision.outcome is Outcome.SAME:
            return
        key = decision.kind, what.remote, what.name
        figures = self._rows.get(key)
        if figures is None and len(self._rows) < ROWS_MAX:
            figures = self._rows[key] = []
        if figures is None:
            self._left_out += what.count
        else:
            _add(figures, what.count, first, last)
        _add(self._sums[decision.kind], what.count, first, last)


def rehearse(rehearsal: Rehearsal, groups: Iterable[Group], entries: Callable[[], Iterable[Entry]]) -> Rehearsed:
    """All of it. `entries` are asked for only where a group wants them."""
    for group in groups:
        rehearsal.group(group)
    if rehearsal.wants_entries:
        for entry in entries():
            rehearsal.entry(entry)
    return rehearsal.result()


def _as_of_now(policy: Policy, now: Moment) -> tuple[Policy, tuple[str, ...]]:
    """The policy with the rules that hold from now on, and the names of those that have ended."""
    ended = {rule.name for rule in policy.rules if rule.enabled and _has_ended(rule, now)}
    rules = [replace(rule, expires=None, enabled=rule.enabled and rule.name not in ended) for rule in policy.rules]
    return replace(policy, rules=tuple(rules)), tuple(rule.name for rule in policy.rules if rule.name in ended)


def _has_ended(rule: Rule, now: Moment) -> bool:
    return rule.expires is not None and clock_for(rule.expires, now) >= rule.expires.time


def _times(verdicts: Iterable[Verdict]) -> str:
    actions = list(dict.fromkeys(verdict.action.value for verdict in verdicts))
    return f"{' or '.join(actions)} by the time of day" if actions else "by the time of day"


def _why(fields: frozenset[str], subject: Subject, flow: Flow) -> str:
    """What is not known that makes the difference, in words."""
    said = []
    if fields & _OWNERS and subject.certainty is Certainty.GUESS:
        said.append(_GUESSED)
        fields -= _OWNERS
    for field, text in _WHY.items():
        if field in fields:
            said.append(_HASH if field == "app" and flow.app is not None else text)
    return ", ".join(said)


def _add(figures: list[float], count: int, first: float, last: float) -> None:
    """To nothing, or to a count with the first and the last time."""
    if not figures:
        figures += (count, first, last)
        return
    figures[0] += count
    figures[1] = min(figures[1], first)
    figures[2] = max(figures[2], last)


def _sum(kind: tuple[object, ...], rows: list[Row], figures: list[float]) -> Sum:
    best = min(rows, key=danger, default=None)
    remote, name = (b"", None) if best is None else (best.remote, best.name)
    return Sum(_row(kind, remote, name, *figures), len(rows))


def _row(kind: tuple[object, ...], remote: bytes, name: str | None, count: float, first: float, last: float) -> Row:
    """A kind is what a row begins with, in its order."""
    fields = dict(zip(Row.__struct_fields__, kind, strict=False))
    return Row(**fields, remote=remote, name=name, count=int(count), first=first, last=last)  # type: ignore[arg-type]
