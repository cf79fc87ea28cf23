"""Prompts: "may this program talk to that address?", how a person can answer, and what then is to be done.

A prompt is about a `Subject`, not about a packet: however many packets of however many connections wait for the
same answer, it is asked once. `engine/prompts.py` owns their state; the commands below are what it wants done.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from pfw.model.flow import Direction, Flow
from pfw.model.packet import protocol_name
from pfw.model.program import Certainty, Program
from pfw.model.rule import Rule

SECONDS_MAX = 2_147_483
"""Almost 25 days: the longest that an entry of an ipset can have (ipset(8), `timeout`); nftables could do more."""


class Lasting(StrEnum):
    """How long an answer holds."""

    ONCE = "once"
    """For the connections that wait, and no others."""
    PROGRAM = "program"
    """Until the process that was asked about ends."""
    TIME = "time"
    ALWAYS = "always"
    """It becomes a rule of the policy."""


class Scope(StrEnum):
    """What else of the same program and direction an answer is about, the most exact first."""

    EXACT = "exact"
    """This address, this protocol and this port, if it has ports."""
    ADDRESS = "address"
    """This address, whatever the protocol and port."""
    PORT = "port"
    """This protocol and this port, whatever the address."""
    ANYWHERE = "anywhere"


class Answer(Struct, frozen=True):
    """What a person said. `seconds` goes with `Lasting.TIME` alone. `check_answer` tells whether it fits."""

    allow: bool
    lasting: Lasting
    scope: Scope = Scope.EXACT
    seconds: int | None = None


class Subject(Struct, frozen=True):
    """What a prompt is about, and the key by which it is known: see `subject_of`."""

    program: str
    direction: Direction
    protocol: int
    remote: bytes
    """The other end, packed: the source of what comes in, else the destination."""
    port: int | None = None
    """The port of the service, at whichever end it is."""
    facts: tuple[str, ...] = ()
    """What else the rule that asks wants to know, as `user 1000`: an answer is about nothing that differs in it."""


class State(StrEnum):
    WAITING = "waiting"
    UNANSWERED = "unanswered"
    """Nobody answered in time, or nobody could be asked. It can be answered still."""


class Prompt(Struct, frozen=True, kw_only=True):
    """A question to whoever watches. Program, certainty, flow and rule are those of its first packet."""

    id: int
    """Counts up."""
    subject: Subject
    program: Program | None
    certainty: Certainty
    flow: Flow
    rule: str
    """The name of the rule, or of the default, that asks."""
    asked: float
    until: float | None
    """When it stops waiting; None for one that does not wait."""
    state: State
    held: int = 0
    """How many packets wait for the answer."""
    packets: int = 0
    """How many packets there were, whatever became of them."""
    uid: int = 0
    """Whose socket it is; that need not be whose process it is. Each user's prompts are his own."""
    gid: int = 0


class Release(Struct, frozen=True, tag=True):
    """Give the kernel its verdict on a packet. Every packet gets exactly one, unless it is lost."""

    packet_id: int
    allow: bool


class Publish(Struct, frozen=True, tag=True):
    """A prompt is there: a new one, or one that nobody could be asked before and that is asked now."""

    prompt: Prompt


class Changed(Struct, frozen=True, tag=True):
    """More or fewer packets wait, or nobody answered in time. Not sent for each packet that is only counted."""

    prompt: Prompt


class Gone(Struct, frozen=True, tag=True):
    """A prompt is answered, or was forgotten to make room."""

    prompt_id: int


class Remember(Struct, frozen=True, tag=True):
    """See to it that what the answer covers is not asked again for as long as it lasts. The prompt is as it was
    when the answer came."""

    prompt: Prompt
    answer: Answer


PromptCommand = Release | Publish | Changed | Gone | Remember


class NoSuchPromptError(LookupError):
    """There is no prompt of this number, or no more: somebody else answered it, or it was forgotten."""

    def __init__(self, prompt_id: int) -> None:
        why = "it was answered already, is not asked by the policy any more, or so old that it was forgotten"
        super().__init__(f"there is no prompt {prompt_id}: {why}")


def program_key(program: Program | None) -> str:
    """The name by which answers know a program: its path, or the file as the kernel knows it where it has none; empty
    for one that neither tells.

    No name of a file can be mistaken for the path of another program: a path begins with a slash.
    """
    if program is None:
        return ""
    if program.path is not None:
        return program.path
    if program.file is None:
        return ""
    file = program.file
    return f"file {file.device}:{file.inode}:{file.generation} {program.shown}"


def subject_of(flow: Flow, program: Program | None, rule: Rule | None = None, uid: int = 0) -> Subject:
    """What is to be asked about a connection of this user's by a rule, None for a default."""
    remote = flow.source if flow.direction is Direction.IN else flow.destination
    facts = () if rule is None else tuple(_facts(flow, rule, uid))
    return Subject(program_key(program), flow.direction, flow.protocol, remote, flow.port, facts)


def wants_facts(rule: Rule) -> bool:
    """Whether a rule asks about more than program, other end, protocol and port."""
    who = (rule.scripts, rule.users, rule.units, rule.interfaces)
    return any(each is not None for each in who) or wants_content(rule)


def wants_content(rule: Rule) -> bool:
    """Whether a rule asks what the program's file holds."""
    return any(app.sha256 is not None for app in rule.apps or ())


def _facts(flow: Flow, rule: Rule, uid: int) -> Iterator[str]:
    if rule.scripts is not None:
        yield f"script {flow.script}"
    if rule.users is not None:
        yield f"user {uid}"
    if rule.units is not None:
        yield f"unit {flow.unit}"
    if rule.interfaces is not None:
        yield f"interface {flow.interface}"
    if wants_content(rule):
        yield f"sha256 {flow.app_sha256}"


def reach(subject: Subject, scope: Scope) -> tuple[object, ...]:
    """What an answer about the subject covers, as a key: two subjects with the same one are covered alike."""
    who = (scope, subject.program, subject.direction, subject.facts)
    match scope:
        case Scope.EXACT:
            return (*who, subject.protocol, subject.remote, subject.port)
        case Scope.ADDRESS:
            return (*who, subject.remote)
        case Scope.PORT:
            return (*who, subject.protocol, subject.port)
        case Scope.ANYWHERE:
            return who


def covers(subject: Subject, scope: Scope, other: Subject) -> bool:
    """Whether an answer about the subject is one about the other, too. Nobody knows that of an unknown program."""
    return subject.program != "" and reach(subject, scope) == reach(other, scope)


def check_answer(prompt: Prompt, answer: Answer) -> None:
    """Raises ValueError with what is wrong, and what would be right, where a prompt cannot be answered so."""
    check_form(prompt.subject, answer)
    if answer.lasting is Lasting.ONCE:
        return
    if prompt.program is None or prompt.subject.program == "":
        raise ValueError('it is not known which program this is: it can only be answered "once"')
    if answer.allow and prompt.certainty is Certainty.GUESS:
        raise ValueError('it is not certain which program this is: it can only be allowed "once"')
    if answer.lasting is Lasting.ALWAYS and prompt.program.path is None:
        raise ValueError('this program has no path that a rule could name: answer "once", "program" or "time"')
    if answer.lasting is Lasting.ALWAYS and prompt.program.path is not None and prompt.program.path.endswith("*"):
        raise ValueError('in a rule this path would name other programs, too: answer "once", "program" or "time"')


def check_form(subject: Subject, answer: Answer) -> None:
    """The part of `check_answer` that is about the answer alone."""
    if answer.lasting is Lasting.TIME:
        if answer.seconds is None or not 1 <= answer.seconds <= SECONDS_MAX:
            raise ValueError(f'"time" needs a number of seconds, 1-{SECONDS_MAX}')
    elif answer.seconds is not None:
        raise ValueError(f'seconds go with "time", not with "{answer.lasting}"')
    if answer.scope is Scope.PORT and subject.port is None:
        name = protocol_name(subject.protocol)
        raise ValueError(f'{name} has no ports: the scope is "exact", "address" or "anywhere"')
