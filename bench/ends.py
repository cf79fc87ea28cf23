"""Who talks to whom in made-up traffic: one machine at home, its router, and hosts all over the world."""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from random import Random

TCP, UDP = 6, 17

LOCAL4, LOCAL6 = "192.168.1.5", "2a02:8070:1:5::5"
"""The machine whose traffic it is."""
_HERE4, _HERE6 = IPv4Address(LOCAL4).packed, IPv6Address(LOCAL6).packed
_ROUTER = IPv4Address("192.168.1.1").packed

DNS_PORT = 53
_FIRST_PORT, _PORTS = 32_768, 28_000
_SERVED = (443, 443, 443, 443, 443, 443, 80, 80, 22, 993, 8443, 5222)
_SERVED_HERE = (22, 80, 443, 8080)
_PUBLIC_FIRST_BYTES = (23, 31, 45, 52, 80, 93, 104, 142, 151, 185, 195, 213)

_DNS_SHARE, _QUIC_SHARE, _REFUSED_SHARE, _IPV6_SHARE, _INBOUND_SHARE = 0.15, 0.05, 0.03, 0.15, 0.15


class Kind(Enum):
    """What a conversation is like."""

    TCP = "tcp"
    REFUSED = "refused"
    DNS = "dns"
    QUIC = "quic"


class Ends:
    """The two ends of a flow, the source being the one that starts it. `leaves` tells that this is here."""

    def __init__(
        self, number: int, kind: Kind, source: bytes, destination: bytes, source_port: int, port: int, *, leaves: bool
    ) -> None:
        self.number = number
        self.kind = kind
        self.source = source
        self.destination = destination
        self.source_port = source_port
        self.port = port
        self.leaves = leaves


def pick_ends(pick: Random, number: int, *, tcp_only: bool) -> Ends:
    """The ends of the flow with this number; no two of the first 28,000 are alike."""
    kind = Kind.TCP if tcp_only else _pick_kind(pick)
    source_port = _FIRST_PORT + number % _PORTS
    if kind is Kind.DNS:
        return Ends(number, kind, _HERE4, _ROUTER, source_port, DNS_PORT, leaves=True)
    is_ipv6 = pick.random() < _IPV6_SHARE
    here, there = (_HERE6, _public6(pick)) if is_ipv6 else (_HERE4, _public4(pick))
    if kind is Kind.REFUSED:
        return Ends(number, kind, there, here, source_port, pick.randrange(1, 10_000), leaves=False)
    if kind is Kind.QUIC:
        return Ends(number, kind, here, there, source_port, 443, leaves=True)
    if pick.random() < _INBOUND_SHARE:
        return Ends(number, kind, there, here, source_port, pick.choice(_SERVED_HERE), leaves=False)
    return Ends(number, kind, here, there, source_port, pick.choice(_SERVED), leaves=True)


def _pick_kind(pick: Random) -> Kind:
    at = pick.random()
    for kind, share in ((Kind.DNS, _DNS_SHARE), (Kind.QUIC, _QUIC_SHARE), (Kind.REFUSED, _REFUSED_SHARE)):
        if at < share:
            return kind
        at -= share
    return Kind.TCP


def _public4(pick: Random) -> bytes:
    """One of some 3,000 hosts: most of a machine's peers are met again."""
    first = pick.choice(_PUBLIC_FIRST_BYTES)
    return bytes((first, first * 7 & 0xFF, pick.randrange(16), 1 + pick.randrange(16)))


def _public6(pick: Random) -> bytes:
    return IPv6Address("2a00:1450:4001::").packed[:14] + pick.randrange(1, 1000).to_bytes(2)
