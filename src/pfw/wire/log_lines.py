"""Lines of logs: the journal's as JSON (systemd.io/JOURNAL_EXPORT_FORMATS, journalctl(1)), and those of syslog's files.

Fields of the journal whose names begin with an underscore are journald's own: what it asked the kernel about the sender
(systemd.journal-fields(7)). All else is what the sender says, in a file of syslog all of it.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

LINE_BYTES_MAX = 64 << 10
REPEATED_MAX = 16
"""A line that stands for more of the same counts as so many."""

_Octet = Annotated[int, Meta(ge=0, le=255)]
_DELETED = " (deleted)"
_SYSLOG = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.+Z-]{8,30}) \S{1,255} "
    r"(?P<tag>[^\s\[\]:]{1,64})(?:\[(?P<pid>\d{1,10})\])?: (?P<message>.*)"
)
"""The traditional form (RFC 3164, 4.1) and that of RFC 3339 times, which rsyslog writes by default."""
_REPEATED = re.compile(r"message repeated (?P<times>\d{1,6}) times: \[ ?(?P<message>.*)\]")


class JournalEntry(Struct, frozen=True, kw_only=True):
    """An entry, as far as it is of interest. `program` is the name of the sender's executable, else of its process."""

    time: float
    message: str
    uid: int | None
    pid: int | None
    program: str


class SyslogLine(Struct, frozen=True):
    tag: str
    pid: int | None
    message: str
    times: int = 1


class _Fields(Struct, frozen=True):
    time: str = field(name="__REALTIME_TIMESTAMP")
    message: str | list[_Octet] | None = field(name="MESSAGE", default=None)
    uid: str = field(name="_UID", default="")
    pid: str = field(name="_PID", default="")
    comm: str = field(name="_COMM", default="")
    exe: str = field(name="_EXE", default="")


JOURNAL_FIELDS = ("MESSAGE", "_UID", "_PID", "_COMM", "_EXE")
"""What is asked for; the time always comes."""


class Lines:
    """Cuts bytes into lines. One that is longer than LINE_BYTES_MAX is left out, and counted."""

    def __init__(self) -> None:
        self._rest = b""
        self._skips = False
        self.skipped = 0

    def add(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        if lines and self._skips:
            del lines[0]
            self._skips = False
        found = [line for line in lines if len(line) <= LINE_BYTES_MAX]
        self.skipped += len(lines) - len(found)
        if self._skips or len(rest) > LINE_BYTES_MAX:
            self.skipped += not self._skips
            self._skips, rest = True, b""
        self._rest = rest
        return found

    def break_off(self) -> None:
        """What follows is not the rest of the line that has begun."""
        self._rest = b""
        self._skips = False


_decoder = msgspec.json.Decoder(_Fields)


def read_journal(line: bytes) -> JournalEntry | None:
    """An entry of the journal; None for what is none, or has no message, or several."""
    try:
        fields = _decoder.decode(line)
        time = int(fields.time) / 1e6
        uid, pid = _number(fields.uid), _number(fields.pid)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    message = fields.message
    if message is None:
        return None
    if isinstance(message, list):
        message = bytes(message).decode(errors="backslashreplace")
    program = (fields.exe.removesuffix(_DELETED) or fields.comm).rpartition("/")[2]
    return JournalEntry(time=time, message=message, uid=uid, pid=pid, program=program)


def read_syslog(line: bytes) -> SyslogLine | None:
    """A line of a file; None for what is none."""
    found = _SYSLOG.fullmatch(line.decode(errors="backslashreplace").rstrip("\r"))
    if found is None:
        return None
    tag, message, pid = found["tag"], found["message"], found["pid"]
    repeated = _REPEATED.fullmatch(message)
    times = 1
    if repeated is not None:
        times, message = min(int(repeated["times"]), REPEATED_MAX), repeated["message"]
    return SyslogLine(tag, int(pid) if pid else None, message, times)


def _number(text: str) -> int | None:
    """Raises ValueError."""
    return int(text) if text else None
