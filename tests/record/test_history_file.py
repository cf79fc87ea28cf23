from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfw.model.flow import Direction
from pfw.model.history import Entry, FirstSeen, New, Query, Subject
from pfw.model.verdict import Action
from pfw.record import history_file
from pfw.record.history import History, next_id
from pfw.record.history_file import BROKEN_MOST
from pfw.record.history_read import HistoryError, open_history
from pfw.record.history_schema import FILE, VERSION

Tell = Callable[[str], None]
NOON = 1795399200.0
OUT = Subject(
    direction=Direction.OUT, protocol=6, local=b"\x0a\0\0\1", port=443, program="/usr/bin/x", action=Action.ALLOW
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


def some(count: int, begin: float = NOON) -> list[Entry]:
    return [
        Entry(
            id=next_id(0, begin + number), subject=OUT, remote=number.to_bytes(4), start=begin + number,
            end=begin + number + 1, name=f"host-{number % 50}.example",
        )
        for number in range(count)
    ]  # fmt: skip


def keep(path: Path, entries: list[Entry], tell: Tell = lambda _: None) -> None:
    with closing(History(str(path), tell=tell)) as history:
        history.write(entries)
        history.first_seen([FirstSeen(NOON, New.REMOTE, entry.remote.hex()) for entry in entries])
        history.commit()
        history.tend(NOON)


def kept(path: Path) -> list[Entry]:
    with open_history(path) as reader:
        return list(reader.entries(Query()))


def aside(path: Path) -> list[Path]:
    return sorted(
        each for each in path.parent.iterdir() if re.fullmatch(FILE + r"\.broken-\d{8}T\d{6}Z(-\d+)?", each.name)
    )


def test_it_and_what_is_beside_it_are_for_root_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(History(str(path))) as history:
            history.write(some(1))
            history.commit()
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600, f"{FILE}-reserve": 0o600}


def test_a_mode_that_somebody_widened_is_set_back(path: Path) -> None:
    keep(path, some(1))
    path.chmod(0o666)
    keep(path, [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_on_with_what_is_there(path: Path, told: list[str], tell: Tell) -> None:
    keep(path, some(3), tell)
    keep(path, some(2, NOON + 100), tell)
    assert kept(path) == some(3) + some(2, NOON + 100)
    assert told == []
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert file.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert file.execute("PRAGMA user_version").fetchone() == (VERSION,)


def spoil(kind: str, path: Path) -> None:
    """Put something in its place that is no history."""
    keep(path, some(2000))
    data = path.read_bytes()
    match kind:
        case "header":
            path.write_bytes(os.urandom(100) + data[100:])
        case "magic only":
            path.write_bytes(data[:16])
        case "cut":
            path.write_bytes(data[: len(data) // 2 + 100])
        case "zeros":
            path.write_bytes(data[:4096] + bytes(len(data) - 4096))
        case "text":
            path.write_text("hello\n")
        case "foreign":
            path.unlink()
            with closing(sqlite3.connect(path)) as file:
                file.execute("CREATE TABLE cookies(id, value)")
        case "other tables":
            with closing(sqlite3.connect(path)) as file:
                file.execute("CREATE TRIGGER t AFTER INSERT ON connection BEGIN DELETE FROM alert; END")
        case "folder":
            path.unlink()
            path.mkdir()
            (path / "inside").write_text("x")
        case "link":
            path.rename(path.with_name("secret"))
            path.symlink_to(path.with_name("secret"))
        case "fifo":
            path.unlink()
            os.mkfifo(path)


@pytest.mark.parametrize(
    "kind", ["header", "magic only", "cut", "zeros", "text", "foreign", "other tables", "folder", "link", "fifo"]
)
def test_what_is_no_history_is_put_aside(path: Path, told: list[str], tell: Tell, kind: str) -> None:
    spoil(kind, path)
    before = path.lstat().st_ino
    secret = path.with_name("secret")
    content = secret.read_bytes() if kind == "link" else b""
    with closing(History(str(path), tell=tell)) as history:
        history.write(some(5))
        history.commit()
        history.tend(NOON)
        history.write(some(5, NOON + 1000))
        history.commit()
    assert [each.lstat().st_ino for each in aside(path)] == [before]
    assert kept(path)[-5:] == some(5, NOON + 1000)
    (line,) = told
    assert str(aside(path)[0]) in line
    assert "\n" not in line
    if kind == "link":
        assert secret.read_bytes() == content


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "folder", "garbage"])
def test_what_lies_beside_it_is_not_trusted(path: Path, told: list[str], tell: Tell, side: str, kind: str) -> None:
    keep(path, some(3))
    beside, secret = Path(f"{path}{side}"), path.with_name("secret")
    secret.write_bytes(b"precious")
    if kind == "link":
        beside.symlink_to(secret)
    elif kind == "folder":
        beside.mkdir()
    else:
        beside.write_bytes(os.urandom(5000))
    keep(path, some(2, NOON + 100), tell)
    assert kept(path) == some(3) + some(2, NOON + 100)
    assert secret.read_bytes() == b"precious"


def test_a_log_without_its_file_brings_nothing_back(path: Path) -> None:
    with closing(History(str(path))) as history:
        history.write(some(3))
        history.commit()
        log = Path(f"{path}-wal").read_bytes()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    keep(path, some(1, NOON + 50))
    assert kept(path) == some(1, NOON + 50)


def test_only_the_last_broken_ones_are_kept(path: Path, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes = []
    for number in range(BROKEN_MOST + 2):
        path.write_text(f"broken {number}")
        inodes.append(path.stat().st_ino)
        keep(path, some(1), tell)
        for side in ("-wal", "-journal"):
            aside(path)[-1].with_name(aside(path)[-1].name + side).write_text("side")
    assert [each.read_text() for each in aside(path)] == [f"broken {number}" for number in range(2, BROKEN_MOST + 2)]
    assert len([each for each in path.parent.iterdir() if each.name.endswith("-wal")]) == BROKEN_MOST


def test_a_newer_version_is_left_as_it_is(path: Path, told: list[str], tell: Tell) -> None:
    keep(path, some(3))
    data = bytearray(path.read_bytes())
    data[60:64] = (VERSION + 1).to_bytes(4)
    path.write_bytes(data)
    before = path.stat()
    with pytest.raises(
        HistoryError, match=rf"is of version {VERSION + 1} and this pfw knows {VERSION} only: there is no"
    ):
        History(str(path), tell=tell)
    assert path.read_bytes() == data
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert [each.name for each in path.parent.iterdir()] == [FILE]
    assert told == []


def test_an_older_version_is_brought_here_or_left_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(path, some(3))
    monkeypatch.setattr(history_file, "VERSION", 2)
    monkeypatch.setattr(history_file, "STEPS", {1: "CREATE TABLE extra(x); CREATE TABLE text(x)"})
    with pytest.raises(HistoryError, match=r"from version 1 to 2 \(table text already exists\): there is no history"):
        History(str(path))
    assert kept(path) == some(3)  # by this version's reader
    monkeypatch.setattr(history_file, "STEPS", {1: "CREATE INDEX by_name ON connection(name)"})
    monkeypatch.setattr(history_file, "TABLES", history_file.TABLES + "CREATE INDEX by_name ON connection(name);")
    history_file._expected.cache_clear()
    try:
        keep(path, some(1, NOON + 9))
    finally:
        history_file._expected.cache_clear()
    with pytest.raises(HistoryError, match="is of version 2"):
        open_history(path)
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM connection").fetchone() == (4,)


def test_damage_that_comes_later_is_put_aside_then(path: Path, told: list[str], tell: Tell) -> None:
    keep(path, some(20_000))
    with closing(History(str(path), tell=tell)) as history, path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(path.stat().st_size - 4096 * 3))
        file.flush()
        assert history._file is not None
        history._file.execute("PRAGMA shrink_memory")  # what it has read it does not read again
        history.write(some(5, NOON + 10**6))
        history.commit()
        assert len(told) == 1
        assert "is damaged" in told[0]
        history.write(some(5, NOON + 10**6 + 50))
        history.commit()
    assert kept(path)[-5:] == some(5, NOON + 10**6 + 50)
    assert len(aside(path)) == 1


@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=60))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_never_stop_it(path: Path, flips: list[tuple[int, int]]) -> None:
    sound = path.with_name("sound")
    if not sound.exists():
        keep(sound, some(400))
    data = bytearray(sound.read_bytes())
    for at, value in flips:
        data[at % len(data)] = value
    for each in path.parent.iterdir():
        if each != sound:
            each.unlink()
    path.write_bytes(data)
    told: list[str] = []
    # Whoever says that the file is of a newer version may be mistaken, but not by accident more than once.
    with suppress(HistoryError), closing(History(str(path), budget_bytes=400 << 10, tell=told.append)) as history:
        for number in range(4):
            history.write(some(300, NOON + 1000 * (number + 1)))
            history.first_seen([FirstSeen(NOON, New.PROGRAM, f"/{number}")])
            history.commit()
            while history.tend(NOON + number):
                pass
    assert len(told) == len(aside(path)) <= 1
    try:
        kept(path)
    except HistoryError:
        # Then the next start finds it, too.
        with suppress(HistoryError):
            History(str(path), tell=told.append).close()
            assert kept(path) == []


def test_a_file_that_is_moved_away_is_made_anew(path: Path) -> None:
    with closing(History(str(path))) as history:
        history.write(some(3))
        history.commit()
        path.rename(path.with_name("moved"))
        history.tend(NOON + 10)
        history.write(some(2, NOON + 50))
        history.commit()
    assert kept(path) == some(2, NOON + 50)


def test_whoever_else_opens_it_does_not_take_its_log_away(path: Path) -> None:
    """Without its locks the next program that closes the file would delete the log, and what is in it."""
    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM connection').fetchone()"
    with closing(History(str(path))) as history:
        for number in range(3):
            history.write(some(10, NOON + 100 * number))
            history.commit()
            history.tend(NOON + 10 * number)
            with open_history(path):  # by this process too, as the observer does
                pass
            assert f":{path.stat().st_ino} " in Path("/proc/locks").read_text()
            subprocess.run([sys.executable, "-c", look, path], check=True)
            assert path.with_name(f"{FILE}-wal").exists()
        copy = path.with_name("copy")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:  # what others see while it is open
            assert file.execute("SELECT count(*) FROM connection").fetchone() == (30,)
            file.execute("VACUUM INTO ?", [str(copy)])
    assert len(kept(path)) == len(kept(copy)) == 30


def test_what_is_written_over_it_is_noticed(path: Path) -> None:
    """A second later, while SQLite's log still has what stood there."""
    with closing(History(str(path))) as history:
        history.write(some(3))
        history.commit()
        with path.open("r+b") as file:
            file.write(b"something else!!")
        history.tend(NOON + 10)
        assert path.read_bytes().startswith(b"SQLite format 3\0")
        history.write(some(2, NOON + 50))
        history.commit()
    assert kept(path) == some(3) + some(2, NOON + 50)
    assert aside(path) == []


@pytest.mark.parametrize("path_of", ["nowhere/history.db", "file/history.db"])
def test_where_there_is_no_folder_it_says_so(tmp_path: Path, path_of: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        History(str(tmp_path / path_of))
