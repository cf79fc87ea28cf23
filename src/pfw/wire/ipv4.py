"""The IPv4 header (RFC 791): lengths, fragment fields, options."""

from __future__ import annotations

from struct import Struct

from pfw.model.packet import ICMPV6, Fragment
from pfw.wire.draft import Draft

MAX_PACKET_BYTES = 65535

_HEADER = Struct(">BxHHHBB2x4s4s")

_END_OF_OPTIONS, _NO_OPERATION = 0, 1
_ROUTES = frozenset({7, 131, 137})
"""Record route, loose and strict source route: a pointer stands behind the length."""
_OPTION_SIZES: dict[int, tuple[int, int]] = {
    7: (3, 39),
    25: (8, 8),
    68: (4, 40),
    130: (3, 40),
    131: (3, 39),
    133: (3, 40),
    134: (6, 40),
    136: (4, 4),
    137: (3, 39),
    148: (4, 4),
}
"""Fewest and most bytes of the options that exist: quick start, timestamp, security, CIPSO, router alert, …"""


def read_ipv4(draft: Draft) -> bool:
    """Read the header at `draft.at`. True when a transport header follows it in this packet."""
    if draft.lacks(20, "decoder.ipv4.pkt_too_small"):
        return False
    at = draft.at
    first, total, ident, fragment, draft.ttl, draft.protocol, draft.source, draft.destination = _HEADER.unpack_from(
        draft.data, at
    )
    fault = _length_fault(draft, first, total)
    if fault:
        draft.refuse(fault)
        return False
    header = (first & 15) * 4
    # A sending host's own capture sees packets before the network card has cut them and filled in the length.
    draft.end = at + total if total else draft.end
    draft.at = at + header
    if header > 20:
        _check_options(draft, draft.data[at + 20 : at + header])
    if draft.protocol == ICMPV6:
        draft.note("decoder.ipv4.icmpv6")
    offset = (fragment & 0x1FFF) * 8
    more = bool(fragment & 0x2000)
    if offset or more:
        draft.fragment = Fragment(ident, offset, more, draft.end - draft.at)
        draft.partial = more
        if header + offset + draft.end - draft.at > MAX_PACKET_BYTES:
            draft.refuse("decoder.ipv4.frag_pkt_too_large")
    return not offset and not draft.undecodable


def _length_fault(draft: Draft, first: int, total: int) -> str:
    header = (first & 15) * 4
    if first >> 4 != 4:
        return "decoder.ipv4.wrong_ip_version"
    if header < 20:
        return "decoder.ipv4.hlen_too_small"
    if (total or draft.end - draft.at) < header:
        return "decoder.ipv4.iplen_smaller_than_hlen"
    if draft.at + total > draft.end:
        return "decoder.ipv4.trunc_pkt"
    return ""


def _check_options(draft: Draft, options: bytes) -> None:
    """Note what is wrong in the options. Linux tracks the connection before it looks at them."""
    if draft.at > len(draft.data):
        return
    at = 0
    seen = set()
    while at < len(options):
        kind = options[at]
        if kind == _END_OF_OPTIONS:
            return
        if kind == _NO_OPERATION:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if size < 2 or at + size > len(options):
            draft.note("decoder.ipv4.opt_invalid_len")
            return
        fewest, most = _OPTION_SIZES.get(kind, (2, 40))
        if kind not in _OPTION_SIZES:
            draft.note("decoder.ipv4.opt_unknown")
        elif not fewest <= size <= most:
            draft.note("decoder.ipv4.opt_invalid_len")
        elif kind in _ROUTES and (options[at + 2] < 4 or options[at + 2] & 3):
            draft.note("decoder.ipv4.opt_malformed")
        if kind in seen:
            draft.note("decoder.ipv4.opt_duplicate")
        seen.add(kind)
        at += size
