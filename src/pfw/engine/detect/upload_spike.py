"""Uploads that stand out: much more sent to one place than received, and than the source sent elsewhere or before.

A backup, a video call or a synchronised folder looks the same: the score stays below 80. Where the program is known it
is held against what that program sent elsewhere or before, not against the whole host. Sizes are those of connections
that are over, so a long upload is told of when it ends. Uploads that the other end began (it fetched) are not
looked at, since that is what every download looks like.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfw.engine.detect.detector import Table
from pfw.engine.detect.program_names import shown
from pfw.engine.suspicion import LOOPBACK
from pfw.model.address import AddressSet, format_address, parse_range
from pfw.model.observation import Alert, Ended, Kind

UPLOAD_MIN_BYTES = 100_000_000
"""Slips takes 100 MB in one connection, 500 MB to one address."""
COUNTED_MIN_BYTES = 1_000
"""What a connection must have sent to be counted: 100,000 smaller ones in an hour would make no upload."""
SENT_TIMES_RECEIVED = 10
USUAL_TIMES = 3
"""So many times what the source has sent to any one place so far is not usual."""
WINDOW_S = 3600.0
"""What goes to one place within this time is one upload."""
UPLOADS_MAX = 8192
SOURCES_MAX = 4096
_USUAL_KEEP_S = 30 * 86_400.0
_GROWTH = 2
_MEGABYTE = 1_000_000
_SMALL_BYTES = 10 * _MEGABYTE
"""What has not come to more makes room."""
_Who = bytes | str
"""The program, or the source where that is not known."""
_LOCAL = AddressSet(
    [
        parse_range(text)
        for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "0.0.0.0/8",
                     "224.0.0.0-255.255.255.255", "fc00::/7", "fe80::/10", "ff00::/8")
    ]
)  # fmt: skip
"""RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291, multicast and broadcast."""
_NETWORK_BYTES = {4: 3, 16: 8}
"""A destination that shares so many bytes with the source is its neighbour: a /24, a /64."""


class _Upload:
    __slots__ = ("connections", "first", "received", "sent", "told")

    def __init__(self) -> None:
        self.restart(0.0)

    def restart(self, now: float) -> None:
        self.first = now
        self.connections = self.sent = self.received = self.told = 0


class _Usual:
    """What a source has sent to one place: the most in an hour that is over, and the two that got most since."""

    __slots__ = ("before", "most")

    def __init__(self) -> None:
        self.before = 0
        self.most: dict[bytes, int] = {}

    def end(self, destination: bytes) -> None:
        self.before = max(self.before, self.most.pop(destination, 0))

    def elsewhere(self, destination: bytes) -> int:
        return max([self.before, *(sent for place, sent in self.most.items() if place != destination)])

    def add(self, destination: bytes, sent: int) -> None:
        self.most[destination] = sent
        if len(self.most) > 2:
            del self.most[min(self.most, key=self.most.__getitem__)]


class UploadSpike:
    """Unusual uploads to a destination outside. The source of an alert is whoever began the connections."""

    wants: tuple[type, ...] = (Ended,)

    def __init__(self, capacity: int = UPLOADS_MAX) -> None:
        self._uploads: Table[tuple[_Who, bytes], _Upload] = Table(
            capacity, WINDOW_S, _Upload, may_go=lambda upload: upload.sent < _SMALL_BYTES
        )
        self._usual: Table[_Who, _Usual] = Table(
            SOURCES_MAX, _USUAL_KEEP_S, _Usual, may_go=lambda usual: usual.elsewhere(b"") < _SMALL_BYTES
        )

    @property
    def refused(self) -> int:
        return self._uploads.refused + self._usual.refused

    def observe(self, seen: Ended) -> Iterable[Alert]:
        source, destination = seen.began.source, seen.began.destination
        if seen.sent_bytes < COUNTED_MIN_BYTES or is_local(destination) or _are_neighbours(source, destination):
            return ()
        who = seen.began.program or source
        usual = self._usual.get(who, seen.time)
        upload = self._uploads.get((who, destination), seen.time)
        if upload is None or usual is None:
            return ()
        if not upload.connections or seen.time - upload.first > WINDOW_S:
            usual.end(destination)
            upload.restart(min(seen.began.time, seen.time))
        upload.connections += 1
        upload.sent += seen.sent_bytes
        upload.received += seen.received_bytes
        usual.add(destination, upload.sent)
        elsewhere = usual.elsewhere(destination)
        if upload.sent < max(UPLOAD_MIN_BYTES, elsewhere * USUAL_TIMES, upload.told * _GROWTH):
            return ()
        if upload.sent < upload.received * SENT_TIMES_RECEIVED:
            return ()
        upload.told = upload.sent
        return [_alert(seen, upload, elsewhere)]

    def end(self, _now: float, /) -> list[Alert]:
        return []


def is_local(address: bytes) -> bool:
    """Whether an address is one of private networks, of the link, or of many."""
    return address in _LOCAL or address in LOOPBACK


def _are_neighbours(source: bytes, destination: bytes) -> bool:
    same = _NETWORK_BYTES.get(len(source), 0)
    return source[:same] == destination[:same]


def _alert(seen: Ended, upload: _Upload, elsewhere: int) -> Alert:
    source, destination = seen.began.source, seen.began.destination
    tenfold = len(str(upload.sent // UPLOAD_MIN_BYTES)) - 1
    program = seen.began.program
    who, rest = "", "a backup looks the same, so see which program it is"
    if program is not None:
        who, rest = f"{shown(program)} ", "a backup looks the same"
    before = f", where the most elsewhere was {elsewhere / _MEGABYTE:.1f} MB" if elsewhere else ""
    evidence = (
        f"{who}sent {upload.sent / _MEGABYTE:.0f} MB to {format_address(destination)} in {upload.connections} "
        f"connections, and received {upload.received / _MEGABYTE:.1f} MB{before}; {rest}"
    )
    return Alert(
        kind=Kind.UPLOAD_SPIKE, source=source, target=destination, first=upload.first, last=seen.time,
        score=min(55 + 10 * tenfold, 75), evidence=evidence, program=program,
    )  # fmt: skip
