"""The viewpoint: which of a connection's ends is this machine, and so in which direction it goes.

With this machine's addresses known, the first packet tells: to one of them is `in`, from one of them
`out`, neither is `forward`. A capture of strangers' traffic has no such machine: then every connection is
looked at from both of its ends, as if each ran the policy, and the first rule that says something about it
from either end decides; where only the defaults are left, that for `in`, but for a private address that
talks to a public one that for `out`.
"""

from __future__ import annotations

from pfw.model.address import AddressSet, parse_range
from pfw.model.event import LocalAddresses
from pfw.model.flow import Direction, Flow, make_flow, split_key
from pfw.policy.base import LOOPBACK_INTERFACE

_PRIVATE = AddressSet(
    [parse_range(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")]
)
_EVERYBODY = AddressSet([parse_range(text) for text in ("224.0.0.0/4", "255.255.255.255", "ff00::/8")])

_NOBODY = frozenset({bytes(4), bytes(16)})

_ARRIVES, _LEAVES, _PASSES = (Direction.IN,), (Direction.OUT,), (Direction.FORWARD,)
_ARRIVES_OR_LEAVES, _LEAVES_OR_ARRIVES = (Direction.IN, Direction.OUT), (Direction.OUT, Direction.IN)


class Viewpoint:
    """From where connections are looked at; without addresses, from the network."""

    def __init__(self, local: LocalAddresses | None = None) -> None:
        self.addresses = local.addresses if local is not None else None
        self._observer = local is None or local.observer

    def flows(self, key: bytes, interface: str | None, *, sent: bool | None) -> tuple[Flow, ...]:
        """How the connection that begins with this key may be seen, the better view first.

        `sent` tells whether this machine sent the packet, None that this is not known.
        """
        protocol, source, destination, tail = split_key(key)
        views = self._directions(source, destination, interface, sent)
        first = make_flow(protocol, source, destination, tail, views[0], interface)
        if len(views) == 1:
            return (first,)
        return first, make_flow(protocol, source, destination, tail, views[1], interface)

    def _directions(
        self, source: bytes, destination: bytes, interface: str | None, sent: bool | None
    ) -> tuple[Direction, ...]:
        if self.addresses is not None:
            if source in self.addresses:
                # From oneself to oneself, but it arrived by wire: no honest packet does that.
                arrived = sent is False and interface != LOOPBACK_INTERFACE
                forged = arrived and destination in self.addresses
                return _ARRIVES if forged else _LEAVES
            if sent and source in _NOBODY:
                # Before it has an address: DHCP, duplicate address detection, multicast reports.
                return _LEAVES
            if destination in self.addresses:
                return _ARRIVES
            if not self._observer:
                return _ARRIVES if destination in _EVERYBODY else _PASSES
        leaves = source in _PRIVATE and destination not in _PRIVATE and destination not in _EVERYBODY
        return _LEAVES_OR_ARRIVES if leaves else _ARRIVES_OR_LEAVES
