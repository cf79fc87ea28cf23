"""Other programs: nft, iptables-restore, ipset. Started without a shell, fed by standard input, never waited for
without end."""

from __future__ import annotations

import shutil
import subprocess

from msgspec import Struct

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_TIMEOUT_S = 300.0
"""A million prefixes take a slow machine half a minute."""
_SAID_BYTES_MAX = 2000


class RefusedError(Exception):
    """The system did not do what it was told; the text says what, and why as far as it told. `missing` names a
    program that is not there."""

    def __init__(self, what: str, missing: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.missing = missing


class Job(Struct, frozen=True):
    """A program to run: its words, and what it reads."""

    words: tuple[str, ...]
    reads: str = ""


def find(name: str) -> str | None:
    """Where a program is. Not only where the caller's PATH looks: root's programs are in folders of their own."""
    return shutil.which(name, path=_PATH)


def run(job: Job) -> str:
    """What the program printed. Raises RefusedError where it is not there, fails, or does not end."""
    name = job.words[0]
    path = find(name)
    if path is None:
        raise RefusedError(f"the program {name} is not there", missing=name)
    try:
        done = subprocess.run(
            [path, *job.words[1:]],
            input=job.reads.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=_TIMEOUT_S,
            # All that we open stays ours but what is made inheritable: the lock, and the pipe to the guard. Where we
            # are killed, the one is held and the other is open until the program that we left behind has ended.
            close_fds=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"{name} did not end within {_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise RefusedError(f"{name} cannot be started: {error.strerror}") from None
    if done.returncode:
        raise RefusedError(f"{name}: {_said(done.stderr or done.stdout) or f'ended with status {done.returncode}'}")
    return done.stdout.decode(errors="replace")


def _said(output: bytes) -> str:
    """The first line of what a program complained about, and the line that it complained of."""
    lines = [line.strip() for line in output[:_SAID_BYTES_MAX].decode(errors="replace").splitlines()]
    return " ".join(line for line in lines[:2] if line)
