"""A prompt, an alert and a number of them in the words of a notification.

Nearly all that is said in one was chosen by somebody else: the name of a program, the name of a host. So it is made
printable, cut to a length and, where the server reads markup, escaped here, and nowhere else (Desktop Notifications
Specification 1.2, "Markup"). The summary is never markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from posixpath import basename

from msgspec import Struct

from pfw.api.interface import Action, AnswerParameters, Lasting, Program, Prompt
from pfw.model.program import Certainty
from pfw.model.prompt import Scope
from pfw.model.text import counted, printable

_NAME_CHARACTERS_MAX = 60
_PATH_CHARACTERS_MAX = 240
_SAYS_CHARACTERS_MAX = 600
_PARENTS_MAX = 3
_HOUR_S = 3600
_SURE = {Certainty.LABEL, Certainty.SOCKET, Certainty.PROC}


class Urgency(IntEnum):
    """The specification's levels; what is critical does not go away by itself."""

    NORMAL = 1
    CRITICAL = 2


class Notification(Struct, frozen=True):
    """What a notification server is given to show. `buttons` are pairs of an action's key and its label."""

    summary: str
    body: str
    urgency: Urgency
    icon: str
    buttons: tuple[tuple[str, str], ...] = ()


class Button(Struct, frozen=True):
    key: str
    label: str
    action: Action
    lasting: Lasting
    seconds: int | None = None


# GNOME shows three buttons and leaves out the others. Without an answer it is blocked once, so that one is the last.
_BUTTONS = (
    Button("allow-once", "Allow once", "allow", "once"),
    Button("allow-always", "Always allow", "allow", "always"),
    Button("block-always", "Always block", "block", "always"),
    Button("allow-hour", "Allow for 1 hour", "allow", "time", _HOUR_S),
    Button("block-once", "Block once", "block", "once"),
)


def buttons(prompt: Prompt) -> tuple[Button, ...]:
    """The answers that the daemon would take for this prompt (`model/prompt.py: check_answer`)."""
    return tuple(button for button in _BUTTONS if _possible(prompt, button))


def _possible(prompt: Prompt, button: Button) -> bool:
    if button.lasting == "once":
        # No connection waits for what comes late.
        return prompt.state == "waiting"
    if prompt.program is None or (button.action == "allow" and prompt.certainty not in _SURE):
        return False
    return button.lasting != "always" or prompt.program.path is not None


def answer(prompt: Prompt, key: str) -> AnswerParameters | None:
    """What pressing a button says; None for a button that the prompt does not have."""
    for button in buttons(prompt):
        if button.key == key:
            return AnswerParameters(
                id=prompt.id,
                action=button.action,
                lasting=button.lasting,
                scope=Scope.EXACT.value,
                seconds=button.seconds,
            )
    return None


def of_prompt(prompt: Prompt, capabilities: frozenset[str]) -> Notification:
    """The question. It stays the same however many packets wait."""
    waits = prompt.state == "waiting"
    asks = "is called from" if prompt.direction == "in" else "wants to connect to"
    offered = buttons(prompt) if "actions" in capabilities else ()
    return _made(
        f"{_name(prompt.program)} {asks} {_cut(prompt.remote, _NAME_CHARACTERS_MAX)}",
        [*_doubts(prompt), *_program(prompt.program), _peer(prompt), _how_to_answer(prompt, bool(offered))],
        Urgency.CRITICAL if waits else Urgency.NORMAL,
        "dialog-question",
        capabilities,
        tuple((button.key, button.label) for button in offered),
    )


def of_more(waiting: int, capabilities: frozenset[str]) -> Notification:
    """Those for which there is no room."""
    verb = "waits" if waiting == 1 else "wait"
    return _made(
        f"{waiting:,} more {verb}: pfw ask", ["More programs ask than can be shown."], Urgency.NORMAL,
        "dialog-question", capabilities,
    )  # fmt: skip


def of_alert(kind: str, says: str, capabilities: frozenset[str]) -> Notification:
    kind = _cut(kind, _NAME_CHARACTERS_MAX)
    return _made(
        f"Firewall: {kind}" if kind else "Firewall", [_cut(says, _SAYS_CHARACTERS_MAX)], Urgency.NORMAL,
        "dialog-warning", capabilities,
    )  # fmt: skip


def more_alerts(left_out: int) -> tuple[str, str]:
    """What stands for those that were too many."""
    return counted(left_out, "more alert"), "The firewall's log has them."


def _made(
    summary: str,
    lines: Sequence[str],
    urgency: Urgency,
    icon: str,
    capabilities: frozenset[str],
    offered: tuple[tuple[str, str], ...] = (),
) -> Notification:
    """Some servers show the summary alone."""
    if "body" not in capabilities:
        return Notification(f"{summary}. {' '.join(lines)}", "", urgency, icon, offered)
    body = "\n".join(lines)
    return Notification(summary, _escaped(body) if "body-markup" in capabilities else body, urgency, icon, offered)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, characters_max: int) -> str:
    """Printable, the middle left out of what is too long: of a path both ends tell more."""
    shown = printable(text)
    if len(shown) <= characters_max:
        return shown
    half = characters_max // 2
    return f"{shown[:half]}…{shown[-half:]}"


def _name(program: Program | None) -> str:
    if program is None:
        return "An unknown program"
    return _cut(basename(program.path or program.shown), _NAME_CHARACTERS_MAX) or "A program without a name"


def _doubts(prompt: Prompt) -> list[str]:
    if prompt.program is None:
        return ["It is not known which program this is."]
    if prompt.certainty not in _SURE:
        return ["It is not certain which program this is: perhaps the one that is shown, perhaps another."]
    return []


def _program(program: Program | None) -> list[str]:
    if program is None:
        return []
    lines = [f"Program: {_cut(program.path or f'{program.shown} (no path)', _PATH_CHARACTERS_MAX)}"]
    if program.script is not None:
        lines.append(f"It says that it runs {_cut(program.script, _PATH_CHARACTERS_MAX)}")
    started = ", ".join(_cut(parent, _NAME_CHARACTERS_MAX) for parent in program.parents[:_PARENTS_MAX])
    user = f"User: {_cut(program.user, _NAME_CHARACTERS_MAX) or program.uid}"
    return [*lines, f"{user}, started by {started}" if started else user]


def _peer(prompt: Prompt) -> str:
    host = f" ({_cut(prompt.host, _PATH_CHARACTERS_MAX)})" if prompt.host else ""
    service = f" ({_cut(prompt.service, _NAME_CHARACTERS_MAX)})" if prompt.service else ""
    port = f", port {prompt.port}{service}" if prompt.port is not None else ""
    end = "From" if prompt.direction == "in" else "To"
    protocol = _cut(prompt.protocol, _NAME_CHARACTERS_MAX)
    return f"{end}: {_cut(prompt.remote, _NAME_CHARACTERS_MAX)}{host}{port}, {protocol}"


def _how_to_answer(prompt: Prompt, has_buttons: bool) -> str:
    late = "" if prompt.state == "waiting" else "It was blocked, for nobody answered in time. "
    if not has_buttons:
        return f"{late}To answer, type: pfw ask answer {prompt.id} allow (or block; --once, --for 1h, --always)"
    reach = "address and port" if prompt.port is not None else "address"
    return f"{late}An answer is about this program, {reach}; for more, type: pfw ask"
