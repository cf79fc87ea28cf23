"""What is shown to a person, and what pressing a button means: prompts, alerts and presses in, notifications out.

Pure: it knows neither bus nor socket, and time is an argument. What is to be shown follows from what is known
(`settle`); so it does not matter which of the two ends, daemon or notification server, goes away and comes back.
Rule: nothing but a press of a button answers. A notification that is closed leaves its prompt in the list.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from itertools import zip_longest

from msgspec import Struct

from pfw.agent import wording
from pfw.agent.wording import Notification
from pfw.api.interface import AlertsResult, AnswerParameters, Prompt, PromptsResult

SHOWN_MAX = 20
"""Prompts that are shown at once; the others are one notification together."""

PROGRAM_SHOWN_MAX = 5
"""So many of these are of one program, where not all that wait can be shown: whoever asks about a hundred addresses
neither takes all places nor buries another's question."""

PROMPTS_MAX = 2000
"""As many as the daemon keeps, waiting and unanswered (`engine/prompts.py`). Further ones are not looked at."""

ALERTS_SHOWN_MAX = 5
"""The next one takes the place of the oldest."""

ALERTS_A_MINUTE = 10
"""Further ones are counted, and the number is shown."""

_MINUTE_S = 60.0


class Kind(StrEnum):
    PROMPT = "prompt"
    MORE = "more"
    ALERT = "alert"
    MORE_ALERTS = "more alerts"


class Key(Struct, frozen=True):
    """What a notification is about. Each daemon counts its prompts from 1: the number alone would let the press that
    was meant for one be an answer to another."""

    kind: Kind
    number: int = 0
    daemon: int = 0


class Show(Struct, frozen=True):
    """Show it, in the place of what is shown for the same key."""

    key: Key
    notification: Notification


class Close(Struct, frozen=True):
    key: Key


Command = Show | Close

_MORE = Key(Kind.MORE)
_MORE_ALERTS = Key(Kind.MORE_ALERTS)


class Agent:
    """Tell it what happens; then do what `settle` says, in order."""

    def __init__(self) -> None:
        self._capabilities: frozenset[str] | None = None
        self._daemon = 0
        self._prompts: dict[int, Prompt] = {}
        self._away: set[int] = set()
        """Prompts that the person has closed or answered; a part of those above."""
        self._more_away = False
        self._alerts: dict[Key, tuple[str, str]] = {}
        """What they are called, and what they say."""
        self._alert_times: deque[float] = deque(maxlen=ALERTS_A_MINUTE)
        self._alerts_seen = 0
        self._alerts_left_out = 0
        self._shown: dict[Key, Notification] = {}
        self._closing: list[Key] = []

    def server(self, capabilities: frozenset[str] | None) -> None:
        """Another notification server is there, or none any more: nothing of what was shown is."""
        self._capabilities = capabilities
        for key in self._shown.keys() & self._alerts.keys():
            del self._alerts[key]
        self._shown.clear()
        self._closing.clear()

    def prompts(self, news: PromptsResult) -> None:
        for prompt in news.prompts:
            if prompt.id in self._prompts or len(self._prompts) < PROMPTS_MAX:
                self._prompts[prompt.id] = prompt
        for prompt_id in news.gone:
            self._prompts.pop(prompt_id, None)
            self._away.discard(prompt_id)

    def daemon_gone(self) -> None:
        """What waited does so no more. The next one counts anew."""
        self._daemon += 1
        self._prompts.clear()
        self._away.clear()

    def alert(self, alert: AlertsResult, now: float) -> None:
        if len(self._alert_times) == ALERTS_A_MINUTE and now - self._alert_times[0] < _MINUTE_S:
            self._alerts_left_out += 1
            self._alerts[_MORE_ALERTS] = wording.more_alerts(self._alerts_left_out)
            return
        self._alert_times.append(now)
        self._alerts_left_out = 0
        self._put_alert(alert.kind, alert.says)

    def pressed(self, key: Key, action: str) -> AnswerParameters | None:
        """What to answer; None where it is no answer (a click beside the buttons, a prompt that has gone)."""
        prompt = self._prompts.get(key.number)
        if key not in self._shown or key.kind is not Kind.PROMPT or key.daemon != self._daemon or prompt is None:
            return None
        given = wording.answer(prompt, action)
        if given is not None:
            # Most servers close it by themselves; not one with the hint "resident", nor every one without.
            del self._shown[key]
            self._closing.append(key)
            self._away.add(prompt.id)
        return given

    def closed(self, key: Key) -> None:
        """The person has closed it, or the server has. Many do so when a button is pressed, which is no wish then."""
        if self._shown.pop(key, None) is None:
            return
        self._alerts.pop(key, None)
        if key == _MORE:
            self._more_away = True
        elif key.kind is Kind.PROMPT and key.daemon == self._daemon and key.number in self._prompts:
            self._away.add(key.number)

    def refused(self, prompt_id: int, says: str, *, gone: bool = False) -> None:
        """The daemon did not take an answer: say why, and ask again, unless the prompt has gone."""
        if gone:
            self.prompts(PromptsResult(prompts=(), gone=(prompt_id,)))
        self._away.discard(prompt_id)
        self._put_alert("the answer was not taken", says)

    def settle(self) -> list[Command]:
        """What is to be done so that what should be shown is."""
        commands: list[Command] = [Close(key) for key in self._closing]
        self._closing.clear()
        wanted = self._wanted()
        commands += [Close(key) for key in self._shown if key not in wanted]
        commands += [Show(key, shown) for key, shown in wanted.items() if self._shown.get(key) != shown]
        self._shown = wanted
        return commands

    def close_all(self) -> list[Command]:
        """At the end: a button that nobody hears is worse than none."""
        commands: list[Command] = [Close(key) for key in (*self._closing, *self._shown)]
        self._closing.clear()
        self._shown = {}
        return commands

    def _put_alert(self, kind: str, says: str) -> None:
        self._alerts[Key(Kind.ALERT, self._alerts_seen % ALERTS_SHOWN_MAX)] = kind, says
        self._alerts_seen += 1

    def _wanted(self) -> dict[Key, Notification]:
        able = self._capabilities
        if able is None:
            return {}
        here = {
            Key(Kind.PROMPT, one.id, self._daemon): one for one in self._prompts.values() if one.id not in self._away
        }
        waiting = {key: prompt for key, prompt in here.items() if prompt.state == "waiting"}
        placed = _placed(waiting)
        more = len(waiting) - len(placed)
        if not more:
            late = [key for key, one in here.items() if one.state != "waiting" and self._stays(key, one)]
            placed = [*placed, *reversed(late)][:SHOWN_MAX]
        wanted = {key: wording.of_prompt(here[key], able) for key in placed}
        if not more:
            self._more_away = False
        elif not self._more_away:
            wanted[_MORE] = wording.of_more(more, able)
        return wanted | {key: wording.of_alert(kind, says, able) for key, (kind, says) in self._alerts.items()}

    def _stays(self, key: Key, prompt: Prompt) -> bool:
        """Whether one that nobody answered in time goes on being shown. It was shown, and can be answered still."""
        return key in self._shown and bool(wording.buttons(prompt))


def _placed(waiting: Mapping[Key, Prompt]) -> list[Key]:
    """Which of those that wait are shown: all, or by turns one of each program, its oldest first. A program without a
    path can call itself what it likes: all of these are one."""
    if len(waiting) <= SHOWN_MAX:
        return list(waiting)
    of_program: dict[str | None, list[Key]] = {}
    for key, prompt in waiting.items():
        of_program.setdefault(prompt.program.path if prompt.program is not None else None, []).append(key)
    most = PROGRAM_SHOWN_MAX if len(of_program) > 1 else SHOWN_MAX
    turns = zip_longest(*(keys[:most] for keys in of_program.values()))
    return [key for turn in turns for key in turn if key is not None][:SHOWN_MAX]
