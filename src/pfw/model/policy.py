"""The policy: what a policy file says, loaded.

`rules` are in the order of the file and the first that matches decides. The base rules stand before
them, see `policy/base.py`, and block lists before those.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from pfw.model.address import AddressSet
from pfw.model.flow import Direction, Flow
from pfw.model.observation import Kind
from pfw.model.rule import Rule
from pfw.model.verdict import Action


class Base(Struct, frozen=True):
    """Which of the rules that are always there are on."""

    loopback: bool = True
    neighbour_discovery: bool = True
    dhcp_client: bool = True
    icmp_errors: bool = True


class Blocklist(Struct, frozen=True, kw_only=True):
    """A list of addresses that are dropped before all rules, from a file or a URL (`source`).

    `directions` are IN (what comes from a listed address), OUT (what goes to one) or both; forwarded traffic is
    covered by each of them at its own end.
    """

    name: str
    source: str
    refresh_s: int = 86400
    directions: frozenset[Direction] = frozenset((Direction.IN, Direction.OUT))
    enabled: bool = True
    note: str = ""

    @property
    def is_file(self) -> bool:
        return self.source.startswith("/")


def public_source(source: str) -> str:
    """The source of a block list as it may be shown: of a URL neither user and password nor the query, which may
    hold a key."""
    scheme, mark, rest = source.partition("://")
    if not mark or source.startswith("/"):
        return source
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    host = rest[:end].rpartition("@")[2]
    tail, query, _ = rest[end:].partition("#")[0].partition("?")
    return f"{scheme}://{host}{tail}{'?…' if query else ''}"


class Ask(Struct, frozen=True):
    """How the action `ask` asks: how long an answer may take, and what is done when none comes."""

    timeout_s: float = 60
    unattended: Action = Action.BLOCK


class Doing(StrEnum):
    """What is done about an alert. Whatever it is, the alert is kept in the history."""

    BAN = "ban"
    """Drop all that comes from the source and goes to it, for a time."""
    LIMIT = "limit"
    """Let few new connections of the source through, for a time."""
    ALERT = "alert"
    """Tell of it, and no more. Bans and limits are told, too."""
    NOTHING = "nothing"


class Reaction(Struct, frozen=True, kw_only=True):
    """What is done about alerts of some kinds, None for all, that score so much or more. `for_s` is how long a first
    ban or a limit lasts."""

    kinds: frozenset[Kind] | None = None
    do: Doing
    score: int = 0
    for_s: float = 600.0


class Respond(Struct, frozen=True, kw_only=True):
    """What is done about alerts: the first reaction that fits decides, and what none fits is told. `never` are
    addresses about which nothing is done by itself. `command` are the words of a program, and `webhook` a URL, that
    are told of each alert; empty where there is none."""

    reactions: tuple[Reaction, ...] = ()
    never: AddressSet = AddressSet()
    command: tuple[str, ...] = ()
    webhook: str = ""


def public_webhook(url: str) -> str:
    """A webhook as it may be shown: its host. The rest of it may be the key."""
    scheme, _, rest = url.partition("://")
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    host = rest[:end].rpartition("@")[2]
    return f"{scheme}://{host}{'/…' if len(rest) > end else ''}"


class Expectation(Struct, frozen=True, kw_only=True):
    """A test of a policy: a connection, and the verdict that it must have, by that `rule` where one is named.

    It begins at `time` (s since 1970, by the local clock if `local`), or whenever it is asked. `text` is the question
    as people write it.
    """

    expect: Action
    flow: Flow
    text: str
    time: float | None = None
    local: bool = False
    rule: str | None = None
    note: str = ""


class Policy(Struct, frozen=True, kw_only=True):
    """A policy. `simple` tells the lists form of the file, whose rules have the lists' names."""

    rules: tuple[Rule, ...] = ()
    defaults: dict[Direction, Action]
    base: Base = Base()
    ask: Ask = Ask()
    respond: Respond = Respond()
    blocklists: tuple[Blocklist, ...] = ()
    list_rules: tuple[Rule, ...] = ()
    """What is on the block lists, as rules before all others, where it is known (`policy/blocking.py`)."""
    simple: bool = False
    tests: tuple[Expectation, ...] = ()
    """Of no meaning to verdicts."""


class Fault(Struct, frozen=True, order=True):
    """Something wrong in a file, where it stands, and what to write instead. Lines and columns from 1."""

    line: int
    column: int
    where: str
    """The path inside the file, `rules[1].port`; empty for the file as a whole."""
    what: str
    file: str = ""

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.what}"


class PolicyError(Exception):
    """The file is refused. `faults` are all that is wrong with it, in the order of the file."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults
