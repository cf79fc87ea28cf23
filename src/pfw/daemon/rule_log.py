"""What rules tell of by the kernel's log: a packet, and the verdict of the rule that it carries the number of.

Nothing is decided here. The generation that the number belongs to says which rule that is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from pfw.daemon.state import Applied, Named, State
from pfw.drivers import clock, netlink
from pfw.enforce.conditions import BANNED, REFUSED
from pfw.enforce.plan import BAN_NAME, REFUSED_NAME
from pfw.model.address import AddressSet
from pfw.model.command import Frame
from pfw.model.event import Source
from pfw.model.flow import Direction, Flow, make_flow, split_key
from pfw.model.verdict import Action, Verdict
from pfw.wire.error import WireError
from pfw.wire.nflog import Logged
from pfw.wire.scan import scan

LINKTYPE_RAW = 101
_GENERATIONS_MAX = 8
_PRE_ROUTING, _LOCAL_IN, _FORWARD, _LOCAL_OUT = 0, 1, 2, 3
_DIRECTIONS = {_LOCAL_IN: Direction.IN, _FORWARD: Direction.FORWARD, _LOCAL_OUT: Direction.OUT}
_OF_NO_GENERATION = {
    BANNED: Named(BAN_NAME, Action.BLOCK, ""),
    REFUSED: Named(REFUSED_NAME, Action.BLOCK, ""),
}
"""What is told of bans and of people's answers, which belong to no generation."""


class Told(Struct, frozen=True):
    """A packet that a rule told of. `key` is its flow key."""

    time: float
    key: bytes
    flow: Flow
    verdict: Verdict
    flags: int
    frame: Frame


class RuleLog:
    """Reads what rules told. `interface` gives the name of one by its index."""

    def __init__(self, state: State, interface: Callable[[int], str]) -> None:
        self._state = state
        self._interface = interface
        self._generations: dict[int, Applied | None] = {}
        self._local = AddressSet()

    def refresh(self) -> None:
        """Look at this machine's addresses anew. Call it now and then."""
        with suppress(OSError, WireError):
            self._local = netlink.local_addresses()

    def forget(self) -> None:
        """A generation may have been made anew."""
        self._generations.clear()

    def read(self, packet: Logged) -> Told | None:
        """What a packet says; None for one that carries no rule of ours, or is no packet that begins anything."""
        named = self._named(packet.prefix)
        if named is None:
            return None
        at = packet.time if packet.time is not None else clock.now()
        index = packet.in_index if packet.in_index else packet.out_index
        interface = self._interface(index) if index else None
        payload = packet.payload
        ((key, _, size, flags, *_),) = scan(
            Source(LINKTYPE_RAW, interface), payload, [(at, 0, len(payload), len(payload))]
        )  # fmt: skip
        if key is None:
            return None
        protocol, sender, receiver, tail = split_key(key)
        flow = make_flow(protocol, sender, receiver, tail, self._direction(packet, receiver), interface)
        return Told(at, key, flow, _verdict(named), flags, Frame(LINKTYPE_RAW, payload, size))

    def _named(self, prefix: str) -> Named | None:
        """The rule that a packet's prefix (`nft_table.log_prefix`) speaks of."""
        words = prefix.split()
        if len(words) != 3 or words[0] != "pfw" or not (words[1].isdecimal() and words[2].isdecimal()):
            return None
        generation, number = int(words[1]), int(words[2])
        if generation == 0:
            return _OF_NO_GENERATION.get(number)
        if generation not in self._generations:
            if len(self._generations) >= _GENERATIONS_MAX:
                self._generations.clear()
            with suppress(OSError):
                self._generations[generation] = self._state.applied(generation)
        applied = self._generations.get(generation)
        return applied.verdicts[number] if applied is not None and number < len(applied.verdicts) else None

    def _direction(self, packet: Logged, receiver: bytes) -> Direction:
        known = _DIRECTIONS.get(packet.hook if packet.hook is not None else _PRE_ROUTING)
        if known is not None:
            return known
        # Before routing it is not settled yet whom a packet is for.
        return Direction.IN if receiver in self._local or receiver[0] >= 224 else Direction.FORWARD


def _verdict(named: Named) -> Verdict:
    default = named.name.startswith("default ")
    base = named.index is None and not default
    reason = named.name if base or default else f'rule "{named.name}"'
    rule = None if default else named.name
    return Verdict(action=Action(named.action), rule=rule, index=named.index, base=base, log=named.log, reason=reason)
