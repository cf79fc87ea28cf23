"""What the daemon tells about prompts, connections and programs, as its interface says it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct, field

from pfw.api import interface as told
from pfw.daemon.attribution import Attribution, Found, OpenSockets
from pfw.daemon.connections import View
from pfw.daemon.force import Force
from pfw.drivers import clock, netfilter, netlink, procfs
from pfw.model.address import format_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import TCP, UDP, protocol_name
from pfw.model.program import Program
from pfw.model.prompt import Prompt
from pfw.model.rule import Rule
from pfw.policy.match import Answer, conditions, fits
from pfw.policy.services import Services
from pfw.policy.wording import summary
from pfw.wire.conntrack import Entry

CONNECTIONS_MAX = 20_000
APPS_MAX = 4096
_OWNER_FIELDS = ("app", "script", "user", "unit")
_TCP_STATES = ("none", "syn-sent", "syn-recv", "established", "fin-wait", "close-wait", "last-ack", "time-wait",
               "close", "syn-sent2")  # fmt: skip
"""enum tcp_conntrack of include/uapi/linux/netfilter/nf_conntrack_tcp.h."""


_SERVICES = Services()


@lru_cache(1024)
def service(port: int | None) -> str | None:
    """What a port is usually called."""
    return None if port is None else _SERVICES.name_of(port)


def program(found: Program | None) -> told.Program | None:
    return None if found is None else told.Program.of(found)


def prompt(each: Prompt, host: str | None = None) -> told.Prompt:
    """`host` is the name of the other end, where one is known."""
    subject = each.subject
    return told.Prompt(
        id=each.id,
        asked=each.asked,
        until=each.until,
        direction=str(subject.direction),
        protocol=protocol_name(subject.protocol),
        remote=format_address(subject.remote),
        port=subject.port,
        service=service(subject.port),
        host=host,
        program=program(each.program),
        certainty=str(each.certainty),
        rule=each.rule,
        held=each.held,
        state="waiting" if str(each.state) == "waiting" else "unanswered",
    )


class Connections:
    """The connections that the kernel tracks, each with its owner."""

    def __init__(self, force: Force, attribution: Attribution) -> None:
        self._force = force
        self._attribution = attribution

    def all(self) -> Iterator[told.Connection]:
        """At most CONNECTIONS_MAX. Raises OSError and WireError."""
        view = View(netlink.local_addresses(), asks_interface=False)
        sockets = OpenSockets(self._attribution)
        for number, entry in enumerate(netfilter.connections()):
            if number >= CONNECTIONS_MAX:
                break
            yield self._told(entry, view.flow(entry), sockets)

    def owned(self) -> Iterator[tuple[Flow, Found]]:
        """The flow of each connection, and its owner."""
        view = View(netlink.local_addresses(), asks_interface=False)
        sockets = OpenSockets(self._attribution)
        for entry in netfilter.connections()[:CONNECTIONS_MAX]:
            flow = view.flow(entry)
            yield flow, sockets.owner(flow)

    def _told(self, entry: Entry, flow: Flow, sockets: OpenSockets) -> told.Connection:
        owner = sockets.owner(flow)
        incoming = flow.direction is Direction.IN
        local, local_port = (flow.destination, flow.port) if incoming else (flow.source, flow.source_port)
        remote, remote_port = (flow.source, flow.source_port) if incoming else (flow.destination, flow.port)
        sent, received = (entry.reply_bytes, entry.bytes) if incoming else (entry.bytes, entry.reply_bytes)
        verdict = self._force.decide(self._force.described(flow, owner), clock.moment())
        return told.Connection(
            direction=str(flow.direction),
            protocol=protocol_name(flow.protocol),
            local=format_address(local),
            local_port=local_port,
            remote=format_address(remote),
            remote_port=remote_port,
            state=_state(entry),
            program=program(owner.program),
            certainty=str(owner.certainty) if owner.program is not None else None,
            sent_bytes=sent,
            received_bytes=received,
            rule=verdict.rule or f"default {flow.direction}",
        )


def _state(entry: Entry) -> str:
    if entry.protocol == TCP and entry.tcp_state is not None and entry.tcp_state < len(_TCP_STATES):
        return _TCP_STATES[entry.tcp_state]
    if entry.protocol == UDP:
        return "answered" if entry.reply_packets or entry.status & 2 else "unanswered"
    return "answered" if entry.status & 2 else "unanswered"


def reasons(rules: tuple[Rule, ...], flow: Flow) -> list[told.Reason]:
    """The rules that may be about a program: those whose conditions on programs it fulfils, or may."""
    found = []
    for rule in rules:
        if not rule.enabled or rule.directions == {Direction.FORWARD}:
            continue
        answers = conditions(rule, flow, clock.moment())
        given = [answers[field] for field in _OWNER_FIELDS]
        if Answer.NO in given:
            continue
        matches = "unknown" if Answer.UNKNOWN in given else "yes"
        found.append(
            told.Reason(rule=rule.name, action=str(rule.action), says=summary(rule), matches=matches)
        )  # fmt: skip
    return found


class Census:
    """The programs that were seen to talk, or that a rule names."""

    def __init__(self, force: Force, connections: Connections) -> None:
        self._force = force
        self._connections = connections
        self._seen: dict[str, _Seen] = {}

    def note(self, path: str, action: str, now: float) -> None:
        """A connection of a program was decided, or asked about, by the daemon."""
        self._last_seen(path, now).verdicts[action] += 1

    def see(self, path: str | None, now: float) -> None:
        """A program was seen to make a socket."""
        if path:
            self._last_seen(path, now)

    def _last_seen(self, path: str, now: float) -> _Seen:
        seen = self._seen.pop(path, _Seen())
        seen.last = now
        self._seen[path] = seen
        if len(self._seen) > APPS_MAX:
            self._seen.pop(next(iter(self._seen)))
        return seen

    def apps(self) -> Iterator[told.App]:
        force = self._force
        live = Counter(force.path_of(owner) for _, owner in self._connections.owned())
        running = Counter(procfs.executables())
        known = force.programs.known.values() if force.programs is not None else ()
        paths = {*self._seen, *(each.path for each in known), *live} - {None, ""}
        for path in sorted(each for each in paths if each is not None):
            seen = self._seen.get(path, _Seen())
            yield told.App(
                path=path,
                label=self._label(path),
                seen=seen.last,
                processes=running[path],
                connections=live[path],
                rules=tuple(self._rules(path)),
                verdicts=dict(seen.verdicts),
            )

    def _label(self, path: str) -> int | None:
        found = self._force.class_of(Found.of_process(Program(pid=0, path=path)))
        return None if found is None else self._force.own.get(path, found.mark)

    def _rules(self, path: str) -> Iterator[str]:
        for rule in self._force.policy.rules if self._force.policy is not None else ():
            if any(fits(app.path, path) for app in rule.apps or ()):
                yield rule.name


class _Seen(Struct):
    last: float = 0.0
    verdicts: Counter[str] = field(default_factory=Counter)
