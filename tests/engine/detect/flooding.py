"""Observations for tests of the floods' detectors: packets by the thousand, and generators of any."""

from __future__ import annotations

from hypothesis import strategies as st

from pfw.model.address import parse_address
from pfw.model.observation import (
    Began,
    Busy,
    Confirmed,
    EchoSeen,
    Ended,
    LoginFailed,
    LoginSucceeded,
    Met,
    Reply,
    Stray,
)
from pfw.model.packet import ICMP, TCP, UDP

TARGET, OTHER, ATTACKER = (parse_address(each) for each in ("192.0.2.10", "192.0.2.11", "198.51.100.66"))


def forged(number: int) -> bytes:
    return bytes((11, *number.to_bytes(3, "big")))


def flows(
    many, rate, protocol=TCP, source=forged, target=TARGET, source_port=50_000, port=80, start=100.0, size_bytes=60
):
    """So many first packets; what is a function gives a value for each number."""

    def of(value, number):
        return value(number) if callable(value) else value

    return [
        Began(
            start + number / rate,
            protocol,
            of(source, number),
            of(target, number),
            of(source_port, number),
            of(port, number),
            8 if protocol == ICMP else None,
            size_bytes,
        )
        for number in range(many)
    ]


def met(first: list[Began], reply: Reply = Reply.ANSWERED, after_s: float = 0.05) -> list[Met]:
    return [Met(each.time + after_s, each, reply) for each in first]


def confirmed(first: list[Began], after_s: float = 0.1, *, by_reset: bool = False) -> list[Confirmed]:
    return [Confirmed(each.time + after_s, each, by_reset) for each in first]


def stream(first: Began, seconds, rate, received=0, size_bytes=1_000, attempts=0, *, is_answered=False):
    """A connection that carries so many packets a second."""
    return [
        Busy(
            first.time + second + 1,
            first,
            first.time + second,
            rate * size_bytes,
            rate,
            received * size_bytes,
            received,
            attempts,
            is_answered or received > 0,
        )
        for second in range(seconds)
    ]


def in_time(*parts):
    return sorted((each for part in parts for each in part), key=lambda each: each.time)


TIMES = st.floats(0, 1e10)
ADDRESSES = st.sampled_from([TARGET, OTHER, ATTACKER, parse_address("2001:db8::1"), parse_address("224.0.0.1")])
COUNTS = st.integers(0, 1 << 40)
PORTS = st.sampled_from([21, 22, 53, 80, 123, 1900, 50_000])
BEGAN = st.builds(
    Began,
    TIMES,
    st.sampled_from([ICMP, TCP, UDP, 58]),
    ADDRESSES,
    ADDRESSES,
    st.none() | PORTS,
    st.none() | PORTS,
    st.none() | st.integers(0, 255),
    st.integers(0, 65_535),
    st.integers(1, 400),
)
SEEN = st.one_of(
    BEGAN,
    st.builds(Met, TIMES, BEGAN, st.sampled_from(list(Reply)), st.integers(1, 9)),
    st.builds(Confirmed, TIMES, BEGAN, st.booleans()),
    st.builds(Ended, TIMES, BEGAN, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans(), st.booleans()),
    st.builds(Busy, TIMES, BEGAN, TIMES, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans()),
    st.builds(Stray, TIMES, ADDRESSES, ADDRESSES, PORTS, PORTS, st.integers(0, 255), st.integers(0, 65_535)),
    st.builds(LoginFailed, TIMES, st.sampled_from(["ssh", "ftp"]), ADDRESSES, st.none() | st.text(max_size=3)),
    st.builds(LoginSucceeded, TIMES, st.sampled_from(["ssh", "ftp"]), ADDRESSES, st.none() | st.text(max_size=3)),
    st.builds(
        EchoSeen,
        TIMES,
        ADDRESSES,
        ADDRESSES,
        st.booleans(),
        st.integers(0, 65_535),
        st.integers(0, 65_535),
        st.integers(0, 65_535),
        st.integers(0, 3),
        st.booleans(),
    ),
)


def wanted(detector, seen):
    return [each for each in seen if isinstance(each, detector.wants)]


def is_sound(alert) -> bool:
    return 0 <= alert.score <= 100 and alert.first <= alert.last and bool(alert.evidence)
