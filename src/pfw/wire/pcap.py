"""The classic capture file (draft-ietf-opsawg-pcap): one link type, records one after the other.

Both byte orders, microseconds and nanoseconds, and the "modified" records of old Linux systems, whose
headers are 8 bytes longer. `capture.py` feeds this and owns what is common to it and pcapng.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from pfw.model.event import Source
from pfw.wire.error import WireError
from pfw.wire.scan import Buffer, Frame

Batch = tuple[Source, Buffer, list[Frame]]
"""Frames of one source, and the buffer that they are places in."""

MAX_FRAME_BYTES = 262_144
"""What tcpdump and Wireshark take as the most that one record can hold; more is a lie or damage."""
BATCH_FRAMES = 256
"""Few enough that the tuples of a batch stay in the cache, and die young, until the engine is through."""

FILE_HEADER_BYTES = 24

_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e6, "IIII"),
    b"\xa1\xb2\xc3\xd4": (">", 1e6, "IIII"),
    b"\x4d\x3c\xb2\xa1": ("<", 1e9, "IIII"),
    b"\xa1\xb2\x3c\x4d": (">", 1e9, "IIII"),
    b"\x34\xcd\xb2\xa1": ("<", 1e6, "IIII8x"),
    b"\xa1\xb2\xcd\x34": (">", 1e6, "IIII8x"),
}
MAGICS = frozenset(_MAGICS)

_FILE_HEADER = "IHH8xII"
_RECORD = Struct("<IIII")


class PcapRecords:
    """Finds the records. `at` is where the last `index` stopped, `base` where its buffer is in the file."""

    def __init__(self, header: bytes) -> None:
        order, self._parts_a_second, record = _MAGICS[header[:4]]
        _, major, minor, _, network = Struct(order + _FILE_HEADER).unpack(header)
        if major != 2:
            raise WireError(f"capture file of version {major}.{minor}, only version 2 is known")
        self._record = Struct(order + record)
        # The upper half tells of frame check sequences, which the decoder takes for padding.
        self._source = Source(network & 0xFFFF)
        self.at = 0
        self.base = 0

    def wants(self, head: bytearray) -> int:
        """How many bytes a record has that begins so, as far as `head` tells; of one that lies the header's."""
        if len(head) < self._record.size:
            return self._record.size
        captured = int(self._record.unpack_from(head)[2])
        return self._record.size + (captured if captured <= MAX_FRAME_BYTES else 0)

    def index(self, buffer: Buffer, at: int) -> Iterator[Batch]:
        """The whole records from `at` on. Raises WireError at one that lies, after the ones before it."""
        unpack, header, parts = self._record.unpack_from, self._record.size, self._parts_a_second
        stop = len(buffer)
        last = stop - header
        more = True
        while more:
            frames: list[Frame] = []
            add = frames.append
            more = False
            captured = 0
            for _ in range(BATCH_FRAMES):
                if at > last:
                    break
                seconds, part, captured, size = unpack(buffer, at)
                begin = at + header
                end = begin + captured
                if end > stop or captured > MAX_FRAME_BYTES:
                    break
                add((seconds + part / parts, begin, end, size))
                at = end
            else:
                more = True
            self.at = at
            if frames:
                yield self._source, buffer, frames
            if captured > MAX_FRAME_BYTES:
                raise WireError(
                    f"record at byte {self.base + at} claims {captured} bytes: the capture file is damaged there; "
                    "what stands before it was read"
                )


def write_pcap_header(linktype: int, snaplen: int = MAX_FRAME_BYTES) -> bytes:
    """The beginning of a file in little-endian order with microseconds."""
    return b"\xd4\xc3\xb2\xa1" + Struct("<HH8xII").pack(2, 4, snaplen, linktype)


def write_record(time_s: float, frame: bytes, size: int) -> bytes:
    """One record. `size` is the frame's bytes on the wire."""
    seconds, micros = divmod(round(time_s * 1e6), 1_000_000)
    return _RECORD.pack(seconds, micros, len(frame), size) + frame
