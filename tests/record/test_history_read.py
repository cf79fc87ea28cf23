from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pfw.model.address import IPV4_LAST, IPV6_FIRST, IPV6_LAST, as_int
from pfw.model.flow import Direction
from pfw.model.history import By, Entry, Finish, FirstSeen, Group, New, Noticed, Query, Subject, Total, Traffic
from pfw.model.observation import Kind
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.record import history_read, history_sums
from pfw.record.history import History, next_id
from pfw.record.history_read import HistoryError, open_history

NOON = 1795399200.0
STOPS = (Action.BLOCK, Action.REJECT)
REMOTES = [bytes([192, 0, 2, last]) for last in range(5)] + [bytes(15) + bytes([last]) for last in range(3)]
NAMES = [None, "example.org", "www.example.org", "badexample.org", "host"]
PROGRAMS = [None, "/usr/bin/curl", "/opt/x/curl", "/usr/bin/ssh", "kworker", "/odd/\udcff"]


def subjects() -> st.SearchStrategy[Subject]:
    return st.builds(
        Subject,
        direction=st.sampled_from(Direction),
        protocol=st.sampled_from([6, 17, 1]),
        local=st.sampled_from([b"\x0a\0\0\1", bytes(16)]),
        port=st.sampled_from([None, 0, 22, 443, 65535]),
        icmp_type=st.sampled_from([None, 0, 8]),
        interface=st.sampled_from([None, "eth0"]),
        program=st.sampled_from(PROGRAMS),
        uid=st.sampled_from([None, 0, 1000]),
        user=st.sampled_from([None, "root", "anna", "1000"]),
        unit=st.sampled_from([None, "/a.scope"]),
        certainty=st.sampled_from([None, *Certainty]),
        action=st.sampled_from(Action),
        rule=st.sampled_from([None, "ssh", "näch\0ste", "(default)"]),
    )


def times() -> st.SearchStrategy[float]:
    """Some hours in microseconds that a float can tell apart, and one of a clock that was wrong."""
    near = st.integers(0, 4 * 3600 * 10**6).map(lambda micro: (int(NOON) * 10**6 + micro) / 1e6)
    return near | st.just(NOON + 10**8 + 0.25)


COUNTS = st.integers(0, 10**12)
TRAFFIC = st.builds(Traffic, COUNTS, COUNTS, COUNTS, COUNTS)


@st.composite
def histories(draw: st.DrawFn) -> list[Entry]:
    found, last = [], 0
    for subject, start, took, closed in draw(
        st.lists(st.tuples(st.sampled_from(draw(st.lists(subjects(), min_size=1, max_size=6))), times(),
                           st.integers(0, 10**9), st.booleans()), max_size=25)
    ):  # fmt: skip
        last = next_id(last, start)
        found.append(
            Entry(
                id=last,
                subject=subject,
                remote=draw(st.sampled_from(REMOTES)),
                start=start,
                end=(round(start * 1e6) + took) / 1e6 if closed else None,
                from_port=draw(st.sampled_from([None, 0, 40000])),
                name=draw(st.sampled_from(NAMES)),
                traffic=draw(TRAFFIC),
                count=draw(st.integers(1, 1000)),
            )
        )
    return found


def ranges() -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    few = st.lists(
        st.sampled_from([*map(as_int, REMOTES), 0, IPV4_LAST, IPV6_FIRST, IPV6_LAST]), min_size=2, max_size=2
    )
    one_family = few.map(sorted).filter(lambda pair: (pair[0] <= IPV4_LAST) == (pair[1] <= IPV4_LAST))
    return st.lists(one_family.map(tuple), max_size=20).map(tuple)  # type: ignore[arg-type, return-value]


def queries() -> st.SearchStrategy[Query]:
    return st.builds(
        Query,
        since=st.none() | times(),
        until=st.none() | times(),
        program=st.sampled_from([None, None, "curl", "/usr/bin/curl", "/usr/*", "*ss*", "c*l", "kworker", "nothing"]),
        user=st.sampled_from([None, None, "anna", "1000", "0"]),
        remotes=st.just(()) | ranges(),
        name=st.sampled_from([None, None, "example.org", "EXAMPLE.org.", "host", "org", "ample.org"]),
        port=st.sampled_from([None, None, 0, 443]),
        protocol=st.sampled_from([None, None, 6]),
        direction=st.sampled_from([None, None, *Direction]),
        blocked=st.sampled_from([None, None, True, False]),
        rule=st.sampled_from(
            [None, None, "ssh", "näch\0ste", "s", "(default)", "default", "default in", "default out"]
        ),
    )


def fits_program(wanted: str, program: str | None) -> bool:
    """By looking at every way to cut the text."""
    if program is None:
        return False
    if "/" not in wanted:
        program = program.split("/")[-1]
    first, star, rest = wanted.partition("*")
    if not star:
        return program == wanted
    if not program.startswith(first):
        return False
    tail = program[len(first) :]
    return any(fits_program("/" + rest, "/" + tail[cut:]) for cut in range(len(tail) + 1))


def fits_rule(wanted: str, subject: Subject) -> bool:
    """As screens call it: a rule may be named like all defaults, but not like one."""
    if subject.rule is None:
        return wanted in ("default", "(default)", f"default {subject.direction}")
    return subject.rule == wanted


def fits(query: Query, entry: Entry) -> bool:
    subject, name = entry.subject, entry.name
    wanted = None if query.name is None else query.name.lower().strip(".")
    return (
        (query.since is None or entry.start >= query.since)
        and (query.until is None or entry.start < query.until)
        and (query.program is None or fits_program(query.program, subject.program))
        and (query.user is None or query.user in (subject.user, str(subject.uid)))
        and (not query.remotes or any(low <= as_int(entry.remote) <= high for low, high in query.remotes))
        and (wanted is None or (name is not None and (name == wanted or name.endswith("." + wanted))))
        and (query.port is None or subject.port == query.port)
        and (query.protocol is None or subject.protocol == query.protocol)
        and (query.direction is None or subject.direction is query.direction)
        and (query.blocked is None or (subject.action in STOPS if query.blocked else subject.action is Action.ALLOW))
        and (query.rule is None or fits_rule(query.rule, subject))
    )


def added(entries: Iterable[Entry]) -> tuple[int, Traffic, float, float]:
    found = list(entries)
    carried = [
        sum(getattr(entry.traffic, field) for entry in found)
        for field in ("sent_bytes", "sent_packets", "received_bytes", "received_packets")
    ]
    starts = [entry.start for entry in found]
    return sum(entry.count for entry in found), Traffic(*carried), min(starts), max(starts)


def key_of(entry: Entry, by: By) -> str | bytes | int | None:
    subject = entry.subject
    hour = int(entry.start) // 3600 * 3600
    user = subject.uid if subject.user is None else subject.user
    return {
        By.PROGRAM: subject.program, By.REMOTE: entry.remote, By.NAME: entry.name, By.PORT: subject.port,
        By.RULE: subject.rule, By.USER: user, By.HOUR: hour,
    }[by]  # fmt: skip


def totals(entries: list[Entry], by: By) -> dict[str | bytes | int | None, Total]:
    found = {}
    for key in {key_of(entry, by) for entry in entries}:
        here = [entry for entry in entries if key_of(entry, by) == key]
        count, traffic, first, last = added(here)
        blocked = sum(entry.count for entry in here if entry.subject.action in STOPS)
        found[key] = Total(key, count, blocked, traffic, first, last)
    return found


def keep(path: Path, entries: list[Entry]) -> None:
    history = History(str(path))
    history.write(entries)
    history.commit()
    history.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@given(histories())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_an_earlier_life_left_open(path: Path, entries: list[Entry]) -> None:
    path.unlink(missing_ok=True)
    keep(path, entries)
    still_open = [entry for entry in entries if entry.end is None and entry.subject.action not in STOPS]
    with open_history(path) as reader:
        assert reader.unfinished(1000) == still_open[::-1]
        assert reader.unfinished(1) == still_open[::-1][:1]
        assert reader.last_id() == max((entry.id for entry in entries), default=0)


@given(histories(), queries())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_those_of_a_list(path: Path, entries: list[Entry], query: Query) -> None:
    path.unlink(missing_ok=True)
    keep(path, entries)
    expected = [entry for entry in entries if fits(query, entry)]
    with open_history(path) as reader:
        assert list(reader.entries(query)) == expected
        assert list(reader.entries(query, newest_first=True)) == expected[::-1]
        assert list(reader.entries(query, limit=2)) == expected[:2]
        middle = entries[len(entries) // 2].id if entries else 7
        assert list(reader.entries(query, after=middle)) == [entry for entry in expected if entry.id > middle]
        for by in By:
            found = reader.totals(query, by)
            assert {total.key: total for total in found} == totals(expected, by)
            order = [total.key for total in found] if by is By.HOUR else [-total.count for total in found]
            assert order == sorted(order)  # type: ignore[type-var]
            assert reader.totals(query, by, limit=1) == found[:1]
        assert reader.tables(query, dict.fromkeys(By)) == {by: reader.totals(query, by) for by in By}
        assert reader.tables(query, dict.fromkeys(By, 1)) == {by: reader.totals(query, by, limit=1) for by in By}
        groups = {(group.subject, group.remote, group.name): group for group in reader.groups(query)}
    assert len(groups) == len({(entry.subject, entry.remote, entry.name) for entry in expected})
    for (subject, remote, name), group in groups.items():
        here = [e for e in expected if (e.subject, e.remote, e.name) == (subject, remote, name)]
        assert group == Group(subject, remote, name, *added(here))


@given(histories())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_comes_back_however_it_was_told(path: Path, entries: list[Entry]) -> None:
    """At once, or its beginning first."""
    path.unlink(missing_ok=True)
    with closing(History(str(path))) as history:
        history.write([replace(entry, end=None, traffic=Traffic()) for entry in entries])
        history.commit()
        history.finish([Finish(entry.id, entry.end, entry.traffic) for entry in entries[::2]])
        history.commit()
        history.finish([Finish(entry.id, entry.end, entry.traffic) for entry in entries[1::2]])
        history.commit()
        with open_history(path) as reader:
            assert list(reader.entries(Query())) == entries
            spans = [entry.start for entry in entries]
            assert reader.span() == ((min(spans), max(spans)) if entries else None)


def some(count: int, subject: Subject | None = None) -> list[Entry]:
    plain = Subject(direction=Direction.OUT, protocol=6, local=b"\x0a\0\0\1", port=443, action=Action.ALLOW)
    return [
        Entry(
            id=next_id(0, NOON + number),
            subject=subject or plain,
            remote=number.to_bytes(4),
            start=NOON + number,
            end=NOON + number + 1,
        )
        for number in range(count)
    ]


def test_reading_goes_on_in_pieces_while_it_is_written(path: Path) -> None:
    """No piece holds the log: it can be begun anew while somebody is in the middle of an answer."""
    entries = some(3000)
    with closing(History(str(path))) as history:
        history.write(entries[:2000])
        history.commit()
        with open_history(path) as reader:
            answer = reader.entries(Query())
            assert next(answer) == entries[0]
            history.write(entries[2000:])
            history.commit()
            with closing(sqlite3.connect(path)) as other:
                assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            assert list(answer) == entries[1:]


def test_the_newest_are_read_on_without_those_before(path: Path) -> None:
    entries = some(10)
    with closing(History(str(path))) as history, open_history(path) as reader:
        history.write(entries[:5])
        history.commit()
        assert list(reader.entries(Query())) == entries[:5]
        history.write(entries[5:])
        history.commit()
        assert list(reader.entries(Query(), after=entries[4].id)) == entries[5:]


def test_tables_that_are_asked_for_at_once_agree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written between them is in none of them; sums that several are made of are made once."""
    entries, asked = some(100), []
    with closing(History(str(path))) as history, open_history(path) as reader:
        history.write(entries[:50])
        history.commit()
        left = iter(entries[50:])

        def added_up(file, key, *more):  # type: ignore[no-untyped-def]
            asked.append(key)
            history.write([next(left)])
            history.commit()
            return history_sums.added_up(file, key, *more)

        monkeypatch.setattr(history_read, "added_up", added_up)
        found = reader.tables(Query(), dict.fromkeys((By.PROGRAM, By.REMOTE, By.RULE, By.HOUR)))
        assert {by: sum(each.count for each in totals) for by, totals in found.items()} == dict.fromkeys(found, 50)
        assert asked == [history_sums.BY_SUBJECT, history_sums.BY_REMOTE, history_sums.BY_HOUR]
        assert sum(each.count for each in reader.totals(Query(), By.PORT)) == 53


def test_many_ranges_ask_a_function(path: Path) -> None:
    keep(path, some(100))
    wanted = tuple((number, number) for number in range(0, 100, 2))
    with open_history(path) as reader:
        found = [as_int(entry.remote) for entry in reader.entries(Query(remotes=wanted))]
        assert found == list(range(0, 100, 2))
        assert [total.count for total in reader.totals(Query(remotes=wanted[:20]), By.PORT)] == [20]


def test_what_was_seen_first_and_alerts(path: Path) -> None:
    alert = Noticed(
        time=NOON, kind=Kind.PORT_SCAN, source=b"\x0a\0\0\2", target=None, first=NOON - 9.5, last=NOON, score=80,
        evidence="22 ports\x1b[31m in 3 s", program="/usr/sbin/sshd", response="banned for 1h",
    )  # fmt: skip
    later = replace(alert, time=NOON - 50, source=None, program=None)
    with closing(History(str(path))) as history:
        history.note([alert])
        history.note([later])
        history.first_seen(
            [FirstSeen(NOON + 1, New.PROGRAM, "/usr/bin/curl"), FirstSeen(NOON, New.LISTENER, "tcp [::]:22", "sshd")]
        )
        history.commit()
        history.first_seen(
            [FirstSeen(NOON + 9, New.PROGRAM, "/usr/bin/curl"), FirstSeen(NOON + 3, New.REMOTE, "\udcfe")]
        )
        history.commit()
    with open_history(path) as reader:
        assert reader.alerts() == [alert, later]
        assert reader.alerts(NOON) == [alert]
        first, found = reader.alerts_after(0, NOON - 60)
        assert found == [alert, later]
        assert reader.alerts_after(first) == (first, [])
    with closing(History(str(path))) as history, open_history(path) as reader:
        history.note([replace(alert, time=1.0)])
        history.commit()
        last, found = reader.alerts_after(first)
        assert (last > first, found) == (True, [replace(alert, time=1.0)])
        assert reader.alerts_after(first, NOON) == (last, [])
    with open_history(path) as reader:
        seen = [
            FirstSeen(NOON, New.LISTENER, "tcp [::]:22", "sshd"),
            FirstSeen(NOON + 1, New.PROGRAM, "/usr/bin/curl"),
            FirstSeen(NOON + 3, New.REMOTE, "\udcfe"),
        ]
        assert reader.first_seen() == seen
        assert reader.first_seen(NOON + 1) == seen[1:]
        assert reader.first_seen(NOON, New.PROGRAM) == seen[1:2]


@pytest.mark.parametrize("statement", ["DELETE FROM connection", "CREATE TABLE more(x)", "PRAGMA user_version = 9"])
def test_a_reader_cannot_write(path: Path, statement: str) -> None:
    keep(path, some(1))
    with open_history(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._file.execute(statement)


def test_it_is_read_without_the_daemon_after_it_was_killed(path: Path, tmp_path: Path) -> None:
    """The log that nobody brought into the file is read, too."""
    history = History(str(path))
    history.write(some(3))
    history.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("history.db", "history.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    history.close()
    with open_history(killed / "history.db") as reader:
        assert list(reader.entries(Query())) == some(3)


def broken(kind: str, path: Path) -> None:
    keep(path, some(2000))
    data = bytearray(path.read_bytes())
    match kind:
        case "link":
            path.rename(path.with_name("real"))
            path.symlink_to(path.with_name("real"))
        case "folder":
            path.unlink()
            path.mkdir()
        case "gone":
            path.unlink()
        case "text":
            path.write_text("hello " * 1000)
        case "empty":
            path.write_bytes(b"")
        case "foreign":
            path.unlink()
            with closing(sqlite3.connect(path)) as other:
                other.execute("CREATE TABLE x(y)")
        case "newer":
            data[60:64] = (7).to_bytes(4)
            path.write_bytes(data)
        case "cut":
            path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("link", "is no regular file"),
        ("folder", "is no regular file"),
        ("gone", "is not there"),
        ("text", "is not a history of pfw"),
        ("empty", "is not a history of pfw"),
        ("foreign", "is not a history of pfw"),
        ("newer", "is of version 7 and this pfw knows 1 only: use the pfw that wrote it"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(path: Path, kind: str, words: str) -> None:
    broken(kind, path)
    with pytest.raises(HistoryError, match=words) as caught:
        open_history(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def everything(path: Path) -> Iterator[object]:
    with open_history(path) as reader:
        yield from reader.entries(Query(program="*"))
        for by in By:
            yield from reader.totals(Query(), by)
        yield from reader.groups(Query())
        yield from reader.first_seen()
        yield from reader.alerts()
        yield reader.span()


def test_a_file_that_was_cut_is_damaged(path: Path) -> None:
    broken("cut", path)
    with pytest.raises(HistoryError, match="is damaged"):
        list(everything(path))


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_raise_nothing_else(path: Path, flips: list[tuple[int, int]]) -> None:
    kept = path.with_name("kept")
    if not kept.exists():
        keep(kept, [replace(entry, name=f"host-{entry.id % 50}") for entry in some(300)])
    data = bytearray(kept.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    path.write_bytes(data)
    with suppress(HistoryError):
        list(everything(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_only_root_may_read(path: Path) -> None:
    keep(path, some(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in (path.parent, *path.parent.parents[:2]):
        folder.chmod(0o755)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setuid(65534)
            open_history(path)
        except HistoryError as error:
            code = 0 if "only root may, use sudo" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
