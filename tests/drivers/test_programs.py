"""Other programs: found, fed, and their complaint in a line."""

import pytest

from pfw.drivers import programs
from pfw.drivers.programs import Job, RefusedError, find, run


def test_what_it_prints():
    assert run(Job(("cat",), "text \udcff")) == "text �"


def test_no_shell_reads_its_words():
    assert run(Job(("echo", "$HOME; `id`"))) == "$HOME; `id`\n"


def test_one_that_is_not_there():
    with pytest.raises(RefusedError, match="no-such-program is not there") as caught:
        run(Job(("no-such-program",)))
    assert caught.value.missing == "no-such-program"
    assert find("no-such-program") is None


def test_one_that_fails_is_told_with_its_first_words():
    with pytest.raises(RefusedError, match=r"^ls: .*ls: cannot access '/nowhere'"):
        run(Job(("ls", "/nowhere")))


def test_one_that_fails_in_silence():
    with pytest.raises(RefusedError, match=r"^false: ended with status 1$"):
        run(Job(("false",)))


def test_one_that_does_not_end(monkeypatch):
    monkeypatch.setattr(programs, "_TIMEOUT_S", 0.2)
    with pytest.raises(RefusedError, match="did not end within"):
        run(Job(("sleep", "30")))


def test_the_callers_path_does_not_matter(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert find("cat")
