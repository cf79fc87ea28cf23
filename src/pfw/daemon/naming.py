"""The names of addresses, from the answers of DNS that the kernel tells of (`render_nftables.py` says which).

What is shown beside an address, and no more: no verdict depends on a name, and without names all goes on as it did.
"""

from __future__ import annotations

from collections.abc import Callable

from pfw.drivers import clock
from pfw.drivers.nflog import LogReader
from pfw.enforce.nft_table import NAMES_BYTES, NAMES_GROUP
from pfw.engine.names import Names
from pfw.wire.dns import read_packet
from pfw.wire.error import WireError


class Naming:
    """Learns names. `tell` is told once, where the kernel's answers cannot be had."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._names = Names()
        self._answers = self._unreadable = 0
        self._reader: LogReader | None = None
        try:
            self._reader = LogReader([NAMES_GROUP], NAMES_BYTES)
        except OSError as error:
            tell(f"addresses are shown without names: {error.strerror or error}")

    def watch(self, watch: Callable[[int, Callable[[], None]], None]) -> None:
        """Take answers as they come."""
        if self._reader is not None:
            watch(self._reader.fileno(), self.take)

    def take(self) -> None:
        """Learn from the answers that have come."""
        if self._reader is None:
            return
        try:
            packets = self._reader.read()
        except (OSError, WireError):
            self._unreadable += 1
            return
        now = clock.now()
        for packet in packets:
            try:
                answer = read_packet(packet.payload)
            except WireError:
                self._unreadable += 1
                continue
            if answer is not None:
                self._answers += 1
                self._names.add(answer, now)

    def of(self, address: bytes) -> str | None:
        """The name under which an address (packed) was looked up here."""
        # The answer came before the connection that needed it, but perhaps it was not taken yet.
        self.take()
        return self._names.of(address, clock.now())

    @property
    def counts(self) -> dict[str, int]:
        """What was learnt, and what was not."""
        lost = self._reader.lost if self._reader is not None else 0
        return {"names_learnt": self._answers, "names_unreadable": self._unreadable, "names_lost": lost}

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
