"""The programs of these tests: talker.c, compiled, and copies of it; and what the other end hears of its listeners."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.netns.programs_lab import WEB, Lab

WAIT_S = 1.2
"""As long as talker.c waits for an answer."""
_SOURCE = Path(__file__).with_name("talker.c")


class Workshop:
    """A folder where every user may start what is in it, and the compiled program there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.talker = folder / "talker"
        command = ["gcc", "-O1", "-static", "-Wall", "-Werror", "-o", str(self.talker), str(_SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def other_content(self) -> Path:
        """The same program, but for a few bytes that nobody reads."""
        place = self.folder / "other-content"
        place.write_bytes(self.talker.read_bytes() + b"more")
        place.chmod(0o755)
        return place

    def copy(self, name: str, program: str | Path | None = None) -> Path:
        """Another program that does the same as this one, or as talker.c; a new file, whatever was there."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(place.name + ".new")
        shutil.copy2(program or self.talker, new)
        new.replace(place)
        return place


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    if shutil.which("gcc") is None:
        pytest.skip("the programs of these tests need gcc")
    folder = Path(tempfile.mkdtemp(prefix="pfw-test-"))
    folder.chmod(0o755)
    yield Workshop(folder)
    shutil.rmtree(folder)


def rules(*found: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A policy that refuses what no rule allows: whoever is refused hears of it at once."""
    return {"version": 2, "default": {"in": "reject", "out": "reject"}, "rules": list(found), **fields}


def allow(direction: str, app: Any = None, **fields: Any) -> dict[str, Any]:
    """A rule that allows a program."""
    named = {} if app is None else {"app": app}
    return {"name": f"allow {direction}", "action": "allow", "direction": direction, **named, **fields}


def talks(
    lab: Lab, program: str | Path, how: str, address: str, *, before: Sequence[str] = (), port: int = WEB
) -> Talk:  # fmt: skip
    """Begin to talk to the other end; `before` are words that start the program in another way."""
    return Talk(lab.start(*before, program, how, address, str(port)), f"{program} {how} {address}")


class Talk:
    """A program that talks; `said` waits for what became of it."""

    def __init__(self, process: subprocess.Popen[str], what: str) -> None:
        self.process, self.what = process, what

    @property
    def said(self) -> str:
        out, errors = self.process.communicate(timeout=15)
        assert self.process.returncode == 0, (self.what, out, errors)
        return out.strip()


def became(wanted: dict[Talk, bool]) -> list[tuple[str, str]]:
    """Those that went otherwise than wanted: who must be answered, and who must not."""
    return [(each.what, said) for each, good in wanted.items() if ((said := each.said) == "yes") != good]


def ask(at: Any, kind: str, address: str, port: int) -> str:
    """What somebody at another end hears of a listener: `yes`, `refused` or `silent`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = kind == "tcp"
    with at.call(lambda: socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)) as sock:
        sock.settimeout(WAIT_S)
        try:
            sock.connect((address, port))
            sock.send(b"hello")
            return "yes" if sock.recv(100) == b"yes" else "refused"
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"


class Conversation:
    """A program that stays, and talks whenever it is told to; it keeps a UDP socket from the beginning (`udp-kept`)."""

    def __init__(self, lab: Lab, program: Path, address: str, *, before: Sequence[str] = ()) -> None:
        self._process = lab.start(*before, program, "converse", address, str(WEB), stdin=subprocess.PIPE)

    def begin(self, how: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(how + "\n")
        self._process.stdin.flush()

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, how: str) -> str:
        self.begin(how)
        return self.said()


def serve(
    lab: Lab, program: str | Path, how: str, *words: object, before: Sequence[str] = (), **options: Any
) -> subprocess.Popen[str]:
    """Start a program that listens, and wait until it does."""
    process = lab.start(*before, program, how, *map(str, words), **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=5)
    return process


def generation(lab: Lab) -> int:
    """What the daemon takes for the policy in force."""
    status = lab.status_or_none()
    return 0 if status is None else status.generation


def put_in_force(lab: Lab, policy: dict[str, Any]) -> None:
    """Another policy, and wait until the daemon has taken it up: sockets that are open are labelled then."""
    before = generation(lab)
    lab.firewall.write(policy)
    lab.pfw("up", "--rules", str(lab.firewall.path))
    lab.until(lambda: generation(lab) > before, "the daemon knows the policy")
