"""The firewall's own interface, `org.pfw.Firewall`: what its methods take and give.

What each field means stands in `org.pfw.Firewall.varlink` beside this file; the two change together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from pfw.api.definition import (
    Fault,
    Interface,
    Method,
    Nothing,
    Parameters,
    Result,
    Right,
    Streams,
    by_name,
)
from pfw.api.messages import ApiError
from pfw.model.program import Program as ModelProgram

Action = Literal["allow", "block", "reject"]
Lasting = Literal["once", "program", "time", "always"]
Scope = Literal["exact", "address", "port", "anywhere"]
State = Literal["waiting", "unanswered"]
Matches = Literal["yes", "no", "unknown"]

# What comes in has bounds: JSON knows none, and the system raises OverflowError for a process of number 2^64.
_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Pid = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
_Seconds = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
_Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class Program(Result, frozen=True, kw_only=True):
    pid: int
    path: str | None = None
    shown: str
    command: tuple[str, ...]
    script: str | None = None
    user: str
    uid: int
    unit: str | None = None
    parents: tuple[str, ...]

    @classmethod
    def of(cls, program: ModelProgram) -> Program:
        return cls(**{name: getattr(program, name) for name in cls.__struct_fields__})


class Prompt(Result, frozen=True, kw_only=True):
    id: int
    asked: float
    until: float | None = None
    direction: str
    protocol: str
    remote: str
    port: int | None = None
    service: str | None = None
    host: str | None = None
    program: Program | None = None
    certainty: str
    rule: str
    held: int
    state: State


class Connection(Result, frozen=True, kw_only=True):
    direction: str
    protocol: str
    local: str
    local_port: int | None = None
    remote: str
    remote_port: int | None = None
    state: str
    program: Program | None = None
    certainty: str | None = None
    sent_bytes: int | None = None
    received_bytes: int | None = None
    rule: str | None = None
    since: float | None = None


class App(Result, frozen=True, kw_only=True):
    path: str
    label: int | None = None
    seen: float
    processes: int
    connections: int
    rules: tuple[str, ...]
    verdicts: dict[str, int]


class Reason(Result, frozen=True, kw_only=True):
    rule: str
    action: str
    says: str
    matches: str


class StatusResult(Result, frozen=True, kw_only=True):
    version: str
    pid: int
    started: float
    policy: str
    generation: int
    labels: str
    queue: str
    counts: dict[str, int]


class PromptsResult(Result, frozen=True, kw_only=True):
    prompts: tuple[Prompt, ...]
    gone: tuple[int, ...]


class AnswerParameters(Parameters, frozen=True, kw_only=True):
    id: _Number
    action: Action
    lasting: Lasting
    scope: Scope
    seconds: _Seconds | None = None


class AnswerResult(Result, frozen=True, kw_only=True):
    done: str


class AppsResult(Result, frozen=True, kw_only=True):
    apps: tuple[App, ...]


class ConnectionsResult(Result, frozen=True, kw_only=True):
    connections: tuple[Connection, ...]


class WhyParameters(Parameters, frozen=True, kw_only=True):
    pid: _Pid | None = None
    path: _Path | None = None


class WhyResult(Result, frozen=True, kw_only=True):
    program: Program | None = None
    reasons: tuple[Reason, ...]
    says: str


class ReloadResult(Result, frozen=True, kw_only=True):
    generation: int


class AlertsResult(Result, frozen=True, kw_only=True):
    time: float
    kind: str
    says: str


class NoSuchPrompt(Fault, frozen=True, kw_only=True):
    id: int


class NoSuchProgram(Fault, frozen=True, kw_only=True):
    pass


class Refused(Fault, frozen=True, kw_only=True):
    says: str


FIREWALL = Interface(
    "org.pfw.Firewall",
    by_name(
        Method("Status", Nothing, StatusResult, Right.READ),
        Method("Prompts", Nothing, PromptsResult, Right.READ, Streams.MAY),
        Method("Answer", AnswerParameters, AnswerResult, Right.ANSWER),
        Method("Apps", Nothing, AppsResult, Right.READ),
        Method("Connections", Nothing, ConnectionsResult, Right.READ, Streams.MAY),
        Method("Why", WhyParameters, WhyResult, Right.READ),
        Method("Reload", Nothing, ReloadResult, Right.WRITE),
        Method("Alerts", Nothing, AlertsResult, Right.READ, Streams.ALWAYS),
    ),
    (NoSuchPrompt, NoSuchProgram, Refused),
)


def failure(fault: Fault) -> ApiError:
    """What a handler raises: `raise failure(NoSuchPrompt(id=7))`."""
    return FIREWALL.failure(fault)
