"""What the kernel tells of each change of nftables: bytes -> values.

Source: include/uapi/linux/netfilter/nf_tables.h and nf_tables_api.c. The messages of a transaction come in its order;
the last one, NFT_MSG_NEWGEN, tells the number of the new state of all tables, and who made it.
"""

from __future__ import annotations

from msgspec import Struct

from pfw.wire.netlink import attributes
from pfw.wire.nfnetlink import NFPROTO_INET, NFTABLES, message_type, read_number, read_text, split

GROUP = 7
"""NFNLGRP_NFTABLES, the multicast group."""

_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE, _NEW_GENERATION = 0, 2, 3, 5, 6, 8, 15
_STRUCTURE = frozenset(
    message_type(NFTABLES, kind)
    for kind in (_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _DELETE_CHAIN, _NEW_RULE, _DELETE_RULE)
)
_DELETED = frozenset(message_type(NFTABLES, kind) for kind in (_DELETE_TABLE, _DELETE_CHAIN, _DELETE_RULE))
_COMMITTED = message_type(NFTABLES, _NEW_GENERATION)
_TABLE = 1
"""The name of the table, in all messages but the last."""
_PROCESS_NAME, _PROCESS = 3, 2


class Touched(Struct, frozen=True):
    """Something of a table came or, with `deleted`, went: the table itself, a chain, a rule."""

    table: str
    deleted: bool


class Committed(Struct, frozen=True):
    """The end of a transaction: the process that made it, and what that is called; 0 and nothing where not told."""

    process: int
    name: str


def read_event(kind: int, body: memoryview) -> Touched | Committed | None:
    """An event of an inet table's structure, or the end of any transaction; None for all else, elements of sets too.

    Raises WireError.
    """
    if kind == _COMMITTED:
        found = {number: value for number, value in attributes(split(body)[2]) if number in (_PROCESS, _PROCESS_NAME)}
        process = read_number(found[_PROCESS]) if _PROCESS in found else 0
        return Committed(process, read_text(found[_PROCESS_NAME]) if _PROCESS_NAME in found else "")
    if kind not in _STRUCTURE:
        return None
    family, _, members = split(body)
    if family != NFPROTO_INET:
        return None
    for number, value in attributes(members):
        if number == _TABLE:
            return Touched(read_text(value), kind in _DELETED)
    return None
