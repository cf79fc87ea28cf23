"""The newer capture file (draft-ietf-opsawg-pcapng): blocks, of several interfaces, in several sections.

Blocks that hold no packets are skipped unless packets cannot be read without them; those that are
skipped are not looked into and may be of any size. `capture.py` feeds this.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from pfw.model.event import Source
from pfw.wire.error import WireError
from pfw.wire.pcap import BATCH_FRAMES, MAX_FRAME_BYTES, Batch
from pfw.wire.scan import Buffer, Frame

MAGIC = b"\x0a\x0d\x0d\x0a"
MAX_BLOCK_BYTES = MAX_FRAME_BYTES + 65_536
"""The largest frame with generous options."""
MAX_INTERFACES = 4096
MAX_NAME_LETTERS = 64
LATEST_S = 253_402_300_799.0
"""The end of the year 9999; times outside of 1970 to this are moved to the nearer end."""

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
_FEWEST_BYTES = {SECTION: 28, INTERFACE: 20, OLD_PACKET: 32, SIMPLE_PACKET: 16, STATISTICS: 24, PACKET: 32}
"""The kinds of blocks that are read, and how short each can be."""

_PACKETS = frozenset({OLD_PACKET, SIMPLE_PACKET, PACKET})

_NAME, _RESOLUTION, _OFFSET, _DROPPED_BY_INTERFACE = 2, 9, 14, 5


class _Interface:
    __slots__ = ("offset_s", "snaplen", "source", "ticks_a_second")

    def __init__(self, linktype: int, snaplen: int) -> None:
        self.source = Source(linktype)
        self.snaplen = snaplen
        self.ticks_a_second = 1e6
        self.offset_s = 0

    def seconds(self, high: int, low: int) -> float:
        return min(max((high << 32 | low) / self.ticks_a_second + self.offset_s, 0.0), LATEST_S)


class PcapngBlocks:
    """Finds the packets. `at` is where the last `index` stopped: behind the buffer when it ended inside
    a block that is skipped. `base` is where the buffer is in the file."""

    def __init__(self) -> None:
        self.at = 0
        self.base = 0
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self._interface = _Interface(0, 0)
        """That of the latest packet."""
        self._drops: dict[tuple[int, int], int] = {}
        self._section = 0
        self._time = 0.0
        self._set_order("<")

    @property
    def dropped(self) -> int:
        """Packets that the capturing system lost, by its own statistics."""
        return sum(self._drops.values())

    def _set_order(self, order: str) -> None:
        self._order = order
        self._head = Struct(order + "II")
        self._long = Struct(order + "I")
        self._packet = Struct(order + "IIIIIII")
        self._old_packet = Struct(order + "8xH2xIIII")
        self._option = Struct(order + "HH")

    def wants(self, head: bytearray) -> int:
        """How many bytes a block has that begins so, as far as `head` tells; for one to be skipped, 8."""
        if len(head) < 8:
            return 8
        if head[:4] == MAGIC:
            if len(head) < 12:
                return 12
            return self._checked_length(SECTION, self._long_in(self._order_of(head, 0), head, 4), 0)
        kind, length = self._head.unpack_from(head)
        return self._checked_length(kind, length, 0) if kind in _FEWEST_BYTES else 8

    @staticmethod
    def _long_in(order: str, buffer: Buffer | bytearray, at: int) -> int:
        return int(Struct(order + "I").unpack_from(buffer, at)[0])

    def _order_of(self, buffer: Buffer | bytearray, at: int) -> str:
        magic = bytes(buffer[at + 8 : at + 12])
        if magic == b"\x4d\x3c\x2b\x1a":
            return "<"
        if magic == b"\x1a\x2b\x3c\x4d":
            return ">"
        raise self._fault(at, "begins a section without a byte order")

    def _fault(self, at: int, what: str) -> WireError:
        return WireError(
            f"block at byte {self.base + at} {what}: the capture file is damaged there; what stands before it was read"
        )

    def _checked_length(self, kind: int, length: int, at: int) -> int:
        if length & 3 or length < _FEWEST_BYTES.get(kind, 12):
            raise self._fault(at, f"claims a length of {length} bytes, which none of its kind can have")
        if kind in _FEWEST_BYTES and length > MAX_BLOCK_BYTES:
            raise self._fault(at, f"claims {length} bytes")
        return length

    def index(self, buffer: Buffer, at: int) -> Iterator[Batch]:
        """The packets of all whole blocks from `at` on. Raises WireError at one that lies, after those before it."""
        frames: list[Frame] = []
        source: Source | None = None
        fault: WireError | None = None
        stop = len(buffer)
        try:
            while at + 8 <= stop:
                kind, length = self._head.unpack_from(buffer, at)
                if kind == SECTION:
                    # The same number in either byte order; what follows tells which order it is.
                    if at + 12 > stop:
                        break
                    self._set_order(self._order_of(buffer, at))
                    length = self._long.unpack_from(buffer, at + 4)[0]
                self._checked_length(kind, length, at)
                end = at + length
                if kind in _FEWEST_BYTES:
                    if end > stop:
                        break
                    if self._long.unpack_from(buffer, end - 4)[0] != length:
                        raise self._fault(at, "ends with another length than it begins with")
                    if kind in _PACKETS:
                        owner, frame = self._read_packet(kind, buffer, at, end)
                        if owner is not source or len(frames) == BATCH_FRAMES:
                            if source is not None:
                                yield source, buffer, frames
                            source, frames = owner, []
                        frames.append(frame)
                        end = self._index_run(buffer, end, frames) if kind == PACKET else end
                    else:
                        self._read_other(kind, buffer, at, end)
                at = end
        except WireError as error:
            fault = error
        self.at = at
        if source is not None:
            yield source, buffer, frames
        if fault is not None:
            raise fault

    def _index_run(self, buffer: Buffer, at: int, frames: list[Frame]) -> int:
        """Add the packets that follow one of the same interface, as long as all is plain; where they end.

        A quick twin of `index` and `_read_packet`, which come to the same where this leaves off early.
        """
        unpack, unpack_long, interface = self._packet.unpack_from, self._long.unpack_from, self._interface
        interfaces, many = self._interfaces, len(self._interfaces)
        ticks, offset_s = interface.ticks_a_second, interface.offset_s
        last = len(buffer) - 32
        for _ in range(BATCH_FRAMES - len(frames)):
            if at > last:
                break
            kind, length, number, high, low, captured, size = unpack(buffer, at)
            end = at + length
            if kind != PACKET or number >= many or interfaces[number] is not interface or end - 32 > last:
                break
            if length & 3 or not captured + 32 <= length <= MAX_BLOCK_BYTES or captured > MAX_FRAME_BYTES:
                break
            time = (high << 32 | low) / ticks + offset_s
            if unpack_long(buffer, end - 4)[0] != length or not 0 <= time <= LATEST_S:
                break
            self._time = time
            frames.append((time, at + 28, at + 28 + captured, size))
            at = end
        return at

    def _read_packet(self, kind: int, buffer: Buffer, at: int, end: int) -> tuple[Source, Frame]:
        begin = at + 28
        if kind == PACKET:
            _, _, number, high, low, captured, size = self._packet.unpack_from(buffer, at)
        elif kind == OLD_PACKET:
            number, high, low, captured, size = self._old_packet.unpack_from(buffer, at)
        else:
            begin = at + 12
            number, size = 0, self._long.unpack_from(buffer, at + 8)[0]
            captured = min(size, end - 4 - begin)
        if number >= len(self._interfaces):
            raise self._fault(at, f"names interface {number} of {len(self._interfaces)}")
        interface = self._interface = self._interfaces[number]
        if kind != SIMPLE_PACKET:
            self._time = interface.seconds(high, low)
        elif interface.snaplen:
            captured = min(captured, interface.snaplen)
        if begin + captured > end - 4 or captured > MAX_FRAME_BYTES:
            raise self._fault(at, f"claims a packet of {captured} bytes")
        return interface.source, (self._time, begin, begin + captured, size)

    def _read_other(self, kind: int, buffer: Buffer, at: int, end: int) -> None:
        if kind == SECTION:
            major = int(Struct(self._order + "H").unpack_from(buffer, at + 12)[0])
            if major != 1:
                raise self._fault(at, f"is of version {major}, only version 1 is known")
            self._interfaces = []
            self._section += 1
        elif kind == INTERFACE:
            if len(self._interfaces) == MAX_INTERFACES:
                raise self._fault(at, f"is for one more than {MAX_INTERFACES} interfaces")
            linktype = Struct(self._order + "H").unpack_from(buffer, at + 8)[0]
            interface = _Interface(linktype, self._long.unpack_from(buffer, at + 12)[0])
            for code, value in self._options(buffer, at + 16, end - 4):
                self._set_option(interface, code, value)
            self._interfaces.append(interface)
        else:
            number = self._long.unpack_from(buffer, at + 8)[0]
            for code, value in self._options(buffer, at + 20, end - 4):
                if code == _DROPPED_BY_INTERFACE and len(value) == 8 and number < len(self._interfaces):
                    # Statistics count from the start of the capture: the last block of an interface holds all.
                    self._note_drops(number, int(Struct(self._order + "Q").unpack(value)[0]))

    def _note_drops(self, number: int, count: int) -> None:
        if len(self._drops) < MAX_INTERFACES or (self._section, number) in self._drops:
            self._drops[self._section, number] = count

    def _options(self, buffer: Buffer, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Code and value of each option, up to the first that does not fit: what is lost is a name at most."""
        while at + 4 <= end:
            code, length = self._option.unpack_from(buffer, at)
            at += 4
            if not code or at + length > end:
                return
            yield code, bytes(buffer[at : at + length])
            at += length + (-length & 3)

    def _set_option(self, interface: _Interface, code: int, value: bytes) -> None:
        if code == _NAME:
            name = value[: 4 * MAX_NAME_LETTERS].decode("utf-8", "replace").rstrip("\0")[:MAX_NAME_LETTERS]
            printable = "".join(letter if letter.isprintable() else "?" for letter in name)
            interface.source = Source(interface.source.linktype, printable or None)
        elif code == _RESOLUTION and len(value) == 1:
            interface.ticks_a_second = 2.0 ** (value[0] & 0x7F) if value[0] & 0x80 else 10.0 ** value[0]
        elif code == _OFFSET and len(value) == 8:
            interface.offset_s = Struct(self._order + "q").unpack(value)[0]
