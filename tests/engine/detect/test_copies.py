"""Captures in which each packet is twice."""

from __future__ import annotations

import pytest

from pfw.engine.detect.copies import COPIES_MAX, COPY_S, WATCHED_MAX, Copies
from pfw.engine.detect.watch import Watch
from pfw.model.event import Source
from pfw.model.observation import Ended, Met
from pfw.wire.observe import tcp_numbers
from pfw.wire.scan import scan

RAW_IP = 101


def numbered(packet: bytes, sequence: int, acknowledged: int) -> bytes:
    return packet[:24] + sequence.to_bytes(4) + acknowledged.to_bytes(4) + packet[32:]


class Capture:
    """Tells a watch of packets, each so often, a hundredth of a millisecond apart."""

    def __init__(self, noon: float, times: int) -> None:
        self.frame = b""
        self.noon, self.times = noon, times
        self.watch = Watch(numbers=lambda item: tcp_numbers(RAW_IP, self.frame, item[2]))
        self.found: list[object] = []

    def tell(self, at: float, packet: bytes) -> None:
        self.frame = packet
        for n in range(self.times):
            timed = [(self.noon + at + n * COPY_S / 100, 0, len(packet), len(packet))]
            for _, told in self.watch.packets(scan(Source(RAW_IP), packet, timed)):
                self.found += told


def talk(capture: Capture, wire, messages: int = 20) -> None:
    out, back = wire.out, wire.out.back
    capture.tell(0, numbered(out.tcp("S"), 100, 0))
    capture.tell(0.0005, numbered(back.tcp("SA"), 500, 101))
    capture.tell(0.001, numbered(out.tcp("A"), 101, 501))
    for n in range(messages):
        capture.tell(0.01 + n / 100, numbered(out.tcp("PA", b"name"), 101 + 4 * n, 501 + 5 * n))
        capture.tell(0.015 + n / 100, numbered(back.tcp("PA", b"wrong"), 501 + 5 * n, 105 + 4 * n))
    capture.tell(0.8, numbered(out.tcp("FA"), 101 + 4 * messages, 501 + 5 * messages))
    capture.tell(0.9, numbered(back.tcp("FA"), 501 + 5 * messages, 102 + 4 * messages))


@pytest.mark.parametrize("times", [2, 3])
def test_what_a_capture_has_twice_is_counted_once(wire, times):
    once, twice = Capture(wire.noon, 1), Capture(wire.noon, times)
    for each in (once, twice):
        talk(each, wire)
        (ended,) = [seen for seen in each.found if isinstance(seen, Ended)]
        assert (ended.sent_packets, ended.received_packets) == (23, 22)
    assert [type(each) for each in twice.found] == [type(each) for each in once.found]
    assert [each.sent_bytes for each in (once.found[-1], twice.found[-1])] == [once.found[-1].sent_bytes] * 2


def test_a_first_packet_that_comes_twice_is_no_second_try(wire):
    capture = Capture(wire.noon, 2)
    capture.tell(0, numbered(wire.out.tcp("S"), 100, 0))
    capture.tell(1, numbered(wire.out.tcp("S"), 100, 0))
    capture.tell(1.1, numbered(wire.out.back.tcp("RA"), 0, 101))
    (met,) = [each for each in capture.found if isinstance(each, Met)]
    assert met.attempts == 2


def test_who_sends_the_same_again_and_again_is_counted(wire):
    """A flood, which could otherwise hide."""
    capture = Capture(wire.noon, 1)
    for n in range(10_000):
        capture.tell(n / 10_000, numbered(wire.out.tcp("S"), 100, 0))
    (known,) = capture.watch._forth.values()
    assert known.attempts >= 10_000 // (COPIES_MAX + 1) - 10


def test_other_packets_are_no_copies(wire):
    capture = Capture(wire.noon, 1)
    for n in range(3):
        capture.tell(n * COPY_S / 10, numbered(wire.out.tcp("S"), 100, 0))
    capture.tell(0.0005, numbered(wire.out.back.tcp("SA"), 500, 101))
    for n in range(10):
        capture.tell(0.0006 + n * COPY_S / 100, numbered(wire.out.tcp("A", b"x" * 100), 101 + 100 * n, 501))
    (known,) = capture.watch._forth.values()
    assert (known.attempts, known.sent_packets) == (1, 11)


def test_it_is_bounded(wire):
    copies = Copies(None)
    packet = wire.out.tcp("S")
    (item,) = scan(Source(RAW_IP), packet, [(wire.noon, 0, len(packet), len(packet))])
    for n in range(WATCHED_MAX):
        copies.watch((n.to_bytes(12), *item[1:]), b"\1" + n.to_bytes(11))
    assert len(copies) == WATCHED_MAX
