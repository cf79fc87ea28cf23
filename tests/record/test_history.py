from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.history import Entry, Finish, FirstSeen, New, Noticed, Query, Subject, Traffic
from pfw.model.observation import Kind
from pfw.model.verdict import Action
from pfw.record import history as module
from pfw.record.history import History, next_id
from pfw.record.history_file import log_bytes
from pfw.record.history_read import open_history

NOON = 1795399200.0
OUT = Subject(
    direction=Direction.OUT, protocol=6, local=b"\x0a\0\0\1", port=443, program="/usr/bin/x", action=Action.ALLOW
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def entry(number: int, start: float, **more: object) -> Entry:
    return replace(Entry(id=number, subject=OUT, remote=b"\x01\2\3\4", start=start, end=start + 1), **more)


def kept(path: Path) -> list[Entry]:
    with open_history(path) as reader:
        return list(reader.entries(Query()))


@given(st.lists(st.floats() | st.floats(0, 2e9)))
def test_ids_only_grow_and_are_never_before_the_beginning(starts: list[float]) -> None:
    last = 0
    for start in starts:
        number = next_id(last, start)
        assert last < number < 1 << 62
        if 0 <= start <= 2e9:
            assert number >= round(start * 1e6)
        last = number


def test_nothing_is_written_before_it_is_committed(path: Path) -> None:
    with closing(History(str(path))) as history:
        history.write([entry(1, NOON)])
        assert history.waiting == 1
        assert kept(path) == []
        history.commit()
        assert history.waiting == 0
        assert len(kept(path)) == 1


def test_a_clock_that_goes_back_keeps_the_order_and_the_times(path: Path) -> None:
    last, entries = 0, []
    with closing(History(str(path))) as history:
        for start in (NOON, NOON + 10, NOON - 86400.5, NOON - 86400.25, NOON + 11):
            last = next_id(last, start)
            entries.append(entry(last, start))
        history.write(entries)
        history.commit()
    with open_history(path) as reader:
        assert list(reader.entries(Query())) == entries
        assert list(reader.entries(Query(until=NOON))) == entries[2:4]
        assert list(reader.entries(Query(since=NOON))) == [entries[0], entries[1], entries[4]]
        assert reader.span() == (NOON - 86400.5, NOON + 11)


def test_a_run_that_begins_before_the_last_one_ended_gets_higher_ids(path: Path) -> None:
    """The clock was wrong in the run before; ids of this run stay apart from those of that one."""
    with closing(History(str(path))) as history:
        history.write([entry(next_id(0, NOON + 10**8), NOON + 10**8)])
        history.commit()
    first, second = next_id(0, NOON), next_id(0, NOON + 5)
    with closing(History(str(path))) as history:
        history.write([entry(first, NOON, end=None), entry(second, NOON + 5, end=None)])
        history.commit()
        history.finish([Finish(first, NOON + 60, Traffic(1, 2, 3, 4))])
        history.commit()
        history.write([entry(next_id(second, NOON + 7), NOON + 7)])
        history.commit()
    found = kept(path)
    assert [each.start for each in found] == [NOON + 10**8, NOON, NOON + 5, NOON + 7]
    assert [each.end for each in found[1:3]] == [NOON + 60, None]
    assert found[1].traffic == Traffic(1, 2, 3, 4)
    assert len({each.id for each in found}) == 4
    assert [each.id for each in found] == sorted(each.id for each in found)
    with open_history(path) as reader:
        assert [each.start for each in reader.entries(Query(since=NOON + 1, until=NOON + 6))] == [NOON + 5]


def test_an_end_before_the_beginning_is_none(path: Path) -> None:
    with closing(History(str(path))) as history:
        history.write([entry(next_id(0, NOON), NOON, end=NOON - 5)])
        history.commit()
        assert kept(path)[0].end == NOON


def test_what_goes_on_stays_open(path: Path) -> None:
    number = next_id(0, NOON)
    with closing(History(str(path))) as history:
        history.write([entry(number, NOON, end=None)])
        history.commit()
        history.finish([Finish(number, None, Traffic(5, 6, 7, 8)), Finish(12345, NOON, Traffic(1, 1, 1, 1))])
        history.commit()
        assert kept(path) == [entry(number, NOON, end=None, traffic=Traffic(5, 6, 7, 8))]


def test_values_that_no_column_holds_are_bounded(path: Path) -> None:
    huge = entry(next_id(0, NOON), NOON, traffic=Traffic(1 << 70, -5, 1 << 63, 0), count=1 << 80)
    texts = replace(OUT, program="\ud800\0" + "x" * 9999, user="")
    with closing(History(str(path))) as history:
        history.write([huge, entry(huge.id + 1, NOON, subject=texts, name="\udcff")])
        history.commit()
        first, second = kept(path)
    assert first.traffic == Traffic(1 << 50, 0, 1 << 50, 0)
    assert first.count == 1 << 50
    assert second.subject.program is not None
    assert len(second.subject.program) < 5000
    assert (second.subject.user, second.name) == ("", "\udcff")


def test_remote_ends_seen_first_make_room_and_programs_do_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_SEEN_MOST", 100)
    with closing(History(str(path))) as history:
        for number in range(250):
            history.first_seen([FirstSeen(NOON + number, kind, f"{kind} {number}") for kind in New])
            if number % 7 == 0:
                history.commit()
        history.commit()
    with open_history(path) as reader:
        found = {kind: [int(each.time - NOON) for each in reader.first_seen(new=kind)] for kind in New}
    assert found[New.PROGRAM] == found[New.LISTENER] == list(range(100))
    assert found[New.REMOTE][-1] == 249
    assert 85 < len(found[New.REMOTE]) <= 100
    assert found[New.REMOTE] == list(range(250 - len(found[New.REMOTE]), 250))


def test_what_is_remembered_is_remembered_over_a_start(path: Path) -> None:
    for number in range(3):
        with closing(History(str(path))) as history:
            history.first_seen([FirstSeen(NOON + number, New.PROGRAM, "/usr/bin/x")])
            history.commit()
    with open_history(path) as reader:
        assert reader.first_seen() == [FirstSeen(NOON, New.PROGRAM, "/usr/bin/x")]


def test_alerts_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALERTS_MOST", 50)
    with closing(History(str(path))) as history:
        for number in range(130):
            history.note(
                [
                    Noticed(
                        time=NOON, kind=Kind.SWEEP, source=None, target=None, first=NOON, last=NOON, score=number,
                        evidence="",
                    )
                ]
            )  # fmt: skip
        history.commit()
    with open_history(path) as reader:
        assert [each.score for each in reader.alerts()] == list(range(80, 130))


def test_a_failed_commit_can_be_tried_again(path: Path) -> None:
    with closing(History(str(path))) as history:
        history.write([entry(next_id(0, NOON), NOON)])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                history.commit()
            history.write([entry(next_id(0, NOON + 1), NOON + 1)])
            assert history.waiting == 2
        history.commit()
        assert [each.start for each in kept(path)] == [NOON, NOON + 1]


def write_much(history: History) -> None:
    for number in range(200):
        history.write([entry(next_id(0, NOON + number + n / 1000), NOON + number) for n in range(500)])
        history.commit()


def test_a_reader_without_end_does_not_make_the_log_grow_without_end(path: Path) -> None:
    budget = 4 << 20
    with closing(History(str(path), budget_bytes=budget)) as history:
        history.write([entry(1, NOON)])
        history.commit()
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM connection").fetchone()
            with pytest.raises(BlockingIOError, match="another process has been reading for too long"):
                write_much(history)
            assert Path(f"{path}-wal").stat().st_size < log_bytes(budget) * 1.5
        before = history.waiting
        assert before == 500
        history.commit()
        assert Path(f"{path}-wal").stat().st_size < log_bytes(budget)


def test_texts_that_are_only_data(path: Path) -> None:
    nasty = "'); DROP TABLE connection; --"
    with closing(History(str(path))) as history:
        history.write(
            [entry(next_id(0, NOON), NOON, subject=replace(OUT, program=nasty, rule=nasty, user=nasty), name=nasty)]
        )
        history.commit()
    with open_history(path) as reader:
        query = Query(program=nasty, rule=nasty, user=nasty, name=nasty)
        assert len(list(reader.entries(query))) == 1
        assert len(list(reader.groups(query))) == 1
