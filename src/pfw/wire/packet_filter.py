"""The kernel's filter for the packets that are looked at one by one while everything else stays in the kernel.

Classic BPF (Documentation/networking/filter.rst; include/uapi/linux/filter.h has the numbers). A small assembler with
labels, and the one program that is written with it. What it lets pass: ARP; ICMP, and ICMPv6 without the chatter about
multicast; UDP of DNS and DHCP; fragments; extension headers of IPv6 where more than one stands before the transport
header; TCP with flags that begin, carry and end nothing; protocols that nobody speaks; loopback addresses on the wire.
Established TCP is turned away by its flags after some ten instructions.
"""

from __future__ import annotations

from pfw.model.packet import (
    ACK,
    AH,
    DCCP,
    ESP,
    FIN,
    GRE,
    ICMPV6,
    IGMP,
    IPV6_IN_IP,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    UDPLITE,
)
from pfw.wire.classic_bpf import Program

SNAP_BYTES, NAMES_SNAP_BYTES, WHOLE_BYTES = 512, 2048, 9216
"""What is copied of a packet, and of one that may hold names: resolvers ask for datagrams of up to 1,232 bytes. Leases,
routers and neighbours are looked at to their end, as whoever believes them does: it would be easy to make them longer
than what is copied, and so unreadable here alone. Jumbo frames are not longer."""
ORDINARY_FLAGS = (ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK)
"""The flags that every connection is made of, of those in FLAGS_MASK."""
FLAGS_MASK = FIN | SYN | RST | ACK
CARRIERS = (IGMP, 4, IPV6_IN_IP, GRE, ESP, AH, 94, 108, 115, SCTP, DCCP, UDPLITE, 137, 143)
"""Protocols that say nothing by being spoken: tunnels (IPv4, IPIP, IPComp, L2TP, MPLS and Ethernet in IP), which carry
whole networks, and transport protocols."""
MULTICAST_CHATTER = (130, 131, 132, 143)
"""Listener queries, reports and ends (RFC 2710, RFC 3810)."""
NEIGHBOURS = (133, 134, 135, 136, 137)
"""Neighbour discovery (RFC 4861)."""
NAME_PORTS, LEASE_PORTS = (53,), (67, 68, 546, 547)

_LOAD = {4: 0x20, 2: 0x28, 1: 0x30}
_LOAD_BEHIND = {4: 0x40, 2: 0x48, 1: 0x50}
"""By bytes: from a place in the packet; from so far behind the index."""
_INDEX, _INDEX_HEADER, _INDEX_A = 0x01, 0xB1, 0x07
"""The index: a constant; four times the low half of a byte, as IPv4 writes its header's length; the accumulator."""
_ADD, _AND, _SHIFT = 0x04, 0x54, 0x64
_GO, _IF_EQUAL, _IF_ANY, _RETURN = 0x05, 0x15, 0x45, 0x06
_FAR_MAX = 255

_KERNEL = 0xFFFFF000
"""SKF_AD_OFF: from here on loads are of what the kernel knows of a packet."""
_PROTOCOL, _HARDWARE, _TAG, _HAS_TAG = _KERNEL, _KERNEL + 28, _KERNEL + 44, _KERNEL + 48
_ETHERNET, _LOOPBACK = 1, 772
"""Of include/uapi/linux/if_arp.h."""
_IPV4, _ARP, _IPV6 = 0x0800, 0x0806, 0x86DD
_ETHERNET_BYTES, _IPV6_BYTES = 14, 40
_EXTENSIONS = (0, 43, 60)
"""Hop-by-hop options, routing, destination options: their length stands in the second byte."""


class Assembler:
    """Instructions, one after the other; jumps go forward, to labels."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, size_bytes: int, at: int) -> None:
        self._add(_LOAD[size_bytes], at)

    def load_behind(self, size_bytes: int, at: int) -> None:
        """From the index on."""
        self._add(_LOAD_BEHIND[size_bytes], at)

    def index(self, value: int) -> None:
        self._add(_INDEX, value)

    def index_header(self, at: int) -> None:
        self._add(_INDEX_HEADER, at)

    def index_loaded(self) -> None:
        self._add(_INDEX_A)

    def add(self, value: int) -> None:
        self._add(_ADD, value)

    def mask(self, bits: int) -> None:
        self._add(_AND, bits)

    def shift(self, bits: int) -> None:
        self._add(_SHIFT, bits)

    def go(self, label: str) -> None:
        self._add(_GO, 0, label)

    def equal(self, value: int, yes: str = "", no: str = "") -> None:
        """Go on at a label; without one, with the next instruction."""
        self._add(_IF_EQUAL, value, yes, no)

    def any_of(self, bits: int, yes: str = "", no: str = "") -> None:
        self._add(_IF_ANY, bits, yes, no)

    def take(self, size_bytes: int) -> None:
        """End; of the packet so much is copied, none of it with 0."""
        self._add(_RETURN, size_bytes)

    def program(self) -> Program:
        """Raises ValueError for a jump that is too far, or goes back."""
        return [self._resolved(number, *line) for number, line in enumerate(self._code)]

    def _add(self, code: int, value: int = 0, yes: str = "", no: str = "") -> None:
        self._code.append((code, yes, no, value))

    def _resolved(self, number: int, code: int, yes: str, no: str, value: int) -> tuple[int, int, int, int]:
        far_yes, far_no = (self._labels[label] - number - 1 if label else 0 for label in (yes, no))
        if min(far_yes, far_no) < 0 or (max(far_yes, far_no) > _FAR_MAX and code != _GO):
            raise ValueError(f"instruction {number} jumps {far_yes} or {far_no} instructions")
        return (code, 0, 0, far_yes) if code == _GO else (code, far_yes, far_no, value)


def special_packets() -> Program:
    """The program, for all kinds of devices at once.

    A frame of a VLAN comes again by the interface of that VLAN, and is only taken there. Loopback is left out.
    """
    code = Assembler()
    code.load(4, _HAS_TAG)
    code.equal(0, "device")
    code.load(4, _TAG)
    code.mask(0xFFF)
    code.equal(0, "device")
    code.take(0)
    code.label("device")
    code.load(4, _HARDWARE)
    code.equal(_ETHERNET, "ethernet")
    code.equal(_LOOPBACK, "loopback")
    # Of all others the kernel gives the packet from its IP header on.
    code.go("bare")
    code.label("loopback")
    code.take(0)
    code.label("ethernet")
    code.load(2, 12)
    code.equal(_ARP, "ethernet take")
    _packets(code, "ethernet", _ETHERNET_BYTES)
    code.label("bare")
    code.load(4, _PROTOCOL)
    _packets(code, "bare", 0)
    return code.program()


def _packets(code: Assembler, name: str, start: int) -> None:
    """With the EtherType loaded: what is taken of packets whose IP header begins at `start`."""
    code.equal(_IPV4, f"{name} ipv4")
    code.equal(_IPV6, f"{name} ipv6", f"{name} nothing")
    code.label(f"{name} ipv4")
    _ipv4(code, name, start)
    code.label(f"{name} ipv6")
    _ipv6(code, name, start)
    code.label(f"{name} transport")
    _transport(code, name, start)
    code.label(f"{name} nothing")
    code.take(0)
    code.label(f"{name} take")
    code.take(SNAP_BYTES)
    code.label(f"{name} names")
    code.take(NAMES_SNAP_BYTES)
    code.label(f"{name} whole")
    code.take(WHOLE_BYTES)


def _ipv4(code: Assembler, name: str, start: int) -> None:
    code.load(1, start)
    code.mask(0xF0)
    code.equal(0x40, no=f"{name} nothing")
    code.load(1, start + 12)
    code.equal(127, f"{name} take")
    code.load(2, start + 6)
    code.any_of(0x3FFF, f"{name} take")
    code.index_header(start)
    code.load(1, start + 9)
    code.go(f"{name} transport")


def _ipv6(code: Assembler, name: str, start: int) -> None:
    code.load(1, start)
    code.mask(0xF0)
    code.equal(0x60, no=f"{name} nothing")
    for at, word in ((8, 0), (12, 0), (16, 0)):
        code.load(4, start + at)
        code.equal(word, no=f"{name} headers")
    code.load(4, start + 20)
    code.equal(1, f"{name} take")
    code.label(f"{name} headers")
    code.index(_IPV6_BYTES)
    code.load(1, start + 6)
    for extension in _EXTENSIONS:
        code.equal(extension, f"{name} extension")
    code.go(f"{name} transport")
    code.label(f"{name} extension")
    # One is passed over, so that established connections stay in the kernel which carry options.
    code.load(1, start + _IPV6_BYTES + 1)
    code.shift(3)
    code.add(_IPV6_BYTES + 8)
    code.index_loaded()
    code.load(1, start + _IPV6_BYTES)


def _transport(code: Assembler, name: str, start: int) -> None:
    """With the protocol loaded, and the index at how far its header is behind the IP header's beginning."""
    code.equal(TCP, f"{name} tcp")
    code.equal(UDP, f"{name} udp")
    code.equal(ICMPV6, f"{name} icmpv6")
    for extension in _EXTENSIONS:
        code.equal(extension, f"{name} whole")
    for protocol in CARRIERS:
        code.equal(protocol, f"{name} nothing")
    code.go(f"{name} take")

    code.label(f"{name} tcp")
    code.load_behind(1, start + 13)
    code.mask(FLAGS_MASK)
    for flags in ORDINARY_FLAGS:
        code.equal(flags, f"{name} nothing")
    code.go(f"{name} take")

    code.label(f"{name} udp")
    for at in (0, 2):
        code.load_behind(2, start + at)
        for ports, label in ((NAME_PORTS, "names"), (LEASE_PORTS, "whole")):
            for port in ports:
                code.equal(port, f"{name} {label}")
    code.go(f"{name} nothing")

    code.label(f"{name} icmpv6")
    code.load_behind(1, start)
    for kind in NEIGHBOURS:
        code.equal(kind, f"{name} whole")
    for kind in MULTICAST_CHATTER:
        code.equal(kind, f"{name} nothing")
    code.go(f"{name} take")
