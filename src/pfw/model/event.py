"""Events: everything that the engine is told."""

from __future__ import annotations

from collections.abc import Set

from msgspec import Struct

from pfw.model.address import AddressSet
from pfw.model.packet import Packet
from pfw.model.policy import Policy

Item = tuple[bytes | None, float, int, int, int, int, Packet | None]
"""One packet: flow key, time (s since 1970), size on the wire (bytes), TCP flags (0 for others), where it
begins and ends in the buffer, and the decoded packet. The packet is None for one that is all in order
(a whole TCP, UDP or SCTP packet whose headers do not lie): then the key says everything. The key is None
where there is no flow."""


class Source(Struct, frozen=True, gc=False):
    """Where frames come from. `linktype` is a number of the LINKTYPE_ registry (tcpdump.org)."""

    linktype: int
    interface: str | None = None


class Packets(Struct, gc=False):
    """Packets of one source, in the order in which they were seen. The buffer is only good until the
    engine returns: what is to be kept is copied."""

    source: Source
    buffer: memoryview | bytes
    items: list[Item]
    sent: Set[int] | None = None
    """Where in the buffer those begin that this machine sent; None where the capture does not tell."""


class PolicyChanged(Struct, frozen=True):
    """From now on this policy holds, also for the connections that are there."""

    policy: Policy


class LocalAddresses(Struct, frozen=True):
    """The addresses of this machine, its broadcast addresses with them.

    `observer` tells that connections between others are seen as somebody on the network sees them, and
    not as forwarded by this machine: so it is with a capture that somebody else made.
    """

    addresses: AddressSet
    observer: bool = False


class OpenSocket(Struct, frozen=True, gc=False):
    """A connection that was open before anything was captured, by the key of its first packet."""

    key: bytes


class Tick(Struct, frozen=True, gc=False):
    """Time passes although there are no packets."""


class Finish(Struct, frozen=True, gc=False):
    """Nothing more comes: every connection ends here."""


Event = Packets | PolicyChanged | LocalAddresses | OpenSocket | Tick | Finish
