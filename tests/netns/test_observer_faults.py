"""The observer dies, sleeps, has no room on the disk, finds its file broken or its clock changed.

No verdict waits for it, what it cannot keep is said, and it goes on.
"""

# ruff: noqa: F811

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.daemon_load import CURL, KNOWN, Load
from tests.netns.observer_lab import (
    CABLE,
    HERE,
    OPEN,
    THERE,
    WEB,
    Observed,
    connected,
    ip,
    knock,
    observed,  # noqa: F401
    serving,
)
from tests.netns.programs_lab import lab  # noqa: F401

from pfw.model.flow import Direction
from pfw.model.history import Entry
from pfw.model.verdict import Action

pytestmark = pytest.mark.xdist_group("observer faults")
ASKED = 9010


@pytest.fixture
def load(observed: Observed, net: Any) -> Load:
    return Load(observed.lab, net)


def policy(load: Load) -> dict[str, Any]:
    """As of the load, and somebody is asked about one port."""
    asked = {"name": "asked", "action": "ask", "direction": "out", "protocol": "tcp", "port": ASKED}
    return load.policy(asked)


def asks(observed: Observed, load: Load) -> float:
    """A new program is asked about; how long it took from the answer until it was through."""
    program = observed.lab.copy(CURL, f"curl-{time.monotonic_ns()}")
    with observed.lab.watching() as watcher:
        started = observed.lab.start(program, "-s", "-m", "15", f"http://{THERE}:{ASKED}/")
        prompt = watcher.next()
        begin = time.monotonic()
        observed.lab.answer(prompt.id, "allow")
        assert started.communicate(timeout=20)[0] == "yes"
        return time.monotonic() - begin


def recorded(observed: Observed, port: int) -> list[Entry]:
    return [each for each in observed.rows(port=port) if each.subject.action is Action.ALLOW]


def wait_for_all(observed: Observed, load: Load, port: int) -> None:
    """Every connection of the program that is allowed is in the history."""
    observed.lab.until(lambda: len(recorded(observed, port)) >= len(load.known), "all are recorded")


def check_once(rows: list[Entry]) -> None:
    """No connection and no id is there twice."""
    assert len({each.id for each in rows}) == len(rows)
    assert len({(each.subject.protocol, each.remote, each.from_port) for each in rows}) == len(rows)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_it_is_killed(observed: Observed, load: Load) -> None:
    observed.up(policy(load))
    with load.flowing():
        observed.lab.until(lambda: recorded(observed, KNOWN), "they are recorded")
        first, killed = observed.observer(), time.time()
        os.kill(first, signal.SIGKILL)
        assert asks(observed, load) < 2
        observed.heard("the observer has ended (status -9)")
        second = observed.observer()
        assert second != first
        observed.lab.until(lambda: recorded(observed, KNOWN)[-1].start > killed + 1, "it records again")
        time.sleep(0.3)
    load.check()
    rows = recorded(observed, KNOWN)
    assert [each for each in rows if killed - 1.0 < each.start < killed]
    check_once(rows)
    observed.lab.until(lambda: observed.counts().get("connection_events", 0) > 0, "it has counted")
    assert observed.counts()["observer_restarts"] == 1
    assert "the observer had ended" in observed.lab.pfw("doctor", status=None).stdout


def test_it_ends_with_the_daemon(observed: Observed) -> None:
    observed.up()
    pid = observed.observer()
    observed.lab.run(CURL, "-s", f"http://{THERE}:{WEB}/")
    observed.lab.end(signal.SIGKILL)
    observed.lab.until(lambda: is_gone(pid), "the observer ends, too")
    assert len(recorded(observed, WEB)) == 1


def test_it_sleeps(observed: Observed, load: Load) -> None:
    """No verdict waits for it, and all that happened meanwhile is in the history afterwards."""
    observed.up(policy(load))
    pid = observed.observer()
    os.kill(pid, signal.SIGSTOP)
    with load.flowing():
        assert max(asks(observed, load) for _ in range(2)) < 2
        time.sleep(1)
    before = len(recorded(observed, KNOWN))
    os.kill(pid, signal.SIGCONT)
    load.check()
    assert before == 0
    wait_for_all(observed, load, KNOWN)
    assert len(recorded(observed, ASKED)) == 2
    check_once(recorded(observed, KNOWN))
    assert len(recorded(observed, KNOWN)) == len(load.known)


_SMALL_BUFFER = """
from pfw.drivers import conntrack
make_room = conntrack.make_room
conntrack.make_room = lambda sock, _: make_room(sock, 1 << 16)
"""


def test_it_sleeps_for_too_long(observed: Observed) -> None:
    """What did not fit is counted, and said; what is still open is taken up, and what has ended has an end."""
    observed.altered(_SMALL_BUFFER)
    observed.up()
    with serving(observed.there, THERE, 9300) as server:
        early = connected(observed.here, THERE, 9300)
        server.accept()[0].close()
        observed.row(port=9300)
        pid = observed.observer()
        os.kill(pid, signal.SIGSTOP)
        done = observed.lab.run(CURL, "-s", "-Z", "-o", "/dev/null", f"http://{THERE}:{WEB}/[1-400]")
        assert done.returncode == 0
        early.close()
        late = connected(observed.here, THERE, 9300)
        os.kill(pid, signal.SIGCONT)
        observed.lab.until(lambda: observed.counts().get("connection_events_lost", 0), "it has lost some")
        observed.lab.until(lambda: len(observed.rows(port=9300)) == 2, "what began unseen is there")
        number = late.getsockname()[1]
        assert observed.row(lambda each: each.from_port == number).end is None
        late.close()
    assert 0 < len(recorded(observed, WEB)) <= 400
    assert "events of connections that came too fast" in observed.lab.pfw("doctor", status=None).stdout


def test_the_machine_sleeps_and_wakes_with_another_address(observed: Observed) -> None:
    observed.up()
    daemon = observed.lab.daemon
    assert daemon is not None
    pids = daemon.pid, observed.observer()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    ip("-n", observed.here.name, "link", "set", CABLE, "down")
    time.sleep(5)
    ip("-n", observed.here.name, "link", "set", CABLE, "up")
    ip("-n", observed.here.name, "addr", "add", "10.77.0.9/24", "dev", CABLE)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    knock(observed.there, "10.77.0.9", 9400)
    knock(observed.there, HERE, 9401)
    assert observed.lab.fetches(CURL, THERE)
    for port in (9400, 9401):
        assert observed.row(port=port).subject.direction is Direction.IN
    assert observed.row(port=WEB).subject.direction is Direction.OUT
    ip("-n", observed.here.name, "addr", "add", "10.77.0.10/24", "dev", CABLE)
    knock(observed.there, "10.77.0.10", 9402)
    assert observed.row(port=9402).subject.direction is Direction.IN
    assert pids == (daemon.pid, observed.observer())
    assert not [line for line in observed.lab.said if "error" in line]


# -- the file


@contextmanager
def small_disk(observed: Observed, size: str) -> Iterator[None]:
    """The state folder is a file system of its own, which only the daemon and `pfw` in it see."""
    lab, usual = observed.lab, observed.lab.daemon_words
    state = lab.firewall.state
    state.mkdir()
    mount = f'mount -t tmpfs -o size={size} none {state} && exec "$@"'
    lab.daemon_words = lambda *words: ["unshare", "--mount", "sh", "-c", mount, "sh", *usual(*words)]  # type: ignore[method-assign]
    yield


def seen_by(observed: Observed) -> Path:
    """The state folder as the daemon has it."""
    assert observed.lab.daemon is not None
    return Path(f"/proc/{observed.lab.daemon.pid}/root{observed.lab.firewall.state}")


def test_the_disk_is_full(observed: Observed) -> None:
    observed.altered("import pfw.record.trouble as trouble\ntrouble.RETRY_S = 0.5")
    with small_disk(observed, "12m"):
        observed.lab.up(OPEN)
        folder = seen_by(observed)
        observed.mounts_of = observed.lab.daemon.pid if observed.lab.daemon is not None else None
        observed.observing()
        fill(folder / "filler")
        observed.lab.until(
            lambda: _fetch(observed) and any("cannot write" in line for line in observed.lab.said), "it says so"
        )
        assert "history" in observed.heard("cannot write")
        assert "full" in observed.heard("cannot write")
        begin = time.monotonic()
        assert _fetch(observed)
        assert time.monotonic() - begin < 1
        pid = observed.observer()
        (folder / "filler").unlink()
        before = time.time()
        observed.lab.until(
            lambda: _fetch(observed) and any(each.start > before for each in recorded(observed, WEB)), "it records"
        )
        assert observed.observer() == pid
        # What waited meanwhile is there, too.
        assert len(recorded(observed, WEB)) >= 3
        assert observed.heard("writing again, 0 lines were lost")


def _fetch(observed: Observed) -> bool:
    return observed.lab.fetches(CURL, THERE)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_the_file_is_broken_when_it_begins(observed: Observed) -> None:
    observed.lab.firewall.state.mkdir()
    observed.path.write_bytes(b"SQLite format 3\0" + os.urandom(100_000))
    observed.up()
    observed.heard("and a new history begins")
    assert _fetch(observed)
    assert observed.ended(port=WEB).traffic.sent_packets
    assert len(list(observed.path.parent.glob("history.db.broken-*"))) == 1


def test_the_file_is_broken_meanwhile(observed: Observed) -> None:
    observed.up()
    assert _fetch(observed)
    observed.ended(port=WEB)
    pid = observed.observer()
    for name in (observed.path, Path(f"{observed.path}-wal")):
        size = name.stat().st_size
        with name.open("r+b") as file:
            file.write(os.urandom(size))
    before = time.time()
    observed.lab.until(
        lambda: _fetch(observed) and any(each.start > before for each in recorded(observed, WEB)), "it records"
    )
    assert "broken-" in observed.heard("and a new history begins")
    assert observed.observer() == pid


def test_another_takes_the_file_away(observed: Observed) -> None:
    observed.up()
    for name in observed.path.parent.glob("history.db*"):
        name.unlink()
    before = time.time()
    observed.lab.until(
        lambda: _fetch(observed) and any(each.start > before for each in recorded(observed, WEB)), "it records"
    )


# -- the clock

_OTHER_CLOCK = """
import time
_real, _file = time.time, {path!r}
def _shifted():
    try:
        with open(_file) as file:
            return _real() + float(file.read() or 0)
    except OSError:
        return _real()
time.time = _shifted
"""


def test_the_clock_is_set(observed: Observed) -> None:
    """An hour forwards, and back: ids rise, connections have their ends, bans hold and end, and it goes on."""
    clock = observed.lab.folder / "clock"
    observed.altered(_OTHER_CLOCK.format(path=str(clock)), daemon=True)
    observed.up()
    daemon = observed.lab.daemon
    assert daemon is not None
    pids = daemon.pid, observed.observer()
    with serving(observed.there, THERE, 9300) as server:
        long = connected(observed.here, THERE, 9300)
        served = server.accept()[0]
        observed.row(port=9300)
        for shift in ("3600", "0", "-3600", "0"):
            put = clock.with_suffix(".new")
            put.write_text(shift)
            put.replace(clock)
            count = len(recorded(observed, WEB))
            assert _fetch(observed)
            observed.lab.until(lambda count=count: len(recorded(observed, WEB)) == count + 1, "it is recorded")
        long.close()
        served.close()
    entry = observed.ended(port=9300)
    assert (entry.end or 0) >= entry.start
    rows = observed.rows()
    assert [each.id for each in rows] == sorted({each.id for each in rows})
    web = recorded(observed, WEB)
    assert len(web) == 4
    assert max(each.start for each in web) - web[1].start > 3500
    observed.lab.until(lambda: all(each.end for each in recorded(observed, WEB)), "all have ended")
    assert pids == (daemon.pid, observed.observer())


def test_ends_find_their_rows_when_the_clock_is_back_at_a_start(observed: Observed) -> None:
    clock = observed.lab.folder / "clock"
    clock.write_text("3600")
    observed.altered(_OTHER_CLOCK.format(path=str(clock)), daemon=True)
    observed.up()
    with serving(observed.there, THERE, 9300) as server:
        long = connected(observed.here, THERE, 9300)
        served = server.accept()[0]
        before = observed.row(port=9300)
        assert observed.lab.end() == 0
        clock.write_text("0")
        observed.begin()
        assert _fetch(observed)
        long.sendall(bytes(5000))
        long.close()
        served.close()
    after = observed.ended(port=9300)
    assert after.id == before.id
    assert after.traffic.sent_bytes > 5000
    assert observed.ended(port=WEB).id > after.id
