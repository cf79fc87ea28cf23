"""Which events of connection tracking the kernel shall hand over: a classic BPF program for the netlink socket.

Source: include/uapi/linux/filter.h (SKF_AD_NLATTR finds an attribute, SKF_AD_NLATTR_NEST one inside another, both 0
where there is none), bpf_common.h. A program can only read numbers in network order; those of netlink are turned when
it is made. Whatever does not look as expected is handed over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from struct import Struct as Layout

from pfw.model.packet import TCP
from pfw.wire.classic_bpf import Program
from pfw.wire.conntrack import IPS_ASSURED, IPS_SEEN_REPLY
from pfw.wire.conntrack_event import EVENT_NEW
from pfw.wire.netlink import NLA_F_NESTED, NLM_F_CREATE

Line = tuple[str, int] | tuple[str, int, str, str]
"""A word of `_CODES` and its constant; behind a comparison the labels to go to if true and if false. An empty label is
the next line."""

_CODES = {
    "load word at": 0x20,
    "load half at": 0x28,
    "load byte at": 0x30,
    "load word at x +": 0x40,
    "load byte at x +": 0x50,
    "a =": 0x00,
    "x =": 0x01,
    "x = a": 0x07,
    "a == ?": 0x15,
    "a & ?": 0x45,
    "return": 0x06,
}
_SKF_AD_OFF = 0xFFFFF000
_NLATTR, _NLATTR_NEST = _SKF_AD_OFF + 12, _SKF_AD_OFF + 16
_ALL = 0xFFFFFFFF

_TYPE, _FLAGS, _ATTRIBUTES, _ADDRESSES = 4, 6, 20, 24
_STATUS, _PROTOINFO, _PROTOINFO_TCP, _TCP_STATE = 3, 4, 1, 1
_SOURCE, _BETWEEN = 32, 4
_PROTOCOL = {4: 52, 16: 76}
"""By the size of an address: where the protocol's number stands, behind the addresses of the original tuple."""


def event_filter(states: Collection[int], *, loopback: bool) -> Program:
    """Takes what is new and what has ended; of changes those of TCP to one of these states, and of other protocols the
    first reply. Without `loopback` nothing of connections with both ends in 127.0.0.0/8, or both ::1."""
    own = {} if loopback else {"IPv4": _both_loopback(4, "kind"), "IPv6": _both_loopback(16, "kind6")}
    return assemble(
        {
            "": [
                ("load word at", _ADDRESSES),
                ("a == ?", _header(20, 1), "IPv4" if own else "kind", ""),
                ("a == ?", _header(44, 1), "IPv6" if own else "kind6", "take"),
            ],
            **own,
            "kind": _kind(4),
            "kind6": _kind(16),
            "TCP": _tcp(states),
            "other": _other(),
            "take": [("return", _ALL)],
            "drop": [("return", 0)],
        }
    )


def _both_loopback(size: int, otherwise: str) -> list[Line]:
    source = _SOURCE
    destination = source + size + _BETWEEN
    if size == 4:
        return [
            ("load byte at", source),
            ("a == ?", 127, "", otherwise),
            ("load byte at", destination),
            ("a == ?", 127, "drop", otherwise),
        ]
    lines: list[Line] = []
    for start in (source, destination):
        for at, number in ((0, 0), (4, 0), (8, 0), (12, 1)):
            lines += [("load word at", start + at), ("a == ?", number, "", otherwise)]
    lines[-1] = ("a == ?", 1, "drop", otherwise)
    return lines


def _kind(size: int) -> list[Line]:
    """What is no change is taken."""
    return [
        ("load half at", _TYPE),
        ("a == ?", _turned(EVENT_NEW), "", "take"),
        ("load half at", _FLAGS),
        ("a & ?", _turned(NLM_F_CREATE), "take", ""),
        ("load byte at", _PROTOCOL[size]),
        ("a == ?", TCP, "TCP", "other"),
    ]


def _tcp(states: Collection[int]) -> list[Line]:
    """A change that has nothing to do with the state does not tell it."""
    return [
        ("a =", _ATTRIBUTES),
        ("x =", _PROTOINFO),
        ("load word at", _NLATTR),
        ("a == ?", 0, "drop", ""),
        ("x =", _PROTOINFO_TCP),
        ("load word at", _NLATTR_NEST),
        ("a == ?", 0, "take", ""),
        ("x =", _TCP_STATE),
        ("load word at", _NLATTR_NEST),
        ("a == ?", 0, "take", ""),
        ("x = a", 0),
        ("load byte at x +", 4),
        *(("a == ?", state, "take", "") for state in sorted(states)),
        ("return", 0),
    ]


def _other() -> list[Line]:
    """The kernel tells of a connection becoming assured in a change of its own, later than of the first reply."""
    return [
        ("a =", _ATTRIBUTES),
        ("x =", _STATUS),
        ("load word at", _NLATTR),
        ("a == ?", 0, "take", ""),
        ("x = a", 0),
        ("load word at x +", 4),
        ("a & ?", IPS_ASSURED, "drop", ""),
        ("a & ?", IPS_SEEN_REPLY, "take", "drop"),
    ]


def assemble(parts: Mapping[str, Sequence[Line]]) -> Program:
    """A program of named parts, one behind the other."""
    places: dict[str, int] = {}
    size = 0
    for name, lines in parts.items():
        places[name] = size
        size += len(lines)
    program: Program = []
    for line in (line for lines in parts.values() for line in lines):
        following = len(program) + 1
        true, false = (places[label] - following if label else 0 for label in (line[2:] or ("", "")))
        if not 0 <= min(true, false) <= max(true, false) < 256:
            raise ValueError(f"{line}: a label is behind, or too far ahead")
        program.append((_CODES[line[0]], true, false, line[1]))
    return program


def _turned(number: int) -> int:
    """A half word of netlink as the program reads it."""
    return int.from_bytes(Layout("=H").pack(number), "big")


def _header(length: int, kind: int) -> int:
    """The header of a nested attribute as the program reads it."""
    return int.from_bytes(Layout("=HH").pack(length, kind | NLA_F_NESTED), "big")
