"""Getting at the history to read it, and what to say where that cannot be done."""

from __future__ import annotations

import os
import sqlite3
import stat

from pfw.record.history_schema import APPLICATION_ID, VERSION, HistoryError

_BUSY_S = 5.0
_CACHE_KB = 16_384


def open_reading(path: str) -> sqlite3.Connection:
    """A connection that cannot write. Raises HistoryError."""
    _look(path)
    # A file that nobody writes and that we may not write has no log beside it that would have to be read.
    ways = ["mode=ro"] if os.path.exists(f"{path}-wal") else ["mode=ro", "mode=ro&immutable=1"]
    for way in ways:
        try:
            return _opened(path, way)
        except (sqlite3.Error, ValueError) as error:
            refused = refusal(path, error)
    raise refused


def _look(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode) or not stat.S_ISREG(mode):
            raise HistoryError(f"{path} is no regular file, so it is no history: give the path of the file itself")
        # Not opened and closed to see: the locks of SQLite would go, if this process has it open already (fcntl(2)).
        if not os.access(path, os.R_OK):
            raise PermissionError
    except FileNotFoundError:
        raise HistoryError(f"{path} is not there: there is no history before pfw daemon has run") from None
    except PermissionError:
        raise HistoryError(f"{path} cannot be read: only root may, use sudo") from None
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror or error}") from None


def _opened(path: str, way: str) -> sqlite3.Connection:
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    file = sqlite3.connect(f"file:{quoted}?{way}", uri=True, isolation_level=None, timeout=_BUSY_S)
    try:
        for pragma in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "temp_store = MEMORY",
            f"cache_size = -{_CACHE_KB}",
        ):
            file.execute(f"PRAGMA {pragma}")
        (application,) = file.execute("PRAGMA application_id").fetchone()
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID or version < 1:
            raise HistoryError(f"{path} is not a history of pfw: give the path of another file")
        if version != VERSION:
            raise HistoryError(
                f"{path} is of version {version} and this pfw knows {VERSION} only: use the pfw that wrote it"
            )
    except BaseException:
        file.close()
        raise
    return file


def refusal(path: str, error: Exception) -> HistoryError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return HistoryError(f"{path} is held by another process: try again")
    if code == sqlite3.SQLITE_NOTADB:
        return HistoryError(f"{path} is not a history of pfw: give the path of another file")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return HistoryError(f"{path} cannot be opened beside its log: only root may, use sudo")
    if code == sqlite3.SQLITE_CORRUPT or not isinstance(error, sqlite3.Error):
        return HistoryError(f"{path} is damaged: start pfw daemon anew, it puts it aside and begins a new one")
    return HistoryError(f"{path} cannot be read: {error}")
