"""Rogue DHCP servers, and floods of requests that take all addresses away from others (starvation).

Two servers that say the same are a pair for safety. One that names another router or other name servers in answer to
the same question is not, nor is one that joins in while the other goes on. A laptop that comes to another network finds
another server, too: so the old one must still be heard of. Nothing here can be proved: nobody is banned for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import Pace
from pfw.engine.detect.detector import Key, Table, Value
from pfw.engine.detect.neighbours import is_one_host, mac_text
from pfw.model.address import format_address
from pfw.model.observation import Alert, DhcpSeen, Kind

SERVERS_MAX = 256
SERVERS_S = 24 * 3600.0
CLIENTS_MAX = 4_096
QUESTION_S = 10.0
"""So long answers belong to a question. Clients ask again after 4, 8, 16 s (RFC 2131, 4.1)."""
ANSWERS_MAX = 8
ALIVE_S = 3600.0
"""Within so long the server that was there before is heard again."""
ONE_SENDER_MANY, ONE_SENDER_S = 10, 60.0
"""Different clients in frames of one MAC, which is no relay. A host with virtual machines has a few."""
CLIENTS_MANY, CLIENTS_S = 100, 20.0
"""Different clients that ask. A class room that is switched on stays below; yersinia sends hundreds a second."""
MESSAGES_MANY, MESSAGES_S = 60, 10.0
"""Messages of one client. RFC 2131's own pace is 4 in a minute."""
NEW_MAX = 8_192
NAMED_MAX = 64

_DISCOVER, _OFFER, _REQUEST, _ACK, _INFORM = 1, 2, 3, 5, 8
_ASKS = (_DISCOVER, _REQUEST, _INFORM)
_NOBODY = bytes(4)
_Name = tuple[bytes, bytes | None, str]
"""A server's identifier and its MAC: who forges the first has another of the second. And the link on which it answers:
each has its own."""


class _Server:
    __slots__ = ("answered_at", "first", "names", "routers")

    def __init__(self) -> None:
        self.first: float | None = None
        self.answered_at = 0.0
        self.routers: set[bytes] = set()
        self.names: set[bytes] = set()


class _Sender:
    """Who asks: the Ethernet address of the frames, or a client."""

    __slots__ = ("clients", "pace")

    def __init__(self, many: int) -> None:
        self.clients: dict[bytes, None] = {}
        self.pace = Pace(many)

    def add(self, thing: bytes, now: float) -> bool:
        """Whether it is something new; of too many the oldest is forgotten."""
        if thing in self.clients:
            return False
        self.clients[thing] = None
        if len(self.clients) > ONE_SENDER_MANY:
            del self.clients[next(iter(self.clients))]
        self.pace.add(now)
        return True


class RogueDhcp:
    wants: tuple[type, ...] = (DhcpSeen,)

    def __init__(self, servers_max: int = SERVERS_MAX, clients_max: int = CLIENTS_MAX) -> None:
        self._servers: Table[_Name, _Server] = Table(servers_max, SERVERS_S, _Server)
        # Who answered a client since it asked last; the oldest makes room.
        self._questions: dict[tuple[bytes, str], tuple[float, list[_Name]]] = {}
        self._senders: dict[bytes, _Sender] = {}
        self._messages: dict[bytes, Pace] = {}
        self._clients: dict[bytes, None] = {}
        self._pace = Pace(CLIENTS_MANY)
        self._clients_max = clients_max
        self._counts: dict[tuple[str, bytes | None], int] = {}

    @property
    def refused(self) -> int:
        return self._servers.refused

    def observe(self, seen: DhcpSeen) -> Iterable[Alert]:
        if seen.kind in _ASKS:
            return list(self._asked(seen))
        if seen.kind in (_OFFER, _ACK) and seen.offered is not None:
            return list(self._answered(seen))
        return ()

    def end(self, _: float) -> Iterable[Alert]:
        return ()

    def _answered(self, seen: DhcpSeen) -> Iterator[Alert]:
        name = seen.server or seen.source, seen.source_mac, seen.link
        server = self._servers.get(name, seen.time)
        if server is None:
            return
        if server.first is None:
            server.first = seen.time
        server.answered_at = seen.time
        _learn(server.routers, seen.routers)
        _learn(server.names, seen.name_servers)
        asked, answers = self._questions.get((seen.client_mac, seen.link), (0.0, []))
        in_time = 0 <= seen.time - asked <= QUESTION_S
        for other in answers if in_time else ():
            if other != name:
                yield from self._compare(name, other, seen.time, 80, "answered the same question")
        if in_time and name not in answers and len(answers) < ANSWERS_MAX:
            answers.append(name)
        for other, each in self._servers.items():
            if (
                other != name
                and other[2] == seen.link
                and each.first is not None
                and server.first < each.first <= seen.time <= each.first + ALIVE_S
            ):
                yield from self._compare(other, name, seen.time, 65, "goes on")

    def _compare(self, one: _Name, two: _Name, now: float, score: int, why: str) -> Iterator[Alert]:
        """Do two servers say different things? Whoever came later is the rogue."""
        first, second = self._servers.peek(one), self._servers.peek(two)
        if first is None or second is None:
            return
        if (first.first or 0.0) < (second.first or 0.0):
            one, two, first, second = two, one, second, first
        text = _difference("the router", first.routers, second.routers)
        text = text or _difference("the name server", first.names, second.names)
        if not text:
            return
        text = f"offers addresses and names {text}; {_named(two)}, which was there before, {why}"
        if not self._is_due("server", one[0]):
            return
        yield Alert(kind=Kind.ROGUE_DHCP, source=one[0] if any(one[0]) else one[1], target=None,
                    first=first.first or now, last=now, score=score, evidence=f"{_named(one)} {text}")  # fmt: skip

    def _asked(self, seen: DhcpSeen) -> Iterator[Alert]:
        now, client = seen.time, seen.client_mac
        if seen.kind != _INFORM:
            self._questions.pop((client, seen.link), None)
            _put(self._questions, (client, seen.link), (now, []), self._clients_max)
        yield from self._too_often(seen)
        if client not in self._clients:
            _put(self._clients, client, None, NEW_MAX)
            self._pace.add(now)
            if self._pace.reached(CLIENTS_MANY, CLIENTS_S):
                text = f"{CLIENTS_MANY} clients that had not asked before want addresses within {CLIENTS_S:.0f} s"
                yield from self._flood("clients", None, now, 75, text)
        sender = seen.source_mac
        if sender is None or not is_one_host(sender) or seen.source != _NOBODY:
            return
        asking = self._senders.pop(sender, None) or _Sender(ONE_SENDER_MANY)
        _put(self._senders, sender, asking, self._clients_max)
        if asking.add(client, now) and asking.pace.reached(ONE_SENDER_MANY, ONE_SENDER_S):
            text = f"asked for addresses in the name of {ONE_SENDER_MANY} different clients within {ONE_SENDER_S:.0f} s"
            yield from self._flood("sender", sender, now, 80, text)

    def _too_often(self, seen: DhcpSeen) -> Iterator[Alert]:
        client, now = seen.client_mac, seen.time
        pace = self._messages.pop(client, None) or Pace(MESSAGES_MANY)
        _put(self._messages, client, pace, self._clients_max)
        pace.add(now)
        if pace.reached(MESSAGES_MANY, MESSAGES_S):
            text = f"sent {MESSAGES_MANY} DHCP messages within {MESSAGES_S:.0f} s as the client {mac_text(client)}"
            yield from self._flood("messages", seen.source_mac or client, now, 75, text)

    def _flood(self, what: str, source: bytes | None, now: float, score: int, text: str) -> Iterator[Alert]:
        if self._is_due(what, source):
            yield Alert(
                kind=Kind.ROGUE_DHCP, source=source, target=None, first=now, last=now, score=score, evidence=text
            )

    def _is_due(self, what: str, source: bytes | None) -> bool:
        """Once a doubling."""
        count = self._counts.pop((what, source), 0) + 1
        _put(self._counts, (what, source), count, self._clients_max)
        return count & (count - 1) == 0


def _named(name: _Name) -> str:
    return format_address(name[0]) + ("" if name[1] is None else f" at {mac_text(name[1])}")


def _difference(what: str, here: set[bytes], there: set[bytes]) -> str:
    """What is named here only, where both name something."""
    other = sorted(here - there)
    if not here or not there or here & there or not other:
        return ""
    return f"{what} {format_address(other[0])}, not {format_address(min(there))}"


def _learn(known: set[bytes], said: Iterable[bytes]) -> None:
    for each in said:
        if len(known) < NAMED_MAX:
            known.add(each)


def _put(held: dict[Key, Value], key: Key, value: Value, most: int) -> None:
    """As the newest one; the oldest makes room."""
    held[key] = value
    if len(held) > most:
        del held[next(iter(held))]
