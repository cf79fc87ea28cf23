"""Text that came from outside, made safe to show.

Names, captured bytes and other people's strings pass through `printable` before they reach a terminal, a
log or a message; nothing else in the program escapes. The result is for eyes and not for reading back: a
backslash stays a backslash, so that text which was escaped twice is the text which was escaped once.
"""

from __future__ import annotations

import re

# C0, DEL and C1; the marks, embeddings, overrides and isolates by which Unicode turns the direction of
# text (UAX #9) and their deprecated neighbours; the line and paragraph separators; lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def counted(number: int, noun: str) -> str:
    """`1 rule`, `2,000 rules`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable(text: str) -> str:
    r"""The text on one line, with `\x1b` or `\u202e` in place of what would steer a terminal or hide text.

    The result can always be encoded as UTF-8.
    """
    if text.isprintable():
        return text
    return _UNSAFE.sub(_escape, text)
