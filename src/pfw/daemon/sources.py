"""Where batches of frames come from: a live capture, or capture files, either through a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set

from msgspec import Struct

from pfw.drivers.bpf import compile_filter, matcher
from pfw.drivers.capture import Capture, Frames
from pfw.drivers.files import chunks
from pfw.drivers.scapy_capture import ScapyCapture
from pfw.model.event import Source
from pfw.wire.capture import CaptureReader
from pfw.wire.error import WireError

_WAIT_S = 0.25
_SNAP_BYTES = 1 << 18
_NOWHERE = Source(0)
"""Of a batch without frames, which only lets time pass."""


class Batch(Struct, gc=False):
    """Frames of one source, in the order in which they were seen, good until the next batch."""

    source: Source
    buffer: memoryview | bytes
    frames: Frames
    live: bool = False
    sent: Set[int] | None = None
    """Which of them this machine sent, by where they begin; only a live capture knows."""


def live(capture: Capture | ScapyCapture) -> Iterator[Batch | None]:
    """As long as the interface is there; None when nothing came for a while."""
    while not capture.gone:
        capture.wait(_WAIT_S)
        quiet = True
        for source, frames, sent in capture.read():
            quiet = False
            yield Batch(source, capture.buffer, frames, live=True, sent=sent)
        if quiet:
            yield None


class CaptureFile:
    """A capture file, or standard input for `-`; after the batches `error` says why it ended too early.

    `on_bytes` is told how many bytes more have been read.
    """

    def __init__(
        self, path: str, filter_text: str | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> None:
        self.path = path
        self.error: str | None = None
        self.filtered = 0
        self.dropped = 0
        """What the capturing system said that it had lost."""
        self._filter_text = filter_text
        self._filters: dict[int, Callable[[bytes, int], bool]] = {}
        self._on_bytes = on_bytes

    def batches(self) -> Iterator[Batch]:
        """Raises OSError for a file that cannot be read and FilterError for a bad filter."""
        reader = CaptureReader()
        try:
            for chunk in chunks(self.path):
                if not chunk:
                    yield Batch(_NOWHERE, b"", [])
                for source, buffer, frames in reader.feed(chunk):
                    yield self._filtered(Batch(source, buffer, frames))
                if self._on_bytes is not None:
                    self._on_bytes(len(chunk))
            ending = reader.finish()
            self.error = ending.text
            self.dropped = ending.dropped
        except WireError as error:
            self.error = str(error)

    def _filtered(self, batch: Batch) -> Batch:
        if self._filter_text is None:
            return batch
        linktype = batch.source.linktype
        matches = self._filters.get(linktype)
        if matches is None:
            program = compile_filter(self._filter_text, linktype, _SNAP_BYTES)
            matches = self._filters[linktype] = matcher(program)
        taken = [frame for frame in batch.frames if matches(bytes(batch.buffer[frame[1] : frame[2]]), frame[3])]
        self.filtered += len(batch.frames) - len(taken)
        batch.frames = taken
        return batch
