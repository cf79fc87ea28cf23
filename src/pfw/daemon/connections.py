"""The connections that the kernel knows: those that are open before we begin are made known to it, and those that a
new policy forbids are cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from msgspec import Struct

from pfw.drivers import clock, netfilter, netlink
from pfw.model.address import AddressSet
from pfw.model.flow import Direction, Flow
from pfw.model.policy import Policy
from pfw.model.verdict import Action
from pfw.policy.decide import Decider
from pfw.wire.conntrack import Entry
from pfw.wire.error import WireError

_DESTINATION_REWRITTEN = 1 << 5
"""IPS_DST_NAT (include/uapi/linux/netfilter/nf_conntrack_common.h)."""


class Cut(Struct, frozen=True):
    """What was cut, and what could not be told: rules ask for something about it that nobody knows any more."""

    cut: int = 0
    unknown: int = 0


def make_known() -> int:
    """Tell connection tracking of the TCP connections that are open; it would call their packets strays.

    How many it did not know. What cannot be told is left: such a connection has to be made anew.
    """
    with suppress(OSError, WireError):
        return netfilter.track([each.tuple for each in netlink.tcp_sockets()])
    return 0


Describe = Callable[[Flow], Flow]
"""Says of a connection what is known of its owner."""


def cut_forbidden(policy: Policy, describe: Describe | None = None) -> Cut:
    """End the connections that a policy forbids, and no others: not those of which nobody knows whether it does."""
    try:
        entries = netfilter.connections()
        local = netlink.local_addresses()
    except (OSError, WireError):
        return Cut()
    if not entries:
        return Cut()  # a policy of many rules takes its time to be made ready
    decider = Decider(policy)
    moment = clock.moment()
    view = View(local, asks_interface=any(rule.interfaces for rule in policy.rules))
    forbidden, unknown = [], 0
    for entry in entries:
        flow = view.flow(entry)
        action = decider.decide(flow if describe is None else describe(flow), moment, None).action
        if action in (Action.BLOCK, Action.REJECT):
            forbidden.append(entry)
        elif action is not Action.ALLOW:
            unknown += 1
    if not forbidden:
        return Cut(0, unknown)
    with suppress(OSError, WireError):
        return Cut(netfilter.cut(forbidden), unknown)
    return Cut(0, unknown)


class View:
    """Connections as a policy is asked about them."""

    def __init__(self, local: AddressSet, *, asks_interface: bool) -> None:
        self._local = local
        self._interface: Callable[[bytes], str | None] = lru_cache(4096)(_interface) if asks_interface else _unknown

    def flow(self, entry: Entry) -> Flow:
        direction = self._direction(entry)
        destination, port = entry.destination, entry.port
        if direction is not Direction.FORWARD and entry.status & _DESTINATION_REWRITTEN:
            # Arriving and leaving packets are judged behind the rewrite; forwarded ones by what was sent.
            destination, port = entry.reply_source, entry.reply_source_port
        other = destination if direction is Direction.OUT else entry.source
        return Flow(
            direction=direction,
            protocol=entry.protocol,
            source=entry.source,
            destination=destination,
            source_port=entry.source_port,
            port=port,
            icmp_type=entry.icmp_type,
            interface=self._on(entry, other),
        )

    def _direction(self, entry: Entry) -> Direction:
        if entry.source in self._local:
            return Direction.OUT
        # Where it really went: the answer comes from there.
        if entry.reply_source in self._local or (
            entry.destination in self._local and not entry.status & _DESTINATION_REWRITTEN
        ):
            return Direction.IN
        return Direction.FORWARD

    def _on(self, entry: Entry, other: bytes) -> str | None:
        if entry.source in self._local and entry.destination in self._local:
            return "lo"
        return self._interface(other)


def _interface(packed: bytes) -> str | None:
    with suppress(OSError, WireError):
        return netlink.route_interface(packed)
    return None


def _unknown(_: bytes) -> str | None:
    return None
