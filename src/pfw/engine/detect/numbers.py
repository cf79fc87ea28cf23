"""Sets of ports: small while there are few, of one size when there are many."""

from __future__ import annotations

MANY_MAX = 64


class Numbers:
    """Which numbers below 65,536 were there: some dozens in a set, more in 8 KiB of bits."""

    __slots__ = ("_bits", "_few", "count")

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._bits: bytearray | None = None
        self.count = 0

    def add(self, number: int) -> bool:
        """Whether it is a new one."""
        if number in self:
            return False
        self.count += 1
        if self._bits is None:
            self._few.add(number)
            if len(self._few) > MANY_MAX:
                self._bits = bytearray(8192)
                for each in self._few:
                    self._bits[each >> 3] |= 1 << (each & 7)
                self._few = set()
        else:
            self._bits[number >> 3] |= 1 << (number & 7)
        return True

    def shared(self, other: Numbers) -> int:
        """How many both have."""
        if self._bits is not None and other._bits is not None:
            return (int.from_bytes(self._bits) & int.from_bytes(other._bits)).bit_count()
        few, many = (self, other) if self._bits is None else (other, self)
        return sum(number in many for number in few._few)

    def __contains__(self, number: int) -> bool:
        if self._bits is None:
            return number in self._few
        return bool(self._bits[number >> 3] & 1 << (number & 7))
