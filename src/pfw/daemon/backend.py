"""What the two ways to enforce a policy have in common: the steps of a change, and what is read back.

A change goes in steps, so that a crash between any two leaves the old policy or the new one whole: `load` brings
what changes no verdict, `switch` turns the traffic to it, `verify` reads it back, `sweep` removes what was before.
`undo` tells beforehand what would take it back, for the guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from pfw.drivers.programs import Job
from pfw.enforce.conditions import Place, Plan
from pfw.enforce.nft_table import Ban
from pfw.model.address import Range


class Live(Struct, frozen=True):
    """What of ours is in the kernel: the generation that decides, and a digest of all that it consists of."""

    generation: int | None
    fingerprint: str


class Before(Struct, frozen=True):
    """What was in force: its generation and where it let pass what nothing decided."""

    generation: int
    open: frozenset[Place]


class TablesBefore(Struct, frozen=True):
    """The tables of iptables as they were saved, by family, and the sets that were made since."""

    kind: str
    saved: dict[str, str]
    sets: list[str]


class Undo(Struct, frozen=True):
    """What takes a change back."""

    jobs: list[Job]
    tables: TablesBefore | None = None


class Counted(Struct, frozen=True):
    """What one rule did: packets and bytes, of which `untold` were not told of, and how long ago the last was."""

    packets: int
    bytes: int
    untold: int = 0
    last_s: float | None = None


class Change(Protocol):
    """A plan on its way into the kernel. Every method raises RefusedError."""

    def load(self) -> None: ...

    def undo(self, before: Before | None) -> Undo:
        """What takes the change back, to this generation or to nothing. Asked between `load` and `switch`."""

    def switch(self) -> None: ...

    def verify(self) -> str:
        """The fingerprint of what is in the kernel now. RefusedError where that is not what was loaded."""

    def sweep(self) -> None: ...

    def created(self) -> list[str]:
        """The tables of others that come into being by it, empty but for us: they go with us."""

    def boot(self) -> dict[str, str]:
        """The files that bring it back without us, by name."""


class Backend(Protocol):
    """A way to enforce. Every method raises RefusedError."""

    name: str

    @property
    def kind(self) -> str:
        """What it works on: two names may mean the same tables."""

    def unusable(self) -> str | None:
        """Why it cannot be used here; None where it can."""

    def generation(self) -> int | None:
        """The generation that decides in the kernel, 0 for one that cannot be told; None where nothing of ours is.
        Also where the backend's programs are not there."""

    def live(self) -> Live | None:
        """What of ours is in the kernel; None where nothing is."""

    def sweep_others(self, generation: int) -> None:
        """Remove what is left of all generations but this one."""

    def show(self, plan: Plan) -> str:
        """The ruleset of a plan as it would be loaded."""

    def change(self, plan: Plan, generation: int, *, tell_all: bool = False) -> Change:
        """A plan on its way; with `tell_all` the kernel tells also of what is allowed without a word."""

    def removal(self, created: Sequence[str] = ()) -> list[Job]:
        """What takes everything of ours out, and the tables that we created where nothing else is in them."""

    def counters(self) -> dict[str, Counted]:
        """By the names of the plan's counters."""

    def ban(self, added: Sequence[Ban], lifted: Sequence[Range], everything: Sequence[Ban]) -> None:
        """Bring the bans in the kernel up to date: these are new, those are gone, and this is what shall be."""

    def ban_host(self, ban: Ban) -> bool:
        """Ban one address that was not banned, without a look at the others. False where it was, and stays as it is."""

    def limit(self, limits: Sequence[Ban]) -> None:
        """Let few new connections of these hosts through, each for its time. RefusedError also where it cannot."""

    def limited(self) -> set[int]:
        """The hosts that are limited now (`as_int`)."""

    def unlimit(self) -> None:
        """Nobody is limited any more."""

    def boot_bans(self, bans: Sequence[Ban]) -> dict[str, str]:
        """The file that brings the bans back, behind those of the change."""

    def bans(self) -> set[Range]:
        """What is banned in the kernel now."""
