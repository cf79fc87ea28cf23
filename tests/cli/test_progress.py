"""The progress bar: only on a terminal, only after a second, and gone in the end."""

from __future__ import annotations

import os
import threading
import time

import pytest

from pfw.cli import progress
from pfw.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until told."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_nothing_within_the_first_second(clock, capsys):
    bar = Progress(1000, shown=True)
    clock.now += 0.9
    bar.advance(900)
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_what_it_shows(clock, capsys):
    bar = Progress(200_000_000, shown=True)
    clock.now += 1.1
    bar.advance(50_000_000)
    bar.advance(50_000_000)  # too soon for another
    clock.now += 0.2
    bar.advance(50_000_000)
    clock.now += 0.2
    bar.advance(100_000_000)  # more than there is: the file has grown
    bar.close()
    out, err = capsys.readouterr()
    assert out == ""
    drawn = [each.removesuffix("\x1b[K") for each in err.split("\r")[1:]]
    assert drawn == [
        f"[{'#' * 8}{' ' * 22}]  25% of 200 MB",
        f"[{'#' * 22}{' ' * 8}]  75% of 200 MB",
        f"[{'#' * 30}] 100% of 200 MB",
        "",
    ]


@pytest.mark.parametrize("total", [None, 0])
def test_without_a_size(clock, capsys, total):
    bar = Progress(total, shown=True)
    clock.now += 2
    bar.advance(3_000_000)
    assert capsys.readouterr().err == "\rread 3 MB\x1b[K"


def test_not_where_nobody_sees_it(clock, capsys):
    bar = Progress(1000)
    clock.now += 5
    bar.advance(500)
    bar.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_a_replay_that_takes_a_while(kit, pfw, rules, tmp_path, terminal):
    """On a terminal something is shown, and taken away again; in a pipe it is silent."""
    os.mkfifo(tmp_path / "slow.pcap")
    data = kit.pcap(kit.traffic)

    def write():
        with (tmp_path / "slow.pcap").open("wb", buffering=0) as pipe:
            for at in range(0, len(data), 100):
                pipe.write(data[at : at + 100])
                time.sleep(1.6 / (len(data) / 100))

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    if terminal:
        shown = kit.on_a_terminal(tmp_path, "replay", "slow.pcap")
        assert b"\rread 0 MB\x1b[K" in shown
        assert b"\r\x1b[K10 packets (" in shown
    else:
        done = pfw("replay", "slow.pcap")
        assert (done.returncode, done.stderr) == (0, "")
    writer.join()
