"""Sweep: one source tries the same port, or an echo, with many hosts, most of which do not answer.

Neighbours (one /24) take few hosts to be a sweep; hosts all over the world take many, and hardly one success, since a
browser, a resolver and file sharing try many, too. A host counts once. The slow test is the threshold random walk over
hosts, for TCP alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect.contacts import SERVICE_BELOW, Pace, Suspects, Walk, is_for_many, lasted, near
from pfw.engine.detect.proof import BEFORE_S, Company, Handshakes, are_proof, is_alone, is_by_reset
from pfw.model.address import format_address
from pfw.model.observation import Alert, Began, Confirmed, Ended, HalfOpen, Kind, Met, Reply
from pfw.model.packet import ICMP, ICMPV6, PORT_PROTOCOLS, TCP, UDP, protocol_name

SWEEPS_MAX = 1_024
SWEEPS_S = 3600.0
HOSTS_MAX = 256
NETWORKS_MAX = 32
"""Hosts and networks of one sweep that are told apart; more are not counted."""

NEAR_HOSTS, NEAR_S = 10, 60.0
"""Slips takes 10 hosts on one port, psad's lowest level 10 hosts."""
NEAR_SLOW_HOSTS, NEAR_SLOW_S = 25, 900.0
"""Zeek's scan.zeek: 25 in 15 minutes."""
FAR_HOSTS, FAR_S = 25, 60.0
FAR_SHARE = 4
"""Far hosts must fail so many times as often as they succeed: theta 0.8 of the random walk turned round."""
UDP_FAR_BELOW = 1024
_UDP_FAR_NOT = frozenset({53, 123, 443})
"""Resolvers, clocks and browsers ask hosts all over the world, and silence is what a filter makes of it."""
_TCP_FAR_NOT = frozenset({*range(6881, 6890), 51413})
"""BitTorrent's usual ports: most peers that a tracker names are gone."""

SLOW_HOSTS, SLOW_S = 5, 4 * 3600.0
"""Hosts of one network (a /16, for IPv6 a /64) of which none answers, on few ports, with one attempt each. A client
repeats its SYN, and where it fails, then with hosts that have nothing to do with each other."""
SLOW_PORTS = 3
SLOW_SOURCES_MAX = 512
SLOW_NETWORKS_MAX, SLOW_HOSTS_MAX = 16, 32

LEFT_HOSTS = 2
"""A source that opened and left a port of so many hosts, or reset the answers of so many, is no forged one that happens
to have business with one."""

_ECHO = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128})}
_PINGS = (8, 128)
_DHCP_CLIENTS = (68, 546)
_Try = Met | Confirmed | HalfOpen
_Name = tuple[bytes, int, int]
"""Source, protocol, and port or type."""


class _Sweep:
    """What one source tried with one port, or one type of ICMP."""

    __slots__ = ("far", "first", "hosts", "is_proved", "last", "left", "near", "next_alert", "proofs", "succeeded",
                 "told", "walk")  # fmt: skip

    def __init__(self) -> None:
        self.hosts: set[bytes] = set()
        self.near: dict[bytes, tuple[Pace, list[int]]] = {}
        self.far = Pace(FAR_HOSTS)
        self.walk = Walk()
        self.first = self.last = 0.0
        self.left: set[bytes] = set()
        self.succeeded = self.proofs = 0
        self.is_proved = False
        self.next_alert = self.told = 0

    def add(self, seen: _Try) -> bool:
        """Whether the host is a new one. Far ones only count with a single attempt: a client whose network stops it, or
        that knows many dead peers, repeats its SYN; and IPv6 that does not work looks the same, but is not swept so."""
        began = seen.began
        is_single = not isinstance(seen, Met) or seen.attempts == 1
        if began.destination in self.hosts or len(self.hosts) >= HOSTS_MAX:
            return False
        self.hosts.add(began.destination)
        self.proofs += isinstance(seen, Confirmed) and is_by_reset(seen)
        self.walk.failed()
        if is_single and len(began.destination) == 4:
            self.far.add(began.time)
        self.first = min(self.first or began.time, began.time)
        self.last = max(self.last, began.time)
        network = near(began.destination)
        if network in self.near or len(self.near) < NETWORKS_MAX:
            pace, count = self.near.setdefault(network, (Pace(NEAR_SLOW_HOSTS), [0]))
            pace.add(began.time)
            count[0] += 1
        return True

    def is_sweep(self, began: Began) -> bool:
        """Whether the last host that failed makes it one."""
        if self.told:
            return True
        found = self.near.get(near(began.destination))
        if found is not None and self.walk.is_scanner:
            pace = found[0]
            if pace.reached(NEAR_HOSTS, NEAR_S) or pace.reached(NEAR_SLOW_HOSTS, NEAR_SLOW_S):
                return not _is_quic(began)
        if began.port in (_UDP_FAR_NOT if began.protocol == UDP else _TCP_FAR_NOT):
            return False
        if began.protocol == UDP and (began.port or 0) >= UDP_FAR_BELOW:
            return False
        return self.far.reached(FAR_HOSTS, FAR_S) and len(self.hosts) >= FAR_SHARE * self.succeeded

    @property
    def is_proved_by_left(self) -> bool:
        return len(self.left) >= LEFT_HOSTS

    def nearest(self) -> int:
        """How many hosts of the network in which most were tried."""
        return max((count[0] for _, count in self.near.values()), default=0)


class _Slow:
    """TCP to any port: hosts that did not answer, by network, and how often the source was let in."""

    __slots__ = ("failed", "networks", "next_alert", "succeeded", "walk")

    def __init__(self) -> None:
        self.networks: dict[bytes, dict[bytes, tuple[int, float]]] = {}
        self.walk = Walk()
        self.failed = self.succeeded = 0
        self.next_alert = SLOW_HOSTS


class Sweep:
    wants: tuple[type, ...] = (Began, Met, Confirmed, HalfOpen, Ended)

    def __init__(self, sweeps_max: int = SWEEPS_MAX) -> None:
        self._sweeps: Suspects[_Name, _Sweep, _Try] = Suspects(
            sweeps_max, SWEEPS_S, _Sweep, may_go=lambda sweep: not sweep.told
        )
        self._company = Company()
        self._slow: Suspects[bytes, _Slow, Met] = Suspects(
            SLOW_SOURCES_MAX, SLOW_S, _Slow, SWEEPS_S, may_go=lambda slow: slow.next_alert == SLOW_HOSTS
        )
        self._handshakes = Handshakes(SLOW_S)

    @property
    def refused(self) -> int:
        return self._sweeps.refused + self._slow.refused

    def observe(self, seen: Began | _Try | Ended) -> Iterable[Alert]:
        if isinstance(seen, Began):
            if seen.protocol == TCP:
                self._company.began((TCP, seen.port), seen.source, seen.destination, seen.time)
            return ()
        name = _name(seen.began)
        if name is None or is_for_many(seen.began.destination):
            return ()
        if isinstance(seen, Ended):
            return self._leaves(name, seen) if self._handshakes.ended(seen) else ()
        if _is_success(seen):
            if isinstance(seen, Confirmed):
                self._handshakes.confirmed(seen)
            self._succeeded(name)
            return ()
        if isinstance(seen, Met) and seen.reply in (Reply.ANSWERED, Reply.EXPIRED):
            return ()
        if self._handshakes.is_outage(seen):
            return ()
        return (*self._tried(name, seen), *self._tried_slowly(seen))

    def end(self, _now: float, /) -> Iterable[Alert]:
        """How far those have come that were told of."""
        return [
            self._alert(name, sweep)
            for name, sweep in self._sweeps.values()
            if 0 < sweep.told < len(sweep.hosts) or self._is_news(name, sweep)
        ]

    def _succeeded(self, name: _Name) -> None:
        sweep = self._sweeps.known(name)
        if sweep is None:
            self._sweeps.succeeded(name)
        else:
            sweep.succeeded += 1
            sweep.walk.succeeded()
        slow = self._slow.known(name[0])
        if slow is None:
            self._slow.succeeded(name[0])
        else:
            slow.succeeded += 1
            slow.walk.succeeded()

    def _leaves(self, name: _Name, seen: Ended) -> Iterable[Alert]:
        """Opened and left: the source got the answer. A host that it tried in vain before is what it waited for."""
        sweep, host = self._sweeps.known(name), seen.began.destination
        if sweep is None or host in sweep.hosts or host in sweep.left or len(sweep.left) >= LEFT_HOSTS:
            return ()
        if not sweep.first - BEFORE_S <= seen.began.time <= sweep.last + SWEEPS_S:
            return ()
        sweep.left.add(host)
        return (self._alert(name, sweep),) if sweep.told and len(sweep.left) == LEFT_HOSTS else ()

    def _is_news(self, name: _Name, sweep: _Sweep) -> bool:
        """Whether the source has proved itself since it was told of."""
        return sweep.told > 0 and not sweep.is_proved and self._is_proved_by_resets(name, sweep)

    def _is_proved_by_resets(self, name: _Name, sweep: _Sweep) -> bool:
        """Whether resets of answers are proof enough (`proof.py`)."""
        tried = len(sweep.hosts)
        others = self._company.others(name[1:], name[0]) if are_proof(sweep.proofs, tried, LEFT_HOSTS) else None
        if others is None or not self._company.is_alone_at(name[1:], name[0], sweep.last):
            return False
        sweeps = (self._sweeps.known((other, *name[1:])) for other in others)
        return is_alone(sweep, tried, sweeps, lambda one, other: len(one.hosts & other.hosts))

    def _tried(self, name: _Name, seen: _Try) -> Iterator[Alert]:
        taken = self._sweeps.take(name, seen.began.destination, seen)
        if taken is None:
            return
        sweep, successes, tries = taken
        self._company.joined(name[1:], name[0], seen.time)
        sweep.succeeded += successes
        for _ in range(min(successes, SLOW_HOSTS)):
            sweep.walk.succeeded()
        new = [sweep.add(each) for each in tries]
        if not any(new):
            return
        is_grown = len(sweep.hosts) >= sweep.next_alert and sweep.is_sweep(seen.began)
        if is_grown or (isinstance(seen, Confirmed) and self._is_news(name, sweep)):
            yield self._alert(name, sweep)

    def _alert(self, name: _Name, sweep: _Sweep) -> Alert:
        source, protocol, port = name
        count = sweep.told = len(sweep.hosts)
        sweep.next_alert = 2 * count
        what = (
            f"{protocol_name(protocol)} port {port}"
            if protocol in PORT_PROTOCOLS
            else f"{protocol_name(protocol)} echo"
        )
        if protocol in _ECHO and port not in (8, 128):
            what = f"{protocol_name(protocol)} type {port}"
        many = f"{count} or more" if count >= HOSTS_MAX else f"{count}"
        text = f"tried {what} with {many} hosts in {lasted(sweep.first, sweep.last)} that did not let it in, "
        text += f"up to {sweep.nearest()} of them neighbours; {sweep.succeeded} others answered"
        sweep.is_proved = sweep.is_proved_by_left or self._is_proved_by_resets(name, sweep)
        score = min(95, 40 + 4 * sweep.nearest()) if sweep.nearest() >= NEAR_HOSTS else 70
        return Alert(
            kind=Kind.SWEEP,
            source=source,
            target=None,
            first=sweep.first,
            last=sweep.last,
            score=score,
            evidence=text,
            ban=(source,) if sweep.is_proved else (),
            by_reset=sweep.is_proved and not sweep.is_proved_by_left,
        )

    def _tried_slowly(self, seen: _Try) -> Iterator[Alert]:
        began = seen.began
        if began.protocol != TCP or not isinstance(seen, Met) or seen.attempts > 1:
            return
        taken = self._slow.take(began.source, began.destination, seen)
        if taken is None:
            return
        slow, successes, tries = taken
        slow.succeeded += successes
        for _ in range(min(successes, SLOW_HOSTS)):
            slow.walk.succeeded()
        for each in tries:
            hosts = _slow_network(slow, each.began.destination)
            if hosts is None or each.began.destination in hosts or len(hosts) >= SLOW_HOSTS_MAX:
                continue
            hosts[each.began.destination] = each.began.port or 0, each.began.time
            slow.failed += 1
            slow.walk.failed()
            yield from self._judge_slow(slow, hosts, each.began)

    def _judge_slow(self, slow: _Slow, hosts: dict[bytes, tuple[int, float]], began: Began) -> Iterator[Alert]:
        ports = {port for port, _ in hosts.values()}
        times = [time for _, time in hosts.values()]
        if len(hosts) < slow.next_alert or len(ports) > SLOW_PORTS or not slow.walk.is_scanner:
            return
        if slow.failed < FAR_SHARE * slow.succeeded or max(times) - min(times) > SLOW_S:
            return
        slow.next_alert = 2 * len(hosts)
        text = f"tried {len(hosts)} hosts of the network around {format_address(began.destination)} in "
        text += f"{lasted(min(times), max(times))} on TCP port{'s' * (len(ports) > 1)} "
        text += f"{', '.join(map(str, sorted(ports)))}, once each, and none let it in"
        yield Alert(kind=Kind.SWEEP, source=began.source, target=None, first=min(times), last=max(times),
                    score=min(80, 45 + 3 * len(hosts)), evidence=text)  # fmt: skip


def _name(began: Began) -> _Name | None:
    """The source and what it tries everywhere; None for what is no try at all."""
    if began.protocol in PORT_PROTOCOLS and began.port is not None:
        if began.protocol == UDP and _is_answer(began.source_port or 0, began.port):
            return None
        return began.source, began.protocol, began.port
    types = _ECHO.get(began.protocol)
    if types is not None and began.icmp_type in types:
        return began.source, began.protocol, began.icmp_type or 0
    return None


def _is_answer(source_port: int, port: int) -> bool:
    """UDP that may answer what went to all (mDNS and NetBIOS from port to port, DHCP), or what was asked unseen."""
    return source_port == port or port in _DHCP_CLIENTS or source_port < SERVICE_BELOW <= port


def _is_success(seen: _Try) -> bool:
    if isinstance(seen, Confirmed):
        return not seen.by_reset
    return isinstance(seen, Met) and seen.reply is Reply.ANSWERED and seen.began.protocol != TCP


def _is_quic(began: Began) -> bool:
    """Where a filter stops it, a browser tries it with neighbours of a large service, too, and then uses TCP."""
    return began.protocol == UDP and began.port == 443


def _slow_network(slow: _Slow, address: bytes) -> dict[bytes, tuple[int, float]] | None:
    network = address[:2] if len(address) == 4 else address[:8]
    found = slow.networks.get(network)
    if found is None and len(slow.networks) < SLOW_NETWORKS_MAX:
        found = slow.networks[network] = {}
    return found
