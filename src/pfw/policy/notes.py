"""What there is to know about a policy that is valid: told by `pfw check`, of no meaning to verdicts."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from pfw.model.policy import Policy
from pfw.model.rule import Rule


class Note(Struct, frozen=True):
    """Something about the rule with this index, by its name and the field in the file."""

    index: int
    rule: str
    field: str
    what: str

    def __str__(self) -> str:
        return f'rule "{self.rule}": "{self.field}" {self.what}'


def notes(policy: Policy) -> tuple[Note, ...]:
    """All there are, in the order of the rules. Of rules that are off nothing is said."""
    return tuple(
        Note(index, rule.name, field, what)
        for index, rule in enumerate(policy.rules)
        if rule.enabled
        for field, what in _of_rule(rule)
    )


def _of_rule(rule: Rule) -> Iterator[tuple[str, str]]:
    if rule.scripts is not None:
        yield "script", "is decided by the daemon, for each connection anew, and not by the kernel"
