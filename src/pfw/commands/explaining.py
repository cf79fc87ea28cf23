"""`pfw explain`, with what only the machine knows: what is on its block lists, and what is banned."""

from __future__ import annotations

from argparse import Namespace
from contextlib import suppress

from pfw.cli import ask
from pfw.cli.ask import tell
from pfw.daemon import banning, listing
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.people import names_of
from pfw.drivers.store import Store, folder
from pfw.model.address import as_int, format_range
from pfw.model.flow import Flow
from pfw.model.policy import Policy
from pfw.policy.blocking import with_lists


def explain(options: Namespace) -> int:
    """`pfw explain`."""
    return ask.explain(options, ask.Machine(known_lists, tell_bans, names_of))


def known_lists(policy: Policy) -> Policy:
    """The policy with what is on its block lists, as far as it is on this disk and may be read."""
    if not policy.blocklists:
        return policy
    warnings: list[str] = []
    with suppress(OSError):
        stored = listing.load(folder() / "lists", policy.blocklists, None, warnings)
        policy = with_lists(policy, {name: each.addresses for name, each in stored.items()})
    missing = [each.name for each in policy.blocklists if each.enabled and not _has(policy, each.name)]
    if missing:
        tell(f"what is on block list {', '.join(missing)} is not known here; it is left out")
    return policy


def _has(policy: Policy, name: str) -> bool:
    return any(rule.name.endswith(f" {name}") for rule in policy.list_rules)


def tell_bans(flow: Flow) -> None:
    """Whether a ban holds either end: then the packet is dropped before the policy is asked."""
    with suppress(OSError):
        found = banning.records(State(Store(folder())), clock.now())
        for end in filter(None, (flow.source, flow.destination)):
            value = as_int(end)
            pair = next((pair for pair in found if pair[0] <= value <= pair[1]), None)
            if pair is not None:
                tell(f"{format_range(*pair)} is banned: its packets are dropped before the policy is asked")
