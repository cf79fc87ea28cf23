from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pfw.record.files import FileRefusedError, RotatingFile
from pfw.record.trouble import RETRY_S

Tell = Callable[[str], None]
LINE = b"x" * 99 + b"\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


def sizes(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir())


def test_it_appends_to_what_is_there(tmp_path: Path, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    path.write_bytes(b"before\n")
    file = RotatingFile(str(path), tell)
    assert file.write(b"after\n", 1.0)
    file.close()
    assert path.read_bytes() == b"before\nafter\n"
    assert file.written == 1


def test_a_new_file_is_not_for_everybody(tmp_path: Path, tell: Tell) -> None:
    file = RotatingFile(str(tmp_path / "firewall.log"), tell)
    before = os.umask(0)
    try:
        file.tick(1.0)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "firewall.log").stat().st_mode) == 0o640
    file.close()


def test_a_line_that_a_crash_cut_off_is_ended(tmp_path: Path, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    path.write_bytes(b"cut o")
    file = RotatingFile(str(path), tell)
    file.write(b"whole\n", 1.0)
    assert path.read_bytes() == b"cut o\nwhole\n"
    file.close()


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, tell: Tell, kind: str) -> None:
    path = tmp_path / "firewall.log"
    if kind in ("link", "dangling"):
        if kind == "link":
            (tmp_path / "passwd").write_text("root\n")
        path.symlink_to(tmp_path / "passwd")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(FileRefusedError, match=r"firewall\.log is (a symbolic link|not a regular file), give "):
        RotatingFile(str(path), tell)


def test_a_device_is_refused(tell: Tell) -> None:
    with pytest.raises(FileRefusedError, match="/dev/full is not a regular file"):
        RotatingFile("/dev/full", tell)


def test_a_link_put_there_later_is_not_followed(tmp_path: Path, told: list[str], tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    file = RotatingFile(str(path), tell)
    file.write(LINE, 1.0)
    (tmp_path / "secret").write_bytes(b"")
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    assert not file.write(LINE, 3.0)
    assert (tmp_path / "secret").read_bytes() == b""
    assert len(told) == 1
    file.close()


def test_all_files_together_keep_the_budget(tmp_path: Path, tell: Tell) -> None:
    file = RotatingFile(str(tmp_path / "firewall.log"), tell, budget_bytes=5000, file_bytes=1000)
    for number in range(200):
        assert file.write(b"%099d\n" % number, float(number))
        assert sizes(tmp_path) <= 5000
    file.close()
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["firewall.log", *(f"firewall.log.{number}" for number in range(1, 5))]
    assert b"%099d" % 199 in (tmp_path / "firewall.log").read_bytes()
    kept = b"".join((tmp_path / name).read_bytes() for name in reversed(names))
    numbers = [int(line) for line in kept.split()]
    assert numbers == list(range(numbers[0], 200))


def test_older_files_of_a_bigger_budget_go(tmp_path: Path, tell: Tell) -> None:
    for number in (1, 2, 9, 30):
        (tmp_path / f"firewall.log.{number}").write_bytes(b"y" * 1000)
    for name in ("firewall.log.1.gz", "firewall.log.old", "firewall.log.", "other.log.1", "firewall.log.01"):
        (tmp_path / name).write_bytes(b"z" * 5000)
    file = RotatingFile(str(tmp_path / "firewall.log"), tell, budget_bytes=3500, file_bytes=1000)
    file.write(LINE, 1.0)
    file.close()
    left = {entry.name for entry in tmp_path.iterdir()}
    assert {"firewall.log", "firewall.log.1", "firewall.log.2"} <= left
    assert not {"firewall.log.9", "firewall.log.30"} & left
    assert {"firewall.log.1.gz", "firewall.log.old", "firewall.log.", "other.log.1", "firewall.log.01"} <= left


def test_rotation_picks_up_where_the_file_stands(tmp_path: Path, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    path.write_bytes(b"o" * 949 + b"\n")
    file = RotatingFile(str(path), tell, budget_bytes=5000, file_bytes=1000)
    file.write(LINE, 1.0)
    file.close()
    assert (tmp_path / "firewall.log.1").stat().st_size == 950
    assert path.read_bytes() == LINE


@pytest.mark.parametrize("deleted", [False, True])
def test_a_file_that_logrotate_took_is_made_anew(tmp_path: Path, told: list[str], tell: Tell, deleted: bool) -> None:
    path = tmp_path / "firewall.log"
    file = RotatingFile(str(path), tell)
    file.write(b"first\n", 1.0)
    if deleted:
        path.unlink()
    else:
        path.rename(tmp_path / "firewall.log-20261123")
    file.write(b"second\n", 2.5)
    assert path.read_bytes() == b"second\n"
    assert told == []
    file.close()


def test_copytruncate_is_noticed(tmp_path: Path, tell: Tell) -> None:
    path = tmp_path / "firewall.log"
    file = RotatingFile(str(path), tell, budget_bytes=5000, file_bytes=1000)
    for _ in range(9):
        file.write(LINE, 1.0)
    os.truncate(path, 0)
    for step in range(9):
        file.write(LINE, 3.0 + step)
    assert path.stat().st_size == 900
    assert not (tmp_path / "firewall.log.1").exists()
    file.close()


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Sets RLIMIT_FSIZE: a write beyond it is cut short, the next fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_partial_lines(tmp_path: Path, told: list[str], tell: Tell, file_limit: Callable[[int], None]) -> None:
    path = tmp_path / "firewall.log"
    file = RotatingFile(str(path), tell)
    file_limit(250)
    results = [file.write(LINE, 10.0) for _ in range(4)]
    file_limit(0)
    assert results == [True, True, False, False]
    assert path.read_bytes() == LINE * 2
    assert (file.trouble.lost_lines, file.trouble.lost_bytes) == (2, 200)
    assert not file.write(LINE, 10.0 + RETRY_S / 2)
    assert file.write(LINE, 10.0 + RETRY_S)
    assert path.read_bytes() == LINE * 3
    assert told == [
        f"{path}: cannot write: File too large; what is lost is counted",
        f"{path}: writing again, 3 lines were lost",
    ]
    assert file.trouble.recovered == 1
    file.close()


def test_a_folder_that_is_not_there_yet(tmp_path: Path, told: list[str], tell: Tell) -> None:
    path = tmp_path / "later" / "firewall.log"
    file = RotatingFile(str(path), tell)
    assert not file.write(LINE, 1.0)
    path.parent.mkdir()
    file.tick(1.0 + RETRY_S)
    assert file.write(LINE, 2.0 + RETRY_S)
    assert told[0] == f"{path}: cannot write: No such file or directory; what is lost is counted"
    assert len(told) == 2
    file.close()


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from pfw.record.files import RotatingFile
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], check=True)
told = []
path = folder / "firewall.log"
file = RotatingFile(str(path), told.append, budget_bytes=10**9, file_bytes=10**8)
line = b"%s\\n" % (b"x" * 999)
results = [file.write(line, 1.0) for _ in range(100)]
assert True in results and False in results, results
assert set(path.read_bytes().split(b"\\n")) == {b"x" * 999, b""}, "a partial line"
assert file.written + file.trouble.lost_lines == 100
subprocess.run(["mount", "-o", "remount,size=256k", folder], check=True)
assert file.write(line, 10.0)
file.close()
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
assert not file.write(line, 20.0)
assert file.trouble.reasons.keys() == {"No space left on device", "Read-only file system"}, file.trouble.reasons
subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
assert file.write(line, 90.0)
assert set(path.read_bytes().split(b"\\n")) == {b"x" * 999, b""}, "a partial line"
assert len(told) in (2, 3, 4), told
file.close()
print(file.trouble.recovered)
"""


@needs_root
def test_a_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    source = str(Path(__file__).parents[2] / "src")
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr and "permission denied" in done.stderr:
        pytest.skip("may not mount here")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="chowns")
def test_a_folder_without_permission_is_told_and_survived(tmp_path: Path) -> None:
    code = """
import os, sys
from pfw.record.files import RotatingFile
os.setuid(65534)
told = []
file = RotatingFile(sys.argv[1], told.append)
assert not file.write(b"line\\n", 1.0)
assert told[0].endswith("cannot write: Permission denied; what is lost is counted"), told
"""
    tmp_path.chmod(0o755)
    source = str(Path(__file__).parents[2] / "src")
    command = [sys.executable, "-c", code, str(tmp_path / "firewall.log")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": source}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
