"""Block lists: the addresses of a published file, whatever form it has (`blocklist_line.py` has the forms).

`parse` never takes more memory than its bounds allow. Lines that are no entry are left out and counted, whoever
asked says so; a file that is no list at all raises WireError. Encodings need no telling: entries are ASCII,
and what else is in a line is talk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from pfw.model.address import IPV6_FIRST, Range, parse_ranges
from pfw.model.text import printable
from pfw.wire.blocklist_line import COMMENT_MARKS, entry, read_line
from pfw.wire.error import WireError

DATA_BYTES_MAX = 64 << 20
"""The largest public lists have 20 MB."""
ENTRIES_MAX = 4_000_000
"""Half a gigabyte of memory as ranges, and as much again while they are sorted and written."""
PIECE_BYTES = 1 << 20
SAMPLES_MAX = 3
SAMPLE_CHARACTERS_MAX = 80

_UTF8_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head|\?xml)\b", re.IGNORECASE)

# The exact bounds of octets and lengths are in the pattern, so that whatever it finds is a prefix.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_TALK = r"[ \t]*(?:(?:[#;]|//).*)?"
_PLAIN_IPV4 = re.compile(
    rf"[ \t]*((?!0\.0\.0\.0(?![0-9])){_OCTET}(?:\.{_OCTET}){{3}}(?:/(?:3[0-2]|[12][0-9]|[1-9]))?){_TALK}"
)
_GROUPS = "[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})"
_PLAIN_IPV6 = re.compile(
    rf"({_GROUPS}{{0,7}})(?:(::)({_GROUPS}{{0,6}})?)?(?:/([0-9]{{1,2}}|1[01][0-9]|12[0-8]))?{_TALK}"
)


class Parsed(Struct, frozen=True):
    """What is in a list, in no order. `samples` are the first of the lines that are no entry, made safe to show."""

    ranges: list[Range]
    skipped: int = 0
    samples: tuple[str, ...] = ()


def parse(data: bytes) -> Parsed:
    """The entries of a list. Raises WireError for what is no list, or too large a one."""
    if len(data) > DATA_BYTES_MAX:
        raise WireError(f"is larger than {DATA_BYTES_MAX >> 20} MiB")
    data = _inflated(data).removeprefix(_UTF8_MARK)
    _refuse_other_formats(data)
    ranges: list[Range] = []
    skipped = 0
    samples: list[str] = []
    for lines in pieces(data):
        odd = read_lines(lines, ranges)
        skipped += len(odd)
        samples += map(_sample, islice(odd, SAMPLES_MAX - len(samples)))
        if len(ranges) > ENTRIES_MAX:
            raise WireError(f"has more than {ENTRIES_MAX:,} entries")
    return Parsed(ranges, skipped, tuple(samples))


def pieces(data: bytes) -> Iterator[list[str]]:
    """The lines, about a mebibyte of them at a time."""
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + PIECE_BYTES) + 1 or len(data)
        # Every byte is a character of Latin-1; that UTF-8 is not is seen in comments alone.
        yield data[at:end].decode("latin-1").split("\n")
        at = end


def read_lines(lines: list[str], ranges: list[Range]) -> list[str]:
    """Adds the entries of these lines to the ranges; gives back the lines that are none."""
    plain: list[str] = []
    odd: list[str] = []
    for line in lines:
        match = _PLAIN_IPV4.fullmatch(line)
        if match is not None:
            plain.append(match[1])
            continue
        if not line or line.startswith(COMMENT_MARKS):
            continue
        match = _PLAIN_IPV6.fullmatch(line)
        try:
            found = (_prefix(match) if match is not None else None) or read_line(line)
        except ValueError:
            odd.append(line)
            continue
        if found is not None:
            ranges.append(found)
    ranges += parse_ranges(plain)
    return odd


def _prefix(match: re.Match[str]) -> Range | None:
    """None where there are too many groups, or too few. Raises ValueError for what means every address."""
    head, tail = match[1].split(":"), match[3].split(":") if match[3] else []
    missing = 8 - len(head) - len(tail)
    if missing < 0 or bool(missing) != bool(match[2]):
        return None
    groups = [*head, *["0"] * missing, *tail]
    value = IPV6_FIRST | int("".join([group.rjust(4, "0") for group in groups]), 16)
    host = (1 << (128 - int(match[4] or 128))) - 1
    return entry((value & ~host, value | host))


def _inflated(data: bytes) -> bytes:
    if not data.startswith(_GZIP):
        return data
    import gzip
    import zlib
    from io import BytesIO

    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            data = file.read(DATA_BYTES_MAX + 1)
    except (OSError, EOFError, zlib.error):
        raise WireError("is compressed with gzip, and damaged or cut off") from None
    if len(data) > DATA_BYTES_MAX:
        raise WireError(f"is larger than {DATA_BYTES_MAX >> 20} MiB when it is unpacked")
    return data


def _refuse_other_formats(data: bytes) -> None:
    for magic, what in _OTHER_FORMATS:
        if data.startswith(magic):
            raise WireError(f"is {what}, which is not read; give it as text or compressed with gzip")
    if _PAGE.match(data):
        raise WireError("is a web page, not a list")
    if b"\0" in data[:1024]:
        raise WireError("is no text")


def _sample(line: str) -> str:
    text = line[: 2 * SAMPLE_CHARACTERS_MAX].encode("latin-1").decode("utf-8", "replace").strip()
    return printable(text[:SAMPLE_CHARACTERS_MAX])
