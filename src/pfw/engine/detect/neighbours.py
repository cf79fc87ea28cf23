"""Neighbours on a link: which addresses belong to one host, and which MAC addresses several share by agreement."""

from __future__ import annotations

_SHARED = (
    "00:00:5e:00:01:",  # VRRP and CARP for IPv4 (RFC 9568)
    "00:00:5e:00:02:",  # VRRP for IPv6
    "00:00:0c:07:ac:",  # HSRP of Cisco, version 1
    "00:00:0c:9f:f",  # HSRP, version 2
    "00:05:73:a0:0",  # HSRP for IPv6
    "00:07:b4:00:",  # GLBP of Cisco
    "02:bf:",  # Microsoft's network load balancing, and its multicast form
    "03:bf:",
)


def is_shared(mac: bytes) -> bool:
    """Whether several hosts may use it in turn, so that it says nothing of who sends."""
    return mac.hex(":").startswith(_SHARED)


def is_one_host(mac: bytes | None) -> bool:
    """Whether it is one host's, and not many hosts' or nobody's."""
    return mac is not None and any(mac) and not mac[0] & 1


def is_host(address: bytes) -> bool:
    """Whether an address can be a single host's: neither none, nor all, nor multicast."""
    if not any(address):
        return False
    return address[0] < 224 if len(address) == 4 else address[0] != 0xFF


def mac_text(mac: bytes) -> str:
    return mac.hex(":")
