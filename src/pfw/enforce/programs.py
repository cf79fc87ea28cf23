"""Programs as classes: which programs a policy treats alike, and the label that tells each class.

A class is a path that some rule names, a path with what the file holds, all below a folder that is named, or all other
programs; and, where rules for `in` name users, which of these users it is. Every program is in exactly one class, so a
packet filter that knows the class knows which rules for programs match.

A label means for ever what its key says: sockets keep theirs over a change of the policy. So keys of classes that are
what others leave over name those others, by a digest; a label that a ruleset does not know is no class, and is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import product

from msgspec import Struct

from pfw.enforce.conditions import CannotError, Classes, OfGroup, OfProgram, OfUser, ProgramClass
from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.rule import App, Rule
from pfw.policy.match import fits

MASK = 0xFF003F00
"""The bits of a mark that are ours, unless told otherwise: beside those of Tailscale (0x00ff0000) and Kubernetes
(0xc000), and none of the low ones, which people use by hand."""
USERS_MAX = 4
"""So many different lists of users may rules for `in` name: each doubles the number of classes."""


class Labelling(Struct, frozen=True):
    """How classes are told in marks: our bits, and the number that a key has, or gets."""

    mask: int
    number: Callable[[str], int]


def make_classes(policy: Policy, labelling: Labelling, users: Iterable[tuple[OfUser | OfGroup, ...]]) -> Classes:
    """The classes of a policy whose rules for `in` name these users. Raises CannotError where there are too many."""
    apps = {app for rule in policy.rules if rule.enabled for app in rule.apps or ()}
    lists = tuple(dict.fromkeys(users))
    if len(lists) > USERS_MAX:
        what = f'rules for "in" name {len(lists)} different lists of users, {USERS_MAX} are the most'
        raise CannotError(what, None, "user")
    context = _digest(sorted(f"{app.path} {app.sha256}" for app in apps))
    owner_context = _digest(map(repr, lists))
    made = []
    for (key, path, sha256), bits in product(_keys(apps, context), range(1 << len(lists))):
        full = f"{key} u{bits}:{owner_context}" if lists else key
        made.append(ProgramClass(full, spread(labelling.number(full), labelling.mask), path, sha256, bits))
    hashed = frozenset(app.path for app in apps if app.sha256 is not None)
    return Classes(labelling.mask, tuple(made), lists, hashed)


def _keys(apps: set[App], context: str) -> list[tuple[str, str | None, str | None]]:
    """Key, path and hash of each class, the most exact first."""
    found: list[tuple[str, str | None, str | None]] = []
    exact = sorted({app.path for app in apps if not app.path.endswith("*")})
    for path in exact:
        hashes = sorted(app.sha256 for app in apps if app.path == path and app.sha256 is not None)
        found += [(f"{path} sha256:{each}", path, each) for each in hashes]
        found.append((f"{path} !{_digest(hashes)}" if hashes else path, path, None))
    folders = sorted({app.path for app in apps if app.path.endswith("*")}, key=lambda each: (-len(each), each))
    found += [(f"{path} {context}", path, None) for path in folders]
    return [*found, (f"* {context}", None, None)]


def of_rule(rule: Rule, classes: Classes, users: tuple[OfUser | OfGroup, ...] | None) -> OfProgram:
    """The classes for which a rule about programs holds; `users` is the list that it wants of the socket's owner."""
    bit = None if users is None else 1 << classes.users.index(users)
    return OfProgram(
        frozenset(
            at
            for at, each in enumerate(classes.all)
            if (bit is None or each.bits & bit) and (rule.apps is None or any(_holds(app, each) for app in rule.apps))
        )
    )


def _holds(app: App, each: ProgramClass) -> bool:
    return each.path is not None and fits(app.path, each.path) and app.sha256 in (None, each.sha256)


def spread(number: int, mask: int) -> int:
    """A number in the bits of a mask, the lowest first."""
    mark = 0
    for bit in range(32):
        if mask >> bit & 1:
            mark |= (number & 1) << bit
            number >>= 1
    return mark


def written(mask: int) -> int:
    """The bit that a label has where whoever was asked has written it on a packet: no socket's has it, so a label that
    a rule of others happened to write, or that a packet brings along, is none."""
    return 1 << mask.bit_length() - 1


def labels_max(mask: int) -> int:
    """So many numbers do labels have, 0 among them, which is none."""
    return 1 << mask.bit_count() - 1


def gather(mark: int, mask: int) -> int:
    """The number that a mark holds in these bits."""
    number, at = 0, 0
    for bit in range(32):
        if mask >> bit & 1:
            number |= (mark >> bit & 1) << at
            at += 1
    return number


def names_programs(policy: Policy, directions: Iterable[Direction] = (Direction.IN, Direction.OUT)) -> bool:
    """Whether a policy needs somebody who knows programs, or answers for a person: rules for programs, for users that
    would receive, and whatever asks."""
    wanted = set(directions)
    if any(policy.defaults[direction].value == "ask" for direction in wanted):
        return True
    return any(
        rule.enabled
        and wanted & rule.directions
        and (rule.apps is not None or rule.action.value == "ask" or _asks_receiver(rule))
        for rule in policy.rules
    )


def _asks_receiver(rule: Rule) -> bool:
    return rule.users is not None and Direction.IN in rule.directions


def _digest(texts: Iterable[str]) -> str:
    return blake2b("\n".join(texts).encode(errors="surrogateescape"), digest_size=8).hexdigest()
