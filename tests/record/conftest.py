from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from pfw.model.command import Ended, Frame, Judged, Suspicious
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ACK, FIN, SYN, TCP
from pfw.model.verdict import Action, Verdict

NOON = 1795399500.123456
"""2026-11-23 02:05:00.123456 UTC."""


def tcp_frame(
    source: str = "192.168.1.100",
    destination: str = "192.168.1.5",
    source_port: int = 51514,
    port: int = 80,
    flags: int = SYN,
    linktype: int = 1,
) -> Frame:
    """A TCP segment with nothing in it, in Ethernet or as raw IP."""
    transport = struct.pack(">HHIIBBHHH", source_port, port, 1000, 2000, 5 << 4, flags, 8192, 0, 7)
    here, there = ip_address(source).packed, ip_address(destination).packed
    if len(here) == 4:
        data = struct.pack(">BBHHHBBH4s4s", 0x45, 0x10, 40, 77, 0, 63, TCP, 0, here, there) + transport
    else:
        data = struct.pack(">IHBB16s16s", 6 << 28 | 0xAB << 20 | 0x12345, 20, TCP, 61, here, there) + transport
    if linktype == 1:
        data = bytes.fromhex("020000000001 020000000002") + (b"\x08\x00" if len(here) == 4 else b"\x86\xdd") + data
    return Frame(linktype, data, len(data))


def tcp_flow(
    source: str = "192.168.1.100",
    destination: str = "192.168.1.5",
    source_port: int = 51514,
    port: int = 80,
    interface: str | None = "eth0",
) -> Flow:
    return Flow(
        direction=Direction.IN,
        protocol=TCP,
        source=ip_address(source).packed,
        destination=ip_address(destination).packed,
        source_port=source_port,
        port=port,
        interface=interface,
    )


BLOCKED = Verdict(Action.BLOCK, rule="block ip", index=0, reason="192.168.1.100 is in the list")


def judged(
    time: float = NOON,
    verdict: Verdict = BLOCKED,
    source: str = "192.168.1.100",
    source_port: int = 51514,
    port: int = 80,
) -> Judged:
    flow = tcp_flow(source, source_port=source_port, port=port)
    return Judged(time, 7, flow, verdict, tcp_frame(source, source_port=source_port, port=port), SYN)


def suspicious(
    time: float = NOON, event: str = "tcp.flags.syn_fin", text: str = "TCP SYN and FIN together"
) -> Suspicious:
    return Suspicious(time, event, text, tcp_frame(flags=SYN | FIN), tcp_flow(), "eth0")


def ended(verdict: Verdict = BLOCKED, reason: str = "closed", state: str = "closed") -> Ended:
    return Ended(
        time=NOON + 3,
        connection=7,
        flow=tcp_flow(),
        verdict=verdict,
        start=NOON,
        end=NOON + 2.5,
        packets_sent=5,
        packets_received=4,
        bytes_sent=600,
        bytes_received=4000,
        reason=reason,
        state=state,
        flags_sent=SYN | ACK | FIN,
        flags_received=SYN | ACK,
    )


class Makers:
    """What the tests are made of, by the names above."""

    now = NOON
    blocked = BLOCKED
    tcp_frame = staticmethod(tcp_frame)
    tcp_flow = staticmethod(tcp_flow)
    judged = staticmethod(judged)
    suspicious = staticmethod(suspicious)
    ended = staticmethod(ended)


@pytest.fixture(scope="session")
def make() -> type[Makers]:
    return Makers


@pytest.fixture
def told() -> list[str]:
    """The lines that a person was told, by way of `tell`."""
    return []


@pytest.fixture
def tell(told: list[str]) -> Callable[[str], None]:
    return told.append
