"""Answers of DNS as far as they say which name has which address (RFC 1035, RFC 3596): read only.

Names are compared in the form that they have on the wire, in small letters. A length is at most 63 there, and so no
letter: making a name's letters small leaves its lengths as they are. What an answer says is what its sender says: an
identifier that fits, or DNSSEC, is not looked at.
"""

from __future__ import annotations

import re
from struct import Struct as Layout
from typing import Final

from pfw.model.name import Address, Answer
from pfw.model.packet import UDP
from pfw.wire.draft import Draft
from pfw.wire.error import WireError
from pfw.wire.ipv4 import MAX_PACKET_BYTES, read_ipv4
from pfw.wire.ipv6 import read_ipv6

A, CNAME, AAAA = 1, 5, 28
RECORDS_MAX = 64
"""So many records of an answer are read. Addresses of one name that share a datagram are few."""
NAME_OCTETS_MAX = 255
"""RFC 1035, 2.3.4, with the length of each label and the end."""
JUMPS_MAX = 16
"""Pointers within one name. Senders need one."""
SHOWN_MAX = 253
"""Characters of a name, which is the most that a name of ordinary characters has."""

_HEADER = Layout(">xxHHHxxxx")
_QUESTION = Layout(">HH")
_RECORD = Layout(">HHIH")
_RECORD_BEHIND = Layout(">HHHIH")
"""With the last two bytes of the owner's name: all of it, where it is a pointer."""
_POINTER = b"\xc0"
_POINTER_END = 1 << 14
"""No pointer leads so far."""
_HEADER_BYTES, _UDP_BYTES = 12, 8
_ANSWER_BITS, _IS_ANSWER = 0xF80F, 0x8000
"""Of the flags: an answer, to an ordinary question, without an error."""
_INTERNET = 1
_ADDRESS_BYTES = {A: 4, AAAA: 16}
_TO_THE_NAME = 0xC000 | _HEADER_BYTES
"""The pointer by which nearly every record names what was asked about."""
_TTL_MAX_S = 0x7FFFFFFF
"""Anything above counts as 0 (RFC 2181, 8)."""
_PLAIN: Final = re.compile(rb"[a-z0-9_-]*(?:\.[a-z0-9_-]*)*").fullmatch


def read_packet(packet: bytes) -> Answer | None:
    """The answer in an IP packet that carries UDP, of which the end may be missing; None for none. Raises WireError."""
    draft = Draft(packet, MAX_PACKET_BYTES)
    version = packet[0] >> 4 if packet else 0
    if not (read_ipv4(draft) if version == 4 else read_ipv6(draft)) or draft.protocol != UDP:
        return None
    return read_answer(packet[draft.at + _UDP_BYTES : draft.end])


def read_answer(payload: bytes) -> Answer | None:
    """Read a message; None for one that is no good answer to one question. Raises WireError for what does not fit.

    A record that is not all there ends the reading: the message may be cut, by its sender or by whoever copied it.
    """
    if len(payload) < _HEADER_BYTES:
        raise WireError(f"{len(payload)} bytes where a DNS message has at least {_HEADER_BYTES}")
    flags, questions, records = _HEADER.unpack_from(payload)
    if flags & _ANSWER_BITS != _IS_ANSWER or questions != 1:
        return None
    asked, at = read_name(payload, _HEADER_BYTES)
    if at + _QUESTION.size > len(payload):
        raise WireError("a DNS question that ends before its type")
    kind, class_ = _QUESTION.unpack_from(payload, at)
    if class_ != _INTERNET:
        return None
    found, aliases = _read_records(payload, at + _QUESTION.size, min(records, RECORDS_MAX), asked)
    return Answer(_shown(asked), kind, tuple(_reached(asked, found, aliases)))


_Found = list[tuple[bytes, bytes, int]]
_Aliases = dict[bytes, tuple[bytes, int]]


def _read_records(payload: bytes, at: int, count: int, asked: bytes) -> tuple[_Found, _Aliases]:
    """The addresses as (owner, address, TTL), and by its owner what each name stands for."""
    found: _Found = []
    aliases: _Aliases = {}
    known = {_TO_THE_NAME: asked}
    end = len(payload)
    for _ in range(count):
        past = at + 2 if payload[at : at + 1] >= _POINTER else past_name(payload, at)
        content = past + _RECORD.size
        if content > end:
            break
        pointer, kind, class_, ttl_s, size = _RECORD_BEHIND.unpack_from(payload, past - 2)
        owner = known.get(pointer) if past == at + 2 else None
        if owner is None:
            owner, _ = read_name(payload, at)
        at = content + size
        if at > end:
            break
        if class_ != _INTERNET:
            continue
        ttl_s = ttl_s if ttl_s <= _TTL_MAX_S else 0
        if kind == CNAME:
            target, past_target = read_name(payload, content)
            if past_target != at:
                raise WireError("a DNS record whose name does not fill it")
            aliases.setdefault(owner, (target, ttl_s))
            if content < _POINTER_END:
                known[0xC000 | content] = target
        elif kind in _ADDRESS_BYTES:
            if size != _ADDRESS_BYTES[kind]:
                raise WireError(f"a DNS record of type {kind} with {size} bytes")
            found.append((owner, payload[content:at], ttl_s))
    return found, aliases


def _reached(asked: bytes, found: _Found, aliases: _Aliases) -> list[Address]:
    """The addresses of a name, and of what it stands for, step by step; where that leads in a circle it ends."""
    name, ttl_s = asked, _TTL_MAX_S
    ways: dict[bytes, int] = {}
    while name not in ways:
        ways[name] = ttl_s
        if name in aliases:
            name, own = aliases[name]
            ttl_s = min(ttl_s, own)
    return [Address(address, min(own, ways[owner])) for owner, address, own in found if owner in ways]


def past_name(payload: bytes, at: int) -> int:
    """Where what follows a name begins, whatever it points to; the end of the payload where it is cut off."""
    end = len(payload)
    while at < end:
        length = payload[at]
        if length == 0:
            return at + 1
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return end


def read_name(payload: bytes, at: int) -> tuple[bytes, int]:
    """The name that begins here, without its end and in small letters, and where what follows it begins.

    A pointer leads to before the part of the name that it ends: so nothing is read twice, and no circle is possible.
    """
    parts: list[bytes] = []
    octets, start, jumps, past, end = 1, at, 0, 0, len(payload)
    while True:
        length = payload[at] if at < end else -1
        if 0 < length < 0x40:
            at += 1 + length
            continue
        octets += at - start
        if octets > NAME_OCTETS_MAX:
            raise WireError(f"a name of more than {NAME_OCTETS_MAX} bytes in a DNS message")
        if at > start:
            parts.append(payload[start:at])
        if length == 0:
            return b"".join(parts).lower(), past or at + 1
        if length < 0xC0 or at + 2 > end:
            raise WireError(f"a name in a DNS message that is cut off, or has a label of kind {max(length, 0) >> 6}")
        past = past or at + 2
        target = (length & 0x3F) << 8 | payload[at + 1]
        jumps += 1
        if not _HEADER_BYTES <= target < start or jumps > JUMPS_MAX:
            raise WireError(f"a name in a DNS message that points to {target} from {at}")
        at = start = target


def labels_of(name: bytes) -> list[bytes]:
    """The labels of a name, each of which begins with its length."""
    labels = []
    at = 0
    while at < len(name):
        stop = at + 1 + name[at]
        labels.append(name[at + 1 : stop])
        at = stop
    return labels


def _shown(name: bytes) -> str:
    r"""A name as people write it, what is no letter, digit, hyphen or underscore as `\046` (RFC 1035, 5.1)."""
    labels = labels_of(name)
    text = b".".join(labels)
    if _PLAIN(text) and text.count(b".") == len(labels) - 1:
        return text.decode("ascii")
    shown = ".".join("".join(map(_written, label)) for label in labels) or "."
    if len(shown) > SHOWN_MAX:
        raise WireError(f"a name of {len(shown)} characters in a DNS message")
    return shown


def _written(octet: int) -> str:
    character = chr(octet)
    return character if character.isascii() and (character.isalnum() or character in "-_") else f"\\{octet:03d}"
