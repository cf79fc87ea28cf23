"""Detection in capture files: packets to observations, observations to alerts. No policy, no screen, no log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter

from msgspec import Struct
from msgspec.structs import replace

from pfw.daemon.sources import Batch, CaptureFile
from pfw.engine.detect.all import detectors
from pfw.engine.detect.detection import Detection
from pfw.engine.detect.known_bad import KnownBad
from pfw.engine.detect.watch import NOT_LOOKED_AT, Watch
from pfw.model.address import AddressSet, parse_range
from pfw.model.event import Item, Source
from pfw.model.observation import (
    Alert,
    Began,
    Busy,
    Confirmed,
    DnsSeen,
    EchoSeen,
    Ended,
    HalfOpen,
    Met,
    Observation,
    Odd,
    ProtocolTried,
    Stray,
)
from pfw.wire.observe import look_into, tcp_numbers, what_is
from pfw.wire.scan import scan

ANOTHER_S = 60.0
"""A file that begins so long before the last one ended is another story, not its continuation."""
_NEVER_BANNED = AddressSet(
    [parse_range(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::", "::1", "ff00::/8")]
)


class Detected(Struct):
    """What came out. `errors` are the files that could not be read to their end, with the reason, `unread` those of
    which not even the beginning could, `refused` is what detectors did not look at for want of room."""

    alerts: list[Alert]
    packets: int
    refused: int
    errors: list[str]
    unread: list[str]
    dropped: int
    duration_s: float
    """How long it took."""
    sampled: int = 0
    """Packets of floods that were counted, and not looked at one by one."""


class _Story:
    """One run through packets that belong together."""

    def __init__(self, local: AddressSet | None, lists: Mapping[str, AddressSet] | None) -> None:
        self.packets = 0
        self.last = 0.0
        self._local = local
        self._batch = Batch(Source(0), b"", [])
        self._watch = Watch(numbers=self._numbers)
        self._detection = Detection(detectors(KnownBad(lists)))

    @property
    def refused(self) -> int:
        return self._watch.refused + self._detection.refused

    @property
    def sampled(self) -> int:
        return self._watch.sampled

    def take(self, batch: Batch) -> None:
        self._batch = batch
        self._watch.interface = batch.source.interface
        items = scan(batch.source, batch.buffer, batch.frames)
        for item, told in self._watch.packets(items):
            if told:
                self._tell(told)
            key = item[0]
            # A key of even length is TCP's (`model/flow.py`).
            if key is not None and len(key) & 1 and told is not NOT_LOOKED_AT and what_is(key) is not None:
                self._look_into(item, key)
        if items:
            self.packets += len(items)
            self.last = max(self.last, items[-1][1])

    def end(self) -> list[Alert]:
        self._tell(self._watch.end(self.last))
        self._detection.end(self.last)
        return [self._sparing(alert) for alert in self._detection.alerts]

    def _look_into(self, item: Item, key: bytes) -> None:
        """Tell what a message says, or that it is none of its kind."""
        _, time, size, _, at, end, _ = item
        source, frame = self._batch.source, bytes(self._batch.buffer[at:end])
        seen = look_into(source.linktype, frame, size, time, key, source.interface)
        if seen is not None:
            self._tell((seen,))

    def _numbers(self, item: Item) -> tuple[int, int] | None:
        _, _, size, _, at, end, _ = item
        return tcp_numbers(self._batch.source.linktype, bytes(self._batch.buffer[at:end]), size)

    def _tell(self, told: Sequence[Observation]) -> None:
        for seen in told:
            if self._local is None or _concerns(self._local, seen):
                self._detection.observe(seen)

    def _sparing(self, alert: Alert) -> Alert:
        """Without those in its bans that must not be there: this machine, and what is no host's address."""
        local = self._local or AddressSet()
        return replace(alert, ban=tuple(each for each in alert.ban if each not in local and each not in _NEVER_BANNED))


def _concerns(local: AddressSet, seen: Observation) -> bool:
    """Whether an end of it is local. What neighbours tell each other on a link concerns all."""
    match seen:
        case Began() | Stray() | EchoSeen() | ProtocolTried():
            return seen.source in local or seen.destination in local
        case Met() | Confirmed() | HalfOpen() | Ended() | Busy():
            return seen.began.source in local or seen.began.destination in local
        case DnsSeen():
            return seen.client in local or seen.server in local
        case Odd():
            return seen.source is None or seen.destination is None or seen.source in local or seen.destination in local
    return True


def detect(
    files: Sequence[CaptureFile], local: AddressSet | None, lists: Mapping[str, AddressSet] | None = None
) -> Detected:
    """Run the files through the detectors, in this order. With `local` only what has such an end counts; `lists` are
    addresses that are known to be bad. Raises OSError and FilterError."""
    stories = [_Story(local, lists)]
    errors, unread = [], []
    began = perf_counter()
    for file in files:
        packets = 0
        for batch in file.batches():
            if batch.frames and not packets and batch.frames[0][0] < stories[-1].last - ANOTHER_S:
                stories.append(_Story(local, lists))
            packets += len(batch.frames)
            stories[-1].take(batch)
        if file.error is not None:
            errors.append(f"{file.path}: {file.error}")
            if not packets:
                unread.append(file.path)
    alerts = [alert for story in stories for alert in story.end()]
    return Detected(
        alerts=alerts,
        packets=sum(story.packets for story in stories),
        refused=sum(story.refused for story in stories),
        errors=errors,
        unread=unread,
        dropped=sum(file.dropped for file in files),
        duration_s=perf_counter() - began,
        sampled=sum(story.sampled for story in stories),
    )
