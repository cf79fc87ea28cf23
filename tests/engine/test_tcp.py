"""The TCP tables against a transcription of the kernel's, for every flag byte, state and way."""

import pytest

from pfw.engine.tcp import (
    IGNORE,
    INVALID,
    MOVES,
    REOPEN,
    TCP_ORIGINAL,
    TCP_REPLY,
    TCP_TIMEOUTS_S,
    State,
    can_start,
    first_state,
    flags_are_valid,
    ongoing_state,
    state_name,
    timeout_s,
)
from pfw.model.flow import make_key
from pfw.model.packet import ICMP, ICMPV6, SCTP, TCP, UDP, flag_letters

STATES = ["NO", "SS", "SR", "ES", "FW", "CW", "LA", "TW", "CL", "S2"]

# tcp_conntracks of net/netfilter/nf_conntrack_proto_tcp.c, Linux 5.4 and later: what follows each of STATES.
ORIGINAL = """
    syn     SS SS IG IG IG IG IG SS SS S2
    synack  IV IV SR IV IV IV IV IV IV SR
    fin     IV IV FW FW LA LA LA TW CL IV
    ack     ES IV ES ES CW CW TW TW CL IV
    rst     IV CL CL CL CL CL CL CL CL CL
    none    IV IV IV IV IV IV IV IV IV IV
"""
REPLY = """
    syn     IV S2 IV IV IV IV IV SS IV S2
    synack  IV SR IG IG IG IG IG IG IG SR
    fin     IV IV FW FW LA LA LA TW CL IV
    ack     IV IG SR ES CW CW TW TW CL IG
    rst     IV CL CL CL CL CL CL CL CL CL
    none    IV IV IV IV IV IV IV IV IV IV
"""
# tcp_valid_flags of the same file; PSH, ECE and CWR are always valid there.
VALID = ["S", "SU", "SA", "R", "RA", "FA", "FAU", "A", "AU"]


def column(letters: str) -> str:
    """get_conntrack_index of the same file."""
    if "R" in letters:
        return "rst"
    if "S" in letters:
        return "synack" if "A" in letters else "syn"
    if "F" in letters:
        return "fin"
    return "ack" if "A" in letters else "none"


def oracle(table: str, flags: int, state: int) -> int | None:
    """What the kernel does, in the words of our tables. A SYN that brings a connection in TIME_WAIT or CLOSE
    back to SYN_SENT makes the kernel delete it and begin anew (nf_conntrack_tcp_packet)."""
    letters = flag_letters(flags)
    if sorted(set(letters) - set("PEC")) not in [sorted(each) for each in VALID]:
        return INVALID
    rows = {row.split()[0]: row.split()[1:] for row in table.strip().splitlines()}
    after = rows[column(letters)][state]
    if after in ("IG", "IV"):
        return IGNORE if after == "IG" else INVALID
    if after == "SS" and STATES[state] in ("TW", "CL"):
        return REOPEN
    return None if STATES.index(after) == state else STATES.index(after)


@pytest.mark.parametrize(("ours", "theirs"), [(TCP_ORIGINAL, ORIGINAL), (TCP_REPLY, REPLY)], ids=["original", "reply"])
@pytest.mark.parametrize("state", range(10), ids=STATES)
def test_the_tables_are_the_kernels(ours, theirs, state):
    assert [(flag_letters(flags), ours[state][flags]) for flags in range(256)] == [
        (flag_letters(flags), oracle(theirs, flags, state)) for flags in range(256)
    ]


def test_the_tables_of_a_state_stand_together():
    assert MOVES[: len(STATES)] == tuple(zip(TCP_ORIGINAL, TCP_REPLY, strict=True))


@pytest.mark.parametrize("flags", range(256))
def test_a_connection_starts_where_the_kernel_starts_one(flags):
    # nf_conntrack_tcp_packet takes SYN, and with nf_conntrack_tcp_loose what leads from NONE to ESTABLISHED.
    expected = oracle(ORIGINAL, flags, 0)
    assert first_state(TCP, flags) == expected
    assert can_start(TCP, flags, None) == (expected in (State.SYN_SENT, State.ESTABLISHED))


def test_valid_flags_are_a_few():
    assert sum(map(flags_are_valid, range(256))) == len(VALID) * 8


def test_timeouts_are_the_kernels_defaults():
    minute, day = 60, 86_400
    assert {
        State.SYN_SENT: 2 * minute,
        State.SYN_RECV: minute,
        State.ESTABLISHED: 5 * day,
        State.FIN_WAIT: 2 * minute,
        State.CLOSE_WAIT: minute,
        State.LAST_ACK: 30,
        State.TIME_WAIT: 2 * minute,
        State.CLOSE: 10,
        State.SYN_SENT2: 2 * minute,
    } == TCP_TIMEOUTS_S
    assert timeout_s(UDP, State.ASKED) == 30
    assert timeout_s(UDP, State.ANSWERED) == 120
    assert timeout_s(ICMP, State.ANSWERED) == 30
    assert timeout_s(47, State.ASKED) == 600


@pytest.mark.parametrize(
    ("protocol", "icmp_type", "starts"),
    [
        (ICMP, 8, True), (ICMP, 13, True), (ICMP, 15, True), (ICMP, 17, True),
        (ICMP, 0, False), (ICMP, 3, False), (ICMP, 5, False), (ICMP, 11, False), (ICMP, 14, False),
        (ICMPV6, 128, True), (ICMPV6, 139, True), (ICMPV6, 135, True), (ICMPV6, 136, True), (ICMPV6, 134, True),
        (ICMPV6, 143, True), (ICMPV6, 129, False), (ICMPV6, 137, False), (ICMPV6, 2, False), (ICMPV6, 200, False),
        (UDP, None, True), (SCTP, None, True), (47, None, True),
    ],
)  # fmt: skip
def test_what_else_starts_a_connection(protocol, icmp_type, starts):
    assert can_start(protocol, 0, icmp_type) is starts


@pytest.mark.parametrize(("protocol", "state"), [(TCP, State.ESTABLISHED), (UDP, State.ANSWERED)])
def test_an_open_socket_is_a_connection_that_was_answered(protocol, state):
    assert ongoing_state(make_key(protocol, bytes(4), bytes(4), bytes(4))) == state


def test_every_state_has_suricatas_name():
    names = {state.name: state_name(state) for state in State if state}
    assert {name for name, word in names.items() if word == "new"} == {"SYN_SENT", "SYN_RECV", "SYN_SENT2", "ASKED"}
    assert {name for name, word in names.items() if word == "established"} == {"ESTABLISHED", "ANSWERED"}
    assert set(names.values()) == {"new", "established", "closed"}
