"""What a wrong clock does to the history: it must not make it forget everything at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pfw.model.flow import Direction
from pfw.model.history import Entry, Query, Subject
from pfw.model.verdict import Action
from pfw.record.history import BELIEVED_S, KEEP_S, History
from pfw.record.history_read import open_history

NOW, DAY, YEAR = 1.7e9, 86_400.0, 365 * 86_400.0
SUBJECT = Subject(direction=Direction.OUT, protocol=6, local=bytes(4), port=443, action=Action.ALLOW)


def entry(start: float) -> Entry:
    return Entry(id=int(start * 1e6), subject=SUBJECT, remote=bytes((192, 0, 2, 1)), start=start, end=start + 1)


def count(path: Path) -> int:
    with open_history(path) as reader:
        return len(list(reader.entries(Query())))


def tended(path: Path, now: float, *, monotonic: Callable[[], float] = lambda: 0.0, add: float | None = None) -> int:
    """What is left after a life of the writer at this time."""
    history = History(str(path), monotonic=monotonic)
    if add is not None:
        history.write([entry(add)])
        history.commit()
    while history.tend(now):
        pass
    history.close()
    return count(path)


def test_a_restart_under_a_wrong_clock_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(str(path))
    history.write([entry(NOW - day * DAY) for day in range(60)])
    history.commit()
    history.close()
    future = NOW + 10 * YEAR
    assert tended(path, future, add=future) == 61
    # What it finds now ends with what the wrong clock wrote.
    assert tended(path, future + 5) == 61
    assert tended(path, future + 10, add=future + 10) == 62
    assert tended(path, NOW - YEAR) == 62
    assert tended(path, NOW + DAY) == 62


def test_what_is_old_is_forgotten_though_the_writer_has_just_begun(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    history = History(str(path))
    history.write([entry(NOW - day * DAY) for day in range(60)])
    history.commit()
    history.close()
    time = [0.0]
    history = History(str(path), monotonic=lambda: time[0])
    later = NOW + KEEP_S - 9.5 * DAY
    history.tend(later)
    assert count(path) == 60
    time[0] += BELIEVED_S + 1
    while history.tend(later + BELIEVED_S + 1):
        pass
    history.close()
    assert count(path) == 10
