"""The payload of ICMP echo messages: of the kind that ping programs send, or something else?

iputils, the BSDs and macOS send a time and then bytes that count; Windows the letters a to w over and over; BusyBox,
fping and mtr zeros; hping and `ping -p` a pattern that repeats; Cisco ABCD.
"""

from __future__ import annotations

from zlib import crc32

ONLY_A_TIME_BYTES = 16
"""A payload up to this has room for a time and no more."""
_TIMES_BYTES = (0, 4, 8, 16, 24)
_PERIODS = (1, 2, 4, 8, 16)
_LONGEST = 65536
_COUNTING = bytes(range(256)) * (_LONGEST // 256 + 1)
_LETTERS = b"abcdefghijklmnopqrstuvw" * (_LONGEST // 23 + 1)


def digest(payload: bytes) -> int:
    """Tells contents apart that are not made to collide."""
    return crc32(payload)


def is_pattern(payload: bytes) -> bool:
    if len(payload) <= ONLY_A_TIME_BYTES:
        return True
    return any(_repeats(payload[size:]) for size in _TIMES_BYTES)


def _repeats(rest: bytes) -> bool:
    size = len(rest)
    if size > _LONGEST:
        return False
    first = rest[0] if rest else 0
    if rest == _COUNTING[first : first + size] or rest == _LETTERS[:size]:
        return True
    return any(rest == (rest[:period] * (size // period + 1))[:size] for period in _PERIODS if period < size)
