"""The state's files: whole or as they were, for their owner, one writer at a time, one folder a namespace."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pfw.drivers import store
from pfw.drivers.store import Store


@pytest.fixture
def files(tmp_path):
    made = Store(tmp_path / "state")
    made.make()
    return made


class TestFiles:
    def test_written_and_read(self, files):
        files.write("a/b.json", b"content")
        assert files.read("a/b.json") == b"content"
        assert files.names("a") == ["b.json"]

    def test_not_there(self, files):
        assert files.read("nothing") is None
        assert files.read("nothing/below") is None
        assert files.names("nothing") == []
        files.remove("nothing")

    def test_for_the_owner_alone(self, files):
        files.write("secret", b"x")
        assert (files.path / "secret").stat().st_mode & 0o777 == 0o600
        assert files.path.stat().st_mode & 0o777 == 0o711

    def test_a_link_is_not_followed(self, files, tmp_path):
        (tmp_path / "elsewhere").write_bytes(b"private")
        (files.path / "link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError, match="symbolic links"):
            files.read("link")
        files.write("link", b"ours")
        assert (tmp_path / "elsewhere").read_bytes() == b"private"

    def test_a_pipe_is_no_file_and_holds_nobody_up(self, files):
        os.mkfifo(files.path / "pipe")
        process = subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path\nfrom pfw.drivers.store import Store\n"
             f"Store(Path({str(files.path)!r})).read('pipe')"],
            capture_output=True, text=True, timeout=10, env={"PYTHONPATH": str(Path(store.__file__).parents[2])},
        )  # fmt: skip
        assert "is not a file" in process.stderr

    def test_a_full_disk_leaves_what_was(self, files, monkeypatch):
        files.write("name", b"old")

        def full(_: int) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space") as caught:
            files.write("name", b"new")
        assert caught.value.filename == str(files.path / "name")
        monkeypatch.undo()
        assert files.read("name") == b"old"
        assert sorted(os.listdir(files.path)) == ["name"]


class TestLock:
    def test_one_at_a_time(self, files):
        order = []

        def second() -> None:
            with Store(files.path).locked():
                order.append("second")

        with files.locked():
            thread = threading.Thread(target=second)
            thread.start()
            time.sleep(0.1)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]

    def test_who_has_it_may_ask_again(self, files):
        with files.locked():
            with files.locked():
                pass
            assert files.lock is not None
        assert files.lock is None

    def test_without_waiting(self, files):
        other = Store(files.path)
        with files.locked_at_once() as ours:
            assert ours
            with other.locked_at_once() as theirs:
                assert not theirs
            with files.locked(), files.locked_at_once() as again:
                assert again
            assert files.lock is not None
        assert files.lock is None
        with other.locked(), files.locked_at_once() as ours:
            assert not ours
        with files.locked_at_once() as ours:
            assert ours

    def test_goes_with_its_process(self, files):
        code = (
            f"import os\nfrom pathlib import Path\nfrom pfw.drivers.store import Store\n"
            f"with Store(Path({str(files.path)!r})).locked():\n    os.kill(os.getpid(), 9)"
        )
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(Path(store.__file__).parents[2])}, check=False
        )
        with files.locked():
            pass


class TestFolder:
    def test_as_the_environment_says(self, monkeypatch, tmp_path):
        monkeypatch.setenv(store.VARIABLE, str(tmp_path))
        assert store.folder() == tmp_path

    def test_otherwise_the_systems(self, monkeypatch):
        monkeypatch.delenv(store.VARIABLE, raising=False)
        monkeypatch.setattr(store, "_namespace", lambda: None)
        assert store.folder() == Path("/var/lib/pfw")
        monkeypatch.setattr(store, "_namespace", lambda: "guests")
        assert store.folder() == Path("/var/lib/pfw/netns/guests")
