"""Whether a program is still the file that it was started from, with real processes and files."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pfw.drivers import processes
from pfw.drivers.processes import Change, Changed, changed, started

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mount name spaces need root")
SLEEP = os.path.realpath(shutil.which("sleep"))
CAT = os.path.realpath(shutil.which("cat"))


@contextmanager
def running(*words, **options):
    """A process that has begun its program."""
    with subprocess.Popen(words, **options) as process:
        try:
            deadline = time.monotonic() + 8
            wanted = os.stat(words[0]) if os.path.exists(words[0]) else None
            while wanted and processes.executable(process.pid) != (wanted.st_dev, wanted.st_ino):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield process
        finally:
            process.kill()


@pytest.fixture
def copied(tmp_path):
    path = tmp_path / "program"
    shutil.copy(SLEEP, path)
    return path


def of(process, path):
    return changed(process.pid, started(process.pid), None if path is None else str(path))


def test_one_that_is_as_it_was(copied):
    with running(copied, "60") as process:
        assert of(process, copied) is None
        assert of(process, None) is None
        os.link(copied, copied.with_name("other-name"))
        copied.chmod(0o700)
        assert of(process, copied) is None


def test_one_that_was_replaced_by_a_rename(copied):
    with running(copied, "60") as process:
        new = copied.with_name("program.new")
        shutil.copy(CAT, new)
        os.utime(new, (1_000_000_000, 1_000_000_000))
        before = time.time()
        os.replace(new, copied)
        found = of(process, copied)
        # The time of what it holds is the package's; when it came here is another.
        assert found.change is Change.REPLACED
        assert before - 1 < found.since < time.time() + 1
        assert of(process, None) == found, "the kernel knows which path it had"


def test_one_that_was_replaced_as_packages_are(copied):
    """The old one keeps another name for a moment, and loses it at the end (dpkg)."""
    with running(copied, "60") as process:
        shutil.copy(SLEEP, copied.with_name("program.dpkg-new"))
        os.link(copied, copied.with_name("program.dpkg-tmp"))
        os.replace(copied.with_name("program.dpkg-new"), copied)
        assert of(process, copied).change is Change.REPLACED
        copied.with_name("program.dpkg-tmp").unlink()
        assert of(process, copied).change is Change.REPLACED


def test_one_that_was_moved_away(copied):
    with running(copied, "60") as process:
        copied.rename(copied.with_name("elsewhere"))
        assert of(process, copied) == Changed(Change.DELETED)
        assert of(process, None) is None, "where it is now it is what it was"
        shutil.copy(CAT, copied)
        assert of(process, copied).change is Change.REPLACED


def test_one_that_was_deleted(copied):
    with running(copied, "60") as process:
        copied.unlink()
        assert of(process, copied) == of(process, None) == Changed(Change.DELETED)
        copied.mkdir()
        assert of(process, copied).change is Change.REPLACED


def test_one_whose_folder_was_deleted(tmp_path, copied):
    folder = tmp_path / "folder"
    folder.mkdir()
    copied = copied.rename(folder / "program")
    with running(copied, "60") as process:
        shutil.rmtree(folder)
        assert of(process, copied) == Changed(Change.DELETED)
        folder.write_text("")
        assert of(process, copied) == Changed(Change.DELETED)


def test_one_that_is_called_deleted(tmp_path):
    path = tmp_path / "program (deleted)"
    shutil.copy(SLEEP, path)
    with running(path, "60") as process:
        assert of(process, path) is None


@pytest.mark.parametrize("name", ["curl", "usr/bin/curl", "x (deleted)"])
def test_one_in_memory(name):
    file = os.memfd_create(name)
    os.write(file, Path(SLEEP).read_bytes())
    with running(f"/proc/self/fd/{file}", "60", pass_fds=[file]) as process:
        deadline = time.monotonic() + 8
        while "memfd" not in os.readlink(f"/proc/{process.pid}/exe"):
            assert time.monotonic() < deadline
        assert of(process, None) == of(process, SLEEP) == Changed(Change.NAMELESS)
    os.close(file)


@as_root
def test_paths_of_a_container_are_its_own(tmp_path, copied):
    inside = tmp_path / "inside"
    shutil.copy(CAT, inside)
    script = f"mount --bind {copied} {inside} && exec {inside} 60"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script]) as process:
        try:
            deadline = time.monotonic() + 8
            while os.stat(f"/proc/{process.pid}/exe").st_ino != copied.stat().st_ino:
                assert time.monotonic() < deadline
            assert os.readlink(f"/proc/{process.pid}/exe") == str(inside)
            assert of(process, inside) is None, "with us that is another file"
            copied.unlink()
            assert of(process, inside) == Changed(Change.DELETED)
        finally:
            process.kill()


def test_one_that_has_ended(copied):
    with running(copied, "60") as process:
        begun = started(process.pid)
        copied.unlink()
        assert changed(process.pid, begun, str(copied)) is not None
        assert changed(process.pid, begun + 1, str(copied)) is None, "another process of that number"
    process.wait()
    assert changed(process.pid, begun, str(copied)) is None


@pytest.mark.parametrize("pid", [-1, 0, 2, 1 << 40])
@pytest.mark.parametrize("path", [None, "", "/", "x\0y", "\udcff", "/proc/self/exe"])
def test_nonsense(pid, path):
    assert changed(pid, 0, path) is None


@pytest.mark.parametrize("path", ["", "/", "relative", "x\0y", "\udcff", "/" + "x" * 5000])
def test_paths_that_are_none(copied, path):
    with running(copied, "60") as process:
        assert of(process, path) is None or isinstance(of(process, path), Changed)
