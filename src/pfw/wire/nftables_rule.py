"""Rules that are made without nft: one that gives packets to a queue, and one that drops.

Source: include/uapi/linux/netfilter/nf_tables.h, nf_tables_compat.h and xt_NFQUEUE.h. Each batch takes all rules out
of a regular chain of an inet table and puts in the one, in the same transaction. What is read is in `nftables.py`.
"""

from __future__ import annotations

from struct import Struct as Layout

from pfw.wire.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, attribute, nested
from pfw.wire.nfnetlink import NFPROTO_INET, NFTABLES, batch, question, write_number, write_text

_NEW_RULE, _DELETE_RULE = 6, 8
_NLM_F_APPEND = 0x800

_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_LIST_MEMBER = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2

_QUEUE_NUMBER = 1
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO = 1, 2, 3
_NFQUEUE_REVISION = 3
_IMMEDIATE_REGISTER, _IMMEDIATE_DATA = 1, 2
_REGISTER_VERDICT = 0
_DATA_VERDICT, _VERDICT_CODE = 2, 1
_DROP = 0

_NUMBER = Layout(">H")
_NFQUEUE_INFO = Layout("=HHHxx")
"""struct xt_NFQ_info_v3: queue, how many queues from there on, flags; filled up as the kernel aligns it."""


def queue_batch(table: str, chain: str, queue: int, *, xtables: bool) -> tuple[bytes, int]:
    """Let a chain give all packets to a queue, and the sequence number whose acknowledgement ends the batch.

    Without a reader, and when the queue is full, the kernel drops them: no flag says otherwise. `xtables` says it with
    iptables' target, for kernels that have no expression of their own for it.
    """
    return _batch(table, chain, _nfqueue_target(queue) if xtables else _queue_expression(queue))


def close_batch(table: str, chain: str) -> tuple[bytes, int]:
    """Let a chain drop all packets, and the sequence number whose acknowledgement ends the batch."""
    return _batch(table, chain, _drop_expression())


def _batch(table: str, chain: str, expression: bytes) -> tuple[bytes, int]:
    place = write_text(_RULE_TABLE, table) + write_text(_RULE_CHAIN, chain)
    rule = place + nested(_RULE_EXPRESSIONS, expression)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | _NLM_F_APPEND
    flush, last = 2, 3
    messages = [
        question(NFTABLES, _DELETE_RULE, NFPROTO_INET, place, NLM_F_REQUEST, flush),
        question(NFTABLES, _NEW_RULE, NFPROTO_INET, rule, flags, last),
    ]
    return batch(NFTABLES, messages, 1), last


def _expression(name: str, *members: bytes) -> bytes:
    return nested(_LIST_MEMBER, write_text(_EXPRESSION_NAME, name), nested(_EXPRESSION_DATA, *members))


def _queue_expression(queue: int) -> bytes:
    return _expression("queue", attribute(_QUEUE_NUMBER, _NUMBER.pack(queue)))


def _nfqueue_target(queue: int) -> bytes:
    return _expression(
        "target",
        write_text(_TARGET_NAME, "NFQUEUE"),
        write_number(_TARGET_REVISION, _NFQUEUE_REVISION),
        attribute(_TARGET_INFO, _NFQUEUE_INFO.pack(queue, 1, 0)),
    )


def _drop_expression() -> bytes:
    return _expression(
        "immediate",
        write_number(_IMMEDIATE_REGISTER, _REGISTER_VERDICT),
        nested(_IMMEDIATE_DATA, nested(_DATA_VERDICT, write_number(_VERDICT_CODE, _DROP))),
    )
