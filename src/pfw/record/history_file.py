"""The history's file as such: opened for its one writer, mode 0600, and put aside where it is broken.

Nothing that lies in its place is followed, written to or deleted before its time: what is no history of ours gets
another name beside it, and a new file begins. A file of a newer version is left as it is.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import cache

from pfw.record.history_schema import (
    ACTIONS,
    APPLICATION_ID,
    CERTAINTIES,
    DIRECTIONS,
    PAGE_BYTES,
    STEPS,
    TABLES,
    VERSION,
    HistoryError,
    decode_text,
)

BROKEN_MOST = 3
"""Files put aside that are kept."""
_BROKEN = ".broken-"
_ASIDE = re.compile(r"\.broken-(\d{8}T\d{6}Z)(?:-(\d{1,9}))?")
_SIDES = ("-wal", "-shm", "-journal")
_MAGIC = b"SQLite format 3\0"
_BUSY_S = 1.0
_CACHE_KB = 8192

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

# Without O_NONBLOCK a FIFO at the path would hold us until somebody reads it.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


_UNKNOWN_NUMBERS = (
    "SELECT count(*) FROM subject WHERE"
    f" direction NOT BETWEEN 0 AND {len(DIRECTIONS) - 1} OR action NOT BETWEEN 0 AND {len(ACTIONS) - 1}"
    f" OR certainty NOT BETWEEN -1 AND {len(CERTAINTIES) - 1} OR length(local) NOT IN (0, 4, 16)"
)
_DANGLING = tuple(
    f"SELECT 1 FROM {table} WHERE length(remote) NOT IN (0, 4, 16) OR subject NOT IN (SELECT id FROM subject) LIMIT 1"
    for table in ("connection", "folded")
)


class DamagedError(Exception):
    """What is in the file's place is no history that could be gone on with."""


def log_bytes(budget_bytes: int) -> int:
    """What of the budget is for SQLite's log beside the file."""
    return min(32 << 20, max(budget_bytes // 8, 64 * PAGE_BYTES))


def pages_most(budget_bytes: int) -> int:
    """The most pages that the file may have."""
    return max((budget_bytes - log_bytes(budget_bytes)) // PAGE_BYTES, 64)


def is_damage(error: Exception) -> bool:
    """Whether the file is to blame, not the disk or another process."""
    return isinstance(error, DamagedError) or code_of(error) in DAMAGED


def code_of(error: Exception) -> int:
    """SQLite's primary result code; 0 where there is none."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0


def open_file(path: str, budget_bytes: int, tell: Callable[[str], None]) -> sqlite3.Connection:
    """Open or make it. What is broken is put aside, and told. Raises HistoryError for a newer version, sqlite3.Error
    and OSError for what the system refuses."""
    try:
        return _open(path, budget_bytes)
    except (DamagedError, sqlite3.Error, ValueError) as error:  # messages with bytes of the file in them are no text
        if not is_damage(error) and not isinstance(error, ValueError) and code_of(error) != sqlite3.SQLITE_ERROR:
            raise
        put_aside(path, str(error) if isinstance(error, DamagedError) else "is damaged", tell)
    try:
        return _open(path, budget_bytes)
    except DamagedError as error:
        raise OSError(errno.EIO, str(error)) from None


def put_aside(path: str, why: str, tell: Callable[[str], None]) -> None:
    """Give it another name, so that a new one can begin. Raises OSError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    number = max([number for other, number, _ in _broken(path) if other == stamp], default=0) + 1
    aside = f"{path}{_BROKEN}{stamp}" + (f"-{number}" if number > 1 else "")
    os.rename(path, aside)
    for side in _SIDES:
        with suppress(FileNotFoundError):
            os.rename(path + side, aside + side)
    tell(f"{path}: {why}; it is now {aside}, and a new history begins")
    _forget_broken(path)


def identity(path: str) -> tuple[int, int] | None:
    """What tells the file at the path from another one; None where there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _broken(path: str) -> list[tuple[str, int, str]]:
    """What was put aside, the oldest first: its time, its number within that second, its path."""
    folder, name = os.path.split(os.path.abspath(path))
    found = []
    for each in os.listdir(folder):
        shape = _ASIDE.fullmatch(each.removeprefix(name))
        if each.startswith(name) and shape is not None:
            found.append((shape[1], int(shape[2] or 1), os.path.join(folder, each)))
    return sorted(found)


def open_eye(path: str) -> int:
    """A descriptor to look at the file with while SQLite has it open; to be closed only when SQLite has let go.

    Whoever closes any descriptor of a file loses all locks that this process has on it (fcntl(2)), SQLite's too: then
    the next program that opens the history takes itself for the last one, and deletes the log that is written to.
    """
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def is_overwritten(eye: int) -> bool:
    """Whether something else stands where a file of SQLite's begins, which the log hides from whoever has it open."""
    with suppress(OSError):
        return os.pread(eye, len(_MAGIC), 0) != _MAGIC
    return False


def _forget_broken(path: str) -> None:
    for _, _, old in _broken(path)[:-BROKEN_MOST]:
        for end in ("", *_SIDES):
            with suppress(OSError):  # a folder that is not empty stays
                if stat.S_ISDIR(os.lstat(old + end).st_mode):
                    os.rmdir(old + end)
                else:
                    os.unlink(old + end)


def _open(path: str, budget_bytes: int) -> sqlite3.Connection:
    _make(path)
    file = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
    try:
        file.text_factory = decode_text
        _set(file, budget_bytes)
        if _is_empty(file):
            _run(file, TABLES, VERSION)
        _check(file, path)
        if not is_sound(file):
            raise DamagedError("is damaged")
    except BaseException:
        file.close()
        raise
    return file


def _make(path: str) -> None:
    """See that it and what lies beside it are regular files of ours that nobody else may read."""
    for name in (path, *(path + side for side in _SIDES)):
        try:
            found = os.lstat(name)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            os.chmod(name, 0o600, follow_symlinks=True)
        elif name == path:
            raise DamagedError("is not a regular file that belongs to us")
        elif stat.S_ISDIR(found.st_mode):
            os.rename(name, f"{path}{_BROKEN}{os.path.basename(name)}")
        else:
            os.unlink(name)
    with open(os.open(path, _FLAGS, 0o600), "rb") as opened:
        header = opened.read(100)
    if not header:
        for side in _SIDES:  # a log without its file would bring back what somebody deleted
            with suppress(FileNotFoundError):
                os.unlink(path + side)
    elif header.startswith(_MAGIC) and _number(header, 68) == APPLICATION_ID and _number(header, 60) > VERSION:
        raise _newer(path, _number(header, 60))  # before SQLite could write to it
    elif not header.startswith(_MAGIC):
        raise DamagedError("is not a file of SQLite")


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4])


def _newer(path: str, version: int) -> HistoryError:
    return HistoryError(
        f"{path} is of version {version} and this pfw knows {VERSION} only: there is no history until a newer pfw runs,"
        " or the file is moved away"
    )


def _set(file: sqlite3.Connection, budget_bytes: int) -> None:
    log = log_bytes(budget_bytes)
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
        f"journal_size_limit = {log // 4}",
        f"wal_autocheckpoint = {log // 8 // PAGE_BYTES}",
        f"cache_size = -{_CACHE_KB}",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        "secure_delete = OFF",
        f"max_page_count = {pages_most(budget_bytes)}",
    ):
        file.execute(f"PRAGMA {pragma}").fetchall()


def _is_empty(file: sqlite3.Connection) -> bool:
    marks = [file.execute(f"PRAGMA {each}").fetchone()[0] for each in ("application_id", "user_version")]
    return marks == [0, 0] and not file.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]


def _check(file: sqlite3.Connection, path: str) -> None:
    """See that it is one of ours, and bring it to this version."""
    (application,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise DamagedError("is a file of SQLite, but no history of pfw")
    if version > VERSION:
        raise _newer(path, version)
    for old in range(version, VERSION):
        if old not in STEPS:
            raise DamagedError(f"is of version {version}, which nothing is known of")
        try:
            _run(file, STEPS[old], old + 1)
        except sqlite3.Error as error:
            if code_of(error) != sqlite3.SQLITE_ERROR:
                raise
            why = f"{path} cannot be brought from version {old} to {old + 1} ({error})"
            raise HistoryError(f"{why}: there is no history until the file is moved away") from None
    if tables_of(file) != _expected():
        raise DamagedError("does not have the tables of a history")


def _run(file: sqlite3.Connection, statements: str, version: int) -> None:
    """All of the statements and the version that they lead to, or nothing."""
    try:
        file.executescript(
            f"BEGIN IMMEDIATE; {statements}; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {version}; COMMIT"
        )
    except sqlite3.Error:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise


def is_sound(file: sqlite3.Connection) -> bool:
    """Look at all of it: SQLite has no checksums, and what is never read again until somebody wants it is found broken
    by nobody else. A second or two for the usual budget."""
    if file.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        return False
    (known,) = file.execute(_UNKNOWN_NUMBERS).fetchone()
    return not known and all(file.execute(sql).fetchone() is None for sql in _DANGLING)


def tables_of(file: sqlite3.Connection) -> set[tuple[str, str]]:
    """The name of everything in the file, and how it was made."""
    return set(file.execute("SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name != 'sqlite_sequence'"))


@cache
def _expected() -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as made:
        made.executescript(TABLES)
        return tables_of(made)
