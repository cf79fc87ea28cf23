"""Community ID, version 1: one text for a flow that Zeek, Suricata, Wireshark and others compute alike.

From the specification at github.com/corelight/community-id-spec: SHA-1 of seed, the smaller endpoint, the
larger one, the protocol and a zero byte. ICMP has its type and the type that answers it in place of ports;
a type that nothing answers has its code, and is not turned around.
"""

from __future__ import annotations

from base64 import b64encode

from pfw.model.flow import ICMP_ANSWERS, ICMPV6_ANSWERS
from pfw.model.packet import ICMP, ICMPV6, SCTP, TCP, UDP

_WITH_PORTS = frozenset({TCP, UDP, SCTP})
_SEED = b"\0\0"

# More types than those that start flows for us: the specification follows Zeek.
_ASKED = {ICMP: ICMP_ANSWERS | {10: 9}, ICMPV6: ICMPV6_ANSWERS | {130: 131, 133: 134, 135: 136, 144: 145}}


def _icmp_pair(protocol: int, icmp_type: int, icmp_code: int | None) -> tuple[int, int | None, bool]:
    """What stands for the two ports, and whether the two ends may change places."""
    asked = _ASKED[protocol]
    if icmp_type in asked:
        return icmp_type, asked[icmp_type], True
    for question, answer in asked.items():
        if answer == icmp_type:
            return icmp_type, question, True
    return icmp_type, icmp_code, False


def community_id(
    protocol: int,
    source: bytes,
    destination: bytes,
    source_port: int | None = None,
    port: int | None = None,
    icmp_type: int | None = None,
    icmp_code: int | None = None,
) -> str | None:
    """`1:…`, or None where a port, or an ICMP type or code that counts, is not known."""
    from hashlib import sha1

    ports = b""
    turns = True
    first, second = source_port, port
    if protocol in _ASKED:
        if icmp_type is None:
            return None
        first, second, turns = _icmp_pair(protocol, icmp_type, icmp_code)
    if protocol in _WITH_PORTS or protocol in _ASKED:
        if first is None or second is None:
            return None
        here, there = first.to_bytes(2), second.to_bytes(2)
        if turns and (source, here) > (destination, there):
            source, destination, here, there = destination, source, there, here
        ports = here + there
    elif source > destination:
        source, destination = destination, source
    data = _SEED + source + destination + bytes((protocol, 0)) + ports
    return "1:" + b64encode(sha1(data, usedforsecurity=False).digest()).decode()
