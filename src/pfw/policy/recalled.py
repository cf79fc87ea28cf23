"""A connection of the history in the words in which a policy asks.

What the history does not keep is not known here: the script, what a program's file held, mostly the source port. Of an
owner who was only a guess nothing is known either, as in `daemon/describing.py`: no rule for a program allows a guess.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from pfw.model.flow import Direction, Flow
from pfw.model.history import Subject
from pfw.model.policy import Base, Policy
from pfw.model.program import Certainty
from pfw.policy.base import base_rules

_SUBJECTS_MAX = 65_536
"""So many subjects are kept in the policy's words; then it begins anew."""

_SURE = frozenset((Certainty.LABEL, Certainty.SOCKET, Certainty.PROC))

_SOURCE_PORTS = {rule.name: rule.source_ports[0][0] for rule in base_rules(Base()) if rule.source_ports}
"""What matched one of these rules came from its port."""


class _Owner(Struct, frozen=True):
    app: str | None = None
    users: frozenset[str] | None = None
    unit: str | None = None


_NOT_KNOWN = _Owner()


def is_sure(subject: Subject) -> bool:
    """Whether it is known whose the connection was, and no guess."""
    return subject.certainty in _SURE


class Recall:
    """For one policy. `named` are the users and groups that it names, as the numbers of those who are meant."""

    def __init__(self, policy: Policy, named: Mapping[str, frozenset[int]]) -> None:
        self._named = named
        self._units = sorted({unit for rule in policy.rules for unit in rule.units or ()})
        self._owners: dict[Subject, _Owner] = {}

    def flow(self, subject: Subject, remote: bytes, source_port: int | None = None) -> Flow:
        """The first packet of a connection. That of a forwarded one comes from its `local` end."""
        owner = self._owners.get(subject)
        if owner is None:
            if len(self._owners) >= _SUBJECTS_MAX:
                self._owners.clear()
            owner = self._owners[subject] = self._owner(subject)
        comes = subject.direction is Direction.IN
        return Flow(
            direction=subject.direction,
            protocol=subject.protocol,
            source=remote if comes else subject.local,
            destination=subject.local if comes else remote,
            source_port=_SOURCE_PORTS.get(subject.rule or "") if source_port is None else source_port,
            port=subject.port,
            icmp_type=subject.icmp_type,
            interface=subject.interface,
            app=owner.app,
            users=owner.users,
            unit=owner.unit,
        )

    def _owner(self, subject: Subject) -> _Owner:
        if not is_sure(subject):
            return _NOT_KNOWN
        program = subject.program
        # A program without a path is known, and is none that a rule can name.
        app = None if program is None else program if program.startswith("/") else ""
        users = None
        if subject.uid is not None:
            found = {name for name, uids in self._named.items() if subject.uid in uids}
            users = frozenset(found | {str(subject.uid)} | ({subject.user} if subject.user else set()))
        return _Owner(app, users, self._unit(subject.unit))

    def _unit(self, path: str | None) -> str | None:
        """Which of the policy's units a control group is in; not known where it is in several of them."""
        if path is None:
            return None
        own = path.strip("/")
        within = [unit for unit in self._units if _is_in(own, unit.strip("/"))]
        return own if not within else within[0] if len(within) == 1 else None


def _is_in(own: str, unit: str) -> bool:
    """A unit without a slash is a name, which stands anywhere in the path."""
    return f"/{own}/".startswith(f"/{unit}/") or ("/" not in unit and f"/{unit}/" in f"/{own}/")
