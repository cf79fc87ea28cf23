"""The kernel's netfilter, asked and told without any program: tables of nftables, their sets, connections.

The network namespace is that of the thread that calls. Everything raises OSError for what the kernel refuses, also
when it does not answer.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from msgspec import Struct

from pfw.drivers.netlink import NETLINK_NETFILTER, ask, ask_one, open_socket, receive, steadily
from pfw.wire import conntrack, nftables, nftables_rule
from pfw.wire.conntrack import Entry
from pfw.wire.netlink import NLMSG_DONE, NLMSG_ERROR, error_number, parts
from pfw.wire.nfnetlink import split
from pfw.wire.nftables import BaseHook, Element, SetChange, SetElement

__all__ = [
    "BaseHook",
    "Element",
    "Entry",
    "Names",
    "SetChange",
    "SetElement",
    "TableState",
    "change_set",
    "close_chain",
    "connections",
    "cut",
    "queue_chain",
    "read_chains",
    "read_counters",
    "read_elements",
    "read_names",
    "read_rules",
    "read_set_names",
    "read_table",
    "table_exists",
    "table_flags",
    "track",
]

T = TypeVar("T")

_SO_SNDBUFFORCE = 32
_SEND_BUFFER_MARGIN_BYTES = 1 << 16
_CTNETLINK = "ctnetlink (module nf_conntrack_netlink)"
_NO_EXPRESSION = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})
"""What kernels answer that lack an expression."""
_LISTINGS_MAX = 10
_IN_FLIGHT = 64
"""Requests whose answers are waited for together: the answers fit into a receive buffer of any size."""


class TableState(Struct, frozen=True):
    """What is in a table: its chains, how many rules each has, the rules of base chains as the kernel holds them, and
    a digest of all rules (see `wire/nftables.py: fingerprint`)."""

    chains: dict[str, BaseHook | None]
    rules: dict[str, int]
    base_rules: dict[str, bytes]
    fingerprint: str


class Names(Struct, frozen=True):
    """What has a name in a table. `sets` holds maps too; what is anonymous is left out."""

    chains: frozenset[str]
    sets: frozenset[str]
    counters: frozenset[str]


def table_exists(table: str) -> bool:
    """Whether there is such a table, of the family inet."""
    return _table_flags(table) is not None


def read_table(table: str) -> TableState | None:
    """What is in a table at one moment; None where there is no such table."""
    return _at_one_moment(lambda: _read_table(table))


def _read_table(table: str) -> TableState | None:
    flags = _table_flags(table)
    if flags is None:
        return None
    chains = _chains(table)
    rules = [nftables.read_rule(body) for _, body in ask(NETLINK_NETFILTER, nftables.rules_request(table))]
    anonymous = {each.name: (each.flags, _raw_elements(table, each.name)) for each in _sets(table) if each.is_anonymous}
    return _state(chains, rules, nftables.fingerprint(flags, chains, rules, anonymous))


def _state(chains: list[nftables.Chain], rules: list[nftables.Rule], fingerprint: str) -> TableState:
    hooks = {chain.name: chain.base for chain in chains}
    counts = dict.fromkeys(hooks, 0)
    base_rules: dict[str, list[bytes]] = {name: [] for name, base in hooks.items() if base is not None}
    for rule in rules:
        counts[rule.chain] = counts.get(rule.chain, 0) + 1
        if rule.chain in base_rules:
            base_rules[rule.chain].append(rule.expressions)
    return TableState(hooks, counts, {name: b"".join(each) for name, each in base_rules.items()}, fingerprint)


def read_chains(table: str) -> dict[str, BaseHook | None] | None:
    """The chains of a table by name; None where there is no such table."""
    if not table_exists(table):
        return None
    return {chain.name: chain.base for chain in _at_one_moment(lambda: _chains(table)) if not chain.is_anonymous}


def read_rules(table: str, chains: Iterable[str]) -> dict[str, list[bytes]]:
    """The rules of some chains of a table, each as the kernel tells it. None for a chain that is not there.

    Asked chain by chain: a list of all rules costs the kernel time that grows with their square.
    """
    found: dict[str, list[bytes]] = {}
    with open_socket(NETLINK_NETFILTER) as sock:
        for chain in chains:
            found[chain] = []
            sock.send(nftables.rules_request(table, chain))
            while _take_rules(receive(sock), found[chain]):
                pass
    return found


def _take_rules(data: bytes, rules: list[bytes]) -> bool:
    """Adds the rules of one read; whether more will come."""
    for kind, _, _, body in parts(data):
        if kind == NLMSG_DONE:
            return False
        if kind == NLMSG_ERROR:
            number = error_number(body)
            if number == errno.ENOENT:
                return False
            if number:
                raise OSError(number, os.strerror(number))
        else:
            rules.append(bytes(split(body)[2]))
    return True


def table_flags(table: str) -> int | None:
    """The flags of a table, of which one switches it off; None where there is no such table."""
    return _table_flags(table)


def read_set_names(table: str) -> frozenset[str]:
    """The sets and maps of a table that have a name; none where there is no such table."""
    if not table_exists(table):
        return frozenset()
    return frozenset(each.name for each in _at_one_moment(lambda: _sets(table)) if not each.is_anonymous)


def read_names(table: str) -> Names | None:
    """What has a name in a table; None where there is no such table."""
    return _at_one_moment(lambda: _read_names(table))


def _read_names(table: str) -> Names | None:
    if not table_exists(table):
        return None
    return Names(
        frozenset(each.name for each in _chains(table) if not each.is_anonymous),
        frozenset(each.name for each in _sets(table) if not each.is_anonymous),
        frozenset(_read_counters(table)),
    )


def read_counters(table: str) -> dict[str, tuple[int, int]]:
    """Packets and bytes of a table's named counters; none where there is no such table."""
    return _at_one_moment(lambda: _read_counters(table))


def _read_counters(table: str) -> dict[str, tuple[int, int]]:
    found = {}
    for _, body in ask(NETLINK_NETFILTER, nftables.counters_request(table)):
        name, packets, size = nftables.read_counter(body)
        found[name] = (packets, size)
    return found


def read_elements(table: str, set_name: str) -> list[Element]:
    """The elements of a set at one moment; of an interval set, where each interval begins and where it has ended."""
    return _at_one_moment(lambda: _read_elements(table, set_name))


def _read_elements(table: str, set_name: str) -> list[Element]:
    question = nftables.elements_request(table, set_name)
    # By key: the kernel walks through a table of hashes anew when that grows or shrinks meanwhile.
    found: dict[tuple[bytes, bool], Element] = {}
    for _ in range(_LISTINGS_MAX):
        before = len(found)
        messages = 0
        for _, body in ask(NETLINK_NETFILTER, question):
            messages += 1
            found |= {(element.key, element.is_end): element for element in nftables.read_elements(body)}
        # Where each message begins the kernel counts from the start (nf_tables_api.c: nf_tables_dump_setelem): some are
        # left out if others before them ran out meanwhile, which changes no generation.
        if messages < 2 or len(found) == before:
            return list(found.values())
    raise _changed()


def change_set(table: str, changes: Iterable[SetChange]) -> None:
    """Change sets in one transaction, in this order. Where the kernel refuses anything, nothing has changed.

    EEXIST: an element to be added is there, or overlaps one. ENOENT: an element to be deleted, a set or the table is
    not there.
    """
    request, last = nftables.change_request(table, changes)
    if last:
        _carry_out_batch(request, last, f"table {table}")


def queue_chain(table: str, chain: str, queue: int) -> Literal["queue", "xtables"]:
    """Let a regular chain of an inet table give all its packets to a queue, and nothing else, in one transaction; by
    which of the kernel's two ways. ENOENT: the table or the chain is not there, or the kernel has neither way."""
    try:
        _change_chain(table, chain, nftables_rule.queue_batch(table, chain, queue, xtables=False))
    except OSError as error:
        if error.errno not in _NO_EXPRESSION:
            raise
    else:
        return "queue"
    _change_chain(table, chain, nftables_rule.queue_batch(table, chain, queue, xtables=True))
    return "xtables"


def close_chain(table: str, chain: str) -> None:
    """Let a regular chain of an inet table drop all its packets, in one transaction. What still waits in a queue that
    nobody reads any more is dropped by the kernel."""
    _change_chain(table, chain, nftables_rule.close_batch(table, chain))


def _change_chain(table: str, chain: str, request: tuple[bytes, int]) -> None:
    _carry_out_batch(*request, f"table {table}, chain {chain}")


def _carry_out_batch(request: bytes, last: int, place: str) -> None:
    with open_socket(NETLINK_NETFILTER) as sock:
        _enlarge(sock, len(request) + _SEND_BUFFER_MARGIN_BYTES)
        sock.send(request)
        while True:
            # The first error tells; the kernel goes on with the batch only to find more of them.
            for kind, _, sequence, body in parts(receive(sock)):
                number = error_number(body) if kind == NLMSG_ERROR else 0
                if number:
                    raise OSError(number, f"{place}: {os.strerror(number)}")
                if kind == NLMSG_ERROR and sequence == last:
                    return


def _enlarge(sock: socket.socket, size: int) -> None:
    """A batch is one message to the socket and has to fit into its buffer."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def _table_flags(table: str) -> int | None:
    try:
        _, body = ask_one(NETLINK_NETFILTER, nftables.table_request(table))
    except FileNotFoundError:
        return None
    return nftables.read_table_flags(body)


def _at_one_moment(read: Callable[[], T]) -> T:
    """What is read while no ruleset changes.

    The kernel flags a list that changed between two of its messages, not one that changed while a message was filled:
    such a list has what was and what came, or neither.
    """
    return steadily(lambda: _read_undisturbed(read))


def _read_undisturbed(read: Callable[[], T]) -> T:
    generation = _generation()
    try:
        found = read()
    except FileNotFoundError:
        if _generation() == generation:
            raise
        raise _changed() from None
    if _generation() != generation:
        raise _changed()
    return found


def _generation() -> int:
    return nftables.read_generation(ask_one(NETLINK_NETFILTER, nftables.generation_request())[1])


def _chains(table: str) -> list[nftables.Chain]:
    found = [nftables.read_chain(body) for _, body in ask(NETLINK_NETFILTER, nftables.chains_request(table))]
    return [each for each in found if each.table == table]


def _sets(table: str) -> list[nftables.NamedSet]:
    return [nftables.read_set(body) for _, body in ask(NETLINK_NETFILTER, nftables.sets_request(table))]


def _raw_elements(table: str, set_name: str) -> list[dict[int, memoryview]]:
    question = nftables.elements_request(table, set_name)
    return [element for _, body in ask(NETLINK_NETFILTER, question) for element in nftables.read_raw_elements(body)]


def _changed() -> InterruptedError:
    return InterruptedError(errno.EINTR, "the ruleset changed again and again while it was read")


def connections() -> list[Entry]:
    """All connections that the kernel tracks, of both families."""
    try:
        return [
            conntrack.entry(body)
            for kind, body in ask(NETLINK_NETFILTER, conntrack.dump_request())
            if kind == conntrack.ENTRY
        ]
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # What netfilter answers for a subsystem that it does not have; there is nothing else in the question.
        raise OSError(errno.EOPNOTSUPP, f"this kernel does not tell of connections: no {_CTNETLINK}") from None


def cut(entries: Sequence[Entry]) -> int:
    """Forget these connections, so that their next packets are new ones; how many were there to forget."""
    requests = [conntrack.delete_request(each, sequence) for sequence, each in enumerate(entries, 1)]
    return _carry_out(requests, errno.ENOENT)


def track(opened: Sequence[tuple[int, bytes, bytes, int, int]]) -> int:
    """Make connections known that are open already: protocol, source, destination, source port and port of the packet
    that began each. How many were not known."""
    tuples = [conntrack.Tuple(*each) for each in opened]
    requests = [conntrack.create_request(each, sequence) for sequence, each in enumerate(tuples, 1)]
    return _carry_out(requests, errno.EEXIST)


def _carry_out(requests: list[bytes], harmless: int) -> int:
    """How many requests were granted. Each is tried; of those refused for another reason the first is raised then."""
    refused: list[int] = []
    with open_socket(NETLINK_NETFILTER) as sock:
        for start in range(0, len(requests), _IN_FLIGHT):
            sent = requests[start : start + _IN_FLIGHT]
            sock.send(b"".join(sent))
            answers = 0
            while answers < len(sent):
                found = [error_number(body) for kind, _, _, body in parts(receive(sock)) if kind == NLMSG_ERROR]
                answers += len(found)
                refused += filter(None, found)
    for number in refused:
        if number != harmless:
            hint = f" (if not for this entry, then for want of {_CTNETLINK})" if number == errno.EINVAL else ""
            raise OSError(number, f"connection tracking: {os.strerror(number)}{hint}")
    return len(requests) - len(refused)
