"""The smallest readable policy that allows what was seen and accepted: rules for a file that is there.

What is promised of the file that comes out, beside the one that went in:

1. No rule of it changes, goes or moves, and no default: rules that allow come in. So nothing is stopped that was not.
2. What a rule of it (or a block list) stops for certain is stopped still: a new rule stands behind all rules that have
   a condition in common with it and stop something.
3. Every connection that was allowed then, and that is not told to be left out, is allowed by a rule, whatever the
   defaults: they may be turned to `block`. `unmet` counts what is not, and is 0; it is found out by asking the policy.
   `limit` is taken as never reached, since nobody counts: `limited` has the connections that such a rule allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.history import Group, Subject
from pfw.model.packet import PORT_PROTOCOLS, TCP
from pfw.model.policy import Policy
from pfw.model.program import Certainty
from pfw.model.rule import Rule
from pfw.model.verdict import Action, Verdict
from pfw.policy.edit import insert_rule
from pfw.policy.load import load
from pfw.policy.match import fits
from pfw.policy.needs import Key, Need, Written, new_need, written
from pfw.policy.overlap import overlap
from pfw.policy.recalled import is_sure
from pfw.policy.rehearsal import Rehearsal, World
from pfw.policy.report import MisfitError
from pfw.policy.request import KEYS
from pfw.policy.services import Services
from pfw.policy.syntax import read_document
from pfw.policy.values import read_app

RULES_MAX = 500
"""More would be no policy that anybody reads. What is needed most goes first."""
NEEDS_MAX = 20_000

_RESET_BYTES = {4: 40, 16: 60}
"""An IP header and a TCP header without options: a reset (RFC 9293, 3.5.2) takes so much, an answer takes more."""

COVERED = "rules allow it already"
STOPPED = "a rule of the policy stops it"
UNSURE = "what the policy says to it cannot be told"
GUESSED = "which program it was is only a guess"
NOT_KNOWN = "the program is not known, and programs that are known use the port"
UNANSWERED = "it came from outside and was never answered"
NO_PORT = "its port is not known"
NO_PATH = "the program's path cannot be written in a policy"
BEHIND = "a rule that stops stands behind the one that asks, and has something in common with it"
TOO_MANY = f"there are more than {RULES_MAX} rules"


class Line(Struct, frozen=True):
    """A rule that came in, as it is written in the file, and how many connections needed it."""

    name: str
    rule: dict[str, object]
    rule_text: str
    count: int


class Suggested(Struct, frozen=True, kw_only=True):
    """The text of the file with the rules in it. `covered` are connections that rules allow already, `limited` those of
    them that a rule with a limit allows, by its name, and `left_out` those that are not allowed, by the reason."""

    text: str
    lines: tuple[Line, ...]
    accepted: int
    covered: int
    limited: dict[str, int]
    left_out: dict[str, int]
    unmet: int


def suggest(
    content: str,
    file: str,
    groups: Callable[[], Iterable[Group]],
    world: World,
    services: Callable[[], str] | None = None,
    complete: Callable[[Policy], Policy] = lambda policy: policy,
) -> Suggested:
    """Rules for what the groups were allowed, put into a file of the full form. `groups` are asked for twice, and must
    be the same; `complete` adds what is on block lists to a policy. Raises PolicyError."""
    policy = complete(load(content, file, services))
    search = _Search(policy, world)
    for group in groups():
        search.add(group)
    names = Services(services)
    rules = search.rules(names.name_of, _aliases(content, file))
    text, lines = _put_in(content, file, rules)
    return Suggested(
        text=text,
        lines=tuple(lines),
        accepted=search.accepted,
        covered=search.covered,
        limited=dict(sorted(search.limited.items())),
        left_out=dict(sorted(search.left_out.items(), key=lambda pair: -pair[1])),
        unmet=search.unmet(complete(load(text, file, services)), groups()) if lines else 0,
    )


class _Search:
    """What is needed, group by group."""

    def __init__(self, policy: Policy, world: World) -> None:
        self.accepted = self.covered = 0
        self.limited: dict[str, int] = {}
        self.left_out: dict[str, int] = {}
        self._policy = policy
        self._world = world
        # As if rules of ours stood behind all others: what may be stopped before them cannot be told.
        self._opened = Rehearsal(_with_defaults(policy, Action.ALLOW), world)
        self._before: dict[int, Rehearsal] = {}
        self._needs: dict[Key, Need] = {}
        # By protocol and port, where known programs that go out are covered.
        self._used: set[tuple[int, int | None]] = set()
        self._dropped: set[Key] = set()
        self._writable: dict[str, bool] = {}

    def add(self, group: Group) -> None:
        found = self._judge(group)
        if found is None:
            return
        self.accepted += group.count
        if found == COVERED:
            self.covered += group.count
            self._note_covered(group)
        elif isinstance(found, str):
            self._leave_out(found, group.count)
        elif found not in self._needs and len(self._needs) >= NEEDS_MAX:
            self._leave_out(TOO_MANY, group.count)
        else:
            self._needs.setdefault(found, new_need(found)).add(group)

    def rules(self, name_of_port: Callable[[int], str | None], own_names: Iterable[str]) -> list[Written]:
        """The rules for all of it, those that cannot be written left out."""
        self._drop_ports_of_others()
        found: list[Written] = []
        for rule in written(self._needs.values(), name_of_port, own_names):
            why = TOO_MANY if len(found) >= RULES_MAX else BEHIND if self._is_behind(rule) else None
            if why is None:
                found.append(rule)
            else:
                self._dropped.update(rule.keys)
                self._leave_out(why, rule.count)
        return found

    def unmet(self, policy: Policy, groups: Iterable[Group]) -> int:
        """How many of the connections for which rules were made are not allowed where every default is `block`."""
        closed = Rehearsal(_with_defaults(policy, Action.BLOCK), self._world)
        count = 0
        for group in groups:
            key = self._judge(group)
            if not isinstance(key, tuple) or key not in self._needs or key in self._dropped:
                continue
            if any(verdict.action is not Action.ALLOW for verdict in closed.verdicts(group)):
                count += group.count
        return count

    def _judge(self, group: Group) -> Key | str | None:
        """What a group needs, or in words why it needs nothing; None for what was not allowed."""
        subject = group.subject
        if subject.action is not Action.ALLOW:
            return None
        verdicts = self._opened.verdicts(group)
        if not verdicts or any(verdict.action is Action.UNKNOWN for verdict in verdicts):
            return GUESSED if subject.certainty is Certainty.GUESS else UNSURE
        if any(verdict.stops and verdict.rule is not None for verdict in verdicts):
            return STOPPED
        if all(verdict.action is Action.ALLOW and verdict.rule is not None for verdict in verdicts):
            return COVERED
        if _is_unanswered(group):
            return UNANSWERED
        if subject.protocol in PORT_PROTOCOLS and subject.port is None:
            return NO_PORT
        return self._key(group, verdicts)

    def _note_covered(self, group: Group) -> None:
        subject = group.subject
        if subject.direction is Direction.OUT and _program(subject) is not None:
            self._used.add((subject.protocol, subject.port))
        places = {verdict.index for verdict in self._opened.verdicts(group) if verdict.index is not None}
        for rule in (self._policy.rules[place] for place in places):
            if rule.limit is not None:
                self.limited[rule.name] = self.limited.get(rule.name, 0) + group.count

    def _key(self, group: Group, verdicts: tuple[Verdict, ...]) -> Key | str:
        subject = group.subject
        program = None
        if subject.direction is not Direction.FORWARD:
            if subject.direction is Direction.OUT and subject.certainty is Certainty.GUESS:
                return GUESSED
            program = _program(subject)
            if program is not None and not self._is_writable(program):
                return NO_PATH
        place = min(
            (each.index for each in verdicts if each.action is Action.ASK and each.index is not None), default=None
        )
        if place is not None and not self._comes_to(place, group):
            return UNSURE
        port = subject.port if program is None else None
        return program, subject.direction, subject.protocol, place, port

    def _comes_to(self, place: int, group: Group) -> bool:
        """Whether it is certain that no rule before this one decides."""
        before = self._before.get(place)
        if before is None:
            policy = _with_defaults(replace(self._policy, rules=self._policy.rules[:place]), Action.ALLOW)
            before = self._before[place] = Rehearsal(policy, self._world)
        return all(verdict.action is Action.ALLOW for verdict in before.verdicts(group))

    def _is_writable(self, path: str) -> bool:
        known = self._writable.get(path)
        if known is None:
            try:
                known = read_app(path) == path and not path.endswith("*")
            except MisfitError:
                known = False
            self._writable[path] = known
        return known

    def _drop_ports_of_others(self) -> None:
        """A rule without a program lets every program out. Where the port is one that known programs use, it was most
        likely one of them."""
        known = {(key[2], port) for key, need in self._needs.items() if _names(key) for port in need.ports} | self._used
        for key, need in list(self._needs.items()):
            if key[0] is None and key[1] is Direction.OUT and (key[2], key[4]) in known:
                del self._needs[key]
                self._leave_out(NOT_KNOWN, need.count)

    def _is_behind(self, rule: Written) -> bool:
        """Whether a rule that has to go before one that asks would let through what a later one stops."""
        if rule.place is None:
            return False
        made = _loaded(rule)
        later = self._policy.rules[rule.place :]
        return any(each.action in (Action.BLOCK, Action.REJECT) and _meet(made, each) for each in later)

    def _leave_out(self, why: str, count: int) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + count


def _with_defaults(policy: Policy, action: Action) -> Policy:
    return replace(policy, defaults=dict.fromkeys(policy.defaults, action))


def _program(subject: Subject) -> str | None:
    """The path of the program, where it is known and has one."""
    path = subject.program
    return path if path is not None and path.startswith("/") and is_sure(subject) else None


def _names(key: Key) -> bool:
    return key[0] is not None and key[1] is Direction.OUT


def _is_unanswered(group: Group) -> bool:
    """A connection from outside that nobody here took: nothing came back, or a reset. Without a count of packets
    nobody can say so."""
    subject, traffic = group.subject, group.traffic
    if subject.direction is not Direction.IN or not traffic.received_packets:
        return False
    if subject.protocol == TCP:
        return traffic.sent_bytes <= traffic.sent_packets * _RESET_BYTES[len(group.remote)]
    return group.count == 1 and not traffic.sent_packets


def _meet(made: Rule, other: Rule) -> bool:
    """Whether both may match one connection. Rules for different programs do not."""
    if not overlap(made, other):
        return False
    if made.apps is None or other.apps is None:
        return True
    return any(fits(theirs.path, mine.path) for mine in made.apps for theirs in other.apps)


def _loaded(rule: Written) -> Rule:
    return load(_text_of(rule.rule)).rules[0]


def _text_of(rule: Mapping[str, object]) -> str:
    from json import dumps

    return dumps({"version": 2, "rules": [rule]})


def _aliases(content: str, file: str) -> list[str]:
    document = read_document(content, file).value
    aliases = document.get("aliases") if isinstance(document, dict) else None
    return list(aliases) if isinstance(aliases, dict) else []


def _put_in(content: str, file: str, rules: list[Written]) -> tuple[str, list[Line]]:
    """The file with the rules in it, those first that go last, so that the places of the others stay."""
    order = sorted(range(len(rules)), key=lambda at: (rules[at].place is not None, -(rules[at].place or 0)))
    lines: dict[int, Line] = {}
    shifted: dict[int, int] = {}
    for at in order:
        place = rules[at].place
        if place is not None:
            place += shifted.get(place, 0)
            shifted[rules[at].place or 0] = shifted.get(rules[at].place or 0, 0) + 1
        fields = {key: rules[at].rule[key] for key in KEYS if key in rules[at].rule}
        edited = insert_rule(content, fields, place, file)
        content = edited.text
        lines[at] = Line(edited.name, {**fields, "name": edited.name}, edited.rule_text, rules[at].count)
    return content, [lines[at] for at in range(len(rules))]
