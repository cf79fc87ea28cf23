"""Logins from a real journal with a real sshd, from a stand-in for journalctl that ends and starts, and from files."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfw.drivers import journal as module
from pfw.drivers.journal import Journal, LogFile, login_log
from pfw.model.address import format_address
from pfw.model.observation import LoginFailed, LoginSucceeded

LAB = Path(__file__).with_name("journal_lab.py")
SOURCE = Path(__file__).resolve().parents[2] / "src"
JOURNALD = "/lib/systemd/systemd-journald"
DEADLINE_S = 8.0


def wait_for(true, what):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """What `journal_lab.py` prints, by part."""
    if os.geteuid() != 0:
        pytest.skip("a journal of its own needs root")
    for program in (JOURNALD, "journalctl", "unshare", "logger", "setpriv", "sshd", "ssh"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    done = subprocess.run(
        ["unshare", "--mount", "--net", sys.executable, "-P", LAB, tmp_path_factory.mktemp("lab")],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    part, parts = "", {}
    for line in done.stdout.splitlines():
        if " " in line:
            parts[part].append(line)
        else:
            part = line
            parts[part] = []
    return parts


def test_only_who_is_root_and_sshd_counts(lab):
    assert lab["forged"] == ["LoginFailed root-by-sshd 203.0.113.4"]


def test_real_logins_at_a_real_sshd(lab):
    injected = "LoginFailed x from 10.0.0.1 port 22 ssh2 127.0.0.1"
    assert lab["logins"] == [
        *["LoginFailed root 127.0.0.1"] * 2,
        *[injected] * 2,
        "LoginFailed root 127.0.0.1",
        "LoginSucceeded root 127.0.0.1",
        *["LoginFailed somebody 127.0.0.1"] * 2,
        "LoginFailed the-last 203.0.113.5",
    ]


def entry(message, **changed):
    fields = {
        "__CURSOR": "s=1;i=4", "__REALTIME_TIMESTAMP": "1795561259631353", "_UID": "0", "_PID": "1", "_COMM": "sshd",
        "_EXE": "/usr/sbin/sshd", "MESSAGE": message, **changed,
    }  # fmt: skip
    return json.dumps({name: value for name, value in fields.items() if value is not None}) + "\n"


def wrong(user, **changed):
    return entry(f"Failed password for {user} from 203.0.113.9 port 41006 ssh2", **changed)


@pytest.fixture
def stub(tmp_path):
    """A stand-in for journalctl: it notes how it was called, prints a file that is there for its turn, and ends or
    stays as that says."""
    program = tmp_path / "journalctl"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        f"turn=$(wc -l < {tmp_path}/calls)\n"
        f"cat {tmp_path}/$turn 2> /dev/null\n"
        f"[ -e {tmp_path}/$turn.ends ] || exec sleep 60\n"
    )
    program.chmod(0o755)
    return tmp_path


@pytest.fixture
def follow(stub, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    with contextlib.ExitStack() as opened:

        def start(command=None):
            each = Journal(command or (str(stub / "journalctl"), "--follow"))
            opened.callback(each.close)
            return each

        yield start


def users(journal, count, told):
    def came():
        told.extend(journal.read())
        return len(told) >= count

    wait_for(came, f"{told}")
    return [each.user for each in told]


def test_what_counts_of_what_it_prints(stub, follow):
    lines = [
        wrong("one"),
        wrong("user", _UID="1000"),
        wrong("no-uid", _UID=None),
        wrong("other", _EXE="/usr/bin/logger", _COMM="sshd"),
        wrong("nameless-user", _EXE=None, _COMM=None, _UID="1000"),
        "-- Boot 1cf897592e7e4becb21ec5ece4ba9249 --\n",
        "{not json\n",
        json.dumps({"MESSAGE": "x" * 200_000}) + "\n",
        wrong("two", _EXE="/usr/lib/openssh/sshd-session", _PID="2"),
        wrong("three", _EXE=None, _COMM="dropbear", _PID="3"),
        wrong("ended", _EXE=None, _COMM=None, _PID="6"),
        entry("Accepted publickey for four from 203.0.113.9 port 4 ssh2: RSA SHA256:x", _PID="4"),
        entry(list(b"Failed password for five\xff from 203.0.113.9 port 4 ssh2"), _PID="5"),
    ]
    (stub / "1").write_text("".join(lines))
    told = []
    assert users(follow(), 6, told) == ["one", "two", "three", "ended", "four", "five\\xff"]
    assert [type(each) for each in told] == [LoginFailed] * 4 + [LoginSucceeded, LoginFailed]
    assert {each.time for each in told} == {1795561259.631353}
    assert {format_address(each.source) for each in told} == {"203.0.113.9"}


def test_its_descriptor_is_readable_when_there_is_something(stub, follow):
    (stub / "1").write_text(wrong("one"))
    journal = follow()
    assert select.select([journal], [], [], DEADLINE_S)[0]
    assert users(journal, 1, []) == ["one"]
    assert not select.select([journal], [], [], 0)[0]


def test_it_is_started_again_with_growing_patience(stub, follow):
    for turn in (1, 2, 3):
        # A line that is not complete when it ends is no beginning of the next one.
        (stub / str(turn)).write_text(wrong(f"user{turn}", _PID=str(turn)) + '{"MESSAGE":"half')
        (stub / f"{turn}.ends").touch()
    (stub / "4").write_text(wrong("the-last", _PID="9"))
    journal = follow()
    fd = journal.fileno()
    began = time.monotonic()
    assert users(journal, 4, []) == ["user1", "user2", "user3", "the-last"]
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2
    assert journal.fileno() == fd
    assert journal.restarts == 3
    assert "has ended with status 0" in journal.trouble
    calls = (stub / "calls").read_text().splitlines()
    times = [float(call.removeprefix("--follow --since=@")) for call in calls]
    assert times == sorted(times)
    assert abs(times[0] - time.time()) < 60


def test_a_journalctl_that_is_missing(follow, tmp_path):
    journal = follow((str(tmp_path / "nothing"),))
    assert journal.read() == []
    assert journal.trouble == f"{tmp_path}/nothing cannot be started: No such file or directory"
    wait_for(lambda: journal.read() == [] and journal.restarts >= 2, "it tries again")


def test_it_ends_with_us(stub):
    journal = Journal((str(stub / "journalctl"),))
    wait_for((stub / "calls").exists, "it has begun")
    process = journal._process
    journal.close()
    assert process.returncode is not None


def syslog(message, pid=1, tag="sshd"):
    return f"Nov 24 22:57:22 host {tag}[{pid}]: {message}\n"


FAILED = "Failed password for {} from 203.0.113.9 port 41006 ssh2"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "auth.log"
    path.write_text(syslog(FAILED.format("before")))
    file = LogFile(str(path))
    yield file, path
    file.close()


def append(path, *lines):
    with path.open("a") as file:
        file.write("".join(lines))


def names(file):
    return [each.user for each in file.read()]


def test_a_file_is_followed_from_its_end(log):
    file, path = log
    assert names(file) == []
    append(path, syslog(FAILED.format("one")), syslog(FAILED.format("other"), tag="su"), "Nov 24 22:57:22 host ss")
    assert names(file) == ["one"]
    append(path, "hd[7]: " + FAILED.format("two") + "\n")
    append(path, syslog(f"message repeated 2 times: [ {FAILED.format('three')}]"))
    assert names(file) == ["two", "three", "three"]
    assert names(file) == []
    append(path, syslog(FAILED.format("four")))
    assert not any(each.is_sure for each in file.read())


def test_a_file_that_is_rotated(log):
    file, path = log
    append(path, syslog(FAILED.format("old")))
    path.rename(path.with_suffix(".1"))
    append(path.with_suffix(".1"), syslog(FAILED.format("late")))
    assert names(file) == ["old", "late"]
    append(path, syslog(FAILED.format("new")))
    assert names(file) == ["new"]


def test_a_file_that_is_emptied(log):
    file, path = log
    append(path, syslog(FAILED.format("a-longer-name")))
    assert names(file) == ["a-longer-name"]
    path.write_text(syslog(FAILED.format("b")))
    assert names(file) == ["b"]


def test_a_file_that_is_not_there_yet(tmp_path):
    file = LogFile(str(tmp_path / "auth.log"))
    assert names(file) == []
    assert file.trouble == f"{tmp_path}/auth.log cannot be read: No such file or directory"
    append(tmp_path / "auth.log", syslog(FAILED.format("first")))
    assert names(file) == ["first"]
    assert file.trouble is None
    (tmp_path / "auth.log").unlink()
    assert names(file) == []
    file.close()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file(tmp_path, make):
    path = str(tmp_path / "auth.log")
    make(path)
    file = LogFile(path)
    assert names(file) == []
    assert file.trouble == f"{path} is no file"


def test_much_at_once_is_read_in_bounded_pieces(log):
    file, path = log
    append(path, *(syslog(FAILED.format(f"user{number}"), pid=number + 1) for number in range(6_000)))
    found = names(file)
    assert 0 < len(found) < 6_000
    for _ in range(10):
        found += names(file)
    assert found == [f"user{number}" for number in range(6_000)]


def test_which_of_them_there_is(tmp_path, monkeypatch, stub):
    monkeypatch.setattr(module, "_SOCKET", str(tmp_path / "nothing"))
    assert login_log((str(tmp_path / "no"),)) is None
    (tmp_path / "secure").touch()
    with contextlib.closing(login_log((str(tmp_path / "no"), str(tmp_path / "secure")))) as found:
        assert isinstance(found, LogFile)
        assert not found.is_trusted
        assert found.fileno() is None
    monkeypatch.setattr(module, "_SOCKET", str(tmp_path / "secure"))
    with contextlib.closing(login_log((), (str(stub / "journalctl"),))) as found:
        assert isinstance(found, Journal)
        assert found.is_trusted
    assert login_log((), (str(tmp_path / "no"),)) is None
