"""The IPv6 header and its chain of extension headers (RFC 8200).

The chain ends where that of nftables ends: at the first header that is not hop-by-hop options, routing,
fragment or destination options. So AH, mobility, HIP and shim6 count as protocols of their own, and
what they may carry is not looked at (net/ipv6/exthdrs_core.c, `ipv6_find_hdr`).
"""

from __future__ import annotations

from struct import Struct

from pfw.model.packet import ICMP, Fragment
from pfw.wire.draft import Draft

MAX_PAYLOAD_BYTES = 65535
MAX_EXTENSIONS = 32
"""RFC 8200 knows at most 5 in a packet that means well."""

HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT_HEADER, DESTINATION_OPTIONS = 0, 43, 44, 59, 60
FIRST_UNASSIGNED = 148
"""The IANA's list of protocol numbers ends before it; 253 and 254 are for experiments."""

_HEADER = Struct(">IHBB16s16s")
_FRAGMENT = Struct(">BBHI")
_MOST = {
    HOP_BY_HOP: (1, "decoder.ipv6.exthdr_dupl_hh"),
    ROUTING: (1, "decoder.ipv6.exthdr_dupl_rh"),
    FRAGMENT: (1, "decoder.ipv6.exthdr_dupl_fh"),
    DESTINATION_OPTIONS: (2, "decoder.ipv6.exthdr_dupl_dh"),
}

_PAD_1, _PAD_N, _JUMBO = 0x00, 0x01, 0xC2
_KNOWN_OPTIONS = frozenset({0x04, 0x05, 0x07, 0x0F, 0x11, 0x23, 0x26, 0x30, 0x31, 0x63, 0x6D, 0x8B, 0x8C, _JUMBO, 0xC9})
"""Tunnel limit, router alert, CALIPSO, PDM, IOAM, RPL, quick start, path MTU, MPL, ILNP, line, jumbo, home."""


def read_ipv6(draft: Draft) -> bool:
    """Read the header and the chain at `draft.at`. True when a transport header follows in this packet."""
    if draft.lacks(40, "decoder.ipv6.pkt_too_small"):
        return False
    first, length, following, draft.ttl, draft.source, draft.destination = _HEADER.unpack_from(draft.data, draft.at)
    draft.protocol = following
    if first >> 28 != 6:
        draft.refuse("decoder.ipv6.wrong_ip_version")
        return False
    draft.at += 40
    end = draft.at + (length or _jumbo_length(draft, following))
    if end > draft.end:
        draft.refuse("decoder.ipv6.trunc_pkt")
        return False
    draft.end = end
    return read_extensions(draft, following)


def _jumbo_length(draft: Draft, following: int) -> int:
    """The payload's bytes where the header says 0 (RFC 2675), more than there are for one that lies."""
    there = draft.end - draft.at
    if following == HOP_BY_HOP:
        option = draft.data[draft.at + 2 : draft.at + 8]
        length = int.from_bytes(option[2:])
        honest = option[:2] == b"\xc2\x04" and len(option) == 6 and length > MAX_PAYLOAD_BYTES
        return length if honest else there + 1
    # Packets above 64 KiB that Linux hands to the network card for cutting have no option and no length.
    return there if there > MAX_PAYLOAD_BYTES else 0


def read_extensions(draft: Draft, following: int) -> bool:
    """Walk the chain from `draft.at` on. True when it ends at a transport header in this packet."""
    start = draft.at
    seen: dict[int, int] = {}
    for _ in range(MAX_EXTENSIONS):
        draft.protocol = following
        if following not in _MOST:
            return _ends(draft, following)
        seen[following] = seen.get(following, 0) + 1
        most, duplicate = _MOST[following]
        if seen[following] > most:
            draft.note(duplicate)
        if draft.lacks(8, "decoder.ipv6.trunc_exthdr"):
            return False
        kind, following = following, draft.data[draft.at]
        if kind == FRAGMENT:
            if not _read_fragment(draft, draft.at - start):
                draft.protocol = following
                return False
            continue
        size = (draft.data[draft.at + 1] + 1) * 8
        if draft.lacks(size, "decoder.ipv6.trunc_exthdr"):
            return False
        if kind == ROUTING:
            if draft.data[draft.at + 2] == 0:
                draft.note("decoder.ipv6.rh_type_0")
        elif not _check_options(draft, kind == HOP_BY_HOP, draft.data[draft.at + 2 : draft.at + size]):
            return False
        draft.at += size
    draft.refuse("decoder.too_many_layers")
    return False


def _ends(draft: Draft, protocol: int) -> bool:
    if protocol == NO_NEXT_HEADER:
        # Nothing to track: to Linux such a packet belongs to no connection and starts none.
        draft.undecodable = True
        if draft.at < draft.end:
            draft.note("decoder.ipv6.data_after_none_header")
        return False
    if protocol == ICMP:
        draft.note("decoder.ipv6.icmpv4")
    elif FIRST_UNASSIGNED <= protocol < 253:
        draft.note("decoder.ipv6.unknown_next_header")
    return True


def _read_fragment(draft: Draft, before: int) -> bool:
    """Read a fragment header, `before` bytes into the chain. True unless it is a later fragment's."""
    _, reserved, field, ident = _FRAGMENT.unpack_from(draft.data, draft.at)
    draft.at += 8
    if reserved or field & 6:
        draft.note("decoder.ipv6.fh_non_zero_reserved_field")
    offset, more = field & 0xFFF8, bool(field & 1)
    if not offset and not more:
        draft.note("decoder.ipv6.exthdr_useless_fh")
    draft.fragment = Fragment(ident, offset, more, draft.end - draft.at)
    draft.partial = more
    if before + offset + draft.end - draft.at > MAX_PAYLOAD_BYTES:
        draft.refuse("decoder.ipv6.frag_pkt_too_large")
    return not offset and not draft.undecodable


def _check_options(draft: Draft, hop_by_hop: bool, options: bytes) -> bool:
    """Note what is wrong. False when Linux drops the packet for it before it tracks the connection."""
    at = 0
    real = 0
    while at < len(options):
        kind = options[at]
        if kind == _PAD_1:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 256
        at += 2 + size
        if at > len(options):
            draft.note("decoder.ipv6.exthdr_invalid_optlen")
            draft.undecodable |= hop_by_hop
            return not hop_by_hop
        if kind != _PAD_N:
            real += 1
            if kind not in _KNOWN_OPTIONS:
                draft.note(_of_options("unknown_opt", hop_by_hop))
    if not real:
        draft.note(_of_options("only_padding", hop_by_hop))
    return True


def _of_options(what: str, hop_by_hop: bool) -> str:
    return f"decoder.ipv6.{'hopopts' if hop_by_hop else 'dstopts'}_{what}"
