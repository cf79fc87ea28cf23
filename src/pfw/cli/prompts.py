"""What people see of prompts, and what their keys and words mean. Pure.

The program that is asked about chooses much of what is shown: all of it passes through `printable`, here or in
`programs.py`, and every line is cut to the terminal, so that none of it can push a line of ours off the screen. Address
and port, which an answer is about, stand apart from all that it chooses, and are not cut.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator
from math import inf
from typing import get_args

from msgspec import Struct

from pfw.api.interface import Action, AnswerParameters, Lasting, Prompt, PromptsResult, Scope
from pfw.cli.parser_change import duration_s
from pfw.cli.programs import command_text, endpoint, origin, program_name
from pfw.cli.table import Column, clip, columns, table
from pfw.model.prompt import SECONDS_MAX
from pfw.model.text import counted, printable

_ACTIONS: dict[str, Action] = {"allow": "allow", "block": "block"}
_SCOPES: tuple[Scope, ...] = get_args(Scope)
_LASTINGS: dict[str, Lasting] = {"once": "once", "program": "program", "always": "always"}
_ID_DIGITS_MAX = 18
_NAME_LEAST = 8
"""To so little a name is cut; where there is no room even for that, what stands behind it is cut."""


class Choice(Struct, frozen=True):
    """How an answer is meant: the narrowest unless a person says otherwise."""

    lasting: Lasting = "once"
    scope: Scope = "exact"
    seconds: int | None = None


LASTING_KEYS: dict[str, tuple[Lasting, int | None]] = {
    "o": ("once", None),
    "p": ("program", None),
    "1": ("time", 3600),
    "d": ("time", 86400),
    "A": ("always", None),
}
SCOPE_KEYS: dict[str, Scope] = {"e": "exact", "h": "address", "P": "port", "w": "anywhere"}
ACTION_KEYS: dict[str, Action] = {"a": "allow", "b": "block"}

HELP = """\
a allow, b block: at once, only this once, and exactly this address and port,
unless other keys come before it. For how long:
  o this once    p until the program ends    1 an hour    d a day
  A always: it becomes a rule of the policy
How much:
  e exactly this address and port    h this address, whatever the port
  P this port, whatever the address  w anywhere
So "Awa" is: always allow this program, anywhere. The next prompt begins with
once and exactly this again.
s put off    r bring back what was put off    l list    q quit    ? this help
What is put off or left goes on waiting, and is blocked when its time is up.
Keys that were typed before a prompt was there to be read do not count."""

_LASTING_TEXTS = {"once": "this once", "program": "until it ends", "always": "always"}
_SCOPE_TEXTS = {"exact": "exactly this", "address": "this address", "port": "this port", "anywhere": "anywhere"}
_INDENT = "  "
_DOUBTS = {
    "proc": "several processes hold this connection, all of the same program",
    "guess": "it is not certain that it is this program: it can only be allowed once",
}


def pressed(choice: Choice, key: str) -> Choice | None:
    """The choice after a key, None for a key that chooses nothing."""
    if key in LASTING_KEYS:
        lasting, seconds = LASTING_KEYS[key]
        return Choice(lasting, choice.scope, seconds)
    if key in SCOPE_KEYS:
        return Choice(choice.lasting, SCOPE_KEYS[key], choice.seconds)
    return None


def answer(prompt_id: int, action: Action, choice: Choice) -> AnswerParameters:
    return AnswerParameters(
        id=prompt_id, action=action, lasting=choice.lasting, scope=choice.scope, seconds=choice.seconds
    )


def parse_head(words: list[str]) -> tuple[int, Action]:
    """`7 allow`. Raises ValueError."""
    if len(words) != 2:
        raise ValueError("an answer is the prompt's number, and allow or block, as in: 7 allow")
    number, action = words
    if not re.fullmatch(f"[0-9]{{1,{_ID_DIGITS_MAX}}}", number):
        raise ValueError(f"{number!r} is not the number of a prompt (pfw ask --list shows them)")
    if action not in _ACTIONS:
        raise ValueError(f"{action!r} is not an answer: allow or block")
    return int(number), _ACTIONS[action]


def parse_line(line: str) -> AnswerParameters:
    """`7 allow 1h anywhere`: for how long and how much may be left out. Raises ValueError."""
    words = line.split()
    number, action = parse_head(words[:2])
    choice = Choice()
    given: set[str] = set()
    for word in words[2:]:
        if word in _SCOPES:
            kind, choice = "how much", Choice(choice.lasting, word, choice.seconds)
        else:
            kind, choice = "how long", _for(word, choice.scope)
        if kind in given:
            raise ValueError(f"{word!r}: {kind} was said already")
        given.add(kind)
    return answer(number, action, choice)


def _for(word: str, scope: Scope) -> Choice:
    if word in _LASTINGS:
        return Choice(_LASTINGS[word], scope)
    try:
        return lasting(duration_s(word), scope)
    except ArgumentTypeError:
        known = ", ".join((*_LASTINGS, "a time as 1h", *_SCOPES))
        raise ValueError(f"{word!r} is not one of: {known}") from None


def lasting(seconds: float, scope: Scope) -> Choice:
    """For so long; 0 is for ever. Raises ValueError."""
    if seconds == 0:
        return Choice("always", scope)
    if seconds > SECONDS_MAX:
        raise ValueError(f"an answer can last {SECONDS_MAX // 86400} days, or always")
    return Choice("time", scope, int(seconds))


# --- what is shown --------------------------------------------------------------------------------------------------


def prompt_lines(prompt: Prompt, width: int | None) -> list[str]:
    """A prompt in full: who wants to talk to whom, where it comes from, and why it is asked."""
    own = prompt.program
    verb = " is called from" if prompt.direction == "in" else " wants to reach"
    lines = [_cut(f"#{prompt.id}  ", _who(prompt), verb, width), *_where(prompt, width)]
    lines += [_cut("  known as ", printable(prompt.host), "", width)] if prompt.host else []
    if own is not None:
        lines.append(f"  {origin(own)}")
        lines += [f"  command: {command_text(own)}"] if own.command else []
    waits = f"; {counted(prompt.held, 'packet')} held" if prompt.held else ""
    lines.append(f'  asked by rule "{printable(prompt.rule)}"{waits}')
    doubt = _doubt(prompt)
    lines += [f"  {doubt}"] if doubt else []
    return [clip(line, width) for line in lines]


def _who(prompt: Prompt) -> str:
    return "an unknown program" if prompt.program is None else program_name(prompt.program)


def _cut(before: str, name: str, after: str, width: int | None) -> str:
    """A line with a name, the middle left out of a long one: of a path and of a host's name the end tells more."""
    room = None if width is None else max(_NAME_LEAST, width - columns(before) - columns(after))
    if room is None or clip(name, room) == name:
        return before + name + after
    end = clip(name[::-1], (room + 1) // 2)[:-1][::-1]
    return f"{before}{clip(name, room - columns(end))}{end}{after}"


def _where(prompt: Prompt, width: int | None) -> list[str]:
    """Address, protocol and port. What does not fit goes on in the next line; an IPv6 address may need a whole one."""
    address = printable(prompt.remote)
    text = f"{address} on {_service(prompt)}"
    if width is None or columns(text) + len(_INDENT) <= width:
        return [_INDENT + text]
    from textwrap import wrap

    first = _INDENT if columns(address) + len(_INDENT) <= width else ""
    return wrap(text, width, initial_indent=first, subsequent_indent=_INDENT)


def _wish(prompt: Prompt) -> str:
    """All of it on one line, which has no end."""
    who = _who(prompt)
    if prompt.direction == "in":
        return f"{_remote(prompt)} wants to reach {who} on {_service(prompt)}"
    return f"{who} wants to reach {_remote(prompt)} on {_service(prompt)}"


def _remote(prompt: Prompt) -> str:
    address = printable(prompt.remote)
    return f"{printable(prompt.host)} ({address})" if prompt.host else address


def _service(prompt: Prompt) -> str:
    protocol = printable(prompt.protocol)
    if prompt.port is None:
        return protocol
    name = f" ({printable(prompt.service)})" if prompt.service else ""
    return f"{protocol} port {prompt.port}{name}"


def _doubt(prompt: Prompt) -> str:
    if prompt.program is None or prompt.certainty in ("label", "socket"):
        return ""
    return _DOUBTS.get(prompt.certainty, f"how the program was found: {printable(prompt.certainty)}")


def question(prompt: Prompt, choice: Choice, now: float, others: int, width: int | None) -> str:
    """The line at which keys are taken: time left, how many more, and what a and b would do now."""
    more = f", {others:,} more" if others else ""
    what = f"(a)llow (b)lock {meaning(choice)}? (s)kip (q)uit (?)help"
    return clip(f"[{_left(prompt, now)}{more}] {what}", width)


def _left(prompt: Prompt, now: float) -> str:
    if prompt.state != "waiting":
        return "time is up: for the next time"
    if prompt.until is None:
        return "waits"
    return f"{max(0, int(prompt.until - now))} s left"


def meaning(choice: Choice) -> str:
    how_long = _LASTING_TEXTS.get(choice.lasting)
    if how_long is None:
        seconds = choice.seconds or 0
        how_long = {3600: "for an hour", 86400: "for a day"}.get(seconds, f"for {seconds:,} s")
    return f"{how_long}, {_SCOPE_TEXTS[choice.scope]}"


def idle(put_off: int, width: int | None) -> str:
    """The line while there is nothing to answer."""
    later = f"; {put_off:,} put off, (r) brings them back" if put_off else ""
    return clip(f"waiting for prompts{later} (q)uit (?)help", width)


def done_line(action: str, choice: Choice, done: str, width: int | None) -> str:
    return clip(f"  {printable(done) or action}: {meaning(choice)}", width)


def problem(text: str, width: int | None) -> str:
    return clip(f"  {printable(text)}", width)


_HEADS = [
    Column("id", right=True), Column("left", right=True), Column("dir"), Column("remote"), Column("port"),
    Column("program", 12), Column("host", 8), Column("user", 4), Column("rule", 6), Column("sure"),
    Column("pid", right=True),
]  # fmt: skip


def list_lines(prompts: Iterable[Prompt], now: float, width: int | None) -> list[str]:
    """All that wait for an answer, the most urgent first."""
    rows = [_row(each, now) for each in sorted(prompts, key=urgency)]
    return table(_HEADS, rows, width) if rows else ["nothing waits for an answer"]


def _row(prompt: Prompt, now: float) -> list[str]:
    own = prompt.program
    left = "over" if prompt.state != "waiting" else "-"
    if left == "-" and prompt.until is not None:
        left = f"{max(0, int(prompt.until - now))} s"
    return [
        str(prompt.id),
        left,
        printable(prompt.direction),
        printable(prompt.remote),
        printable(prompt.protocol) + (f"/{prompt.port}" if prompt.port is not None else ""),
        "unknown" if own is None else program_name(own),
        printable(prompt.host or "-"),
        "-" if own is None else printable(own.user),
        printable(prompt.rule),
        printable(prompt.certainty),
        "-" if own is None else str(own.pid),
    ]


def line(prompt: Prompt) -> str:
    """A prompt as a line by itself, where there is no terminal."""
    remote = endpoint(prompt.remote, prompt.port)
    own = prompt.program
    origin_text = "" if own is None else f"; {origin(own)}; command: {command_text(own)}"
    doubt = f"; {_doubt(prompt)}" if _doubt(prompt) else ""
    over = "; the time is up: an answer is for the next time" if prompt.state != "waiting" else ""
    return f'{prompt.id}: {_wish(prompt)} [{remote}]{origin_text}; rule "{printable(prompt.rule)}"{doubt}{over}'


# --- which is next --------------------------------------------------------------------------------------------------


def urgency(prompt: Prompt) -> tuple[bool, float, int]:
    """What waits comes before what does not, and what is given up sooner before what has time."""
    return prompt.state != "waiting", inf if prompt.until is None else prompt.until, prompt.id


class Queue:
    """What waits for an answer, as the daemon tells it, and what of it is put off."""

    def __init__(self) -> None:
        self._prompts: dict[int, Prompt] = {}
        self._put_off: set[int] = set()
        self._answered: set[int] = set()
        """Until the daemon says that they have gone: news of them may have been on the way while they were answered."""

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._prompts.values())

    def update(self, result: PromptsResult) -> list[Prompt]:
        """Take in what came; what of it is new."""
        for number in result.gone:
            self.remove(number)
            self._answered.discard(number)
        fresh = []
        for prompt in result.prompts:
            if prompt.id in self._answered:
                continue
            if prompt.id not in self._prompts:
                fresh.append(prompt)
            self._prompts[prompt.id] = prompt
        return fresh

    def get(self, number: int) -> Prompt | None:
        return self._prompts.get(number)

    def next(self) -> Prompt | None:
        """The most urgent that is not put off."""
        waiting = (each for each in self._prompts.values() if each.id not in self._put_off)
        return min(waiting, key=urgency, default=None)

    @property
    def put_off(self) -> int:
        return len(self._put_off)

    def others(self, number: int) -> int:
        """How many wait besides this one, without those put off."""
        return len(self._prompts.keys() - self._put_off - {number})

    def answered(self, number: int) -> None:
        self.remove(number)
        self._answered.add(number)

    def remove(self, number: int) -> None:
        self._prompts.pop(number, None)
        self._put_off.discard(number)

    def defer(self, number: int) -> None:
        if number in self._prompts:
            self._put_off.add(number)

    def bring_back(self) -> None:
        self._put_off.clear()
