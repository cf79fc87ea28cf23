"""Verdicts: what shall happen to a connection, and why."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Action(StrEnum):
    """What a rule or a default does.

    UNKNOWN is no action that a policy can name: it is the honest answer where a rule asks for something
    that cannot be known here (which program, which user) and its answer would change the verdict.
    """

    ALLOW = "allow"
    BLOCK = "block"
    REJECT = "reject"
    ASK = "ask"
    UNKNOWN = "unknown"


class Verdict(Struct, frozen=True, omit_defaults=True):
    """The verdict on a connection.

    `rule` is the name of the rule that decided (for UNKNOWN the first that might), or None where the
    default did; `index` is its place in the policy's rules, or None for defaults and base rules. `base`
    is True for a rule that is always there. `reason` is a sentence for a person.
    """

    action: Action
    rule: str | None = None
    index: int | None = None
    base: bool = False
    log: bool = False
    reason: str = ""

    @property
    def stops(self) -> bool:
        """Whether packets of the connection would not pass."""
        return self.action in (Action.BLOCK, Action.REJECT)
