"""Capture files as a stream: bytes in, batches of frames out. Knows neither files nor sockets.

Frames point into the chunk that was fed; only a record that a chunk's end cuts in two is copied. `pcap.py`
and `pcapng.py` find the records, this file owns what lies between chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from pfw.wire import pcap, pcapng
from pfw.wire.error import WireError
from pfw.wire.pcap import Batch, PcapRecords
from pfw.wire.pcapng import PcapngBlocks
from pfw.wire.scan import Buffer

_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "zcat"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstdcat"),
    b"BZh": ("bzip2", "bzcat"),
    b"\xfd7zXZ": ("xz", "xzcat"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4cat"),
}
_LONGEST_MAGIC = 5


class Ending(Struct, frozen=True):
    """How a capture ended. `text` is for people, None when it ended as it should."""

    truncated_bytes: int = 0
    """Bytes of the record that the end of the file cut in two."""
    dropped: int = 0
    """Packets that the capturing system says it lost."""
    text: str | None = None


class CaptureReader:
    """Reads pcap and pcapng, whatever way the bytes are cut into chunks."""

    def __init__(self) -> None:
        self._format: PcapRecords | PcapngBlocks | None = None
        self._rest = bytearray()
        """The beginning of a record whose other part is in the next chunk. Bounded by the longest record."""
        self._skip = 0
        self._read = 0
        """How many bytes of the file have been used up."""
        self._fault: WireError | None = None

    def feed(self, chunk: Buffer) -> Iterator[Batch]:
        """The batches in the next piece of the file, at most `BATCH_FRAMES` frames each.

        Exhaust the iterator before the next call. Raises WireError, with a line for people, where the file
        does not hold what it says; every whole packet before that place has been given then.
        """
        if self._fault:
            raise self._fault
        try:
            yield from self._feed(chunk)
        except WireError as error:
            self._fault = error
            raise

    def finish(self) -> Ending:
        """The file is over. Raises WireError when it was none at all."""
        if self._format is None:
            if not self._rest:
                raise WireError("empty, not a capture file")
            if bytes(self._rest[:4]) not in pcap.MAGICS:
                raise _unknown(bytes(self._rest))
            raise WireError("too short for a capture file")
        dropped = self._format.dropped if isinstance(self._format, PcapngBlocks) else 0
        if not self._rest and not self._skip:
            return Ending(dropped=dropped)
        count = len(self._rest)
        cut = f"{count} bytes of a cut record were left out" if count else "the last record is cut"
        return Ending(count, dropped, f"the capture file ends in the middle: {cut}")

    def _feed(self, chunk: Buffer) -> Iterator[Batch]:
        at = 0
        while at < len(chunk):
            if self._skip:
                taken = min(self._skip, len(chunk) - at)
                self._skip -= taken
                self._read += taken
                at += taken
            elif self._format is None or self._rest:
                missing = self._wants() - len(self._rest)
                self._rest += chunk[at : at + missing]
                at += min(missing, len(chunk) - at)
                if len(self._rest) >= self._wants():
                    yield from self._use_rest()
            else:
                self._format.base = self._read - at
                yield from self._format.index(chunk, at)
                self._advance(self._format, chunk, at)
                at = len(chunk)

    def _wants(self) -> int:
        """How many bytes `_rest` must have before it can be used."""
        if self._format is not None:
            self._format.base = self._read
            return self._format.wants(self._rest)
        magic = bytes(self._rest[:4])
        if magic in pcap.MAGICS:
            return pcap.FILE_HEADER_BYTES
        return 4 if len(magic) < 4 or magic == pcapng.MAGIC else _LONGEST_MAGIC

    def _use_rest(self) -> Iterator[Batch]:
        whole = bytes(self._rest)
        if self._format is None:
            self._format = self._begin(whole)
            if isinstance(self._format, PcapRecords):
                self._read += len(whole)
                self._rest.clear()
            return
        self._rest.clear()
        self._format.base = self._read
        yield from self._format.index(whole, 0)
        self._advance(self._format, whole, 0)

    @staticmethod
    def _begin(head: bytes) -> PcapRecords | PcapngBlocks:
        if head[:4] == pcapng.MAGIC:
            return PcapngBlocks()
        if head[:4] in pcap.MAGICS:
            return PcapRecords(head)
        raise _unknown(head)

    def _advance(self, found: PcapRecords | PcapngBlocks, buffer: Buffer, at: int) -> None:
        """Note how far `index` came from `at` on, and keep what it left."""
        stopped = found.at
        self._read += min(stopped, len(buffer)) - at
        self._skip = max(0, stopped - len(buffer))
        self._rest += buffer[stopped:]


def _unknown(head: bytes) -> WireError:
    for magic, (name, program) in _COMPRESSED.items():
        if head.startswith(magic):
            return WireError(f"compressed with {name}: use {program} FILE | pfw ... -")
    return WireError("neither a pcap nor a pcapng file")
