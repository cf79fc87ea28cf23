"""Events of connection tracking, read fast: the twin of `conntrack_event.py`.

Where everything is in a message depends on its netlink header, the headers of its attributes and the number of its
protocol; all else are values. So of a message that the careful way could read it is kept which bytes those are, what
they were, and where the values stood. One that has the same bytes there has its values in the same places, from which
they are taken all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from struct import Struct as Layout
from struct import calcsize
from typing import Any

from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP
from pfw.wire.conntrack_event import Event, read_event
from pfw.wire.error import WireError
from pfw.wire.netlink import parts

SHAPES_MAX = 256
"""Of about 1 KiB each. With all that can be switched on a system has some 40."""

_HEADERS_BYTES = 20
"""struct nlmsghdr and struct nfgenmsg, before the first attribute."""
_LENGTH, _ATTRIBUTE = Layout("=I"), Layout("=HH")
_TYPE_MASK = 0x3FFF
_PORTS = Layout(">HH").pack
_ECHO = Layout(">HBB").pack
_NO_PORTS = bytes(4)


class EventDecoder:
    """Reads events and remembers how they were laid out."""

    def __init__(self) -> None:
        self.unreadable = 0
        """Messages that do not fit."""
        self._shapes: dict[int, list[_Shape]] = {}
        self._count = 0

    def read(self, messages: Iterable[bytes]) -> list[Event]:
        """The events in what reading the socket gave. What cannot be read is left out and counted."""
        found: list[Event] = []
        shapes = self._shapes.get
        for data in messages:
            number = int.from_bytes(data, "little")
            for mask, wanted, read in shapes(len(data), ()):
                if number & mask == wanted:
                    found.append(read(data))
                    break
            else:
                self._read_slowly(found, data)
        return found

    def _read_slowly(self, found: list[Event], data: bytes) -> None:
        before = len(found)
        try:
            for kind, flags, _, body in parts(data):
                event = read_event(kind, flags, body)
                if event is not None:
                    found.append(event)
        except WireError:
            self.unreadable += 1
            return
        if len(found) == before + 1:
            self._learn(found[-1], data)

    def _learn(self, event: Event, data: bytes) -> None:
        shape = _shape(event, data)
        if shape is None:
            return
        if self._count == SHAPES_MAX:
            # Layouts of any use will soon be known again.
            self._shapes.clear()
            self._count = 0
        self._count += 1
        self._shapes.setdefault(len(data), []).append(shape)


_Shape = tuple[int, int, Callable[[bytes], Event]]
"""Which bits of a message count, what they must be, and how to read it then: a message as a number, its first byte the
lowest."""

_Unpack = Callable[[bytes], tuple[Any, ...]]
_Order = Callable[[Sequence[object]], tuple[Any, ...]]

_PLACES = {
    (1, 1, 1): ("source", "4s"),
    (1, 1, 2): ("destination", "4s"),
    (1, 1, 3): ("source", "16s"),
    (1, 1, 4): ("destination", "16s"),
    (1, 2, 1): ("protocol", "B"),
    (1, 2, 2): ("source_port", "H"),
    (1, 2, 3): ("port", "H"),
    (1, 2, 4): ("icmp_id", "H"),
    (1, 2, 5): ("icmp_type", "B"),
    (1, 2, 6): ("icmp_code", "B"),
    (1, 2, 7): ("icmpv6_id", "H"),
    (1, 2, 8): ("icmpv6_type", "B"),
    (1, 2, 9): ("icmpv6_code", "B"),
    (1, 3): ("zone", "H"),
    (2, 1, 1): ("reply_source", "4s"),
    (2, 1, 2): ("", "4s"),
    (2, 1, 3): ("reply_source", "16s"),
    (2, 1, 4): ("", "16s"),
    (2, 2, 1): ("", "B"),
    (2, 2, 2): ("reply_port", "H"),
    (2, 2, 3): ("", "H"),
    (3,): ("status", "I"),
    (4, 1, 1): ("tcp_state", "B"),
    (7,): ("", "I"),
    (8,): ("mark", "I"),
    (9, 1): ("packets", "Q"),
    (9, 2): ("bytes", "Q"),
    (10, 1): ("reply_packets", "Q"),
    (10, 2): ("reply_bytes", "Q"),
    (12,): ("id", "I"),
    (18,): ("zone", "H"),
    (20, 1): ("start_ns", "Q"),
    (20, 2): ("stop_ns", "Q"),
    (27,): ("time_ns", "Q"),
}
"""By the way to it through the attributes: which field a value is for, and how it is written. Values without a field
are here because the careful way looks at them."""
_NESTED = {way[:depth] for way in _PLACES for depth in range(len(way))}

_ENDS = ("source", "destination"), ("reply_source",)
_PARTS = {
    **dict.fromkeys(PORT_PROTOCOLS, (("source_port", "port"), ("reply_port",))),
    ICMP: (("icmp_id", "icmp_type", "icmp_code"), ()),
    ICMPV6: (("icmpv6_id", "icmpv6_type", "icmpv6_code"), ()),
}
"""What the tuples of a protocol hold behind the addresses: the original one, and the one of replies."""
_OF_TUPLES = {name for name, _ in _PLACES.values() if "port" in name or name.startswith("icmp")} | {"protocol"}
_TOLD = Event.__struct_fields__[Event.__struct_fields__.index("id") :]
_ZERO_UNTOLD = frozenset({"id", "status", "mark", "zone"})


class _Walk:
    """Where the fields of a message are, and which of its bytes are headers."""

    def __init__(self, data: bytes) -> None:
        self.fields: dict[str, tuple[int, str]] = {}
        self.headers = [(0, 8)]
        # Nothing but this one message.
        self.is_usual = _LENGTH.unpack_from(data)[0] == len(data)
        self._seen: set[tuple[int, ...]] = set()
        self._data = data
        self._walk((), _HEADERS_BYTES, len(data))

    def _walk(self, way: tuple[int, ...], at: int, end: int) -> None:
        while at + _ATTRIBUTE.size <= end:
            length, kind = _ATTRIBUTE.unpack_from(self._data, at)
            if length < _ATTRIBUTE.size or at + length > end:
                # The careful way does not look into everything.
                self.is_usual = False
                return
            self.headers.append((at, _ATTRIBUTE.size))
            self._look((*way, kind & _TYPE_MASK), at + _ATTRIBUTE.size, at + length)
            at += (length + 3) & ~3

    def _look(self, way: tuple[int, ...], at: int, end: int) -> None:
        if way in _NESTED or way in _PLACES:
            self.is_usual &= way not in self._seen
            self._seen.add(way)
        if way in _NESTED:
            self._walk(way, at, end)
        elif way in _PLACES:
            name, code = _PLACES[way]
            self.is_usual &= end - at == calcsize(f"={code}") and name not in self.fields
            if name:
                self.fields[name] = at, code


def _shape(event: Event, data: bytes) -> _Shape | None:
    """How to read messages like this one, which was read; None where that is left to the careful way."""
    walk = _Walk(data)
    if not walk.is_usual or "protocol" not in walk.fields:
        return None
    forth, back = _PARTS.get(event.protocol, ((), ()))
    first = (*_ENDS[0], *forth, *_ENDS[1], *back)
    wanted = {name: place for name, place in walk.fields.items() if name in first or name not in _OF_TUPLES}
    ordered = sorted(wanted, key=lambda name: wanted[name][0])
    if tuple(ordered[: len(first)]) != first:
        return None
    counts = bytearray(len(data))
    for at, size in [*walk.headers, (walk.fields["protocol"][0], 1)]:
        counts[at : at + size] = b"\xff" * size
    mask = int.from_bytes(counts, "little")
    return mask, int.from_bytes(data, "little") & mask, _reader(event, wanted, ordered, len(first))


def _values(places: list[tuple[int, str]]) -> Layout:
    text, end = ">", 0
    for at, code in places:
        text += f"{at - end}x{code}"
        end = at + calcsize(f"={code}")
    return Layout(text)


def _told(names: tuple[str, ...]) -> _Order:
    """Puts what stands behind the tuples into the order of an event, and what is not told between."""
    last = max((_TOLD.index(name) for name in names), default=0)
    # Two at least, or what comes out is no tuple.
    wanted = _TOLD[: max(last + 1, 2)]
    # Behind the values stand 0 and None.
    untold = {name: len(names) + (name not in _ZERO_UNTOLD) for name in wanted}
    return itemgetter(*(names.index(name) if name in names else untold[name] for name in wanted))


def _reader(
    like: Event, places: dict[str, tuple[int, str]], ordered: list[str], of_tuples: int
) -> Callable[[bytes], Event]:
    unpack = _values([places[name] for name in ordered]).unpack_from
    names = tuple(ordered[of_tuples:])
    is_plain = names == _TOLD[: len(names)]
    if like.protocol in PORT_PROTOCOLS:
        return _ports_reader(like.what, like.protocol, unpack, None if is_plain else _told(names))
    if like.protocol in _PARTS:
        return _icmp_reader(like.what, like.protocol, unpack, _told(names))
    return _other_reader(like.what, like.protocol, unpack, _told(names))


def _ports_reader(what: int, protocol: int, unpack: _Unpack, told: _Order | None) -> Callable[[bytes], Event]:
    front = b"" if protocol == TCP else bytes((protocol,))

    def read_plain(data: bytes) -> Event:
        source, destination, source_port, port, reply_source, reply_port, *rest = unpack(data)
        return Event(
            what, front + source + destination + _PORTS(source_port, port), protocol, source, destination,
            source_port, port, None, None if reply_source == destination else reply_source,
            None if reply_port == port else reply_port, *rest,
        )  # fmt: skip

    if told is None:
        return read_plain

    def read(data: bytes) -> Event:
        source, destination, source_port, port, reply_source, reply_port, *rest = unpack(data)
        return Event(
            what, front + source + destination + _PORTS(source_port, port), protocol, source, destination,
            source_port, port, None, None if reply_source == destination else reply_source,
            None if reply_port == port else reply_port, *told((*rest, 0, None)),
        )  # fmt: skip

    return read


def _icmp_reader(what: int, protocol: int, unpack: _Unpack, told: _Order) -> Callable[[bytes], Event]:
    front = bytes((protocol,))

    def read(data: bytes) -> Event:
        source, destination, identifier, icmp_type, code, reply_source, *rest = unpack(data)
        return Event(
            what, front + source + destination + _ECHO(identifier, icmp_type, code), protocol, source, destination,
            None, None, icmp_type, None if reply_source == destination else reply_source, None,
            *told((*rest, 0, None)),
        )  # fmt: skip

    return read


def _other_reader(what: int, protocol: int, unpack: _Unpack, told: _Order) -> Callable[[bytes], Event]:
    front = bytes((protocol,))

    def read(data: bytes) -> Event:
        source, destination, reply_source, *rest = unpack(data)
        return Event(
            what, front + source + destination + _NO_PORTS, protocol, source, destination, None, None, None,
            None if reply_source == destination else reply_source, None, *told((*rest, 0, None)),
        )  # fmt: skip

    return read
