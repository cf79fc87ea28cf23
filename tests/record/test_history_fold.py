from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.history import By, Entry, Finish, FirstSeen, New, Query, Subject, Traffic
from pfw.model.verdict import Action
from pfw.record.history import BELIEVED_S, History, next_id
from pfw.record.history_fold import Folding
from pfw.record.history_read import open_history

DAY_S = 86400
NOON = 1795348800 + 43200.0
"""Of a day in UTC."""
OUT = Subject(
    direction=Direction.OUT, protocol=6, local=b"\x0a\0\0\1", port=443, program="/usr/bin/x", action=Action.ALLOW
)
IN = Subject(direction=Direction.IN, protocol=17, local=b"\x0a\0\0\1", port=53, action=Action.BLOCK, rule="no dns")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def entry(last: int, start: float, subject: Subject = OUT, remote: bytes = b"\x01\2\3\4", **more: object) -> Entry:
    plain = Entry(
        id=next_id(last, start), subject=subject, remote=remote, start=start, end=start + 1, traffic=Traffic(1, 2, 3, 4)
    )
    return replace(plain, **more)


def keep(history: History, entries: Iterable[Entry]) -> list[Entry]:
    found = list(entries)
    history.write(found)
    history.commit()
    return found


def work(history: History, step: Callable[[Folding], bool], most: int = 10_000) -> int:
    """Do pieces of it until there is no more; how many."""
    file = history._file
    assert file is not None
    for number in range(most):
        if not history._in_transaction(file, lambda: step(history._folding)):
            return number
    raise AssertionError("it does not end")


def fold_whole(history: History, now: float) -> None:
    work(history, lambda folding: folding._fold_whole(now, 0))


def sums(path: Path, query: Query | None = None) -> Counter[str]:
    found: Counter[str] = Counter()
    with open_history(path) as reader:
        for total in reader.totals(query or Query(), By.HOUR):
            found["count"] += total.count
            found["blocked"] += total.blocked
            for field in total.traffic.__struct_fields__:
                found[field] += getattr(total.traffic, field)
    return found


def lines(path: Path) -> list[Entry]:
    with open_history(path) as reader:
        return [each for each in reader.entries(Query()) if each.period_s]


def rows(path: Path, sql: str) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(path)) as file:
        return file.execute(sql).fetchall()


def dangling(path: Path) -> list[tuple[int, ...]]:
    """What names a subject or a text that is not there."""
    return rows(
        path,
        "SELECT subject FROM connection UNION SELECT subject FROM folded EXCEPT SELECT id FROM subject",
    ) + rows(
        path,
        "SELECT name FROM connection UNION SELECT name FROM folded UNION SELECT program FROM subject"
        " UNION SELECT rule FROM subject UNION SELECT user FROM subject UNION SELECT unit FROM subject"
        " UNION SELECT interface FROM subject EXCEPT SELECT id FROM text EXCEPT SELECT -1",
    )


def as_lines(entries: list[Entry], period_s: int) -> list[Entry]:
    """What entries are folded into, by going over all of them for each line."""
    keys = {(int(e.start) // period_s * period_s, e.subject, e.remote, e.name) for e in entries}
    found = []
    for start, subject, remote, name in keys:
        here = [
            e for e in entries
            if (int(e.start) // period_s * period_s, e.subject, e.remote, e.name) == (start, subject, remote, name)
        ]  # fmt: skip
        carried = [sum(getattr(e.traffic, field) for e in here) for field in Traffic.__struct_fields__]
        count = sum(e.count for e in here)
        found.append(
            Entry(id=0, subject=subject, remote=remote, start=float(start), name=name, traffic=Traffic(*carried),
                  count=count, period_s=period_s)
        )  # fmt: skip
    return found


@st.composite
def weeks(draw: st.DrawFn) -> list[Entry]:
    found, last = [], 0
    starts = st.floats(0, 6 * DAY_S).map(lambda after: round(NOON + after, 6))
    for start, subject, remote, name, count in draw(
        st.lists(
            st.tuples(starts, st.sampled_from([OUT, IN]), st.sampled_from([b"\1\2\3\4", bytes(16)]),
                      st.sampled_from([None, "a.example"]), st.integers(1, 9)),
            max_size=40,
        )
    ):  # fmt: skip
        found.append(entry(last, start, subject, remote, name=name, count=count, traffic=draw(TRAFFIC)))
        last = found[-1].id
    return found


CARRIED = st.integers(0, 1 << 40)
TRAFFIC = st.builds(Traffic, CARRIED, CARRIED, CARRIED, CARRIED)


@given(weeks())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_those_of_a_list(path: Path, entries: list[Entry]) -> None:
    path.unlink(missing_ok=True)
    with closing(History(str(path))) as history:
        keep(history, entries)
        before = sums(path)
        fold_whole(history, NOON + 30 * DAY_S)
        by_hour = as_lines(entries, 3600)
        assert sorted(lines(path), key=repr) == sorted(by_hour, key=repr)
        assert sums(path) == before
        work(history, lambda folding: folding._fold_hour())
        found = lines(path)
        newest = max([each.start for each in by_hour], default=0)
        assert all(each.period_s == DAY_S or newest - each.start < 3 * DAY_S for each in found)
        edge = min([each.start for each in found if each.period_s == 3600], default=newest + 3600)
        expected = as_lines([each for each in entries if each.start < edge], DAY_S)
        expected += as_lines([each for each in entries if each.start >= edge], 3600)
        assert sorted(found, key=repr) == sorted(expected, key=repr)
        assert sums(path) == before
        if entries:
            with open_history(path) as reader:
                span = reader.span()
            assert span == (min(int(e.start) for e in entries), max(int(e.start) for e in entries))


def test_folded_lines_know_when_their_first_and_last_began(path: Path) -> None:
    with closing(History(str(path))) as history:
        keep(history, [entry(0, NOON + 60), entry(0, NOON + 600)])
        fold_whole(history, NOON + DAY_S)
        with open_history(path) as reader:
            (total,) = reader.totals(Query(), By.PROGRAM)
            assert (total.first, total.last) == (NOON + 60, NOON + 600)
            wanted = [(None, NOON + 60), (NOON + 601, None), (None, NOON + 61), (NOON + 600, None)]
            found = [len(list(reader.entries(Query(since=since, until=until)))) for since, until in wanted]
    assert found == [0, 0, 1, 1]


def test_the_rarest_are_joined_where_an_hour_has_too_many(path: Path) -> None:
    with closing(History(str(path))) as history:
        often = [entry(number, NOON + number / 1e4, remote=b"\x01\1\1\1") for number in range(50)]
        rare = [entry(10**9 + n, NOON + 9 + n / 1e4, remote=n.to_bytes(4)) for n in range(5000)]
        keep(history, [*often, *rare])
        before = sums(path)
        history._folding.lines_most = 100
        fold_whole(history, NOON + DAY_S)
        found = {each.remote: each.count for each in lines(path)}
    assert sums(path) == before
    assert len(found) <= 100
    assert found[b"\x01\1\1\1"] == 50
    assert found[b""] > 4000


def test_ports_are_joined_where_that_is_what_there_is_too_much_of(path: Path) -> None:
    with closing(History(str(path))) as history:
        scanned = [entry(0, NOON + n / 1e4, replace(IN, port=n), remote=n.to_bytes(4)) for n in range(4000)]
        usual = [entry(10**9, NOON + 9 + n / 1e4) for n in range(9)]
        keep(history, [*scanned, *usual])
        before, blocked = sums(path), sums(path, Query(blocked=True))
        history._folding.lines_most = 100
        fold_whole(history, NOON + DAY_S)
        assert work(history, lambda folding: folding._words.sweep()) < 50
        found = lines(path)
    assert (sums(path), sums(path, Query(blocked=True))) == (before, blocked)
    assert len(found) <= 100
    joined = max(found, key=lambda each: each.count)
    assert joined.subject == replace(IN, port=None, local=b"")
    assert OUT in {each.subject for each in found}
    assert rows(path, "SELECT count(*) FROM subject")[0][0] <= len(found)
    assert not dangling(path)


def test_what_is_open_stays_whole_for_a_day(path: Path) -> None:
    with closing(History(str(path))) as history:
        still, gone = entry(0, NOON, end=None), entry(0, NOON + 1)
        keep(history, [still, gone])
        history._in_transaction(history._file, lambda: history._folding._fold_piece(1 << 62, NOON + DAY_S - 1))
        with open_history(path) as reader:
            folded, whole = reader.entries(Query())
        assert (folded.count, whole) == (1, still)
        history.finish([Finish(still.id, NOON + 5, Traffic(9, 9, 9, 9))])
        history.commit()
        with open_history(path) as reader:
            assert list(reader.entries(Query(), after=1)) == [replace(still, end=NOON + 5, traffic=Traffic(9, 9, 9, 9))]
        keep(history, [entry(still.id + 10**7, NOON + 10, end=None)])
        history._in_transaction(history._file, lambda: history._folding._fold_piece(1 << 62, NOON + DAY_S + 11))
        with open_history(path) as reader:
            assert [each.count for each in reader.entries(Query())] == [3]


def test_when_all_are_open_they_are_folded_all_the_same(path: Path) -> None:
    with closing(History(str(path))) as history:
        keep(history, [entry(0, NOON + n, end=None) for n in range(20)])
        fold_whole(history, NOON + 30)
        assert sum(each.count for each in lines(path)) == 20


def size(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir())


def flood(kind: str, chance: random.Random, count: int) -> Iterator[Entry]:
    last = 0
    for number in range(count):
        start = round(NOON + number / 1000, 6)
        subject, remote, name = OUT, b"\x01\2\3\4", None
        match kind:
            case "remotes":
                remote = chance.randbytes(16)
            case "ports":
                subject = replace(IN, port=chance.randrange(65536))
            case "names":
                name = f"{chance.randbytes(30).hex()}.tunnel.example"
            case "programs":
                subject = replace(OUT, program=f"/tmp/{chance.randbytes(20).hex()}")
            case "open":
                remote = chance.randbytes(4)
        yield entry(last, start, subject, remote, name=name, **({"end": None} if kind == "open" else {}))
        last = max(last + 1, round(start * 1e6))


@pytest.mark.parametrize("kind", ["same", "remotes", "ports", "names", "programs", "open"])
def test_the_budget_is_kept_whatever_comes(path: Path, kind: str) -> None:
    budget, most, count = 2 << 20, 0, 30_000
    with closing(History(str(path), budget_bytes=budget)) as history:
        entries = list(flood(kind, random.Random(1), count))
        for at in range(0, count, 2000):
            keep(history, entries[at : at + 2000])
            history.first_seen([FirstSeen(e.start, New.REMOTE, e.remote.hex()) for e in entries[at : at + 2000]])
            history.commit()
            for _ in range(20):
                if not history.tend(NOON + at / 1000):
                    break
            most = max(most, size(path.parent))
        assert not dangling(path)
    assert most <= budget + (1 << 20)  # with so small a budget one transaction's log is most of it
    assert path.stat().st_size <= budget
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    found = sums(path)["count"]
    # Names and programs without end may cost what was folded before; nothing else does.
    assert found == count if kind not in ("names", "programs") else 5000 < found <= count
    with open_history(path) as reader:
        newest = list(reader.entries(Query(), newest_first=True, limit=500))
    assert newest == entries[:-501:-1]


def test_a_day_with_countless_remote_ends_leaves_the_days_before(path: Path) -> None:
    with closing(History(str(path), budget_bytes=2 << 20)) as history:
        keep(history, [entry(0, NOON - 5 * DAY_S + n) for n in range(100)])
        last = 0
        for hour in range(24):
            start = NOON + 3600 * hour
            keep(history, [entry(last, start + n / 1000, remote=os.urandom(4)) for n in range(2000)])
            while history.tend(start + 3600):
                pass
    old = sums(path, Query(until=NOON - DAY_S))
    assert (old["count"], old["sent_bytes"]) == (100, 100)
    assert sums(path)["count"] == 100 + 24 * 2000
    assert path.stat().st_size < 2 << 20


def test_the_file_becomes_smaller_again(path: Path) -> None:
    clock = [0.0]
    with closing(History(str(path), keep_s=DAY_S, monotonic=lambda: clock[0])) as history:
        keep(history, [entry(n, NOON + n / 1000, remote=os.urandom(16)) for n in range(80_000)])
        keep(history, [entry(0, NOON + 1.9 * DAY_S)])
        history.tend(NOON + 0.9 * DAY_S)
        large = size(path.parent)
        while history.tend(NOON + 1.8 * DAY_S):
            pass
    assert path.stat().st_size < large / 3
    assert sums(path)["count"] == 1


def test_what_is_too_old_is_forgotten(path: Path) -> None:
    with closing(History(str(path), keep_s=10 * DAY_S)) as history:
        keep(history, [entry(0, NOON + n * DAY_S) for n in range(12)])
        history._in_transaction(history._file, lambda: history._folding._fold_piece(1 << 62, NOON + 99 * DAY_S))
        keep(history, [entry(0, NOON + 12 * DAY_S + n * DAY_S) for n in range(4)])
        history.first_seen([FirstSeen(NOON, New.PROGRAM, "/usr/bin/x")])
        history.commit()
        for day in range(20):
            while history.tend(NOON + day * DAY_S):
                pass
            first = max(0, day - 10)
            with open_history(path) as reader:
                starts = [int(each.start - NOON + 1) // DAY_S for each in reader.entries(Query())]
                assert starts == list(range(first, 16))
                assert len(reader.first_seen()) == 1


def test_a_clock_that_jumps_ahead_does_not_forget_everything(path: Path) -> None:
    clock = [0.0]
    with closing(History(str(path), monotonic=lambda: clock[0])) as history:
        keep(history, [entry(0, NOON)])
        history.tend(NOON + 1)
        for elapsed in (0.0, 10.0, BELIEVED_S - 1):
            clock[0] = elapsed
            history.tend(NOON + 3000 * DAY_S + elapsed)
            assert sums(path)["count"] == 1
        history.tend(NOON + BELIEVED_S)  # it is right again
        history.tend(NOON + 3000 * DAY_S)
        clock[0] += BELIEVED_S
        history.tend(NOON + 3000 * DAY_S)
        assert sums(path)["count"] == 0


@pytest.mark.parametrize("seed", range(6))
def test_sweeping_in_between_never_takes_what_is_named(path: Path, seed: int) -> None:
    """Pieces of sweeping, folding, joining and writing in any order."""
    chance = random.Random(seed)
    last, now, written = 0, NOON, 0
    with closing(History(str(path))) as history:
        history._folding.lines_most = 30
        for _ in range(60):
            batch = []
            for _ in range(chance.choice((0, 5, 200))):
                now += chance.choice((0.001, 1.0, 900.0))
                subject = replace(IN, port=chance.randrange(300), rule=chance.choice(("a", "b", f"r{now}")))
                batch.append(entry(last, now, subject, chance.randbytes(4), name=chance.choice((None, f"n{now}.x"))))
                last = batch[-1].id
            written += len(keep(history, batch))
            folding = history._folding
            steps = (folding._words.sweep, folding._fold_hour, partial(folding._fold_whole, now, 50))
            for _ in range(chance.randrange(12)):
                history._in_transaction(history._file, chance.choice(steps))
            assert not dangling(path)
        work(history, lambda folding: folding._words.sweep() and folding._words.sweeping)
        work(history, lambda folding: folding._words.sweep() and folding._words.sweeping)
        (unused,) = rows(path, "SELECT count(*) FROM subject WHERE id NOT IN (SELECT subject FROM connection"
                               " UNION SELECT subject FROM folded)")  # fmt: skip
    assert unused == (0,)
    assert sums(path)["count"] == written
