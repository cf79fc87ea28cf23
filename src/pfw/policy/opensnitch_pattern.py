"""OpenSnitch's regular expressions as lists of texts, as far as they are no more than that.

The patterns are RE2's (https://github.com/google/re2/wiki/Syntax) and search: what is not anchored may stand anywhere.
Nothing is ever matched here. A pattern becomes the texts that it spells out, and where it does not spell them out two
answers: `inside`, of which every text is found by the pattern, and `around`, which holds every text that is found.
An allow rule takes the first and a deny the second, so that neither allows more. What cannot be read is in `around` as
"anything". Everything is bounded: the pattern, how many texts it spells out, and their length.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

MAX_PATTERN = 512
MAX_TEXTS = 256
MAX_TEXT = 1024
MAX_DEPTH = 16
MAX_REPEAT = 16

# Characters that stand for something in the texts that are put together; a pattern that holds one is not read.
_BEGIN, _END = "\x02", "\x03"
_ANY = "\n"
"""`.*`"""
_SOME = "\x04"
"""`.+`"""
_ONE = "\x05"
"""`.`"""
_NUMBER = "\x06"
"""`\\d+` or `\\d{1,3}`, which in an address is any octet."""
_UNREAD = "\r"
_SPECIAL = frozenset({_BEGIN, _END, _ANY, _SOME, _ONE, _NUMBER, _UNREAD})
_INNER = re.compile("[\n\r\x02-\x06]")
_OCTETS = re.compile(r"((?:[0-9]+\.){1,3})\x06(?:\.\x06)*")
_DIGITS = tuple("0123456789")

_REPEAT = re.compile(r"([*+?]|\{([0-9]{1,2})(?:(,)([0-9]{1,2})?)?\})\??")
_SPAN = re.compile("([0-9])-([0-9])|([a-z])-([a-z])|([A-Z])-([A-Z])")
_DELIMITERS = "/.:"
"""No path, address or name ends in these, so that `.+` behind one is `.*`."""

Texts = tuple[str, ...]


class Piece(Struct, frozen=True):
    """The texts that hold `text`: at their begin unless `open_left`, and at their end unless `open_right`."""

    text: str
    open_left: bool = False
    open_right: bool = False

    def finds(self, text: str) -> bool:
        if self.open_left:
            return self.text in text if self.open_right else text.endswith(self.text)
        return text.startswith(self.text) if self.open_right else text == self.text


ANYTHING = Piece("", open_left=True, open_right=True)


class Found(Struct, frozen=True):
    """What a pattern finds: at least what is inside, at most what is around."""

    inside: tuple[Piece, ...]
    around: tuple[Piece, ...]


@lru_cache(maxsize=256)
def read_pattern(pattern: str) -> Found:
    """What a pattern finds. Never raises: of what cannot be read nothing is known."""
    texts = _read(pattern) if len(pattern) <= MAX_PATTERN and not _SPECIAL & set(pattern) else None
    if texts is None:
        return Found((), (ANYTHING,))
    inside = tuple(dict.fromkeys(piece for text in texts if (piece := _inside(text)) is not None))
    around = tuple(dict.fromkeys(map(_around, texts)))
    return Found(inside, (ANYTHING,) if ANYTHING in around else around)


def _inside(text: str) -> Piece | None:
    """A piece of which everything is found; None where none is known. A `.` is found where there is a dot."""
    body, open_left, open_right = _ends(text.replace(_ONE, "."))
    return None if _INNER.search(body) else Piece(body, open_left, open_right)


def _around(text: str) -> Piece:
    """A piece in which everything is that is found: up to what is not known."""
    body, open_left, open_right = _ends(text)
    cut = _INNER.search(body)
    if cut is None:
        return Piece(body, open_left, open_right)
    return Piece(body[: cut.start()], open_left, open_right=True)


def _ends(text: str) -> tuple[str, bool, bool]:
    """The text between, and whether anything may stand before and behind. No path and no port is four numbers with
    dots, so that those are always the octets of an address."""
    open_left = not text.startswith(_BEGIN)
    open_right = not text.endswith(_END)
    body = text[not open_left : len(text) - (not open_right)]
    if body.startswith(_ANY):
        body, open_left = body.lstrip(_ANY), True
    if body.endswith(_ANY):
        body, open_right = body.rstrip(_ANY), True
    octets = _OCTETS.fullmatch(body)
    if octets is not None and body.count(".") == 3:
        return octets[1], open_left, True
    if body.endswith(_SOME) and body[-2:-1] and body[-2] in _DELIMITERS:
        body, open_right = body[:-1], True
    return body, open_left, open_right


class _Group:
    """What was read of a group: its alternatives before, the texts of this one, and its last atom."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.done: Texts = ("",)
        self.last: Texts = ("",)

    def add(self, atom: Texts) -> None:
        self.done = _joined(self.done, self.last)
        self.last = atom

    def next_alternative(self) -> None:
        self.before += _joined(self.done, self.last)
        self.done = self.last = ("",)

    def close(self) -> Texts:
        self.next_alternative()
        return _bounded(self.before)


def _bounded(texts: list[str]) -> Texts:
    several = tuple(dict.fromkeys(texts))
    return several if len(several) <= MAX_TEXTS and all(len(text) <= MAX_TEXT for text in several) else (_UNREAD,)


def _joined(left: Texts, right: Texts) -> Texts:
    if len(left) * len(right) > MAX_TEXTS:
        right = (_UNREAD,)
    joined = _bounded([a + b for a in left for b in right])
    return joined if joined != (_UNREAD,) or left == ("",) else _bounded([a[: MAX_TEXT // 2] + _UNREAD for a in left])


def _read(pattern: str) -> Texts | None:
    """The texts that a pattern spells out, with the characters above for what it does not; None for what is none."""
    groups = [_Group()]
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "(":
            if pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
                return None
            at += 3 if pattern.startswith("(?:", at) else 1
            groups.append(_Group())
            if len(groups) > MAX_DEPTH:
                return None
            continue
        if character == "|":
            groups[-1].next_alternative()
            at += 1
            continue
        if character == ")":
            if len(groups) == 1:
                return None
            atom, at = groups.pop().close(), at + 1
        else:
            read = _read_atom(pattern, at)
            if read is None:
                return None
            atom, at = read
        repeat = _REPEAT.match(pattern, at)
        if repeat is not None:
            atom, at = _repeated(atom, repeat), repeat.end()
        groups[-1].add(atom)
    if len(groups) > 1:
        return None
    return tuple(text if _anchors_are_outside(text) else _UNREAD for text in groups[0].close())


def _anchors_are_outside(text: str) -> bool:
    return _BEGIN not in text[1:] and _END not in text[:-1]


def _read_atom(pattern: str, at: int) -> tuple[Texts, int] | None:
    """One character, class, dot or anchor, and where it ends; None for what is not known to be any."""
    character = pattern[at]
    if character == "[":
        return _read_class(pattern, at)
    if character == "\\":
        escaped = pattern[at + 1 : at + 2]
        if escaped == "d":
            return _DIGITS, at + 2
        if escaped and escaped in "wsDWS":
            return (_UNREAD,), at + 2
        # Only what is no letter and no digit stands for itself behind a backslash.
        return ((escaped,), at + 2) if escaped and escaped.isascii() and not escaped.isalnum() else None
    if character in "*+?{})]":
        return None
    return ({"^": _BEGIN, "$": _END, ".": _ONE}.get(character, character),), at + 1


def _read_class(pattern: str, at: int) -> tuple[Texts, int] | None:
    end = pattern.find("]", at + 2)
    body = pattern[at + 1 : end]
    if end < 0 or "[" in body or "\\" in body.replace("\\.", "").replace("\\-", "").replace("\\d", ""):
        return None
    if body.startswith("^"):
        return (_UNREAD,), end + 1
    found: list[str] = []
    place = 0
    while place < len(body):
        span = _SPAN.match(body, place)
        if span is not None:
            first, last = (end for end in span.groups() if end is not None)
            if first > last:
                return None
            found += map(chr, range(ord(first), ord(last) + 1))
            place = span.end()
        elif body[place] == "\\":
            found += "0123456789" if body[place + 1] == "d" else body[place + 1]
            place += 2
        elif body[place] == "-" and 0 < place < len(body) - 1:
            return None
        else:
            found.append(body[place])
            place += 1
    return tuple(dict.fromkeys(found)), end + 1


def _repeated(atom: Texts, repeat: re.Match[str]) -> Texts:
    kind = repeat[1][0]
    if kind == "?":
        return _bounded(["", *atom])
    if atom == _DIGITS and repeat[1] in ("+", "{1,3}"):
        return (_NUMBER,)
    if kind in "*+":
        return ({"*": _ANY, "+": _SOME}[kind],) if atom == (_ONE,) else (_UNREAD,)
    least = int(repeat[2])
    most = least if repeat[3] is None else int(repeat[4] or MAX_REPEAT + 1)
    if not least <= most <= MAX_REPEAT:
        return (_UNREAD,)
    found: list[str] = []
    texts: Texts = ("",)
    for times in range(most + 1):
        if times >= least:
            found += texts
        texts = _joined(texts, atom)
    return _bounded(found)
