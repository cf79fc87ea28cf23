"""Known bad addresses: connections from or to somebody on a list of such.

One alert an address, with the list's name, and a second one when the connection turns out to be a whole TCP handshake:
then neither end's address is forged, and the listed one could be banned. Private addresses are on lists by mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pfw.model.address import AddressSet, format_endpoint, parse_range
from pfw.model.observation import Alert, Began, Confirmed, Kind
from pfw.model.packet import TCP

ALERTED_MAX = 16_384
FROM_SCORE, TO_SCORE, CONFIRMED_SCORE = 55, 75, 85
"""Everybody who can be reached is tried by such hosts; that somebody here calls them is another thing."""
PRIVATE = AddressSet(
    [
        parse_range(text)
        for text in (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.168.0.0/16", "224.0.0.0/3", "::", "::1", "fc00::/7", "fe80::/10", "ff00::/8",
        )
    ]
)  # fmt: skip
"""Addresses that mean another host in each network, or none (RFC 6890)."""


class KnownBad:
    wants: tuple[type, ...] = (Began, Confirmed)

    def __init__(self, lists: Mapping[str, AddressSet] | None = None, alerted_max: int = ALERTED_MAX) -> None:
        self.refused = 0
        self._alerted: dict[bytes, bool] = {}
        self._alerted_max = alerted_max
        self.use(lists or {})

    def use(self, lists: Mapping[str, AddressSet]) -> None:
        """From now on other lists, by their names."""
        self._lists = {name: each.without(PRIVATE) for name, each in lists.items()}
        # One look-up for all that are on none.
        self._any = AddressSet().union(*self._lists.values())

    def observe(self, seen: Began | Confirmed) -> Iterable[Alert]:
        if not self._lists:
            return ()
        began = seen if isinstance(seen, Began) else seen.began
        confirmed = isinstance(seen, Confirmed) and not seen.by_reset and began.protocol == TCP
        if isinstance(seen, Confirmed) and not confirmed:
            return ()
        found: list[Alert] = []
        if began.source in self._any:
            found += self._alert(began.source, began, seen.time, is_source=True, confirmed=confirmed)
        if began.destination in self._any:
            found += self._alert(began.destination, began, seen.time, is_source=False, confirmed=confirmed)
        return found

    def end(self, _: float) -> Iterable[Alert]:
        return ()

    def _alert(self, bad: bytes, began: Began, now: float, *, is_source: bool, confirmed: bool) -> Iterator[Alert]:
        known = self._alerted.get(bad)
        if known or known == confirmed:
            return
        if known is None and len(self._alerted) >= self._alerted_max:
            self.refused += 1
            return
        self._alerted[bad] = confirmed
        names = ", ".join(sorted(name for name, each in self._lists.items() if bad in each))
        other = began.destination if is_source else began.source
        here = format_endpoint(began.destination, began.port)
        what = f"opened a connection to {here}" if is_source else f"was called at {here}"
        if confirmed:
            what += ", with a whole TCP handshake"
        score = FROM_SCORE if is_source else TO_SCORE
        yield Alert(kind=Kind.KNOWN_BAD, source=bad, target=other, first=began.time, last=now,
                    score=CONFIRMED_SCORE if confirmed else score, evidence=f"is on the list {names}, and {what}",
                    ban=(bad,) if confirmed else ())  # fmt: skip
