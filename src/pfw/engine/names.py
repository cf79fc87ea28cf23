"""Names of addresses, learnt from the answers of DNS that came here: what was asked for, not what it stands for.

A name is shown beside an address and decides nothing: whoever asks a server of his own can give any address any name.
"""

from __future__ import annotations

from pfw.model.name import Answer

ADDRESSES_MAX = 16_384
NAMES_MAX = 4
"""Names of one address that are kept, of which there are hundreds where many sites share a machine."""
KEPT_MIN_S = 600
"""Programs use an address for longer than they should, and connections come long after the question."""
KEPT_MAX_S = 86_400

_Known = tuple[tuple[str, float], ...]


class Names:
    """The names of at most ADDRESSES_MAX addresses; the one least recently learnt makes room. Times in seconds."""

    def __init__(self, capacity: int = ADDRESSES_MAX) -> None:
        self._capacity = capacity
        # Each name with the time until which it is kept, the newest first.
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, answer: Answer, now: float) -> None:
        """Learn from an answer that came now."""
        name, known = answer.name, self._known
        for address in answer.addresses:
            until = now + min(max(address.ttl_s, KEPT_MIN_S), KEPT_MAX_S)
            before = known.pop(address.packed, ())
            others = [each for each in before if each[0] != name]
            known[address.packed] = ((name, until), *others[: NAMES_MAX - 1])
            if len(known) > self._capacity:
                del known[next(iter(known))]

    def of(self, packed: bytes, now: float) -> str | None:
        """The name of an address; the newest, where it has several."""
        for name, until in self._known.get(packed, ()):
            if now < until:
                return name
        return None

    def all_of(self, packed: bytes, now: float) -> tuple[str, ...]:
        """All names of an address, the newest first: where it is more than one, nobody knows which was meant."""
        return tuple(name for name, until in self._known.get(packed, ()) if now < until)
