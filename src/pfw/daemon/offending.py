"""Who was banned how often, over the end of the process: `offences.json`. See `engine/respond.py`."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from pfw.daemon.state import State
from pfw.engine.respond import Offence
from pfw.model.address import Range, format_range

FILE = "offences.json"


class Written(Struct, frozen=True):
    """An offence as it is written down."""

    what: str
    count: int
    until: float


def remembered(state: State) -> list[Offence]:
    """Those of the last time, the oldest first."""
    return [Offence(pair, each.count, each.until) for pair, each in state.by_range(FILE, list[Written])]


def keep(state: State, offences: list[Offence]) -> None:
    """Write them down, if they are others than there are. Raises OSError."""
    content = msgspec.json.encode([Written(format_range(*each.source), each.count, each.until) for each in offences])
    if content != (state.files.read(FILE) or b"[]"):
        state.files.write(FILE, content)


def times(state: State) -> dict[Range, Offence]:
    """What is remembered of each source."""
    return {each.source: each for each in remembered(state)}
