"""The terminal's keys, on a terminal that is made for it."""

from __future__ import annotations

import os
import signal
import termios

import pytest

from pfw.drivers import terminal


@pytest.fixture
def pair():
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def echoes(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


@pytest.mark.parametrize(
    ("pieces", "typed"),
    [
        ([b"ab"], "ab"),
        (["é".encode()], "é"),
        ([b"\x1b[A", b"a"], "a"),
        ([b"\x1b", b"[", b"1;", b"5A", b"b"], "b"),
        ([b"\x1bO", b"P", b"c"], "c"),
        ([b"\x1ba", b"d"], "d"),
        ([b"\x1b[3~e\x1b[200~"], "e"),
        ([b"\x1b[" + b"1" * 200 + b"A", b"f"], "f"),
    ],
)
def test_keys_that_are_no_characters_are_none(pair, pieces, typed):
    ours, theirs = pair
    with terminal.Keys(theirs) as keys:
        found = ""
        for piece in pieces:
            os.write(ours, piece)
            assert terminal.wait([keys.fileno()], 5) == {theirs}
            found += keys.read() or ""
    assert found == typed


def test_no_echo_while_keys_are_read_and_what_came_before_is_forgotten(pair):
    ours, theirs = pair
    os.write(ours, b"before\n")
    assert terminal.wait([theirs], 5) == {theirs}
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP)]
    with terminal.Keys(theirs) as keys:
        assert not echoes(theirs)
        assert terminal.wait([theirs], 0) == set()
        os.write(ours, b"a")
        assert terminal.wait([theirs], 5) == {theirs}
        keys.discard()
        assert terminal.wait([theirs], 0) == set()
    assert echoes(theirs)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGTSTP)] == handlers


def test_it_is_as_it_was_after_a_mistake(pair):
    before = termios.tcgetattr(pair[1])
    with pytest.raises(KeyboardInterrupt), terminal.Keys(pair[1]):
        raise KeyboardInterrupt
    assert termios.tcgetattr(pair[1]) == before


def test_no_terminal():
    reader, writer = os.pipe()
    with pytest.raises(termios.error), terminal.Keys(reader):
        pass
    assert terminal.width(reader) is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    os.close(reader)
    os.close(writer)


def test_the_terminal_has_gone():
    ours, theirs = os.openpty()
    with terminal.Keys(theirs) as keys:
        os.close(ours)
        assert keys.read() is None
    os.close(theirs)
