"""Crowds: so many first packets to one port or host, and so few of them meant, that only some are looked at.

In a flood with forged sources each packet begins a connection that comes to nothing. When that is so, one in some is
followed and stands for the others, which are counted. A scan is not lost in a flood: a port is sampled alone, and when
a whole host is, then the first packet of each source; and where thousands of sources come again each second, then their
first two of the second. A scanner sends more. What answers those that were not followed is left out, since it would
look like answers that nobody asked for.
"""

from __future__ import annotations

from zlib import crc32

PORT_PER_S = 400
"""First packets to one port in a second, four times what `syn_flood.py` calls a flood: the flood is known by then."""
HOST_PER_S = 2_000
"""The same to all ports of a host."""
AGAIN_PER_S = 300
"""Packets of sources that came before, to all ports of such a host, that are looked at in a second."""
OFTEN = 2
"""More packets of one source in a second are looked at, however many they are."""
COMPLETED_SHARE = 0.2
"""Of those that began; above, the place is only busy (`syn_flood.py` has the same)."""
ONE_IN_LEAST, ONE_IN_GROWS = 8, 64
"""One in so many is followed, and in one more for each so many that came in this second: about 50 of 600, and 250 of
20,000."""
PLACES_MAX = 4_096
"""Ports, and hosts, for which first packets are counted in a second; others are not sampled."""
KNOWN_BITS, KNOWN_MAX = 1 << 23, 1 << 20
"""Sources that came before, as bits of a check sum: 1 MiB, cleared when it fills. Who is taken for another is looked
at."""
_SLOTS = 1 << 16
"""For counting what each source sends in a second."""
_LOOK_EACH = 64
_SECOND_S = 1.0
_TCP_V4 = 12
_HALF = 2
_BEGINS_NOTHING = b"\0\0"


class _Place:
    """What came to it in this second. `again` are those of sources that came before, `skipped` those since the last one
    that was looked at."""

    __slots__ = ("again", "begun", "completed", "is_crowd", "skipped")

    def __init__(self) -> None:
        self.again = self.begun = self.completed = self.skipped = 0
        self.is_crowd = False

    def look(self, above: int) -> None:
        """Whether it has become a crowd."""
        if self.begun >= above and not self.begun % _LOOK_EACH:
            self.is_crowd = self.completed < COMPLETED_SHARE * self.begun

    def turn(self, above: float) -> bool:
        """A second is over: whether it is still one."""
        goes_on = self.is_crowd and self.begun * _HALF >= above and self.completed < COMPLETED_SHARE * self.begun
        self.again = self.begun = self.completed = 0
        return goes_on

    def next(self) -> int:
        """For how many this one stands; 0 where it is not looked at."""
        self.skipped += 1
        if self.skipped < ONE_IN_LEAST + self.begun // ONE_IN_GROWS:
            return 0
        stands_for, self.skipped = self.skipped, 0
        return stands_for


class Crowds:
    """Told of every first packet by its flow key (`model/flow.py`), of every connection that came about, and when a
    second is over. `sampled` are the packets that were not looked at; while it `has_some`, ask `skips` first."""

    def __init__(self) -> None:
        self.sampled = 0
        self._ports: dict[bytes, _Place] = {}
        self._hosts: dict[bytes, _Place] = {}
        self.has_some = False
        self._since = 0.0
        self._known = bytearray()
        self._marked = 0
        self._often = bytearray()

    def came(self, key: bytes, *, begins: bool = True) -> int:
        """How many first packets this one stands for, 0 where it is not to be looked at; below zero if it stands for
        those to any port of its host. One that `begins` nothing, a TCP packet without SYN, may belong to a connection
        that is older: so a second one of it is looked at."""
        port = _found(self._ports, _place(key, begins))
        if port is not None:
            port.begun += 1
            if port.is_crowd:
                # Of UDP and ICMP, too, more packets of one flow say something.
                if (begins and not len(key) & 1) or self._is_new(key):
                    return self._sample(port)
                return 1
            port.look(PORT_PER_S)
        front = len(key) & 1
        host = _found(self._hosts, key[front + ((len(key) - 4) >> 1) : -4])
        if host is not None:
            host.begun += 1
            if not host.is_crowd:
                host.look(HOST_PER_S)
            elif not self._comes_again(host, key[front:-4]):
                return -self._sample(host)
        return 1

    def skips(self, key: bytes, *, begins: bool) -> bool:
        """The short way for TCP, the same as `came` and the questions below: whether nothing is to be looked at in a
        SYN, or in a SYN-ACK or reset that belongs to nothing known. Where it is, `came` is still to be asked."""
        if not begins:
            return self.is_answer(key) or self.is_to_one(key)
        port = self._ports.get(_place(key, begins))
        if port is None or not port.is_crowd:
            return False
        if port.skipped + 1 >= ONE_IN_LEAST + (port.begun + 1) // ONE_IN_GROWS:
            return False
        port.begun += 1
        port.skipped += 1
        self.sampled += 1
        return True

    def completed(self, key: bytes, stands_for: int = 1, *, begins: bool = True) -> None:
        """A connection of this key came about, so it was meant."""
        port = self._ports.get(_place(key, begins))
        if port is not None:
            port.completed += stands_for
        front = len(key) & 1
        host = self._hosts.get(key[front + ((len(key) - 4) >> 1) : -4])
        if host is not None:
            host.completed += stands_for

    def is_answer(self, key: bytes) -> bool:
        """Whether a packet that belongs to nothing known comes from where a crowd goes, and so may answer one that was
        not looked at. For TCP to be asked for SYN-ACKs and resets."""
        if not self.has_some:
            return False
        front = len(key) & 1
        source = key[front : front + ((len(key) - 4) >> 1)]
        port = self._ports.get(key[:front] + source + key[-4:-2])
        if port is not None and port.is_crowd:
            return True
        host = None if front else self._hosts.get(source)
        return host is not None and host.is_crowd

    def is_to_one(self, key: bytes) -> bool:
        """Whether it goes where a crowd goes: a reset in the name of somebody who did not begin, or what an echo reply
        answers."""
        port = self._ports.get(_place(key, begins=True)) if self.has_some else None
        return port is not None and port.is_crowd

    def turn(self, now: float) -> None:
        """A second is over, or more."""
        seconds = max(_SECOND_S, now - self._since)
        self._since = now
        self._often = bytearray()
        self._ports = {key: each for key, each in self._ports.items() if each.turn(PORT_PER_S * seconds)}
        self._hosts = {key: each for key, each in self._hosts.items() if each.turn(HOST_PER_S * seconds)}
        self.has_some = bool(self._ports or self._hosts)

    def _sample(self, place: _Place) -> int:
        self.has_some = True
        stands_for = place.next()
        self.sampled += not stands_for
        return stands_for

    def _comes_again(self, host: _Place, ends: bytes) -> bool:
        """Whether the source came before, and it is not one of too many that did; or it comes very often."""
        if not self._often:
            self._often = bytearray(_SLOTS)
        slot = crc32(ends) & (_SLOTS - 1)
        if self._often[slot] >= OFTEN:
            return True
        self._often[slot] += 1
        if self._is_new(ends) or host.again >= AGAIN_PER_S:
            return False
        host.again += 1
        return True

    def _is_new(self, what: bytes) -> bool:
        if not self._marked:
            self._known = bytearray(KNOWN_BITS >> 3)
        at = crc32(what) & (KNOWN_BITS - 1)
        if self._known[at >> 3] & 1 << (at & 7):
            return False
        self._known[at >> 3] |= 1 << (at & 7)
        self._marked = 0 if self._marked >= KNOWN_MAX else self._marked + 1
        return True


def _place(key: bytes, begins: bool) -> bytes:
    """Protocol, host and port of a key's destination; for ICMP the type and code are the port."""
    if begins and len(key) == _TCP_V4:
        return key[4:8] + key[10:]
    front = len(key) & 1
    place = key[:front] + key[front + ((len(key) - 4) >> 1) : -4] + key[-2:]
    return place if begins else place + _BEGINS_NOTHING


def _found(places: dict[bytes, _Place], name: bytes) -> _Place | None:
    found = places.get(name)
    if found is None and len(places) < PLACES_MAX:
        found = places[name] = _Place()
    return found
