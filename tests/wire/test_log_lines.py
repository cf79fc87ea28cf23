"""Lines of logs: those of real programs, those of somebody who means ill, and bytes."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.wire.log_lines import LINE_BYTES_MAX, JournalEntry, Lines, SyslogLine, read_journal, read_syslog

ENTRY = {
    "__CURSOR": "s=a9f86ba55a774cceabf06f0056d5dd36;i=4;b=1cf897592e7e4becb21ec5ece4ba9249;m=5a400236c",
    "__REALTIME_TIMESTAMP": "1795561259631353",
    "__MONOTONIC_TIMESTAMP": "24226308972",
    "_BOOT_ID": "1cf897592e7e4becb21ec5ece4ba9249",
    "MESSAGE": "a message",
    "_UID": "0",
    "_PID": "3022",
    "_COMM": "sshd",
    "_EXE": "/usr/sbin/sshd",
}


def entry(**changed):
    fields = {**ENTRY, **changed}
    return read_journal(json.dumps({name: value for name, value in fields.items() if value is not ...}).encode())


def test_an_entry():
    assert entry() == JournalEntry(time=1795561259.631353, message="a message", uid=0, pid=3022, program="sshd")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"_EXE": "/usr/libexec/openssh/sshd-session"}, "sshd-session"),
        ({"_EXE": "/usr/sbin/sshd (deleted)"}, "sshd"),
        ({"_EXE": "/home/x/logger", "_COMM": "sshd"}, "logger"),
        ({"_EXE": ..., "_COMM": "sshd"}, "sshd"),
        ({"_EXE": ..., "_COMM": "../sshd"}, "sshd"),
        ({"_EXE": ..., "_COMM": ...}, ""),
    ],
)
def test_whose_entry_it_is(changed, expected):
    assert entry(**changed).program == expected


def test_a_message_that_is_no_text():
    assert entry(MESSAGE=[102, 195, 188, 255]).message == "fü\\xff"
    assert entry(MESSAGE=[]).message == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"MESSAGE": None},
        {"MESSAGE": ...},
        {"MESSAGE": ["one", "two"]},
        {"MESSAGE": [256]},
        {"MESSAGE": {"a": 1}},
        {"_UID": ["0", "0"]},
        {"_UID": 0},
        {"_UID": "root"},
        {"_PID": "0x1"},
        {"__REALTIME_TIMESTAMP": ...},
        {"__REALTIME_TIMESTAMP": "soon"},
        {"__REALTIME_TIMESTAMP": "9" * 5000},
    ],
)
def test_what_is_no_entry(changed):
    assert entry(**changed) is None


def test_who_is_nobody_is_not_root():
    assert entry(_UID=...).uid is None
    assert entry(_UID="").uid is None
    assert entry(_PID=...).pid is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"Nov 24 22:57:22 host sshd[4711]: Failed password for x from 192.0.2.1 port 4 ssh2",
            SyslogLine("sshd", 4711, "Failed password for x from 192.0.2.1 port 4 ssh2"),
        ),
        (b"Nov  4 22:57:22 host dropbear[1]: x: y", SyslogLine("dropbear", 1, "x: y")),
        (b"2026-11-24T22:57:22.123456+01:00 host sshd-session[7]: x", SyslogLine("sshd-session", 7, "x")),
        (b"2026-11-24T22:57:22Z host sshd: x\r", SyslogLine("sshd", None, "x")),
        (b"Nov 24 22:57:22 host kernel: [1.0] x", SyslogLine("kernel", None, "[1.0] x")),
        (b"Nov 24 22:57:22 host sshd[1]: \xff", SyslogLine("sshd", 1, "\\xff")),
        (
            b"Nov 24 22:57:22 host sshd[1]: message repeated 2 times: [ Failed password for a]",
            SyslogLine("sshd", 1, "Failed password for a", 2),
        ),
        (
            b"Nov 24 22:57:22 host sshd[1]: message repeated 999999 times: [ x]",
            SyslogLine("sshd", 1, "x", 16),
        ),
    ],
)
def test_a_line_of_a_file(line, expected):
    assert read_syslog(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"Failed password for x from 192.0.2.1 port 4 ssh2",
        b"Nov 24 22:57:22 host",
        b"Nov 24 22:57:22 sshd[1]: x",
        b"x Nov 24 22:57:22 host sshd[1]: x",
        b"Nov 24 22:57:22 host sshd[99999999999]: x",
    ],
)
def test_what_is_no_line_of_a_file(line):
    assert read_syslog(line) is None


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 20))
@settings(deadline=None)
def test_lines_in_any_pieces(parts, step):
    data = b"\n".join(parts)
    lines = Lines()
    found = [line for at in range(0, len(data), step) for line in lines.add(data[at : at + step])]
    assert found == data.split(b"\n")[:-1]


@pytest.mark.parametrize("step", [1000, 4096, 1 << 20])
def test_a_line_that_is_too_long_is_left_out(step):
    lines = Lines()
    data = b"one\n" + b"x" * (3 * LINE_BYTES_MAX) + b"\ntwo\n" + b"y" * LINE_BYTES_MAX + b"\nthree\n"
    found = []
    for at in range(0, len(data), step):
        found += lines.add(data[at : at + step])
        assert len(lines._rest) <= LINE_BYTES_MAX
    assert found == [b"one", b"two", b"y" * LINE_BYTES_MAX, b"three"]
    assert lines.skipped == 1


def test_what_is_broken_off_is_no_beginning():
    lines = Lines()
    assert lines.add(b"half") == []
    lines.break_off()
    assert lines.add(b"whole\n") == [b"whole"]
    lines.add(b"x" * (LINE_BYTES_MAX + 1))
    lines.break_off()
    assert lines.add(b"whole\n") == [b"whole"]


def test_deep_json_is_no_entry():
    deep = b'{"__REALTIME_TIMESTAMP":"1","MESSAGE":"x","OTHER":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert read_journal(deep) is None


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_read(data):
    read_journal(data)
    read_syslog(data)


def test_changed_lines_are_read():
    chance = random.Random(11)
    whole = [json.dumps(ENTRY).encode(), b"Nov 24 22:57:22 host sshd[4711]: message repeated 2 times: [ Failed]"]
    for _ in range(4_000):
        line = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 5)):
            line[chance.randrange(len(line))] = chance.choice(b'"{}[]:,0\\\xff ')
        found = read_journal(bytes(line))
        assert found is None or isinstance(found.message, str)
        read_syslog(bytes(line))
