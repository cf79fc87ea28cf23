"""The tests of a policy, run with what this machine knows: its users, its clock, and what is on block lists.

A person's change must pass them. What brings back what was in force already (a boot, the daemon, a new list) is not
asked: it would leave a machine without what protected it a moment ago.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pfw.daemon import listing
from pfw.drivers import clock
from pfw.drivers.people import names_of
from pfw.model.flow import Moment
from pfw.model.policy import Fault, Policy, PolicyError
from pfw.policy.blocking import with_lists
from pfw.policy.trials import Trial, faults, try_all


def check(policy: Policy, content: bytes, path: str, lists: Path) -> None:
    """Raise PolicyError where a test does not hold. `lists` is the folder of block lists."""
    found = failing(policy, content, path, lists)
    if found:
        raise PolicyError(found)


def failing(policy: Policy, content: bytes, path: str, lists: Path) -> list[Fault]:
    """The tests that do not hold, as faults of the file."""
    if not policy.tests:
        return []
    return faults(run(with_known(policy, lists)), content.decode(errors="replace"), path)


def run(policy: Policy) -> list[Trial]:
    """Run all tests."""
    return try_all(policy, moment_at, names_of)


def with_known(policy: Policy, lists: Path) -> Policy:
    """The policy with what is on its block lists, as far as it is on this disk and may be read."""
    if policy.blocklists:
        with suppress(OSError):
            stored = listing.load(lists, policy.blocklists, None, [])
            return with_lists(policy, {name: each.addresses for name, each in stored.items()})
    return policy


def moment_at(time: float | None) -> Moment:
    """A moment by its time, or now, by both clocks."""
    at = clock.now() if time is None else time
    return Moment(at, clock.utc_offset_s(at))
