"""Processes, as /proc tells of them: ancestors, the sockets that they hold, who is logged in. Nothing is kept."""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct as Layout

_PROC = Path("/proc")
_UTMP = (Path("/run/utmp"), Path("/var/run/utmp"))
_ANCESTORS_MAX = 64
_CLOCK = time.CLOCK_BOOTTIME
"""The one by which /proc tells when a process began."""
_LOGIN_PROGRAMS = frozenset({"sshd", "sshd-session", "sshd-auth", "dropbear", "in.telnetd", "telnetd", "in.rlogind"})
_ASKING, _ASKING_USER = "sshd-auth", "sshd"
"""Who serves a session while nobody has got in yet: sshd's process without privileges (its README.privsep)."""
_LOGIN_S = 330.0
"""Nobody is asked for a password for longer: dropbear gives 300 s, OpenSSH 120 s."""
_USER_PROCESS = 7
_UTMP_RECORD = Layout("=h2xi32s4s32s256shhiii16s20s")
"""struct utmp of glibc on Linux (bits/utmp.h), 384 bytes."""


def ancestors() -> list[int]:
    """This process, its parent, and so on up to the first."""
    found = [os.getpid()]
    while found[-1] > 1 and len(found) < _ANCESTORS_MAX:
        parent = _parent(found[-1])
        if parent is None or parent in found:
            break
        found.append(parent)
    return found


def _parent(pid: int) -> int | None:
    try:
        # The name of the program may hold anything, brackets too: what follows the last one is numbers.
        return int((_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def socket_inodes(pid: int) -> set[int]:
    """The sockets that a process holds; empty where it may not be looked at."""
    found = set()
    with suppress(OSError):
        for entry in os.scandir(_PROC / str(pid) / "fd"):
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def login_inodes() -> set[int]:
    """The sockets that programs for remote logins hold."""
    return {inode for pid in _pids() if _name(pid) in _LOGIN_PROGRAMS for inode in socket_inodes(pid)}


def session_inodes() -> set[int]:
    """Those of them by which somebody got in. Whoever only connects has a process that holds his socket, too, but none
    that is his, and none that does something for him."""
    processes = {pid: found for pid in _pids() if (found := _process(pid)) is not None}
    parents = {found[1] for found in processes.values()}
    working = {parent for name, parent, _ in processes.values() if name not in _LOGIN_PROGRAMS and name != "login"}
    # telnetd starts login, which asks, and has a shell when it has been answered.
    working |= {parent for pid, (name, parent, _) in processes.items() if name == "login" and pid in working}
    asking = _user_id(_ASKING_USER)
    inside: set[int] = set()
    outside: set[int] = set()
    for pid, (name, _, age_s) in processes.items():
        if name not in _LOGIN_PROGRAMS:
            continue
        uid = _uid(pid)
        if name == _ASKING or (uid is not None and uid == asking):
            outside |= socket_inodes(pid)
        elif uid or pid in working or (age_s > _LOGIN_S and pid not in parents):
            inside |= socket_inodes(pid)
    return inside - outside


def variable(pid: int, name: str) -> str | None:
    """A variable of a process's environment as it was at its start; None where there is none."""
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for each in content.split(b"\0"):
        if each.startswith(name.encode() + b"="):
            return each.partition(b"=")[2].decode(errors="replace")
    return None


def logged_in_from() -> set[bytes]:
    """The packed addresses from which people are logged in, as the system's record of logins has them."""
    content = b""
    for path in _UTMP:
        with suppress(OSError):
            content = path.read_bytes()
            break
    found = set()
    for at in range(0, len(content) - _UTMP_RECORD.size + 1, _UTMP_RECORD.size):
        kind, *_, address, _ = _UTMP_RECORD.unpack_from(content, at)
        if kind == _USER_PROCESS and any(address):
            found.add(address if any(address[4:]) else address[:4])
    return found


def resolvers() -> set[str]:
    """The name servers that this machine asks, as texts."""
    found: set[str] = set()
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        with suppress(OSError):
            text = Path(path).read_text(errors="replace")[:65536]
            found.update(re.findall(r"^\s*nameserver\s+([0-9A-Fa-f.:]+)", text, re.MULTILINE))
    return found


def unit_path(name: str) -> str | None:
    """The control group of a systemd unit, or a path of one, below the root of cgroup v2."""
    root = _cgroup_root()
    if root is None:
        return None
    wanted = name.strip("/")
    if (root / wanted).is_dir() and wanted:
        return wanted
    if "/" in wanted:
        return None
    for folder, below, _ in os.walk(root):
        if wanted in below:
            return str((Path(folder) / wanted).relative_to(root))
    return None


def unit_mount() -> str:
    """The way from /sys/fs/cgroup to the root of cgroup v2; empty where they are the same, or there is none."""
    root = _cgroup_root()
    way = "." if root is None else os.path.relpath(root, "/sys/fs/cgroup")
    return "" if way == "." else f"{way}/"


def _cgroup_root() -> Path | None:
    with suppress(OSError):
        for line in (_PROC / "self/mounts").read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 2 and words[2] == "cgroup2":
                return Path(words[1])
    return None


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdecimal())


def _name(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, int, float] | None:
    """The name of a process, its parent, and for how many seconds it has been there."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        words = text.rpartition(")")[2].split()
        started = int(words[19]) / os.sysconf("SC_CLK_TCK")
        return text.partition("(")[2].rpartition(")")[0], int(words[1]), time.clock_gettime(_CLOCK) - started
    except (OSError, ValueError, IndexError):
        return None


def _uid(pid: int) -> int | None:
    # Not the owner of its folder: of a process that has changed its user, that is root.
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None


def _user_id(name: str) -> int | None:
    with suppress(KeyError):
        return pwd.getpwnam(name).pw_uid
    return None


def executables() -> list[str]:
    """The path of each process' executable, as the kernel calls it."""
    found = []
    for pid in _pids():
        with suppress(OSError):
            found.append(os.readlink(_PROC / str(pid) / "exe").removesuffix(" (deleted)"))
    return found


def count_connections() -> None:
    """Have connection tracking count packets and bytes of what begins from now on, in this network namespace."""
    with suppress(OSError):
        (_PROC / "sys/net/netfilter/nf_conntrack_acct").write_text("1")


def tell_connections() -> None:
    """Have connection tracking tell of what begins from now on (`drivers/conntrack.py`), where that was switched off,
    in this network namespace."""
    setting = _PROC / "sys/net/netfilter/nf_conntrack_events"
    with suppress(OSError):
        if setting.read_text().strip() == "0":
            # 2, as long as somebody listens, is newer.
            for value in ("1", "2"):
                with suppress(OSError):
                    setting.write_text(value)


def time_connections() -> None:
    """Have connection tracking tell when what begins from now on began and ended, in this network namespace."""
    with suppress(OSError):
        (_PROC / "sys/net/netfilter/nf_conntrack_timestamp").write_text("1")
