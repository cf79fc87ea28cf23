"""The life of a connection as the kernel's connection tracking sees it, as tables.

Source: net/netfilter/nf_conntrack_proto_tcp.c of Linux 6.x (`tcp_conntracks`, `tcp_valid_flags`,
`tcp_timeouts`), nf_conntrack_proto_udp.c, _icmp.c, _icmpv6.c, _generic.c, _sctp.c. Sequence numbers and
windows are not followed: a packet outside the window, which the kernel calls invalid, is none here.

A `Moves` table answers, for the flags of a packet that goes one way through a connection in a certain
state, what changes: None for nothing (nearly every packet), a new State, or one of the codes below.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from pfw.model.flow import split_key
from pfw.model.packet import ACK, CWR, DCCP, ECE, FIN, ICMP, ICMPV6, PSH, RST, SCTP, SYN, TCP, UDP, UDPLITE, URG


class State(IntEnum):
    """States of a connection; those behind SYN_SENT2 are for protocols without a state of their own."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9
    ASKED = 10
    ANSWERED = 11


IGNORE, INVALID, REOPEN = -1, -2, -3
"""Codes beside the states: counted and otherwise ignored; belongs to no connection; a new connection
with the ports of one that is over."""

Moves = tuple[int | None, ...]

_VALID_FLAGS = frozenset({
    SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG,
})  # fmt: skip

_SS, _SR, _ES, _FW, _CW, _LA, _TW, _CL, _S2 = range(1, 10)
_IG, _IV, _RE = IGNORE, INVALID, REOPEN

# Columns: NONE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT2.
_ORIGINAL = {
    "syn":    (_SS, _SS, _IG, _IG, _IG, _IG, _IG, _RE, _RE, _S2),
    "synack": (_IV, _IV, _SR, _IV, _IV, _IV, _IV, _IV, _IV, _SR),
    "fin":    (_IV, _IV, _FW, _FW, _LA, _LA, _LA, _TW, _CL, _IV),
    "ack":    (_ES, _IV, _ES, _ES, _CW, _CW, _TW, _TW, _CL, _IV),
    "rst":    (_IV, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL),
}  # fmt: skip
_REPLY = {
    "syn":    (_IV, _S2, _IV, _IV, _IV, _IV, _IV, _RE, _IV, _S2),
    "synack": (_IV, _SR, _IG, _IG, _IG, _IG, _IG, _IG, _IG, _SR),
    "fin":    (_IV, _IV, _FW, _FW, _LA, _LA, _LA, _TW, _CL, _IV),
    "ack":    (_IV, _IG, _SR, _ES, _CW, _CW, _TW, _TW, _CL, _IG),
    "rst":    (_IV, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL, _CL),
}  # fmt: skip


def flags_are_valid(flags: int) -> bool:
    """Whether any honest TCP sends this combination."""
    return flags & ~(ECE | CWR | PSH) & 0xFF in _VALID_FLAGS


def _kind(flags: int) -> str:
    if not flags_are_valid(flags):
        return "invalid"
    if flags & RST:
        return "rst"
    if flags & SYN:
        return "synack" if flags & ACK else "syn"
    return "fin" if flags & FIN else "ack"


_KINDS = tuple(map(_kind, range(256)))


def _moves(table: Mapping[str, tuple[int, ...]], state: int) -> Moves:
    after = {kind: None if row[state] == state else row[state] for kind, row in table.items()}
    after["invalid"] = INVALID
    return tuple([after[kind] for kind in _KINDS])


TCP_ORIGINAL: tuple[Moves, ...] = tuple(_moves(_ORIGINAL, state) for state in range(10))
TCP_REPLY: tuple[Moves, ...] = tuple(_moves(_REPLY, state) for state in range(10))

# Without TCP's flags every packet has the flags 0: one entry is the whole table.
_STAYS: Moves = (None,)
_IS_ANSWER: Moves = (int(State.ANSWERED),)

MOVES: tuple[tuple[Moves, Moves], ...] = (
    *zip(TCP_ORIGINAL, TCP_REPLY, strict=True),
    (_STAYS, _IS_ANSWER),
    (_STAYS, _STAYS),
)
"""The tables of the two ways through a connection, the originator's first, by its state."""

CLOSING = frozenset({int(State.TIME_WAIT), int(State.CLOSE)})
"""The states in which TCP itself has ended the connection."""

TCP_TIMEOUTS_S: dict[int, float] = {
    State.SYN_SENT: 120,
    State.SYN_RECV: 60,
    State.ESTABLISHED: 432_000,
    State.FIN_WAIT: 120,
    State.CLOSE_WAIT: 60,
    State.LAST_ACK: 30,
    State.TIME_WAIT: 120,
    State.CLOSE: 10,
    State.SYN_SENT2: 120,
}
SOONER: tuple[frozenset[int], ...] = tuple(
    frozenset(int(other) for other, after_s in TCP_TIMEOUTS_S.items() if after_s < TCP_TIMEOUTS_S.get(state, 0))
    for state in State
)
"""By the state of a connection, the states in which it would be forgotten sooner. Answers never make that so."""

_TIMEOUTS_S: dict[int, tuple[float, float]] = {
    UDP: (30, 120),
    UDPLITE: (30, 120),
    ICMP: (30, 30),
    ICMPV6: (30, 30),
    SCTP: (3, 210),
    DCCP: (240, 432_000),
}
_GENERIC_TIMEOUT_S = 600.0


def timeout_s(protocol: int, state: int) -> float:
    """How long a connection in this state is remembered after its last packet (the kernel's defaults)."""
    if protocol == TCP:
        return TCP_TIMEOUTS_S[state]
    asked, answered = _TIMEOUTS_S.get(protocol, (_GENERIC_TIMEOUT_S, _GENERIC_TIMEOUT_S))
    return answered if state == State.ANSWERED else asked


def first_state(protocol: int, flags: int) -> int:
    """The state of a connection whose first packet has these TCP flags, or INVALID.

    A lone ACK starts one: it belongs to a connection older than our watching (nf_conntrack_tcp_loose).
    """
    if protocol != TCP:
        return State.ASKED
    state = TCP_ORIGINAL[0][flags]
    return INVALID if state is None else state


def ongoing_state(key: bytes) -> int:
    """The state of a connection of which only its flow key is known: that it is open, or its socket is."""
    return State.ESTABLISHED if split_key(key)[0] == TCP else State.ANSWERED


# What starts a conversation: the requests, and what nobody answers but the kernel lets pass untracked
# (nf_conntrack_proto_icmp.c, `valid_new`; _icmpv6.c, `valid_new` and `noct_valid_new`).
_ICMP_STARTS = {
    ICMP: frozenset({8, 13, 15, 17}),
    ICMPV6: frozenset({128, 139, 130, 131, 132, 133, 134, 135, 136, 143, 151, 152}),
}


def can_start(protocol: int, flags: int, icmp_type: int | None) -> bool:
    """Whether connection tracking takes a packet as the first of a connection."""
    starts = _ICMP_STARTS.get(protocol)
    if starts is not None:
        return icmp_type in starts
    return first_state(protocol, flags) != INVALID


def state_name(state: int) -> str:
    """Suricata's word for it: `new`, `established` or `closed`."""
    if state in CLOSING or state in (State.LAST_ACK, State.FIN_WAIT, State.CLOSE_WAIT):
        return "closed"
    return "established" if state in (State.ESTABLISHED, State.ANSWERED) else "new"
