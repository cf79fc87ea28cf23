"""The socket that the server listens on: made at a path, or taken over from systemd.

Everybody may connect to it (mode 0666): who a caller is the kernel tells at each connection (`peer.py`), and that
knows of users, groups and a right for each method, which the bits of a file do not. The bits would also say EACCES to
somebody who only lacks a group, where an answer can say what is missing.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_BACKLOG = 64
_FOLDER_MODE = 0o755
_SOCKET_MODE = 0o666
_FIRST_GIVEN = 3
"""SD_LISTEN_FDS_START, sd_listen_fds(3)."""


def listen(path: Path) -> socket.socket:
    """A socket that listens at this path, in the place of one where nobody answers any more.

    It is bound under another name and renamed, so that there is never a path where a caller finds nobody, or a mode
    that is not meant. Two who start at the same moment may both come up, and the later one has the path: who must be
    the only one needs a lock of his own. Raises OSError; EADDRINUSE where somebody answers.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
        path.parent.chmod(_FOLDER_MODE)  # whatever the umask is
    _refuse_taken(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(str(temporary))
        temporary.chmod(_SOCKET_MODE)
        sock.listen(_BACKLOG)
        temporary.rename(path)
    except BaseException:
        sock.close()
        with suppress(OSError):
            temporary.unlink()
        raise
    return sock


def given(environment: Mapping[str, str], pid: int) -> socket.socket | None:
    """The socket that systemd has opened for this process, None where it has not. It stays systemd's: its path is not
    to be removed. Raises ValueError where it is not one listening Unix stream socket."""
    if environment.get("LISTEN_PID") != str(pid):
        return None
    if environment.get("LISTEN_FDS") != "1":
        raise ValueError("the socket unit must give one socket (one ListenStream= line)")
    os.set_inheritable(_FIRST_GIVEN, False)
    sock = socket.socket(fileno=_FIRST_GIVEN)
    if (
        sock.family != socket.AF_UNIX
        or sock.type != socket.SOCK_STREAM
        or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        sock.detach()
        raise ValueError("the socket unit must give a listening Unix socket (ListenStream= with a path)")
    sock.setblocking(False)
    return sock


def _refuse_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        # A connection to a plain file is refused just like one to a socket that nobody listens on.
        raise FileExistsError(errno.EEXIST, "is there and is no socket; it is not touched", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # Somebody listens, and does not come to answering.
    raise OSError(errno.EADDRINUSE, "somebody answers there already", str(path))
