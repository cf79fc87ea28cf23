"""Made-up traffic of one machine, as it would be captured: the same bytes for the same `Mix`, without Scapy.

Every conversation is whole (handshake with the usual options, data, ending), checksums are right, and
conversations overlap in time. `ends.py` says who talks to whom; this file what they say.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from random import Random

from ends import TCP, UDP, Ends, Kind, pick_ends

SEGMENT_BYTES = {4: 1448, 16: 1428}
"""What a TCP packet of Ethernet's 1,500 bytes carries behind its timestamps, by the size of an address."""
FLOWS_PER_S = 50
GAP_S = 0.03
TCP_LEAST = 9
"""Packets of the shortest whole TCP conversation: three to open it, two with data, four to close it."""

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
_SYN_OPTIONS = "020405a00402080a{:08x}{:08x}01030307"  # MSS 1440, SACK permitted, timestamps, window scale 7
_DATA_OPTIONS = "0101080a{:08x}{:08x}"
_NOISE = Random(7).randbytes(1 << 16)

_MAC_HERE, _MAC_ROUTER = bytes.fromhex("020000000005"), bytes.fromhex("020000000001")
_RECORD = struct.Struct("<IIII")
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1)
_BEGIN_S = 1_790_000_000

Frame = tuple[float, bytes]
"""Time (s since 1970) and the bytes of an Ethernet frame."""


class Mix:
    """What traffic: so many packets in so many flows. `payload_bytes` is the most that one packet carries."""

    def __init__(
        self, packets: int, flows: int, *, tcp_only: bool = False, payload_bytes: int = 1448, seed: int = 1
    ) -> None:
        self.packets = packets
        self.flows = flows
        self.tcp_only = tcp_only
        self.payload_bytes = payload_bytes
        self.seed = seed


def generate(mix: Mix) -> list[Frame]:
    """Exactly the packets and flows asked for, in order of time."""
    pick = Random(mix.seed)
    all_ends = [pick_ends(pick, number, tcp_only=mix.tcp_only) for number in range(mix.flows)]
    frames: list[Frame] = []
    for ends, packets in zip(all_ends, _lengths(pick, all_ends, mix.packets), strict=True):
        at = _BEGIN_S + pick.random() * mix.flows / FLOWS_PER_S
        times = accumulate((pick.expovariate(1 / GAP_S) for _ in range(packets)), initial=at)
        frames += zip(times, _conversation(pick, ends, packets, mix.payload_bytes), strict=False)
    frames.sort(key=itemgetter(0))
    return frames


def write_capture(path: Path, frames: Iterable[Frame]) -> None:
    """A classic capture file: Ethernet, microseconds, little endian."""
    with path.open("wb") as file:
        file.write(_FILE_HEADER)
        for time, frame in frames:
            seconds = int(time)
            file.write(_RECORD.pack(seconds, int((time - seconds) * 1e6), len(frame), len(frame)) + frame)


def read_capture(path: Path) -> list[bytes]:
    """The frames of a file that `write_capture` wrote."""
    data = path.read_bytes()
    frames = []
    at = len(_FILE_HEADER)
    while at < len(data):
        size = _RECORD.unpack_from(data, at)[2]
        at += _RECORD.size
        frames.append(data[at : at + size])
        at += size
    return frames


def _lengths(pick: Random, all_ends: list[Ends], packets: int) -> list[int]:
    """Packets of each flow, their sum exact: a few long conversations, many short ones."""
    least = {Kind.DNS: 2, Kind.REFUSED: 2, Kind.QUIC: 4, Kind.TCP: TCP_LEAST}
    lengths = [least[ends.kind] for ends in all_ends]
    left = packets - sum(lengths)
    long = [at for at, ends in enumerate(all_ends) if ends.kind in (Kind.TCP, Kind.QUIC)]
    if left < 0 or (left and not long):
        raise ValueError(f"{packets} packets do not make {len(all_ends)} flows")
    weights = [pick.lognormvariate(0, 1.2) for _ in long]
    scale = left / sum(weights) if long else 0
    for at, weight in zip(long, weights, strict=True):
        lengths[at] += int(weight * scale)
    for turn in range(packets - sum(lengths)):
        lengths[long[turn % len(long)]] += 1
    return lengths


def _conversation(pick: Random, ends: Ends, packets: int, payload_bytes: int) -> Iterator[bytes]:
    match ends.kind:
        case Kind.DNS:
            return _dns(pick, ends)
        case Kind.QUIC:
            return _quic(pick, ends, packets, payload_bytes)
        case Kind.REFUSED:
            return _refused(pick, ends)
        case Kind.TCP:
            return Conversation(pick, ends, payload_bytes).packets(packets)


def _dns(pick: Random, ends: Ends) -> Iterator[bytes]:
    name = b"".join(bytes((len(label),)) + label for label in (b"www", b"host%d" % ends.number, b"example", b"org"))
    ident, question = pick.getrandbits(16), name + b"\0" + struct.pack(">HH", 1, 1)
    yield _udp(ends, True, struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0) + question)
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 300, 4) + pick.randbytes(4)
    yield _udp(ends, False, struct.pack(">HHHHHH", ident, 0x8180, 1, 1, 0, 0) + question + answer)


def _quic(pick: Random, ends: Ends, packets: int, payload_bytes: int) -> Iterator[bytes]:
    for turn in range(packets):
        forth = turn == 0 or pick.random() < 0.3
        yield _udp(ends, forth, b"\x40" + _noise(pick, min(payload_bytes, 60 if forth and turn else 1200)))


def _refused(pick: Random, ends: Ends) -> Iterator[bytes]:
    """A connection attempt to a closed port, as a scan makes many."""
    first = pick.getrandbits(32)
    yield _tcp(ends, True, first, 0, SYN, _SYN_OPTIONS.format(pick.getrandbits(31), 0), b"")
    yield _tcp(ends, False, 0, first + 1, RST | ACK, "", b"")


class Conversation:
    """A TCP conversation: sequence numbers and timestamps of both sides."""

    def __init__(self, pick: Random, ends: Ends, payload_bytes: int) -> None:
        self._pick = pick
        self._ends = ends
        self._segment_bytes = SEGMENT_BYTES[len(ends.source)]
        self._payload_bytes = payload_bytes
        self._next = {True: pick.getrandbits(32), False: pick.getrandbits(32)}
        self._clock = {True: pick.getrandbits(31), False: pick.getrandbits(31)}

    def packets(self, count: int) -> Iterator[bytes]:
        """At least `TCP_LEAST` of them."""
        yield self._say(True, SYN, opening=True)
        yield self._say(False, SYN | ACK, opening=True)
        yield self._say(True, ACK)
        is_reset = self._pick.random() < 0.1
        yield from self._data(count - 3 - (1 if is_reset else 4))
        if is_reset:
            yield self._say(True, RST | ACK)
            return
        for forth, flags in ((True, FIN | ACK), (False, ACK), (False, FIN | ACK), (True, ACK)):
            yield self._say(forth, flags)

    def _data(self, count: int) -> Iterator[bytes]:
        """A question, then an answer of which every second packet is acknowledged, again and again."""
        asks = True
        for turn in range(count):
            if asks:
                yield self._say(True, PSH | ACK, self._payload(self._pick.randrange(60, 600)))
            elif turn % 3 == 0:
                yield self._say(True, ACK)
            else:
                most = self._segment_bytes
                size = most if self._pick.random() < 0.6 else self._pick.randrange(1, most)
                yield self._say(False, ACK, self._payload(size))
            asks = self._pick.random() < 0.05

    def _payload(self, size: int) -> bytes:
        """Looks like TLS where it should, so that dissectors have their usual work."""
        size = min(size, self._payload_bytes)
        if self._ends.port != 443 or size < 6:
            return _noise(self._pick, size)
        return b"\x17\x03\x03" + struct.pack(">H", size - 5) + _noise(self._pick, size - 5)

    def _say(self, forth: bool, flags: int, payload: bytes = b"", *, opening: bool = False) -> bytes:
        self._clock[forth] = (self._clock[forth] + 20) & 0xFFFFFFFF
        echo = 0 if opening and forth else self._clock[not forth]
        options = (_SYN_OPTIONS if opening else _DATA_OPTIONS).format(self._clock[forth], echo)
        acknowledged = self._next[not forth] if flags & ACK else 0
        packet = _tcp(self._ends, forth, self._next[forth], acknowledged, flags, options, payload)
        self._next[forth] = (self._next[forth] + len(payload) + (1 if flags & (SYN | FIN) else 0)) & 0xFFFFFFFF
        return packet


def _noise(pick: Random, size: int) -> bytes:
    at = pick.randrange(len(_NOISE) - size)
    return _NOISE[at : at + size]


def _tcp(ends: Ends, forth: bool, sequence: int, acknowledged: int, flags: int, options: str, payload: bytes) -> bytes:
    source_port, port = (ends.source_port, ends.port) if forth else (ends.port, ends.source_port)
    words = 5 + len(options) // 8
    ports = struct.pack(">HHII", source_port, port, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF)
    head = ports + struct.pack(">BBH", words << 4, flags, 502)
    tail = b"\0\0" + bytes.fromhex(options) + payload
    return _ip(ends, forth, TCP, head, tail)


def _udp(ends: Ends, forth: bool, payload: bytes) -> bytes:
    source_port, port = (ends.source_port, ends.port) if forth else (ends.port, ends.source_port)
    return _ip(ends, forth, UDP, struct.pack(">HHH", source_port, port, 8 + len(payload)), payload)


def _ip(ends: Ends, forth: bool, protocol: int, head: bytes, tail: bytes) -> bytes:
    """An Ethernet frame; the transport's checksum goes between `head` and `tail`."""
    addresses = ends.source + ends.destination if forth else ends.destination + ends.source
    size = len(head) + 2 + len(tail)
    pseudo = addresses + struct.pack(">HH", protocol, size)
    segment = head + checksum(pseudo + head + b"\0\0" + tail).to_bytes(2) + tail
    ethernet = _MAC_ROUTER + _MAC_HERE if forth == ends.leaves else _MAC_HERE + _MAC_ROUTER
    if len(ends.source) == 16:
        return ethernet + struct.pack(">HIHBB", 0x86DD, 0x60000000, size, protocol, 64) + addresses + segment
    fields = struct.pack(">BBHHHBB", 0x45, 0, size + 20, ends.number & 0xFFFF, 0x4000, 64, protocol)
    return ethernet + b"\x08\0" + fields + checksum(fields + addresses).to_bytes(2) + addresses + segment


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071). A sum of 16-bit words with its carries is the number modulo 65,535."""
    return 0xFFFF - int.from_bytes(data if len(data) % 2 == 0 else data + b"\0") % 0xFFFF
