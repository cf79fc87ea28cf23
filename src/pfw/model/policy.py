"""The policy: what a policy file says, loaded.

`rules` are in the order of the file and the first that matches decides. The base rules stand before
them, see `policy/base.py`.
"""

from __future__ import annotations

from msgspec import Struct

from pfw.model.flow import Direction
from pfw.model.rule import Rule
from pfw.model.verdict import Action


class Base(Struct, frozen=True):
    """Which of the rules that are always there are on."""

    loopback: bool = True
    neighbour_discovery: bool = True
    dhcp_client: bool = True
    icmp_errors: bool = True


class Policy(Struct, frozen=True, kw_only=True):
    """A policy. `simple` tells the lists form of the file, whose rules have the lists' names."""

    rules: tuple[Rule, ...] = ()
    defaults: dict[Direction, Action]
    base: Base = Base()
    simple: bool = False


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
