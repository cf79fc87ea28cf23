"""Packets: what the decoder says of one, protocol numbers and names, TCP flag bits.

A packet that is all in order and needs nothing but its flow looked up is never made a `Packet`: the
decoder gives it as an `Item` (see `event.py`) and the engine reads nothing else of it.
"""

from __future__ import annotations

from msgspec import Struct

ICMP, IGMP, TCP, UDP, DCCP, IPV6_IN_IP = 1, 2, 6, 17, 33, 41
GRE, ESP, AH, ICMPV6, SCTP, UDPLITE = 47, 50, 51, 58, 132, 136

PROTOCOLS: dict[str, int] = {
    "icmp": ICMP,
    "igmp": IGMP,
    "ipencap": 4,
    "tcp": TCP,
    "udp": UDP,
    "dccp": DCCP,
    "ipv6": IPV6_IN_IP,
    "rsvp": 46,
    "gre": GRE,
    "esp": ESP,
    "ah": AH,
    "icmpv6": ICMPV6,
    "eigrp": 88,
    "ospf": 89,
    "ipip": 94,
    "pim": 103,
    "vrrp": 112,
    "l2tp": 115,
    "sctp": SCTP,
    "udplite": UDPLITE,
}
"""Names as in /etc/protocols, lower case. In a policy `icmp` means both ICMP and ICMPv6."""

PROTOCOL_NAMES: dict[int, str] = {number: name.upper() for name, number in PROTOCOLS.items()} | {ICMPV6: "ICMPv6"}

PORT_PROTOCOLS = frozenset({TCP, UDP, DCCP, SCTP, UDPLITE})
"""The protocols whose header begins with a source and a destination port."""

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
FLAG_LETTERS = "FSRPAUEC"


def protocol_name(number: int) -> str:
    """`TCP`, `ICMPv6`, … or the number for one without a name here."""
    return PROTOCOL_NAMES.get(number) or str(number)


def flag_letters(flags: int) -> str:
    """TCP flags as Scapy and tcpdump write them: `SA`, `FPU`; empty for none."""
    return "".join(letter for bit, letter in enumerate(FLAG_LETTERS) if flags >> bit & 1)


class Fragment(Struct, frozen=True, gc=False):
    """The fragment fields of an IPv4 header or an IPv6 fragment header (RFC 791, RFC 8200), and how many bytes of the
    datagram follow them."""

    ident: int
    offset_bytes: int
    more: bool
    size_bytes: int = 0


class Arp(Struct, frozen=True, gc=False):
    """An ARP message for IPv4 over Ethernet (RFC 826); addresses are packed."""

    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


class Packet(Struct, frozen=True):
    """One decoded packet. What its headers do not have is None.

    `key` is the flow key (`flow.py`) and None for what has no flow: no IP, a later fragment, headers too
    broken to tell. `anomalies` are names of Suricata's decoder events, `decoder.ipv4.trunc_pkt` and the
    like. `quoted_key` is the key of the packet that an ICMP error quotes, as that packet was sent.
    """

    key: bytes | None = None
    not_ip: str | None = None
    """Why there is no IP in it: `arp`, `lldp`, `ethertype 0x88e1`, …; None for IP and for the undecodable."""
    undecodable: bool = False
    vlans: tuple[int, ...] = ()
    source_mac: bytes | None = None
    destination_mac: bytes | None = None
    protocol: int | None = None
    source: bytes | None = None
    destination: bytes | None = None
    source_port: int | None = None
    port: int | None = None
    ttl: int | None = None
    tcp_flags: int = 0
    icmp_type: int | None = None
    icmp_code: int | None = None
    fragment: Fragment | None = None
    quoted_key: bytes | None = None
    arp: Arp | None = None
    anomalies: tuple[str, ...] = ()
