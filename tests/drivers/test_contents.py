"""What files hold: what counts as proven, against whoever may write the file, and that nobody is kept waiting."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pfw.drivers import contents
from pfw.drivers.contents import BYTES_MAX, PATIENCE_S, Contents

NOBODY = 65534
WORDS = b"what a program holds" * 500
PROVEN = hashlib.sha256(WORDS).hexdigest()
_DEADLINE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Somebody's file."""
    path = tmp_path / "file"
    path.write_bytes(WORDS)
    if tells(path) and os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    elif not tells(path) and os.geteuid() != 0:
        pytest.skip("only root's files count on this file system")
    return path


def tells(path: Path) -> bool:
    """Whether the file system is one where leases tell."""
    with open(path, "rb") as file:
        return contents._file_system(file.fileno()) not in contents._UNTOLD


@contextmanager
def place_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ask(asked: Contents, path: Path) -> str:
    with place_of(path) as descriptor:
        return asked.sha256(descriptor)


def ask_until_told(asked: Contents, path: Path) -> str:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return ask(asked, path)
        except BlockingIOError:
            assert time.monotonic() < deadline, "it is never told"
            time.sleep(0.01)


# -- what is proven


def test_a_file(path: Path) -> None:
    asked = Contents()
    assert [ask_until_told(asked, path) for _ in range(3)] == [PROVEN] * 3
    with open(path, "ab") as file:
        file.write(b"more")
    assert ask_until_told(asked, path) == hashlib.sha256(WORDS + b"more").hexdigest()


def test_a_file_that_may_be_written_without_a_sign(path: Path) -> None:
    """As long as it is open for writing, or mapped so."""
    asked = Contents()
    with open(path, "r+b") as file:
        with pytest.raises(BlockingIOError, match="temporarily unavailable"):
            ask(asked, path)
        mapped = mmap.mmap(file.fileno(), 0)
    mapped[:1] = b"W"
    with pytest.raises(BlockingIOError, match="temporarily unavailable"):
        ask(asked, path)
    mapped.close()
    assert ask_until_told(asked, path) == hashlib.sha256(b"W" + WORDS[1:]).hexdigest()
    before = path.stat().st_ctime_ns
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:1] = b"w"
    assert path.stat().st_ctime_ns > before, "written behind that, it has another time"
    assert ask_until_told(asked, path) == PROVEN


def test_a_file_that_was_changed_within_the_tick(path: Path) -> None:
    """Another change might have the same time, so it is waited for the next."""
    asked = Contents()
    for number in range(5):
        path.write_bytes(WORDS + b"%d" % number)
        assert ask(asked, path) == hashlib.sha256(path.read_bytes()).hexdigest()
        assert time.time_ns() - path.stat().st_ctime_ns >= 50_000_000


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "device"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    match kind:
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(place))
        case "device":
            place = Path("/dev/zero")
    with pytest.raises(OSError, match="is no file"):
        ask(Contents(), place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("user", "proven"), [(0, True), (NOBODY, False)])
def test_where_there_are_no_leases(path: Path, monkeypatch: pytest.MonkeyPatch, user: int, proven: bool) -> None:
    """Only a file of root counts, which nobody else may write."""

    def refuse(descriptor: int, what: int, value: int) -> int:
        if what == fcntl.F_SETLEASE:
            raise OSError(errno.EINVAL, "no leases here")
        return 0

    os.chown(path, user, user)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    if proven:
        assert ask(Contents(), path) == PROVEN
        path.chmod(0o664)
    with pytest.raises(OSError, match="does not tell who may write"):
        ask(Contents(), path)


MOUNTED = """
import os, subprocess, sys
from pfw.drivers.contents import Contents
folder, kind, user = sys.argv[1], sys.argv[2], int(sys.argv[3])
for name in ("lower", "upper", "work", "all"):
    os.mkdir(f"{folder}/{name}")
options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work" if kind == "overlay" else "mode=755"
subprocess.run(["mount", "-t", kind, "-o", options, "none", f"{folder}/all"], check=True)
with open(f"{folder}/all/file", "wb") as file:
    file.write(b"words")
os.chown(f"{folder}/all/file", user, user)
try:
    print(Contents().sha256(os.open(f"{folder}/all/file", os.O_PATH)))
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("user", [0, NOBODY])
@pytest.mark.parametrize("kind", ["overlay", "tmpfs", "ramfs"])
def test_where_leases_do_not_tell(tmp_path: Path, kind: str, user: int) -> None:
    words = ["unshare", "-m", sys.executable, "-P", "-c", MOUNTED, str(tmp_path), kind, str(user)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(done.stderr)
    proven, refused = hashlib.sha256(b"words").hexdigest(), "is on a file system that does not tell who may write"
    assert (done.stdout, done.stderr) == (f"{refused if user else proven}\n", "")


def test_fuse(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds is what its maker says, each time anew."""
    monkeypatch.setattr(contents, "_file_system", lambda _: contents._FUSE)
    with pytest.raises(OSError, match="somebody's own"):
        ask(Contents(), path)


# -- nobody is kept waiting, and nobody ends us


def test_a_file_that_is_too_large(path: Path) -> None:
    os.truncate(path, BYTES_MAX + 1)
    with pytest.raises(OSError, match="too large"):
        ask(Contents(), path)


def test_a_large_file_is_read_beside(path: Path) -> None:
    os.truncate(path, 1 << 26)
    asked = Contents(patience_s=0.0)
    began = time.monotonic()
    with pytest.raises(BlockingIOError, match="is being read"):
        ask(asked, path)
    assert time.monotonic() - began < 0.1
    assert ask_until_told(asked, path) == hashlib.sha256(WORDS + bytes((1 << 26) - len(WORDS))).hexdigest()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that does not answer until it is set."""
    answers, true = threading.Event(), contents._sha256

    def read(descriptor: int) -> str:
        answers.wait()
        return true(descriptor)

    monkeypatch.setattr(contents, "_sha256", read)
    yield answers
    answers.set()


def test_who_changes_files_all_the_time(path: Path, disk: threading.Event) -> None:
    """Patience is used up by the first ones; what comes behind waits a small part of the time."""
    asked = Contents(patience_s=0.1)
    began = time.monotonic()
    for mode in range(0o600, 0o620):
        path.chmod(mode)  # another change
        with pytest.raises(BlockingIOError, match="is being read"):
            ask(asked, path)
    assert time.monotonic() - began < 0.5
    assert PATIENCE_S <= 1.0
    disk.set()
    assert ask_until_told(asked, path) == PROVEN


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: threading.Event) -> None:
    monkeypatch.setattr(contents, "READINGS_MAX", 2)
    asked = Contents(patience_s=0.0)
    paths = [tmp_path / str(number) for number in range(3)]
    for each, said in zip(paths, ("is being read", "is being read", "has to wait"), strict=True):
        each.touch()
        with pytest.raises(BlockingIOError, match=said):
            ask(asked, each)
    disk.set()
    assert len({ask_until_told(asked, each) for each in paths}) == 1
    assert len(asked._readings) <= 2


def test_whoever_holds_a_write_lease(path: Path) -> None:
    """To open it would take 45 s."""
    holder = (
        "import fcntl, os, signal, sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\nfcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print('held', flush=True)\nsys.stdin.read()\n"
    )
    words = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        began = time.monotonic()
        with pytest.raises(BlockingIOError, match="temporarily unavailable"):
            ask(Contents(patience_s=10.0), path)
        assert time.monotonic() - began < 1.0
        process.stdin.close()
    assert ask_until_told(Contents(), path) == PROVEN


BREAKER = """
import os, sys, time
from pfw.drivers.contents import Contents
asked, path, broken = Contents(patience_s=0.0), sys.argv[1], 0
place = os.open(path, os.O_PATH)
while True:
    try:
        found = asked.sha256(place)
        if broken:
            break
        os.utime(path)  # to be read again
    except OSError as error:
        if broken and str(error).endswith("is about to be written"):
            broken = 2
    time.sleep(0.002)
    if broken < 2:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except BlockingIOError:
            broken = max(broken, 1)
print(broken, found)
"""


def test_whoever_opens_it_for_writing_meanwhile(path: Path) -> None:
    """The kernel sends a signal to us then, which by default ends a process. What was read does not count."""
    os.truncate(path, 1 << 27)
    words = [sys.executable, "-P", "-c", BREAKER, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_DEADLINE_S)
    content = hashlib.sha256(WORDS + bytes((1 << 27) - len(WORDS))).hexdigest()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"2 {content}\n", "")
