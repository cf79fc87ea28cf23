"""Tables of nftables: what is in them, and sets that are changed in one transaction.

Source: include/uapi/linux/netfilter/nf_tables.h. All is of the family inet. What rules mean is not read; `fingerprint`
tells whether they are still the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from pfw.wire.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    attribute,
    attributes,
    nested,
)
from pfw.wire.nfnetlink import (
    NFPROTO_INET,
    NFPROTO_UNSPEC,
    NFTABLES,
    batch,
    question,
    read_number,
    read_text,
    split,
    write_long,
    write_number,
    write_text,
)

_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT = 1, 4, 7, 10, 12, 13, 14
_GET_GENERATION, _GET_OBJECT = 16, 19
_OBJECT_COUNTER = 1

_TABLE_FLAGS = 2
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 3, 4, 7
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_SET_NAME, _SET_FLAGS = 2, 3
_SET_ANONYMOUS = 0x1
_OBJECT_NAME, _OBJECT_TYPE, _OBJECT_DATA = 2, 3, 4
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_TABLE = 1
"""The name of the table, in all messages."""
_LIST_SET, _LIST_ELEMENTS = 2, 3
_KEY, _DATA, _FLAGS, _TIMEOUT, _EXPIRATION, _USERDATA, _OBJECT, _KEY_END = 1, 2, 3, 4, 5, 6, 9, 10
_VALUE = 1
_VERDICT = 2
_LIST_MEMBER = 1
_GENERATION = 1

_END = attribute(_FLAGS, b"\0\0\0\x01")
"""NFT_SET_ELEM_INTERVAL_END: the interval ends before this key."""
_OPEN = attribute(_USERDATA, b"\x01\x04\x01\0\0\0")
"""What nft notes at an interval that goes on to the last address and so has no end: without it nft shows it wrongly."""
_LIST_BYTES_MAX = 60_000
"""Of elements in one message; the attribute that holds them is limited to 64 KiB."""

_VOLATILE = frozenset({"counter", "last"})
_UNSTEADY = (b"__set", b"__map", b"__chain", b"counter\0", b"last\0", b"quota\0")
"""What has to be looked at more closely; most rules hold nothing of it and count as they are."""
_QUOTA_CONSUMED = 4
_ANONYMOUS_CHAIN = re.compile(r"__chain[0-9]+")
_NAMES_A_SET = {"lookup": 1, "dynset": 1, "objref": 4}
"""Expressions that name a set, and the attribute which does."""
_IMMEDIATE_DATA = 2


class BaseHook(Struct, frozen=True):
    """Where a base chain hooks in (`number` as in nf_inet_hooks: 0 prerouting, 1 input, …) and what ends it
    (`policy`: 0 drop, 1 accept)."""

    kind: str
    number: int
    priority: int
    policy: int


class Chain(Struct, frozen=True):
    """A chain; `base` is None for one that is only jumped to."""

    table: str
    name: str
    base: BaseHook | None

    @property
    def is_anonymous(self) -> bool:
        """Whether it is part of a rule, and its name nobody's choice."""
        return _ANONYMOUS_CHAIN.fullmatch(self.name) is not None


class Rule(Struct, frozen=True):
    """A rule as the kernel tells it."""

    chain: str
    handle: int
    expressions: bytes
    userdata: bytes


class NamedSet(Struct, frozen=True):
    """A set or map. An anonymous one is part of a rule, and its name nobody's choice."""

    name: str
    flags: int

    @property
    def is_anonymous(self) -> bool:
        return bool(self.flags & _SET_ANONYMOUS)


class Element(Struct, frozen=True, gc=False):
    """An element of a set. One that `is_end` is where an interval ends: its key no longer belongs to it.

    `left_ms` is None for one that stays, `timeout_ms` where it is what the set gives to all.
    """

    key: bytes
    is_end: bool = False
    left_ms: int | None = None
    timeout_ms: int | None = None


class SetElement(Struct, frozen=True, gc=False):
    """An element to add or delete. In an interval set `key_end` is the last key that belongs to it, maybe `key`
    itself; in any other set it is None."""

    key: bytes
    timeout_ms: int | None = None
    key_end: bytes | None = None


class SetChange(Struct, frozen=True):
    """What becomes of a set. `flush` takes no elements."""

    set_name: str
    kind: Literal["add", "delete", "flush"]
    elements: list[SetElement] = []


def table_request(table: str) -> bytes:
    return question(NFTABLES, _GET_TABLE, NFPROTO_INET, write_text(_TABLE, table))


def generation_request() -> bytes:
    """Ask for the number that every change of any ruleset raises."""
    return question(NFTABLES, _GET_GENERATION, NFPROTO_UNSPEC)


def chains_request(table: str) -> bytes:
    """The kernel answers with the chains of all tables."""
    return _list(_GET_CHAIN, write_text(_TABLE, table))


def rules_request(table: str, chain: str = "") -> bytes:
    return _list(_GET_RULE, write_text(_TABLE, table) + (write_text(_RULE_CHAIN, chain) if chain else b""))


def sets_request(table: str) -> bytes:
    return _list(_GET_SET, write_text(_TABLE, table))


def counters_request(table: str) -> bytes:
    return _list(_GET_OBJECT, write_text(_TABLE, table) + write_number(_OBJECT_TYPE, _OBJECT_COUNTER))


def elements_request(table: str, set_name: str) -> bytes:
    return _list(_GET_ELEMENT, write_text(_TABLE, table) + write_text(_LIST_SET, set_name))


def _list(kind: int, members: bytes) -> bytes:
    return question(NFTABLES, kind, NFPROTO_INET, members, NLM_F_REQUEST | NLM_F_DUMP)


def read_table_flags(body: memoryview) -> int:
    return _number(_members(body), _TABLE_FLAGS)


def read_generation(body: memoryview) -> int:
    return _number(_members(body), _GENERATION)


def read_chain(body: memoryview) -> Chain:
    found = _members(body)
    base = None
    if _CHAIN_HOOK in found:
        hook = dict(attributes(found[_CHAIN_HOOK]))
        priority = _number(hook, _HOOK_PRIORITY)
        base = BaseHook(
            _text(found, _CHAIN_TYPE),
            _number(hook, _HOOK_NUMBER),
            priority - (1 << 32) if priority >> 31 else priority,
            _number(found, _CHAIN_POLICY),
        )
    return Chain(_text(found, _TABLE), _text(found, _CHAIN_NAME), base)


def read_rule(body: memoryview) -> Rule:
    found = _members(body)
    return Rule(
        _text(found, _RULE_CHAIN),
        _number(found, _RULE_HANDLE),
        bytes(found.get(_RULE_EXPRESSIONS, b"")),
        bytes(found.get(_RULE_USERDATA, b"")),
    )


def read_set(body: memoryview) -> NamedSet:
    found = _members(body)
    return NamedSet(_text(found, _SET_NAME), _number(found, _SET_FLAGS))


def read_counter(body: memoryview) -> tuple[str, int, int]:
    """Name, packets and bytes."""
    found = _members(body)
    data = dict(attributes(found.get(_OBJECT_DATA, memoryview(b""))))
    return _text(found, _OBJECT_NAME), _number(data, _COUNTER_PACKETS), _number(data, _COUNTER_BYTES)


def read_raw_elements(body: memoryview) -> Iterator[dict[int, memoryview]]:
    """The attributes of each element in a message."""
    for _, member in attributes(_members(body).get(_LIST_ELEMENTS, memoryview(b""))):
        yield dict(attributes(member))


def read_elements(body: memoryview) -> Iterator[Element]:
    """The elements in a message."""
    for found in read_raw_elements(body):
        yield Element(
            b"".join(bytes(value) for kind, value in attributes(found.get(_KEY, memoryview(b""))) if kind == _VALUE),
            bool(_number(found, _FLAGS) & 1),
            _number(found, _EXPIRATION) if _EXPIRATION in found else None,
            _number(found, _TIMEOUT) if _TIMEOUT in found else None,
        )


def _members(body: memoryview) -> dict[int, memoryview]:
    return dict(attributes(split(body)[2]))


def _number(found: dict[int, memoryview], kind: int) -> int:
    value = found.get(kind)
    return 0 if value is None else read_number(value)


def _text(found: dict[int, memoryview], kind: int) -> str:
    value = found.get(kind)
    return "" if value is None else read_text(value)


def change_request(table: str, changes: Iterable[SetChange]) -> tuple[bytes, int]:
    """A batch that makes these changes in order, and the sequence number whose acknowledgement ends it (0: there is
    nothing to do). An element that is added must not be there, one that is deleted must be there."""
    bodies = [(change.kind, members) for change in changes for members in _change(table, change)]
    last = len(bodies) + 1
    messages = []
    for sequence, (kind, members) in enumerate(bodies, 2):
        flags = NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0)
        if kind == "add":
            flags |= NLM_F_CREATE | NLM_F_EXCL
        message = _NEW_ELEMENT if kind == "add" else _DELETE_ELEMENT
        messages.append(question(NFTABLES, message, NFPROTO_INET, members, flags, sequence))
    return (batch(NFTABLES, messages, 1), last) if messages else (b"", 0)


def _change(table: str, change: SetChange) -> Iterator[bytes]:
    """The attributes of each message that a change takes."""
    begin = write_text(_TABLE, table) + write_text(_LIST_SET, change.set_name)
    if change.kind == "flush":
        yield begin
        return
    if change.kind not in ("add", "delete"):
        raise ValueError(f"{change.kind!r} is nothing that can be done to a set")
    waiting: list[bytes] = []
    size = 0
    # The kernel takes 10,000 intervals in 70 ms when they ascend, and in 1,200 ms when they descend (Linux 6.18).
    for element in sorted(change.elements, key=_key):
        member = _element(element)
        if size + len(member) > _LIST_BYTES_MAX:
            yield begin + nested(_LIST_ELEMENTS, *waiting)
            waiting, size = [], 0
        waiting.append(member)
        size += len(member)
    if waiting:
        yield begin + nested(_LIST_ELEMENTS, *waiting)


def _key(element: SetElement) -> bytes:
    return element.key


def _element(element: SetElement) -> bytes:
    """An element; of an interval both, where it begins and where it has ended."""
    timeout = b"" if element.timeout_ms is None else write_long(_TIMEOUT, element.timeout_ms)
    key, last = element.key, element.key_end
    start = nested(_KEY, attribute(_VALUE, key)) + timeout
    if last is None:
        return nested(_LIST_MEMBER, start)
    if len(last) != len(key) or last < key:
        raise ValueError("an interval that ends before it begins")
    if last == b"\xff" * len(last):
        return nested(_LIST_MEMBER, start, _OPEN)
    behind = (int.from_bytes(last, "big") + 1).to_bytes(len(last), "big")
    return nested(_LIST_MEMBER, start) + nested(_LIST_MEMBER, _END, nested(_KEY, attribute(_VALUE, behind)))


def fingerprint(
    table_flags: int,
    chains: Iterable[Chain],
    rules: Iterable[Rule],
    anonymous: dict[str, tuple[int, list[dict[int, memoryview]]]],
) -> str:
    """A digest of all that decides: the table's flags, base chains with hook and policy, rules with what they say of
    themselves, and the anonymous sets in rules (`anonymous`: flags and elements by name).

    Left out is what changes by itself: handles and positions, what counters, quotas and `last` have seen, and the
    names that the kernel gave to anonymous sets and chains. (`limit` does not tell its state.) The elements of named
    sets are left out too: they are data, and elements come and go.
    """
    digest = hashlib.sha256()
    names: dict[str, str] = {}

    def put(*values: object) -> None:
        digest.update(repr(values).encode())

    put(table_flags)
    for chain in chains:
        if chain.is_anonymous:
            names[chain.name] = f"__chain #{len(names)}"
        base = chain.base
        put(names.get(chain.name, chain.name), base and (base.kind, base.number, base.priority, base.policy))
    for name, (flags, elements) in anonymous.items():
        # The order of a hash set's elements is chance.
        content = sorted(repr(list(_steady_element(element, names))) for element in elements)
        names[name] = hashlib.sha256(repr((flags, content)).encode()).hexdigest()
    for rule in rules:
        put(names.get(rule.chain, rule.chain), rule.userdata)
        if _is_unsteady(rule.expressions):
            put(*(_steady_expression(each, names) for _, each in attributes(memoryview(rule.expressions))))
        else:
            put(rule.expressions)
    return digest.hexdigest()


def _is_unsteady(expressions: bytes) -> bool:
    return any(marker in expressions for marker in _UNSTEADY)


def _steady_expression(expression: memoryview, names: dict[str, str]) -> object:
    if not _is_unsteady(bytes(expression)):
        return bytes(expression)
    found = dict(attributes(expression))
    kind = _text(found, _EXPRESSION_NAME)
    return kind, list(_steady(kind, found.get(_EXPRESSION_DATA, memoryview(b"")), names))


def _steady(kind: str, data: memoryview, names: dict[str, str]) -> Iterator[tuple[int, object]]:
    """What of an expression does not change by itself."""
    if kind in _VOLATILE:
        return
    for part, value in attributes(data):
        if kind == "quota" and part == _QUOTA_CONSUMED:
            continue
        if part == _NAMES_A_SET.get(kind):
            yield part, names.get(read_text(value), bytes(value))
        elif kind == "immediate" and part == _IMMEDIATE_DATA:
            yield part, _steady_data(value, names)
        else:
            yield part, bytes(value)


def _steady_element(found: dict[int, memoryview], names: dict[str, str]) -> Iterator[tuple[int, object]]:
    for part in (_KEY, _KEY_END, _FLAGS, _OBJECT, _USERDATA):
        if part in found:
            yield part, bytes(found[part])
    if _DATA in found:
        yield _DATA, _steady_data(found[_DATA], names)


def _steady_data(value: memoryview, names: dict[str, str]) -> list[object]:
    """A value, or a verdict with the chain that it names."""
    steady: list[object] = []
    for kind, member in attributes(value):
        if kind != _VERDICT:
            steady.append(bytes(member))
            continue
        for part, content in attributes(member):
            steady.append((part, names.get(read_text(content), bytes(content))))
    return steady
