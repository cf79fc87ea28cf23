"""ICMP and ICMPv6 (RFC 792, RFC 4443), and the packet that an ICMP error quotes."""

from __future__ import annotations

from pfw.model.flow import ICMP_ANSWERS, ICMPV6_ANSWERS, make_key
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS
from pfw.wire.draft import Draft
from pfw.wire.ipv6 import read_extensions

NO_TAIL = bytes(4)
"""The end of a key of a protocol that has neither ports nor types."""

_WITH_IDENTIFIER = {
    ICMP: frozenset(ICMP_ANSWERS) | frozenset(ICMP_ANSWERS.values()),
    ICMPV6: frozenset(ICMPV6_ANSWERS) | frozenset(ICMPV6_ANSWERS.values()),
}
_ERRORS = {ICMP: frozenset({3, 4, 5, 11, 12}), ICMPV6: frozenset({1, 2, 3, 4})}

_ICMP_LAST_CODES = {0: 0, 3: 15, 4: 0, 5: 3, 8: 0, 9: 16, 10: 0, 11: 1, 12: 2, 13: 0, 14: 0, 15: 0, 16: 0, 17: 0, 18: 0,
                    30: 1, 40: 5, 42: 0, 43: 4}  # fmt: skip
_ICMPV6_LAST_CODES = {1: 8, 2: 0, 3: 1, 4: 10, 128: 0, 129: 0, 130: 0, 131: 0, 132: 0, 133: 0, 134: 0, 135: 0, 136: 0,
                      137: 0, 138: 255, 139: 2, 140: 2, 141: 0, 142: 0, 143: 0, 144: 0, 145: 0, 146: 0, 147: 0, 148: 0,
                      149: 0, 150: 255, 151: 0, 152: 0, 153: 0, 154: 5, 155: 255, 157: 255, 158: 255, 159: 255, 160: 0,
                      161: 4}  # fmt: skip
"""The highest code of each type that the IANA has assigned."""
_EXPERIMENTS = frozenset({100, 101, 200, 201})
_RESERVED = frozenset({127, 255})
_LISTENER_DISCOVERY = frozenset({130, 131, 132, 143})


def read_icmp(draft: Draft, protocol: int) -> None:
    """Read the header at `draft.at`; of an error also the packet quoted in it."""
    if draft.lacks(8, "decoder.icmpv4.pkt_too_small" if protocol == ICMP else "decoder.icmpv6.pkt_too_small"):
        return
    kind, code = draft.icmp_type, draft.icmp_code = draft.data[draft.at], draft.data[draft.at + 1]
    draft.key = make_key(protocol, draft.source, draft.destination, _icmp_tail(protocol, draft.data, draft.at))
    if protocol == ICMP:
        _check_icmp(draft, kind, code)
    else:
        _check_icmpv6(draft, kind, code)
    if kind in _ERRORS[protocol]:
        anomaly = _read_quote(draft) if protocol == ICMP else _read_quote6(draft)
        if anomaly:
            draft.note(anomaly)


def _icmp_tail(protocol: int, data: bytes, at: int) -> bytes:
    kind = data[at]
    identifier = data[at + 4 : at + 6] if kind in _WITH_IDENTIFIER[protocol] else b"\0\0"
    return identifier + data[at : at + 2]


def _check_icmp(draft: Draft, kind: int, code: int) -> None:
    last = _ICMP_LAST_CODES.get(kind)
    if last is None:
        draft.note("decoder.icmpv4.unknown_type")
    elif code > last:
        draft.note("decoder.icmpv4.unknown_code")


def _check_icmpv6(draft: Draft, kind: int, code: int) -> None:
    last = _ICMPV6_LAST_CODES.get(kind)
    if kind in _EXPERIMENTS:
        draft.note("decoder.icmpv6.experimentation_type")
    elif kind in _RESERVED:
        draft.note("decoder.icmpv6.unknown_type")
    elif last is None:
        draft.note("decoder.icmpv6.unassigned_type")
    elif code > last:
        draft.note("decoder.icmpv6.unknown_code")
    if kind in _LISTENER_DISCOVERY and draft.ttl != 1:
        draft.note("decoder.icmpv6.mld_message_with_invalid_hl")


def _read_quote(draft: Draft) -> str:
    """Set the quoted key; the anomaly where the quote is none. One cut by the capture gives neither."""
    data, at = draft.data, draft.at + 8
    if at + 20 > draft.end:
        return "decoder.icmpv4.ipv4_trunc_pkt"
    if at + 20 > len(data):
        return ""
    header = (data[at] & 15) * 4
    if data[at] >> 4 != 4 or header < 20:
        return "decoder.icmpv4.ipv4_unknown_ver"
    if (data[at + 6] << 8 | data[at + 7]) & 0x1FFF:
        return ""
    quote = Draft(data, draft.end, at + header)
    quote.protocol = data[at + 9]
    quote.source, quote.destination = data[at + 12 : at + 16], data[at + 16 : at + 20]
    draft.quoted_key = _quoted_key(quote, draft.end)
    short = draft.quoted_key is None and draft.end <= len(data)
    return "decoder.icmpv4.ipv4_trunc_pkt" if short else ""


def _read_quote6(draft: Draft) -> str:
    data, at = draft.data, draft.at + 8
    if at + 40 > draft.end:
        return "decoder.icmpv6.ipv6_trunc_pkt"
    if at + 40 > len(data):
        return ""
    if data[at] >> 4 != 6:
        return "decoder.icmpv6.ipv6_unknown_version"
    quote = Draft(data, draft.end, at + 40)
    quote.end = draft.end
    quote.source, quote.destination = data[at + 8 : at + 24], data[at + 24 : at + 40]
    # What is odd in the quoted chain of headers is not this packet's doing: the draft takes it and is dropped.
    if not read_extensions(quote, data[at + 6]):
        return ""
    draft.quoted_key = _quoted_key(quote, draft.end)
    short = draft.quoted_key is None and draft.end <= len(data)
    return "decoder.icmpv6.ipv6_trunc_pkt" if short else ""


def _quoted_key(quote: Draft, end: int) -> bytes | None:
    """The key of a quoted packet. Routers quote as little as 8 bytes behind its IP header."""
    protocol = quote.protocol or 0
    at = quote.at
    there = min(end, len(quote.data)) - at
    if protocol in PORT_PROTOCOLS:
        tail = quote.data[at : at + 4] if there >= 4 else None
    elif protocol in _ERRORS:
        tail = _icmp_tail(protocol, quote.data, at) if there >= 8 else None
    else:
        tail = NO_TAIL
    return None if tail is None else make_key(protocol, quote.source, quote.destination, tail)
