"""DNS messages of any kind (RFC 1035), as far as it matters what is asked, by whom, and how much comes back.

`dns.py` reads which addresses a good answer gives; this reads every message, queries and errors too, and no contents.
"""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

from pfw.wire.dns import labels_of, past_name, read_name
from pfw.wire.error import WireError

RECORDS_MAX = 256
"""So many are walked through to see whether they fit; no honest message in a datagram has more."""
_HEADER = Layout(">xxHHHHH")
_QUESTION = Layout(">HH")
_RECORD = Layout(">HHIH")
_IS_ANSWER, _IS_CUT, _CODE = 0x8000, 0x0200, 0x000F


class Message(Struct, frozen=True, gc=False):
    """`name` is that of the first question in small letters, a character a byte; `answer_bytes` is what follows it."""

    is_answer: bool
    name: str
    kind: int
    code: int
    answers: int
    answer_bytes: int


def read_message(payload: bytes) -> Message:
    """Read the payload of a datagram. Raises WireError for what does not fit."""
    if len(payload) < _HEADER.size:
        raise WireError(f"{len(payload)} bytes where a DNS message has at least {_HEADER.size}")
    flags, questions, answers, authorities, additional = _HEADER.unpack_from(payload)
    at, kind, name = _HEADER.size, 0, ""
    for number in range(min(questions, RECORDS_MAX)):
        wire_name, at = read_name(payload, at)
        if at + _QUESTION.size > len(payload):
            raise WireError("a DNS question that ends before its type")
        if not number:
            name = _text(wire_name)
            kind, _ = _QUESTION.unpack_from(payload, at)
        at += _QUESTION.size
    behind = len(payload) - at
    if not flags & _IS_CUT:
        _check_records(payload, at, min(answers + authorities + additional, RECORDS_MAX))
    return Message(bool(flags & _IS_ANSWER), name, kind, flags & _CODE, answers, behind)


def _check_records(payload: bytes, at: int, count: int) -> None:
    for number in range(count):
        at = past_name(payload, at)
        if at + _RECORD.size > len(payload):
            raise WireError(f"a DNS message of {count} records that ends in number {number + 1}")
        at += _RECORD.size + _RECORD.unpack_from(payload, at)[3]
        if at > len(payload):
            raise WireError(f"a DNS record that is {at - len(payload)} bytes longer than its message")


def _text(name: bytes) -> str:
    return b".".join(labels_of(name)).decode("latin-1")
