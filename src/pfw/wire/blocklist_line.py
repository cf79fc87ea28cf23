"""One line of a block list, in any of the forms in which lists are published.

    1.2.3.0/24                       an address, a prefix or a range `a-b`, `a - b`; what follows behind a
    1.2.3.4 evil.example             blank, `#`, `;` or `//` is talk
    1.2.3.4:443  [2001:db8::1]:443   with a port, which is left out
    1.2.3.0/255.255.255.0            with a netmask
    1.2.3.0  1.2.3.255  24  ...      first, last and prefix length (DShield)
    Some Company:1.2.3.4-1.2.3.9     a name before the range (PeerGuardian P2P)
    "2026-01-01","1.2.3.4","443"     CSV: the first column that is an address (abuse.ch)
    {"cidr":"1.2.3.0/24", ...}       JSON, an object a line (Spamhaus)

Slow and obvious: `blocklist.py` reads the plain ones faster, and tests compare the two. A line that could mean
everything (`0.0.0.0/0`, the `0.0.0.0 name` of a hosts file) is never an entry: in doubt a list blocks less.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from pfw.model.address import IPV4_LAST, IPV6_FIRST, IPV6_LAST, Range, as_int, parse_address, parse_range

LINE_CHARACTERS_MAX = 4096
"""No list has longer lines; a file that has is something else."""

COMMENT_MARKS = ("#", ";", "//")

EVERYTHING = frozenset({(0, 0), (0, IPV4_LAST), (IPV6_FIRST, IPV6_FIRST), (IPV6_FIRST, IPV6_LAST)})
"""What stands for every address, or for none in particular."""

_MAPPED = IPV6_FIRST | 0xFFFF << 32
"""IPv4 inside of IPv6 (::ffff:0:0/96): the same hosts."""

_LOOPBACK = ((0x7F000000, 0x7FFFFFFF), (IPV6_FIRST + 1, IPV6_FIRST + 1))

_IPV4 = r"[0-9]{1,3}+(?:\.[0-9]{1,3}+){3}"
_LIKE_AN_ITEM = re.compile(r"(?=[0-9A-Fa-f]*[.:\[])[0-9A-Fa-f.:/\[\] \t-]+")
_NETMASK = re.compile(rf"({_IPV4})/({_IPV4})")
_WITH_PORT = re.compile(rf"(?:({_IPV4})|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{{1,5}}))?")
_NAMED = re.compile(rf".*:[ \t]*({_IPV4})[ \t]*-[ \t]*({_IPV4})")
_PAIR = re.compile(r"([0-9A-Fa-f:.]+)[ \t]*-[ \t]*([0-9A-Fa-f:.]+)(?:[ \t].*)?")
_COMMENT = re.compile(r"[#;]|//")
_COLUMN_COMMENT = re.compile(r"[ \t](?:[#;]|//)")
_COLUMNS_MAX = 64
_ITEM_CHARACTERS_MAX = 128
_LENGTH = re.compile(r"[0-9]{1,3}")


class _Object(Struct):
    """What an object of a JSON list may have."""

    cidr: str = ""
    ip: str = ""
    type: str = ""


def read_line(line: str) -> Range | None:
    """The addresses of an entry; None for a blank line and a comment. Raises ValueError for anything else."""
    text = line.strip()
    if not text or text.startswith(COMMENT_MARKS):
        return None
    comment = _COMMENT.search(text)
    head = text[: comment.start()].rstrip() if comment else text
    found = _item(head)
    if found is None:
        if len(text) > LINE_CHARACTERS_MAX:
            raise ValueError("is too long")
        if text.startswith("{"):
            return _object(text)
        found = _named(text) or _words(head) or _columns(text)
    if found is None:
        raise ValueError("is no entry")
    return entry(found)


def entry(pair: Range) -> Range:
    """A range as an entry: IPv4 inside of IPv6 is IPv4. Raises ValueError for what means everything."""
    first, last = pair
    if first >= _MAPPED and last <= _MAPPED + IPV4_LAST:
        first, last = first - _MAPPED, last - _MAPPED
    if (first, last) in EVERYTHING:
        raise ValueError("means every address")
    return first, last


def _item(text: str) -> Range | None:
    """A text that is an address, a prefix or a range, with netmask or port, and nothing else."""
    if len(text) > _ITEM_CHARACTERS_MAX or not _LIKE_AN_ITEM.fullmatch(text):
        return None
    try:
        return parse_range(text)
    except ValueError:
        pass
    match = _NETMASK.fullmatch(text)
    if match is not None:
        return _network(match[1], match[2])
    match = _WITH_PORT.fullmatch(text)
    if match is None or (match[3] is not None and int(match[3]) > 65535):
        return None
    return _address(match[1] or match[2])


def _address(text: str) -> Range | None:
    try:
        value = as_int(parse_address(text))
    except ValueError:
        return None
    return value, value


def _network(text: str, mask_text: str) -> Range | None:
    network, mask = _address(text), _address(mask_text)
    if network is None or mask is None:
        return None
    host = IPV4_LAST ^ mask[0]
    if host & (host + 1):
        return None
    return network[0] & mask[0], network[0] | host


def _named(text: str) -> Range | None:
    match = _NAMED.fullmatch(text)
    return None if match is None else _pair(match)


def _pair(match: re.Match[str]) -> Range | None:
    try:
        return parse_range(f"{match[1]}-{match[2]}")
    except ValueError:
        return None


def _words(head: str) -> Range | None:
    """Something and talk behind it; first, last and length."""
    pair = _PAIR.fullmatch(head)
    if pair is not None and _address(pair[1]) and _address(pair[2]):
        return _pair(pair)
    words = head.split(None, 3)
    if len(words) < 2:
        return None
    found = _network_of(words) or _item(words[0])
    if found is None or found in EVERYTHING:
        return None
    # In a hosts file this is where the name is sent to, not what is blocked.
    is_host = found[0] == found[1]
    return None if is_host and any(first <= found[0] <= last for first, last in _LOOPBACK) else found


def _network_of(words: list[str]) -> Range | None:
    """First, last and prefix length, where they say the same: of two addresses alone nobody knows what they mean."""
    if len(words) < 3 or not _LENGTH.fullmatch(words[2]):
        return None
    first, last = _address(words[0]), _address(words[1])
    try:
        network = parse_range(f"{words[0]}/{words[2]}")
    except ValueError:
        return None
    return network if first is not None and last is not None and network == (first[0], last[0]) else None


def _columns(text: str) -> Range | None:
    if '"' in text:
        columns = _quoted_columns(text)
    elif "," in text:
        columns = _COLUMN_COMMENT.split(text, maxsplit=1)[0].split(",", _COLUMNS_MAX)
    else:
        return None
    return next(filter(None, (_item(column.strip()) for column in columns[:_COLUMNS_MAX])), None)


def _quoted_columns(text: str) -> list[str]:
    import csv

    try:
        return next(csv.reader([text], skipinitialspace=True), [])
    except csv.Error:
        return []


def _object(text: str) -> Range | None:
    try:
        read = msgspec.json.decode(text.rstrip(",").encode("latin-1"), type=_Object)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise ValueError("is no JSON object with a cidr") from None
    if read.type == "metadata":
        return None
    found = _item(read.cidr or read.ip)
    if found is None:
        raise ValueError("is a JSON object without a cidr")
    return entry(found)
