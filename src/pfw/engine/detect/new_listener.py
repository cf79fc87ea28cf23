"""New listeners: a program waits at a port that can be reached from outside and was not seen before.

What was there at the first look is the measure, and what the history remembers. A port chosen by the kernel says
little: for UDP it is a client's, for TCP it is one of many that a program opens and closes, and told of by program. A
program that listens at the same port of several addresses is one listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pfw.engine.detect.detector import Table
from pfw.engine.detect.numbers import Numbers
from pfw.engine.detect.program_names import is_out_of_place, shown
from pfw.engine.suspicion import LOOPBACK
from pfw.model.address import format_endpoint
from pfw.model.observation import Alert, Kind, Listening
from pfw.model.packet import TCP, UDP, protocol_name

LISTENERS_MAX = 16_384
"""Known ones. Of more the one that was learnt longest ago is forgotten."""
CHOSEN_FROM = 32_768
"""Linux gives clients a port from here on (ip_local_port_range)."""
PROGRAMS_MAX = 1_024
PROGRAMS_S = 86_400.0
ONE_SCORE, ALL_SCORE, ODD_SCORE = 40, 50, 60
"""At one address, at all of them; and by a program that lies where it should not, or where another one listened."""
_ACTIVATORS = frozenset({"systemd", "inetd", "xinetd"})
"""These listen for others, and hand the socket over."""


class NewListener:
    """`known` are listeners by name (`listener_name`), each with its program, as far as it is known."""

    wants: tuple[type, ...] = (Listening,)

    def __init__(self, known: Mapping[str, str | None] | None = None, listeners_max: int = LISTENERS_MAX) -> None:
        self.refused = 0
        self._listeners_max = listeners_max
        self._known: dict[str, str | None] = {}
        self._programs: Table[str | None, Numbers] = Table(
            PROGRAMS_MAX, PROGRAMS_S, Numbers, may_go=lambda ports: ports.count == 1
        )
        self._told: dict[tuple[str | None, int, int], None] = {}
        self.learn(known or {})

    def learn(self, known: Mapping[str, str | None]) -> None:
        """What was seen before, in an earlier life."""
        for name, program in known.items():
            self._remember(name, program)

    def observe(self, seen: Listening) -> Iterable[Alert]:
        if seen.address in LOOPBACK or (seen.protocol == UDP and seen.port >= CHOSEN_FROM):
            return ()
        name = listener_name(seen.protocol, seen.address, seen.port)
        is_known, before = name in self._known, self._known.get(name)
        other = before if is_known and _are_others(before, seen.program) and seen.protocol == TCP else None
        if (is_known and other is None) or seen.first:
            self._remember(name, seen.program or before)
            self._is_first_of_it(seen)
            return ()
        if seen.port >= CHOSEN_FROM and other is None:
            return self._one_of_many(seen, name)
        self._remember(name, seen.program)
        return (_alert(seen, name, other),) if self._is_first_of_it(seen) else ()

    def end(self, _: float, /) -> Iterable[Alert]:
        return ()

    def _remember(self, name: str, program: str | None) -> None:
        self._known.pop(name, None)
        self._known[name] = program
        if len(self._known) > self._listeners_max:
            del self._known[next(iter(self._known))]

    def _is_first_of_it(self, seen: Listening) -> bool:
        """Whether a program was not known to wait at this port, of whatever address."""
        it = seen.program, seen.protocol, seen.port
        if it in self._told:
            return False
        self._told[it] = None
        if len(self._told) > self._listeners_max:
            del self._told[next(iter(self._told))]
        return True

    def _one_of_many(self, seen: Listening, name: str) -> Iterable[Alert]:
        ports = self._programs.get(seen.program, seen.time)
        if ports is None:
            self.refused += 1
            return ()
        if not ports.add(seen.port) or ports.count & (ports.count - 1):
            return ()
        return (_alert(seen, name, None, ports.count),)


def listener_name(protocol: int, address: bytes, port: int) -> str:
    """`tcp [::]:22`, as in the history."""
    return f"{protocol_name(protocol).lower()} {format_endpoint(address, port)}"


def _are_others(one: str | None, two: str | None) -> bool:
    if one is None or two is None or one == two:
        return False
    return not {one.rpartition("/")[2], two.rpartition("/")[2]} & _ACTIVATORS


def _alert(seen: Listening, name: str, before: str | None, many: int = 1) -> Alert:
    text = f"{shown(seen.program)} listens on {name}, first seen now"
    if before is not None:
        text = f"{shown(seen.program)} listens on {name}, where {shown(before)} listened before"
    elif many > 1:
        text += f"; it has opened {many} such ports"
    is_odd = before is not None or is_out_of_place(seen.program)
    return Alert(
        kind=Kind.NEW_LISTENER,
        source=None,
        target=seen.address,
        first=seen.time,
        last=seen.time,
        score=ODD_SCORE if is_odd else ONE_SCORE if any(seen.address) else ALL_SCORE,
        evidence=text,
        program=seen.program,
        about=name if seen.port < CHOSEN_FROM else f"{protocol_name(seen.protocol).lower()} ports",
    )
