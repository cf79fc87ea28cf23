"""The lines of the text log: time (UTC), what the packet was, why it stands there.

    2026-11-23 02:05:00,123 - Ether / IP / TCP 192.168.1.100:51514 > 192.168.1.5:http S - Blocked by rule "block ip"
    2026-11-23 02:06:00,123 - … 412 more like this in 60 s: TCP 192.168.1.100 > 192.168.1.5:80 - Blocked by default in

Programs read these: the parts stay apart by ` - `, and the last begins with `Blocked`, `Rejected`,
`Allowed`, `Asked`, `Unknown` or `Suspicious`.
"""

from __future__ import annotations

from pfw.model.command import Judged, Suspicious
from pfw.model.text import printable
from pfw.model.verdict import Action
from pfw.record.fold import Folded
from pfw.record.timestamps import log_time

_DONE = {
    Action.ALLOW: "Allowed",
    Action.BLOCK: "Blocked",
    Action.REJECT: "Rejected",
    Action.ASK: "Asked",
    Action.UNKNOWN: "Unknown",
}


def judged_reason(command: Judged) -> str:
    """`Blocked by rule "block ip"`, `Rejected by base rule "…"`, `Blocked by default in`."""
    verdict = command.verdict
    done = _DONE[verdict.action]
    if verdict.rule is None:
        return f"{done} by default {command.flow.direction.value}"
    return f'{done} by {"base " if verdict.base else ""}rule "{printable(verdict.rule)}"'


def suspicious_reason(command: Suspicious) -> str:
    """`Suspicious: TCP SYN and FIN together`."""
    return f"Suspicious: {printable(command.text or command.event)}"


def text_line(time: float, message: str) -> bytes:
    """One line of the log, with its end."""
    return f"{log_time(time)} - {message}\n".encode("utf-8", "backslashreplace")


def fold_message(folded: Folded) -> str:
    """`… 412 more like this in 60 s: TCP 192.168.1.100 > 192.168.1.5:80 - Blocked by rule "block ip"`."""
    return f"… {folded.count} more like this in {folded.span_s} s: {folded.text}"
