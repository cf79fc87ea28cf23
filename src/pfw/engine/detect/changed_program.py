"""Changed programs: one that talks to others while its file is not the one any more that it was started from.

The package manager does so at each upgrade: such a program is told of once a change, and lightly. Where the file is
gone and nothing stands in its place, where it lies in a place that is everybody's, or never was a file, it weighs more:
so hide those that were put there.
"""

from __future__ import annotations

from collections.abc import Iterable

from pfw.engine.detect.contacts import lasted
from pfw.engine.detect.program_names import is_in_memory, is_out_of_place, shown
from pfw.model.address import format_endpoint
from pfw.model.observation import Alert, Kind, ProgramTalks

CHANGES_MAX = 1_024
"""Changes that were told of; of more the oldest is forgotten, and told of again."""
REPLACED_SCORE, GONE_SCORE = 50, 80

_Change = tuple[str, float | None, bool]


class ChangedProgram:
    wants: tuple[type, ...] = (ProgramTalks,)

    def __init__(self, changes_max: int = CHANGES_MAX) -> None:
        self.refused = 0
        self._changes_max = changes_max
        self._told: dict[_Change, None] = {}

    def observe(self, seen: ProgramTalks) -> Iterable[Alert]:
        if not (seen.is_replaced or seen.is_missing or is_in_memory(seen.program)):
            return ()
        change = seen.program, seen.changed, seen.is_missing
        if change in self._told:
            return ()
        if len(self._told) >= self._changes_max:
            del self._told[next(iter(self._told))]
        self._told[change] = None
        return (_alert(seen),)

    def end(self, _: float, /) -> Iterable[Alert]:
        return ()


def _alert(seen: ProgramTalks) -> Alert:
    is_grave = seen.is_missing or is_out_of_place(seen.program)
    since = "" if seen.changed is None else f" {lasted(seen.changed, seen.time)} ago"
    if is_in_memory(seen.program):
        what = "it was started from memory and never was a file"
    elif seen.is_missing:
        what = f"its file was deleted{since} and nothing stands in its place"
    else:
        what = f"its file was replaced{since}, as an upgrade does"
    text = f"{shown(seen.program)}, process {seen.pid}, started {lasted(seen.started, seen.time)} ago, talks to "
    text += f"{format_endpoint(seen.remote, seen.port)}: {what}"
    return Alert(
        kind=Kind.CHANGED_PROGRAM,
        source=None,
        target=seen.remote,
        first=seen.time,
        last=seen.time,
        score=GONE_SCORE if is_grave else REPLACED_SCORE,
        evidence=text,
        program=seen.program,
    )
