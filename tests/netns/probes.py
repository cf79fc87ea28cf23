"""First packets of connections, crafted: any source, any port, any protocol, checksums that hold.

A probe says what a packet is; `packet` makes its bytes, which carry a token of eight bytes that tells it from all
others wherever it is seen again.
"""

from __future__ import annotations

import socket
from struct import pack

from msgspec import Struct

from pfw.model.address import parse_address
from pfw.model.packet import ACK, DCCP, FIN, ICMP, ICMPV6, PORT_PROTOCOLS, RST, SCTP, SYN, TCP, UDP, UDPLITE

CLIENT, SERVER, HERE = "client", "server", "here"
"""Who sends: a host on either side of the firewall, or the firewall itself."""

TOKEN_BYTES = 8
_TRACKED_ICMP = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128, 139})}
"""What connection tracking takes as the first packet of a connection."""
UNTRACKED = frozenset({130, 131, 132, 133, 134, 135, 136, 143})
"""ICMPv6 types that belong to no connection and are nevertheless not invalid (nf_conntrack_proto_icmpv6.c)."""


class Probe(Struct, frozen=True, omit_defaults=True):
    """A packet to be sent. `uid` and `gid` own the socket of a packet that the firewall sends itself."""

    sender: str
    protocol: int
    source: str
    destination: str
    source_port: int = 0
    port: int = 0
    icmp_type: int = 0
    flags: int = SYN
    uid: int = 0
    gid: int = 0

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.destination

    @property
    def is_untracked(self) -> bool:
        return self.protocol == ICMPV6 and self.icmp_type in UNTRACKED

    @property
    def starts_nothing(self) -> bool:
        """Whether it belongs to no connection and cannot start one."""
        if self.protocol == TCP:
            return self.flags & (FIN | SYN | RST | ACK) != SYN
        if self.protocol in _TRACKED_ICMP:
            return self.icmp_type not in _TRACKED_ICMP[self.protocol] and not self.is_untracked
        return False

    def tuples(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """What connection tracking knows it by, and what its answer would be known by."""
        # Not every kernel knows the ports of DCCP.
        has_ports = self.protocol in PORT_PROTOCOLS and self.protocol != DCCP
        ports = (self.source_port, self.port) if has_ports else (0, 0)
        forth = (self.protocol, self.source, self.destination, *ports)
        return forth, (self.protocol, self.destination, self.source, *reversed(ports))


def packet(probe: Probe, token: bytes) -> bytes:
    """The packet from its IP header on."""
    source, destination = parse_address(probe.source), parse_address(probe.destination)
    size = len(_transport(probe, token, b""))
    if probe.is_ipv6:
        pseudo = source + destination + pack(">IHBB", size, 0, 0, probe.protocol)
        content = _transport(probe, token, pseudo)
        # Neighbour discovery is believed only where no router was on the way.
        hops = 255 if probe.is_untracked else 64
        return pack(">IHBB", 6 << 28, size, probe.protocol, hops) + source + destination + content
    content = _transport(probe, token, source + destination + pack(">BBH", 0, probe.protocol, size))
    header = pack(">BBHHHBBH", 0x45, 0, 20 + size, 1, 0, 64, probe.protocol, 0) + source + destination
    return header[:10] + pack(">H", checksum(header)) + header[12:] + content


def _transport(probe: Probe, token: bytes, pseudo: bytes) -> bytes:
    ports = pack(">HH", probe.source_port, probe.port)
    match probe.protocol:
        case 6:
            content = ports + pack(">IIBBHHH", 1, 0, 0x50, probe.flags, 64240, 0, 0) + token
            return _summed(content, 16, pseudo)
        case 17:
            return _summed(ports + pack(">HH", 8 + TOKEN_BYTES, 0) + token, 6, pseudo)
        case 136:
            return _summed(ports + pack(">HH", 8 + TOKEN_BYTES, 0) + token, 6, pseudo)
        case 33:
            # A request; sequence numbers of 48 bits, a service code.
            return _summed(ports + pack(">BBHBBHII", 5, 0, 0, 1, 0, 0, 1, 7) + token, 6, pseudo)
        case 132:
            chunk = pack(">BBHIIHHI", 1, 0, 20 + 4 + TOKEN_BYTES, 7, 65535, 1, 1, 1) + pack(">HH", 0x8005, 12) + token
            return ports + pack(">I", 0) + _crc32c(ports + bytes(8) + chunk) + chunk
        case 1:
            return _summed(pack(">BBHHH", probe.icmp_type, 0, 0, probe.port, 1) + token, 2, b"")
        case 58:
            return _summed(pack(">BBHHH", probe.icmp_type, 0, 0, probe.port, 1) + bytes(16) + token, 2, pseudo)
        case 47:
            return pack(">HH", 0, 0x0800) + token
        case _:
            return token


def _summed(content: bytes, at: int, pseudo: bytes) -> bytes:
    return content[:at] + pack(">H", checksum(pseudo + content) or 0xFFFF) + content[at + 2 :]


def checksum(content: bytes) -> int:
    """RFC 1071."""
    total = sum(int.from_bytes(content[at : at + 2].ljust(2, b"\0")) for at in range(0, len(content), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(content: bytes) -> bytes:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return pack("<I", value ^ 0xFFFFFFFF)


def frame(sent: bytes, target_mac: bytes, own_mac: bytes) -> bytes:
    return target_mac + own_mac + pack(">H", 0x86DD if sent[0] >> 4 == 6 else 0x0800) + sent


def is_answer(seen: bytes, probe: Probe, token: bytes) -> bool:
    """Whether a packet refuses a probe: a reset, or an ICMP error about it."""
    six = seen[0] >> 4 == 6
    protocol, content = (seen[6], seen[40:]) if six else (seen[9], seen[20:])
    if (seen[24:40] if six else seen[16:20]) != parse_address(probe.source):
        return False
    if protocol == TCP == probe.protocol:
        if (seen[8:24] if six else seen[12:16]) != parse_address(probe.destination):
            return False
        return content[:4] == pack(">HH", probe.port, probe.source_port) and bool(content[13] & RST)
    return protocol in (ICMP, ICMPV6) and content[0] in ((1,) if six else (3,)) and token in content


KINDS = (TCP, UDP, SCTP, UDPLITE, DCCP, ICMP, ICMPV6, 47, 50, 89, 112, 253)
"""The protocols for which there are packets."""


def receiver(six: bool, protocol: int) -> socket.socket:
    """Sees what reaches this machine and was let in."""
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_RAW, protocol)
    sock.setblocking(False)
    return sock
