from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from pfw.model.flow import Direction
from pfw.model.history import Entry, Finish, FirstSeen, New, Noticed, Query, Subject, Traffic
from pfw.model.observation import Kind
from pfw.model.verdict import Action
from pfw.record.history import History
from pfw.record.history_read import open_history
from pfw.record.history_writer import HistoryWriter

Tell = Callable[[str], None]
NOON = 1795399200.0
OUT = Subject(
    direction=Direction.OUT, protocol=6, local=b"\x0a\0\0\1", port=443, program="/usr/bin/x", action=Action.ALLOW
)
SOURCE = str(Path(__file__).parents[2] / "src")
NEVER_WAITS_S = 0.5
"""Far more than a call takes, far less than what a disk is waited for: this machine may be busy."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def entries(writer: HistoryWriter, count: int, start: float = NOON) -> list[Entry]:
    return [
        Entry(id=writer.next_id(start), subject=OUT, remote=number.to_bytes(4), start=start) for number in range(count)
    ]


def kept(path: Path) -> list[Entry]:
    with open_history(path) as reader:
        return list(reader.entries(Query()))


def longest(work: Callable[[], object], times: int) -> float:
    """The longest that one call took."""
    most = 0.0
    for _ in range(times):
        before = time.monotonic()
        work()
        most = max(most, time.monotonic() - before)
    return most


def test_everything_gets_there(path: Path) -> None:
    writer = HistoryWriter(str(path))
    found = entries(writer, 100)
    writer.write(found)
    writer.finish([Finish(found[0].id, NOON + 3, Traffic(1, 2, 3, 4))])
    assert writer.flush()
    writer.finish([Finish(found[1].id, NOON + 4, Traffic(5, 6, 7, 8))])
    writer.first_seen([FirstSeen(NOON, New.PROGRAM, "/usr/bin/x")])
    alert = Noticed(
        time=NOON, kind=Kind.SWEEP, source=None, target=None, first=NOON, last=NOON, score=1, evidence="many"
    )
    writer.note([alert])
    writer.close()
    found[0] = replace(found[0], end=NOON + 3, traffic=Traffic(1, 2, 3, 4))
    found[1] = replace(found[1], end=NOON + 4, traffic=Traffic(5, 6, 7, 8))
    assert kept(path) == found
    with open_history(path) as reader:
        assert reader.alerts() == [alert]
        assert len(reader.first_seen()) == 1
    assert (writer.written, writer.lost, writer.off) == (104, 0, "closed")


def test_it_commits_without_being_asked(path: Path) -> None:
    writer = HistoryWriter(str(path))
    writer.write(entries(writer, 3))
    until = time.monotonic() + 10
    while writer.written < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(kept(path)) == 3
    writer.close()


HOLD = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the file locked, and is stopped."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.kill()


def test_whoever_gives_never_waits_for_the_disk(path: Path, told: list[str], tell: Tell) -> None:
    writer = HistoryWriter(str(path), tell=tell, things_most=2000)
    assert writer.flush()
    with holder(path):
        most = longest(lambda: writer.write(entries(writer, 10)), 300)
        assert not writer.flush(0.1)
        assert most < NEVER_WAITS_S
        assert writer.lost == 1000
        (line,) = told
        assert "10 things were not written so far" in line
    assert writer.flush(20)
    assert (writer.written, len(kept(path))) == (2000, 2000)
    writer.write(entries(writer, 1))
    writer.close()
    assert len(kept(path)) == 2001


def test_memory_is_bounded_by_bytes(path: Path, told: list[str], tell: Tell) -> None:
    writer = HistoryWriter(str(path), tell=tell, bytes_most=100_000)
    assert writer.flush()
    with holder(path):
        long = [replace(each, name="x" * 10_000) for each in entries(writer, 50)]
        for each in long:
            writer.write([each])
        assert 40 <= writer.lost < 50
    writer.close()
    assert len(kept(path)) == 50 - writer.lost


def test_closing_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(History, "commit", lambda history: goes_on.wait(60))
    writer = HistoryWriter(str(path))
    writer.write(entries(writer, 7))
    before = time.monotonic()
    writer.close(0.2)
    assert time.monotonic() - before < 5
    goes_on.set()
    assert writer.lost == 7


def test_a_newer_version_turns_it_off(path: Path, told: list[str], tell: Tell) -> None:
    History(str(path)).close()
    data = bytearray(path.read_bytes())
    data[60:64] = (9).to_bytes(4)
    path.write_bytes(data)
    writer = HistoryWriter(str(path), tell=tell)
    writer.write(entries(writer, 5))
    assert writer.flush()
    writer.write(entries(writer, 5))
    assert writer.off is not None
    assert told == [writer.off]
    assert "is of version 9" in writer.off
    writer.close()
    assert writer.lost == 10
    assert path.read_bytes() == data


def test_what_cannot_be_written_at_all_is_given_up(path: Path, told: list[str], tell: Tell) -> None:
    writer = HistoryWriter(str(path), tell=tell)
    assert writer.flush()
    writer.write([replace(each, remote="text") for each in entries(writer, 2)])  # type: ignore[arg-type]
    assert writer.flush(20)
    assert writer.lost == 2
    writer.write(entries(writer, 3))
    writer.close(20)
    assert len(kept(path)) == 3
    assert len(told) == 2
    assert "cannot write" in told[0]


def test_a_folder_that_comes_later(
    tmp_path: Path, told: list[str], tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfw.record.trouble.RETRY_S", 0.1)
    path = tmp_path / "later" / "history.db"
    writer = HistoryWriter(str(path), tell=tell)
    writer.write(entries(writer, 5))
    assert not writer.flush(0.7)
    path.parent.mkdir()
    assert writer.flush(20)
    writer.close()
    assert len(kept(path)) == 5
    assert told[0].endswith("cannot write: No such file or directory; what is lost is counted")


KILLED = """
import sys, time
from pfw.model.flow import Direction
from pfw.model.history import Entry, Finish, Subject, Traffic
from pfw.model.verdict import Action
from pfw.record.history_writer import HistoryWriter
writer = HistoryWriter(sys.argv[1], budget_bytes=8 << 20, tell=lambda line: print("told", line, flush=True))
number = int(sys.argv[2])
while True:
    ids = []
    for _ in range(20):
        number += 1
        start = time.time()
        subject = Subject(direction=Direction.OUT, protocol=6, local=bytes(4), port=number % 900, action=Action.ALLOW)
        ids.append(writer.next_id(start))
        writer.write([Entry(id=ids[-1], subject=subject, remote=number.to_bytes(4), start=start)])
    writer.finish([Finish(each, time.time(), Traffic(1, 1, 1, 1)) for each in ids[::2]])
    print(number, time.monotonic(), flush=True)
    time.sleep(0.01)
"""


def test_kill_9_loses_the_last_second_at_most(path: Path) -> None:
    chance, number = random.Random(7), 0
    lost: set[int] = set()
    for turn in range(5):
        command = [sys.executable, "-P", "-c", KILLED, str(path), str(number)]
        with subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.split()[0].isdigit(), first
            time.sleep(1.5 + chance.random() * 1.5)  # it is the moment that is the test
            process.kill()
            killed_at = time.monotonic()
            lines = [first, *process.stdout.read().splitlines()]
        told = [line for line in lines if line.startswith("told")]
        given = [line.split() for line in lines if line and line[0].isdigit() and len(line.split()) == 2]
        # On a busy machine the thread may get its turn a little later than after half a second.
        safe = [int(each) for each, at in given if float(at) < killed_at - 1.2]
        number = int(given[-1][0])
        assert told == []
        with closing(sqlite3.connect(path)) as file:
            if turn % 2:
                assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {int.from_bytes(each.remote) for each in kept(path)}
        assert safe
        assert found >= set(range(1, safe[-1] + 1)) - lost
        lost = set(range(1, number + 1)) - found


FULL_DISK = """
import os, resource, subprocess, sys, time
from pathlib import Path
import pfw.record.trouble
from pfw.model.flow import Direction
from pfw.model.history import By, Entry, Query, Subject
from pfw.model.verdict import Action
from pfw.record.history_read import open_history
from pfw.record.history_writer import HistoryWriter

pfw.record.trouble.RETRY_S = 0.1
folder, kind = Path(sys.argv[1]), sys.argv[2]
path, ballast = folder / "history.db", folder / "ballast"
if kind == "disk":
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=28m", "none", folder], check=True)
told = []
writer = HistoryWriter(str(path), tell=told.append, things_most=5000)
subject = Subject(direction=Direction.OUT, protocol=6, local=bytes(4), port=443, action=Action.ALLOW)
given = 0

def give(count, patience_s):
    global given
    for _ in range(count):
        start = time.time()
        writer.write([
            Entry(id=writer.next_id(start), subject=subject, remote=os.urandom(16), start=start, end=start)
            for _ in range(1000)
        ])
        given += 1000
        writer.flush(patience_s)

give(450 if kind == "disk" else 5, 20)
assert not writer.lost or told, (writer.lost, told)
if kind == "disk":
    assert (writer.lost, told) == (0, []), (writer.lost, told)  # room was made within the file
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
give(30, 0.3)
said = len(told)
ballast.unlink(missing_ok=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert writer.flush(20)
before = writer.lost
give(2, 20)
assert writer.flush(20)
assert writer.lost == before
writer.close()
with open_history(path) as reader:
    kept = sum(total.count for total in reader.totals(Query(), By.HOUR))
    newest = list(reader.entries(Query(), newest_first=True, limit=2000))
assert kept + writer.lost == given, (kept, writer.lost, given)
assert all(not each.period_s for each in newest)
assert said <= 3, told
print(writer.lost > 0, any("cannot write" in line for line in told), any("writing again" in line for line in told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
@pytest.mark.parametrize(("kind", "is_told"), [("disk", ""), ("limit", "True True True")])
def test_a_full_disk_costs_what_does_not_fit_and_no_more(tmp_path: Path, kind: str, is_told: str) -> None:
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL_DISK, str(tmp_path), kind]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr and "permission denied" in done.stderr:
        pytest.skip("may not mount here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(is_told)
