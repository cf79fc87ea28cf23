"""Numbers of labels, and the files behind the paths of a policy."""

from __future__ import annotations

import fcntl
import itertools
import os

import msgspec
import pytest

from pfw.daemon import programs
from pfw.daemon.programs import LabelBook, Running, real_path, resolved, running
from pfw.daemon.state import State
from pfw.drivers.store import Store
from pfw.enforce.conditions import CannotError
from pfw.enforce.programs import MASK, gather, spread, written
from pfw.policy.load import load


@pytest.fixture
def state(tmp_path) -> State:
    found = State(Store(tmp_path / "state"))
    found.files.make()
    return found


class TestBook:
    def test_a_key_keeps_its_number(self, state):
        book = LabelBook(state, MASK)
        first, second = book.number("/bin/a"), book.number("/bin/b")
        assert first != second
        assert 0 not in (first, second)
        book.keep()
        again = LabelBook(state, MASK)
        assert [again.number("/bin/b"), again.number("/bin/a")] == [second, first]

    def test_marks_of_others_are_no_labels(self, state):
        foreign = [0xCA6C, 0x6D6F6C65, 0x12345678]
        book = LabelBook(state, MASK, [(mark, 0xFFFFFFFF) for mark in foreign])
        numbers = {book.number(str(each)) for each in range(300)}
        assert len(numbers) == 300
        assert not numbers & {gather(mark, MASK) for mark in foreign}
        assert all(spread(number, MASK) & written(MASK) == 0 for number in numbers)

    def test_a_label_does_not_make_packets_go_another_way(self, state):
        """Where others route by a bit of ours, no label has it."""
        numbers = {LabelBook(state, MASK, [(0x200, 0x200)]).number(str(each)) for each in range(300)}
        assert not [number for number in numbers if spread(number, MASK) & 0x200]

    def test_a_number_that_has_become_somebody_elses_is_changed(self, state):
        book = LabelBook(state, MASK)
        before = book.number("/bin/a")
        book.keep()
        mark = next(mark for mark in itertools.count(1) if gather(mark << 8, MASK) == before) << 8
        assert LabelBook(state, MASK, [(mark, 0xFFFFFFFF)]).number("/bin/a") != before

    def test_a_full_book_forgets_what_was_unused_for_longest(self, state):
        book = LabelBook(state, 0xF0000)
        numbers = {key: book.number(key) for key in "abcdefg"}
        assert len(set(numbers.values())) == 7
        book.keep()
        book = LabelBook(state, 0xF0000)
        assert book.number("a") == numbers["a"]
        assert book.number("new") == numbers["b"]
        book.hold([spread(numbers["c"], 0xF0000)])
        assert [book.number(each) for each in "hijk"] == [numbers[each] for each in "defg"]
        with pytest.raises(CannotError, match="do not fit into the mask 0xf0000"):
            book.number("one more")

    @pytest.mark.parametrize("content", [b"", b"{", b'{"numbers": 3}', b'{"numbers": {"a": "b"}}'])
    def test_a_broken_book_is_begun_anew(self, state, content):
        state.files.write(programs.BOOK, content)
        assert LabelBook(state, MASK).number("/bin/a") > 0


def test_paths_are_followed_to_their_files(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "program").write_text("")
    (tmp_path / "link").symlink_to(real)
    (real / "alias").symlink_to("program")
    root = os.path.realpath(tmp_path)
    assert real_path(f"{tmp_path}/link/alias") == f"{root}/real/program"
    assert real_path(f"{tmp_path}/link/*") == f"{root}/real/*"
    assert real_path(f"{tmp_path}/link/pro*") == f"{root}/real/pro*"
    assert real_path("/*") == "/*"
    assert real_path("/not/there") == "/not/there"
    text = f"""{{"version": 2, "rules": [
        {{"name": "a", "action": "allow", "direction": "out", "app": ["{tmp_path}/link/alias", "{root}/real/program"]}},
        {{"name": "b", "action": "allow", "direction": "out"}}]}}"""
    policy = resolved(load(text))
    assert [[app.path for app in rule.apps or ()] for rule in policy.rules] == [[f"{root}/real/program"], []]


def test_the_daemon_runs_as_long_as_it_holds_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PFW_RUN_DIR", str(tmp_path))
    assert running() is None
    path = tmp_path / programs.RUNNING
    path.write_bytes(msgspec.json.encode(Running(1, MASK, None)))
    assert running() is None, "nobody holds it"
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert running() == Running(1, MASK, None)
    assert running() is None
