"""Link layers: from the first byte of a frame to the IP header in it.

A reader takes a draft at the first byte of the frame. It returns 4 or 6 with the draft standing at the
IP header, or 0 when there is nothing more to read: then `not_ip` or `undecodable` is set. Numbers are
those of the LINKTYPE_ registry (tcpdump.org/linktypes.html). `scan.py` knows the offsets of the first
three by heart: change it with them.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from pfw.model.packet import Arp
from pfw.wire.draft import SNAPPED, Draft

NULL, ETHERNET, LOOP, LINUX_SLL, IPV4_ONLY, IPV6_ONLY, LINUX_SLL2 = 0, 1, 108, 113, 228, 229, 276
RAW_LINKTYPES = (12, 14, 101)
"""Raw IP of either version: the registry's 101, and the two DLT numbers that old files hold instead."""

IPV4, ARP, IPV6, PPPOE = 0x0800, 0x0806, 0x86DD, 0x8864
VLAN_TAGS = frozenset({0x8100, 0x88A8, 0x9100})
MAX_VLANS = 8
"""Nobody stacks more than four; the bound keeps a frame made of tags from costing more than a packet."""

ETHERTYPE_NAMES = {
    0x8035: "rarp", 0x8847: "mpls", 0x8848: "mpls", 0x8863: "pppoe discovery", 0x888E: "eapol", 0x88CC: "lldp",
    0x88E5: "macsec", 0x88F7: "ptp", 0x9000: "loopback test",
}  # fmt: skip
FIRST_ETHERTYPE = 0x0600
"""Smaller numbers are the length of an IEEE 802.3 frame, behind which an LLC header stands."""

_WORD = Struct(">H")
_TAG = Struct(">HH")
_ARP = Struct(">HHBBH6s4s6s4s")
_ARP_OPERATIONS = frozenset({1, 2, 3, 4, 8, 9})

_IPV4_FAMILY = 2
_IPV6_FAMILIES = frozenset({10, 24, 28, 30})
"""AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS."""


def _ethernet(draft: Draft) -> int:
    if draft.lacks(14, "decoder.ethernet.pkt_too_small"):
        return 0
    data = draft.data
    draft.destination_mac = data[:6]
    draft.source_mac = data[6:12]
    draft.at = 14
    return _payload(draft, data[12] << 8 | data[13])


def _linux_sll(draft: Draft) -> int:
    if draft.lacks(16, "decoder.sll.pkt_too_small"):
        return 0
    data = draft.data
    if data[4:6] == b"\x00\x06":
        draft.source_mac = data[6:12]
    draft.at = 16
    return _payload(draft, data[14] << 8 | data[15])


def _linux_sll2(draft: Draft) -> int:
    if draft.lacks(20, "decoder.sll2.pkt_too_small"):
        return 0
    data = draft.data
    if data[11] == 6:
        draft.source_mac = data[12:18]
    draft.at = 20
    return _payload(draft, data[0] << 8 | data[1])


def _family(draft: Draft, family: int) -> int:
    draft.at = 4
    if family == _IPV4_FAMILY:
        return 4
    if family in _IPV6_FAMILIES:
        return 6
    draft.not_ip = f"address family {family}"
    return 0


def _loop(draft: Draft) -> int:
    if draft.lacks(4, "decoder.ltnull.pkt_too_small"):
        return 0
    return _family(draft, int.from_bytes(draft.data[:4], "big"))


def _null(draft: Draft) -> int:
    if draft.lacks(4, "decoder.ltnull.pkt_too_small"):
        return 0
    # The byte order is that of the machine that captured. Families are small numbers: only one order fits.
    big = int.from_bytes(draft.data[:4], "big")
    return _family(draft, min(big, int.from_bytes(draft.data[:4], "little")))


def _raw(draft: Draft) -> int:
    if draft.lacks(1, "decoder.ipraw.invalid_ip_version"):
        return 0
    version = draft.data[0] >> 4
    if version in (4, 6):
        return version
    draft.refuse("decoder.ipraw.invalid_ip_version")
    return 0


def _ipv4_only(_: Draft) -> int:
    return 4


def _ipv6_only(_: Draft) -> int:
    return 6


def _payload(draft: Draft, ethertype: int) -> int:
    """What stands behind an EtherType, with the tags before it taken off."""
    while ethertype in VLAN_TAGS:
        if len(draft.vlans) == MAX_VLANS:
            draft.refuse("decoder.vlan.too_many_layers")
            return 0
        if draft.lacks(4, "decoder.vlan.header_too_small"):
            return 0
        control, ethertype = _TAG.unpack_from(draft.data, draft.at)
        draft.vlans += (control & 0xFFF,)
        draft.at += 4
    if ethertype == IPV4:
        return 4
    if ethertype == IPV6:
        return 6
    if ethertype == PPPOE:
        return _pppoe(draft)
    if ethertype == ARP:
        draft.not_ip = "arp"
        _arp(draft)
    elif ethertype < FIRST_ETHERTYPE:
        draft.not_ip = "llc"
    else:
        draft.not_ip = ETHERTYPE_NAMES.get(ethertype) or f"ethertype 0x{ethertype:04x}"
    return 0


def _pppoe(draft: Draft) -> int:
    """PPP over Ethernet, session stage (RFC 2516). Linux takes version and type 1 with code 0 only."""
    if draft.lacks(8, "decoder.pppoe.pkt_too_small"):
        return 0
    data, at = draft.data, draft.at
    if data[at] != 0x11 or data[at + 1]:
        draft.refuse("decoder.pppoe.wrong_code")
        return 0
    end = at + 6 + _WORD.unpack_from(data, at + 4)[0]
    protocol = _WORD.unpack_from(data, at + 6)[0]
    draft.at = at + 8
    if not draft.at <= end <= draft.end:
        draft.refuse("decoder.pppoe.pkt_too_small")
        return 0
    draft.end = end
    if protocol == 0x0021:
        return 4
    if protocol == 0x0057:
        return 6
    draft.not_ip = f"ppp 0x{protocol:04x}"
    return 0


def _arp(draft: Draft) -> None:
    """ARP (RFC 826). A broken one is still ARP and no IP, so it is never undecodable."""
    anomaly = _arp_anomaly(draft)
    if anomaly:
        draft.note(anomaly)
        return
    _, _, _, _, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(draft.data, draft.at)
    draft.arp = Arp(operation, sender_mac, sender, target_mac, target)
    if operation not in _ARP_OPERATIONS:
        draft.note("decoder.arp.unsupported_opcode")


def _arp_anomaly(draft: Draft) -> str:
    head = draft.data[draft.at : draft.at + 8]
    if draft.at + 28 > draft.end:
        return "decoder.arp.pkt_too_small"
    if len(head) < 8:
        return SNAPPED
    if head[:2] != b"\x00\x01":
        return "decoder.arp.unsupported_hardware"
    if head[2:4] != b"\x08\x00":
        return "decoder.arp.unsupported_protocol"
    if head[4] != 6:
        return "decoder.arp.invalid_hardware_size"
    if head[5] != 4:
        return "decoder.arp.invalid_protocol_size"
    return SNAPPED if draft.at + 28 > len(draft.data) else ""


LINKS: dict[int, Callable[[Draft], int]] = {
    ETHERNET: _ethernet,
    LINUX_SLL: _linux_sll,
    LINUX_SLL2: _linux_sll2,
    NULL: _null,
    LOOP: _loop,
    IPV4_ONLY: _ipv4_only,
    IPV6_ONLY: _ipv6_only,
    **dict.fromkeys(RAW_LINKTYPES, _raw),
}
