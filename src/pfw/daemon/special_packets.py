"""What the wire itself shows while connections stay in the kernel: neighbours, leases, names, probes, fragments.

A small ring takes what `wire/packet_filter.py` lets pass, of all devices but loopback. What comes of it are the same
observations as of a capture, but for connections: those are told by conntrack. A packet that passes several devices (a
bridge and its port, a router's two sides) counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from struct import Struct as Layout

from pfw.drivers import clock
from pfw.drivers.capture import Capture, Frames
from pfw.engine.detect.specials import Quoted, Specials, quoted
from pfw.model.event import Item, Source
from pfw.model.flow import reverse_key, split_key
from pfw.model.name import Answer
from pfw.model.observation import Observation, Odd, Stray
from pfw.model.packet import TCP
from pfw.wire.dns import read_packet
from pfw.wire.error import WireError
from pfw.wire.link import ETHERNET
from pfw.wire.observe import DHCP, DNS, look_into, what_is
from pfw.wire.packet_filter import FLAGS_MASK, ORDINARY_FLAGS, special_packets
from pfw.wire.scan import scan

RING_BLOCKS = 4
"""1 MiB: some 5,000 small packets."""
PACKETS_MAX = 2_048
"""After about so many a call returns."""
QUESTIONS_MAX, QUESTION_S = 4_096, 30.0
"""Questions whose answers are believed. Resolvers give up sooner."""
PASSING_MAX, PASSING_S = 4_096, 0.25
"""Packets that may come again on another device, and how soon."""
INTERFACES_MAX = 1_024
"""That are the same link as others. Names come and go with virtual machines."""
GAPS_S = 30.0
LOOPBACK_SOURCE = "loopback_source"
"""What an `Odd` is called that came by a cable from an address which is never on one (RFC 1122, RFC 4291)."""

_ETHERNET_BYTES = 14
_PORTS = Layout(">HH")
_DNS_PORT = (53).to_bytes(2)
_LOOPBACK6 = bytes(15) + b"\x01"


class SpecialPackets:
    """Reads them without waiting.

    `quoted` is told of ICMP errors about other packets, `learn` of answers to questions that were sent from here.
    Raises OSError: EPERM without CAP_NET_RAW.
    """

    def __init__(self, learn: Callable[[Answer, float], None], quoted: Callable[[Quoted], None]) -> None:
        self._learn = learn
        self._quoted = quoted
        self._capture = Capture(None, special_packets(), RING_BLOCKS)
        self._batches: Iterator[tuple[Source, Frames, Set[int]]] = iter(())
        self._specials = Specials()
        self._passing = Passing()
        self._questions: dict[bytes, float] = {}
        self._next_gaps = 0.0
        self.seen = 0
        """Packets that were looked at."""
        self.unreadable = 0
        """Answers that were none."""

    def fileno(self) -> int:
        return self._capture.fileno()

    @property
    def lost(self) -> int:
        """Packets that did not fit into the ring."""
        self._capture.count()
        return self._capture.lost

    def read(self) -> list[Observation]:
        """What has come, up to a bound; what is left keeps the descriptor readable. To be called from time to time
        also when nothing comes: fragments that miss something are told of late."""
        told: list[Observation] = []
        self._capture.wait(0)
        count = 0
        while count < PACKETS_MAX:
            batch = next(self._batches, None)
            if batch is None:
                # A block of the ring is given back when its reader has got to its end.
                self._batches = self._capture.read()
                if (batch := next(self._batches, None)) is None:
                    break
            source, frames, sent = batch
            count += len(frames)
            self._take(source, frames, sent, told)
        self.seen += count
        now = clock.now()
        if not 0 < self._next_gaps - now <= GAPS_S:
            self._next_gaps = now + GAPS_S
            told += self._specials.gaps(now)
        return told

    def close(self) -> None:
        self._batches = iter(())
        self._capture.close()

    def _take(self, source: Source, frames: Frames, sent: Set[int], told: list[Observation]) -> None:
        buffer = self._capture.buffer
        for item in scan(source, buffer, frames):
            key, time, _, _, at, end, _ = item
            frame = bytes(buffer[at:end])
            packet = frame[_ETHERNET_BYTES:] if source.linktype == ETHERNET else frame
            what = what_is(key) if key is not None else None
            if what == DNS and key is not None:
                self._follow_names(key, packet, at in sent, time)
            is_of_link = what == DHCP or (item[6] is not None and item[6].arp is not None)
            if not self._passing.again(packet, source.interface, time, is_of_link=is_of_link):
                self._observe(source, item, frame, told)

    def _observe(self, source: Source, item: Item, frame: bytes, told: list[Observation]) -> None:
        key, time, size, flags, _, _, packet = item
        interface = self._passing.link(source.interface)
        loopback = _from_loopback(item)
        if loopback is not None:
            told.append(loopback)
            return
        if key is not None:
            protocol, sender, destination, tail = split_key(key)
            if protocol == TCP and flags & FLAGS_MASK not in ORDINARY_FLAGS:
                source_port, port = _PORTS.unpack(tail)
                told.append(Stray(time, sender, destination, source_port, port, flags, size))
            seen = look_into(source.linktype, frame, size, time, key, interface)
            if seen is not None:
                told.append(seen)
        if packet is not None:
            told += self._specials.packet(packet, time, interface)
            error = quoted(packet, time)
            if error is not None:
                self._quoted(error)

    def _follow_names(self, key: bytes, packet: bytes, is_sent: bool, time: float) -> None:
        """Believe answers that belong to a question of this machine's, as far as ports tell."""
        if is_sent and key.endswith(_DNS_PORT):
            answered = reverse_key(key)
            self._questions.pop(answered, None)
            self._questions[answered] = time
            if len(self._questions) > QUESTIONS_MAX:
                del self._questions[next(iter(self._questions))]
        elif key[-4:-2] == _DNS_PORT and abs(time - self._questions.get(key, -QUESTION_S)) < QUESTION_S:
            try:
                answer = read_packet(packet)
            except WireError:
                self.unreadable += 1
                return
            if answer is not None:
                self._learn(answer, time)


class Passing:
    """Packets that have just been seen, to know them again on another device, whatever routers do to them."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str | None, float]] = {}
        # Interfaces on which the same neighbours are heard, a bridge and its ports, and one of them that stands for it.
        self._same: dict[str | None, str | None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def link(self, interface: str | None) -> str | None:
        """The interface that stands for all on which the same neighbours are heard."""
        return self._same.get(interface, interface)

    def again(self, packet: bytes, interface: str | None, time: float, *, is_of_link: bool = False) -> bool:
        """Whether this packet, from its IP header on, was just seen on another interface. One that `is_of_link` names
        MAC addresses and is never forwarded: so both are the same link."""
        what = hash(_without_hops(packet))
        first, before = self._seen.get(what, (interface, time))
        if first != interface and abs(time - before) < PASSING_S:
            if is_of_link:
                self._join(self.link(first), self.link(interface))
            return True
        self._seen.pop(what, None)
        self._seen[what] = (interface, time)
        if len(self._seen) > PASSING_MAX:
            del self._seen[next(iter(self._seen))]
        return False

    def _join(self, one: str | None, other: str | None) -> None:
        if one == other:
            return
        if len(self._same) > INTERFACES_MAX:
            self._same.clear()
        self._same[other] = one
        for each, stands_for in self._same.items():
            if stands_for == other:
                self._same[each] = one


def _without_hops(packet: bytes) -> bytes:
    """A packet without what changes at every hop: hop limit, and IPv4's checksum."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return packet[:8] + packet[9:10] + packet[12:]
    return packet[:7] + packet[8:] if version == 6 else packet


def _from_loopback(item: Item) -> Odd | None:
    key, time, _, _, _, _, packet = item
    if key is not None:
        protocol, source, destination, _ = split_key(key)
    elif packet is not None and packet.source is not None and packet.destination is not None:
        protocol, source, destination = packet.protocol or 0, packet.source, packet.destination
    else:
        return None
    if source != _LOOPBACK6 and (len(source) != 4 or source[0] != 127):
        return None
    return Odd(time, source, destination, protocol, (LOOPBACK_SOURCE,))
