"""What an answer of DNS says: which addresses a name has."""

from __future__ import annotations

from msgspec import Struct


class Address(Struct, frozen=True, gc=False):
    """An address that the name has, packed, and for how long that holds: the shortest time on the way to it."""

    packed: bytes
    ttl_s: int


class Answer(Struct, frozen=True):
    """The name that was asked about, as it can be shown, the type that was asked for, and the addresses found."""

    name: str
    type: int
    addresses: tuple[Address, ...]
