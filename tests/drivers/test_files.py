"""Files that change, and files in pieces."""

import os
import sys

import pytest

from pfw.drivers.files import CHUNK_BYTES, Watch, chunks, size_bytes


class TestWatch:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "rules.json"
        path.write_text("{}")
        return path

    def test_quiet_while_nothing_happens(self, path):
        watch = Watch(path)
        assert [watch.changed() for _ in range(3)] == [False] * 3

    def test_written_in_place_with_the_same_size(self, path):
        watch = Watch(path)
        status = path.stat()
        path.write_text("[]")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert [watch.changed(), watch.changed()] == [True, False]

    def test_replaced_by_another_with_the_same_times(self, path):
        watch = Watch(path)
        status = path.stat()
        new = path.with_suffix(".new")
        new.write_text("[]")
        os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
        new.replace(path)
        assert [watch.changed(), watch.changed()] == [True, False]

    def test_deleted_and_there_again(self, path):
        watch = Watch(path)
        path.unlink()
        assert [watch.changed(), watch.changed()] == [True, False]
        path.write_text("{}")
        assert watch.changed()

    def test_behind_a_link_that_is_turned(self, path, tmp_path):
        other = tmp_path / "other.json"
        other.write_text("{}")
        link = tmp_path / "link.json"
        link.symlink_to(path)
        watch = Watch(link)
        link.unlink()
        link.symlink_to(other)
        assert watch.changed()


class TestPieces:
    @pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
    def test_the_whole_file_in_bounded_pieces(self, tmp_path, size):
        path = tmp_path / "file"
        path.write_bytes(os.urandom(size))
        pieces = [bytes(piece) for piece in chunks(str(path))]
        assert b"".join(pieces) == path.read_bytes()
        assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)

    def test_standard_input_as_it_comes(self, monkeypatch):
        read, write = os.pipe()
        with open(read) as reader:
            monkeypatch.setattr(sys, "stdin", reader)
            pieces = chunks("-")
            os.write(write, b"one")
            assert next(pieces) == b"one"
            assert next(pieces) == b""
            os.write(write, b"two")
            os.close(write)
            assert list(pieces) == [b"two"]

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            list(chunks(str(tmp_path / "none")))

    def test_sizes(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        assert size_bytes(str(path)) == 5
        assert size_bytes("-") is None
        os.mkfifo(tmp_path / "pipe")
        assert size_bytes(str(tmp_path / "pipe")) is None
