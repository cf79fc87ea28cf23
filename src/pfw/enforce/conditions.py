"""The intermediate form between a policy and a kernel's ruleset: chains of steps, steps of conditions.

A step says: where all its conditions hold, this verdict. Every condition is one question that a kernel can
answer about a packet, and holds values of one kind; what a rule says of both families, of several protocols'
ICMP types or of users and groups at once has become several steps. Backends render it and decide nothing; a
condition that a backend cannot express is a `CannotError`, never a step without it.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pfw.model.address import Range
from pfw.model.rule import Limit as RuleLimit
from pfw.model.rule import PortRange, Schedule
from pfw.model.verdict import Action
from pfw.policy.match import fits

IPV4, IPV6 = 4, 6
"""Families, as conditions name them."""


class CannotError(Exception):
    """A backend, or any kernel, cannot do what a rule says. `index` is the rule's place in the policy's rules,
    None for what is no rule's fault, `field` the field's name in the policy file."""

    def __init__(self, what: str, index: int | None = None, field: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.index = index
        self.field = field


class Place(StrEnum):
    """Where a packet is judged. PUBLISHED is forwarded too, but its destination was rewritten on the way in (a
    container's published port): what rules ask of destination and port is held against what was sent."""

    IN = "in"
    OUT = "out"
    FORWARD = "forward"
    PUBLISHED = "published"


class State(StrEnum):
    """What connection tracking says of a packet."""

    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"


class InState(Struct, frozen=True):
    """Of a connection in this state."""

    state: State


class Stray(Struct, frozen=True):
    """A TCP packet that would be the first of its connection and is no SYN."""


class OnInterface(Struct, frozen=True):
    """Came in by, or with `leaving` leaves by, one of these; `*` at the end is a wildcard."""

    patterns: tuple[str, ...]
    leaving: bool


class OfProtocol(Struct, frozen=True):
    numbers: tuple[int, ...]


class HasAddress(Struct, frozen=True):
    """Source, or destination, within these ranges of one family. `sent` asks what was sent, before rewriting."""

    family: int
    ranges: tuple[Range, ...]
    destination: bool
    sent: bool = False


class HasPort(Struct, frozen=True):
    """Source, or destination port. The protocols of the step all have ports."""

    ranges: tuple[PortRange, ...]
    destination: bool
    sent: bool = False


class IcmpType(Struct, frozen=True):
    """Of ICMP or ICMPv6 (the protocol number), with one of these types."""

    protocol: int
    types: tuple[int, ...]


class OfUser(Struct, frozen=True):
    """Sent by a socket of one of these users."""

    uids: tuple[int, ...]


class OfGroup(Struct, frozen=True):
    """Sent by a socket whose process ran with one of these groups."""

    gids: tuple[int, ...]


class OfUnit(Struct, frozen=True):
    """Of a socket in this control group, a path below the root of cgroup v2 and how deep that is.

    `mount` is the way from /sys/fs/cgroup to that root, empty or with a slash at its end.
    """

    path: str
    level: int
    mount: str = ""


class OfProgram(Struct, frozen=True):
    """Of a socket of a program in one of these classes, by their numbers in `Plan.programs` (`enforce/programs.py`)."""

    classes: frozenset[int]


class Period(Struct, frozen=True):
    """A stretch of time in which the local clock keeps one distance from UTC. Seconds since 1970."""

    first: float
    end: float
    utc_offset_s: int


class InSchedule(Struct, frozen=True):
    """Within the schedule, whose local clock is told by the periods; after the last of them never."""

    schedule: Schedule
    periods: tuple[Period, ...]


class BeforeTime(Struct, frozen=True):
    """Earlier than this, in whole seconds since 1970."""

    time: int


class UnderLimit(Struct, frozen=True):
    """The source's bucket has a token, which this takes. Always the last condition of a step.
    `bucket` names the buckets: steps of one rule share theirs."""

    bucket: int
    limit: RuleLimit


Condition = (
    InState
    | Stray
    | OnInterface
    | OfProtocol
    | HasAddress
    | HasPort
    | IcmpType
    | OfUser
    | OfGroup
    | OfUnit
    | OfProgram
    | InSchedule
    | BeforeTime
    | UnderLimit
)


class Step(Struct, frozen=True):
    """`verdict` is a number in `Plan.verdicts`; None passes the packet without counting it."""

    conditions: tuple[Condition, ...]
    verdict: int | None


class ProgramClass(Struct, frozen=True):
    """Programs that a policy treats alike. `path` is None for all others; with `*` at the end it is a folder.

    `key` is what its label means, `mark` the label in its bits of a mark. `bits` has one bit for each list of users of
    the rules for `in` (`Classes.users`).
    """

    key: str
    mark: int
    path: str | None
    sha256: str | None = None
    bits: int = 0

    @property
    def is_one(self) -> bool:
        """Whether it holds one program alone."""
        return self.path is not None and not self.path.endswith("*")

    def holds(self, path: str | None, sha256: str | None) -> bool:
        """Whether a program with this path is in it, unless it is in one before it."""
        if self.path is None:
            return True
        return path is not None and fits(self.path, path) and self.sha256 in (None, sha256)


class Classes(Struct, frozen=True):
    """The classes of a policy, the most exact first, and the bits of a mark in which they are told."""

    mask: int
    all: tuple[ProgramClass, ...]
    users: tuple[tuple[OfUser | OfGroup, ...], ...] = ()
    hashed: frozenset[str] = frozenset()
    """The paths of which some rule wants to know what the file holds."""

    @property
    def paths(self) -> list[str]:
        """The paths that name one program each, without repetition."""
        return list(dict.fromkeys(each.path for each in self.all if each.is_one and each.path is not None))

    def of(self, path: str | None, sha256: str | None, uid: int, gid: int) -> ProgramClass:
        """The class of a program: the path of its executable, None for one that has none, what the file holds (asked
        of hashed paths alone), and whose socket it is."""
        bits = self.bits(uid, gid)
        return next(each for each in self.all if each.bits == bits and each.holds(path, sha256))

    def bits(self, uid: int, gid: int) -> int:
        return sum(
            1 << at
            for at, lists in enumerate(self.users)
            if any(uid in each.uids if isinstance(each, OfUser) else gid in each.gids for each in lists)
        )


INVALID, BANNED = 0, 1
"""The numbers of the verdicts that every plan has: on packets without a connection, and on bans."""
UNKNOWN, ANSWERED, REFUSED = 2, 3, 4
"""Those that a plan for programs has besides: on connections of which somebody must find out whose they are, and on
those that a person's answer allowed or blocked."""


class Verdict(Struct, frozen=True):
    """What happens where a rule matches, and where it is counted. `index` is the rule's place in the policy's
    rules, None for base rules and defaults. `counter` names its counter: a rule that stays the same keeps it.
    `log` puts matches of an allowing rule beside the blocked ones; `quiet` ones are told to nobody. `narrow` ones
    ask about more than the kernel's sets of answers know."""

    name: str
    action: Action
    counter: str
    index: int | None = None
    log: bool = False
    quiet: bool = False
    narrow: bool = False


class Chain(Struct, frozen=True):
    """What is asked at a place, in order: to which connection a packet belongs, the rules, and the step without
    conditions that ends it."""

    connections: tuple[Step, ...]
    rules: tuple[Step, ...]
    end: Step


class Plan(Struct, frozen=True):
    """A policy as steps."""

    verdicts: tuple[Verdict, ...]
    chains: dict[Place, Chain]
    """Empty where there is no policy, only bans."""
    open: frozenset[Place]
    """The places where what no step decides would pass."""
    programs: Classes | None = None
    """The classes of programs, where the policy needs somebody who tells programs apart."""
    notes: tuple[str, ...] = ()
    """What a person should know: rules that have expired."""
