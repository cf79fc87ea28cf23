"""What is done with observations: detectors judge them, alerts are answered, kept and told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from pfw.daemon import listing
from pfw.daemon.chronicle import Chronicle
from pfw.daemon.recording import RecorderProcess
from pfw.daemon.responding import Performer
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.engine.detect.all import detectors
from pfw.engine.detect.detection import Detection
from pfw.engine.detect.known_bad import KnownBad
from pfw.engine.detect.new_listener import NewListener
from pfw.engine.respond import of_last_minute
from pfw.model.command import Alerted
from pfw.model.history import Noticed
from pfw.model.observation import Alert, Kind, Observation
from pfw.model.policy import Policy, Respond
from pfw.record.alerts import message
from pfw.record.history_writer import HistoryWriter

ALERTS_A_MINUTE = 100
"""Of one kind. Above, somebody invents sources, and what is told would bury the alerts of other kinds."""
PERIOD_S = 5.0
"""How often detectors are asked what follows from nothing more having come: a scan may be over within a moment."""
Raise = Callable[[str, str], None]
"""Tells an alert to whoever listens at the interface: its kind, and what is to be said."""


class Noticing:
    """Give it observations in the order of time. `chance` gives numbers from 0 to 1."""

    def __init__(
        self,
        state: State,
        chronicle: Chronicle,
        history: HistoryWriter,
        recorder: RecorderProcess | None,
        tell: Callable[[str], None],
        raise_alert: Raise,
        chance: Callable[[], float],
    ) -> None:
        self.alerts = 0
        self._left_out = 0
        self._lately: dict[Kind, deque[float]] = {}
        self._state = state
        self._chronicle = chronicle
        self._history = history
        self._recorder = recorder
        self._tell = tell
        self._raise = raise_alert
        self.performer = Performer(state, Respond(), tell, chance)
        self._known_bad, self._new_listener = KnownBad(), NewListener()
        self._detection = Detection(detectors(self._known_bad, self._new_listener), self._quiet, PERIOD_S)

    @property
    def refused(self) -> int:
        """What detectors did not look at for want of room."""
        return self._detection.refused

    @property
    def untold(self) -> int:
        """Alerts that were not told, at all or outside, because there were too many."""
        return self._left_out + self.performer.untold

    def use(self, policy: Policy | None) -> None:
        """Another policy is in force."""
        self.performer.use(policy.respond if policy is not None else Respond())
        lists = listing.of_policy(self._state, policy, self._tell) if policy is not None else {}
        self._known_bad.use(lists)

    def learn_listeners(self, known: Mapping[str, str | None]) -> None:
        """Who waited at which port in an earlier life."""
        self._new_listener.learn(known)

    def see(self, told: Iterable[Observation]) -> None:
        for seen in told:
            for alert in self._detection.observe(seen):
                self._alert(alert)

    def tick(self, now: float) -> None:
        """Let detectors say what follows from nothing having come."""
        for alert in self._detection.due(now):
            self._alert(alert)

    def close(self) -> None:
        self.performer.close()

    def _alert(self, alert: Alert) -> None:
        now = clock.now()
        self.alerts += 1
        lately = self._lately.setdefault(alert.kind, deque())
        are_many = of_last_minute(lately, now) >= ALERTS_A_MINUTE
        response = self.performer.perform(alert, quiet=are_many)
        if are_many and "banned" not in response:
            self._left_out += 1
            return
        lately.append(now)
        program = alert.program or self._chronicle.program_of(alert.source, alert.target)
        command = Alerted(now, alert, program, response, blocked="banned" in response)
        self._history.note(
            [
                Noticed(
                    time=now, kind=alert.kind, source=alert.source, target=alert.target, first=alert.first,
                    last=alert.last, score=alert.score, evidence=alert.evidence, program=program, response=response,
                )
            ]
        )  # fmt: skip
        self._raise(alert.kind.value, message(command))
        if self._recorder is not None:
            self._recorder.send([command])

    def _quiet(self, alert: Alert) -> None:
        self.performer.perform(alert, quiet=True)
