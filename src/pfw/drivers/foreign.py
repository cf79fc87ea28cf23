"""What others have set up: their rules, programs on interfaces, who holds sockets, kernel settings. Nothing is changed.

The programs that are asked have little time and may say little: a ruleset of millions of lines is no reason to wait
or to fill the memory. Sets are never listed. /proc is that of the thread that asks, and so is the namespace.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from pfw.drivers.procfs import socket_inodes
from pfw.drivers.programs import RefusedError, find

OUTPUT_BYTES_MAX = 32 << 20
"""A ruleset of 100,000 rules without its sets is about that large."""
TIMEOUT_S = 20.0
_FILE_BYTES_MAX = 1 << 20
_CHUNK_BYTES = 1 << 16
_SAID_BYTES_MAX = 500
_PIDS_MAX = 20_000
_PROC = Path("/proc")
_NET = _PROC / "thread-self/net"
_SETTINGS = _PROC / "sys"
_UFW = Path("/etc/ufw/ufw.conf")


def output(*words: str, bytes_max: int = OUTPUT_BYTES_MAX, timeout_s: float = TIMEOUT_S) -> bytes:
    """What a program prints. Raises RefusedError where it is not there, fails, says too much or takes too long."""
    path = find(words[0])
    if path is None:
        raise RefusedError(f"the program {words[0]} is not there", missing=words[0])
    environment = {"PATH": os.path.dirname(path), "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            [path, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
    except OSError as error:
        raise RefusedError(f"{words[0]} cannot be started: {error.strerror}") from None
    with process:
        try:
            printed, said = _drained(process, words[0], bytes_max, time.monotonic() + timeout_s)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        text = said.decode(errors="replace").strip().partition("\n")[0]
        raise RefusedError(f"{words[0]}: {text or f'ended with status {process.returncode}'}")
    return printed


def _drained(process: subprocess.Popen[bytes], name: str, bytes_max: int, deadline: float) -> tuple[bytes, bytes]:
    """All that a program prints and the beginning of what it complains about, until it ends."""
    printed, said = bytearray(), bytearray()
    with selectors.DefaultSelector() as waiting:
        streams: dict[int, tuple[IO[bytes], bytearray]] = {}
        for stream, into in ((process.stdout, printed), (process.stderr, said)):
            if stream is not None:
                streams[stream.fileno()] = (stream, into)
                waiting.register(stream, selectors.EVENT_READ)
        while streams:
            left_s = deadline - time.monotonic()
            ready = waiting.select(left_s) if left_s > 0 else []
            if not ready:
                raise RefusedError(f"{name} did not end in time")
            for key, _ in ready:
                stream, into = streams[key.fd]
                data = os.read(key.fd, _CHUNK_BYTES)
                if not data:
                    waiting.unregister(stream)
                    del streams[key.fd]
                elif into is printed or len(said) < _SAID_BYTES_MAX:
                    into += data
                if len(printed) > bytes_max:
                    raise RefusedError(f"{name} prints more than {bytes_max >> 20} MiB")
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{name} did not end in time") from None
    return bytes(printed), bytes(said)


def nft_ruleset() -> bytes:
    """All tables of nftables as JSON, without the elements of sets. Raises RefusedError."""
    return output("nft", "-t", "-j", "list", "ruleset")


def saved_tables(kind: str, family: str) -> str | None:
    """The tables of iptables of a kind, of the family `ip` or `ip6`; None where there are none to ask for.

    Legacy tables are only asked for where they are: asking would bring them in. Raises RefusedError.
    """
    program = "iptables" if family == "ip" else "ip6tables"
    if kind == "iptables-legacy":
        if not (_read(_NET / f"{family}_tables_names") or "").split():
            return None
        if find(f"{program}-legacy-save") is None:
            text = output(f"{program}-save").decode(errors="replace")
            return None if "nf_tables" in text[:200] else text
    elif find(f"{program}-nft-save") is None:
        return None
    return output(f"{program}{kind.removeprefix('iptables')}-save").decode(errors="replace")


def links() -> bytes:
    """Interfaces as JSON. Raises RefusedError."""
    return output("ip", "-d", "-j", "link")


def qdiscs() -> bytes:
    """The queues of interfaces as JSON: programs and redirects hang on `clsact` and `ingress`. Raises RefusedError."""
    return output("tc", "-j", "qdisc", "show")


def filters(interface: str, direction: str) -> bytes:
    """What of tc hangs on an interface, `ingress` or `egress`, as JSON. Raises RefusedError."""
    return output("tc", "-j", "filter", "show", "dev", interface, direction, bytes_max=1 << 20)


def setting(name: str) -> str | None:
    """A kernel setting such as `net/ipv4/ip_forward`; None where there is none."""
    text = _read(_SETTINGS / name)
    return None if text is None else text.strip()


def number(name: str) -> int | None:
    """A kernel setting that is a number."""
    text = setting(name)
    return int(text) if text is not None and re.fullmatch("-?[0-9]{1,18}", text) else None


def uplinks() -> set[str]:
    """The interfaces that a default route of either family leads over."""
    found = set()
    for line in (_read(_NET / "route") or "").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            found.add(words[0])
    for line in (_read(_NET / "ipv6_route") or "").splitlines():
        words = line.split()
        # A reject route of the kernel's own stands on lo.
        if len(words) > 9 and words[1] == "00" and set(words[0]) == {"0"} and words[9] != "lo":
            found.add(words[9])
    return found


def log_groups() -> dict[int, int]:
    """Who reads packets that rules log, by group: its netlink port, mostly the number of its process."""
    found = {}
    for line in (_read(_NET / "netfilter/nfnetlink_log") or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[0].isdecimal() and words[1].isdecimal():
            found[int(words[0])] = int(words[1])
    return found


def packet_sockets() -> set[int]:
    """The inodes of the sockets that are given packets before any rule."""
    lines = (_read(_NET / "packet") or "").splitlines()[1:]
    return {int(words[-1]) for words in map(str.split, lines) if words and words[-1].isdecimal()}


def holders(inodes: Iterable[int]) -> dict[int, str]:
    """The processes that hold any of these sockets, with the names of their programs."""
    wanted = set(inodes)
    found: dict[int, str] = {}
    for pid in _pids() if wanted else ():
        if wanted & socket_inodes(pid):
            found[pid] = program(pid)
    return found


def program(pid: int) -> str:
    """The name of a process's program; empty where there is no such process."""
    return (_read(_PROC / str(pid) / "comm") or "").rstrip("\n")


def command_line(pid: int) -> list[str]:
    """The words that a process was started with."""
    return [word for word in (_read(_PROC / str(pid) / "cmdline") or "").split("\0") if word]


def ufw_is_on() -> bool:
    """Whether ufw is switched on for the next boot."""
    return re.search(r"^\s*ENABLED\s*=\s*[\"']?yes", _read(_UFW) or "", re.IGNORECASE | re.MULTILINE) is not None


def runs(name: str) -> bool:
    """Whether a program of this name runs in this network namespace."""
    here = _namespace("thread-self")
    return here is not None and any(program(pid) == name and _namespace(str(pid)) == here for pid in _pids())


def in_namespace() -> bool:
    """Whether this is a network namespace other than the system's own, as far as that can be told."""
    first = _namespace("1")
    return first is not None and first != _namespace("thread-self")


def _namespace(process: str) -> int | None:
    try:
        return os.stat(_PROC / process / "ns/net").st_ino
    except OSError:
        return None


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdecimal()][:_PIDS_MAX]
    return []


def _read(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return None
