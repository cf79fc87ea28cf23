"""The attackers of these tests: attacks.c, compiled, and copies of it; and a laboratory that many attacks share."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.netns.conftest import CABLE, HERE, HERE6, THERE, THERE6, Namespace, ip
from tests.netns.programs_lab import WEB, Lab

from pfw.drivers import labels
from pfw.drivers.processes import executable

NOBODY = 65534
REACHED, STOPPED, REFUSED = 0, 1, 3
"""The exit status of an attack: it was answered, it was not, or the kernel refused what it is made of."""
_SOURCE = Path(__file__).with_name("attacks.c")


class Arena:
    """A laboratory with programs: `good`, which a policy may allow, and `evil`. Every user may write in `own`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.good, self.evil = folder / "good", folder / "evil"
        compile_attacks(self.good, "-static")
        shutil.copy2(self.good, self.evil)
        self.own = folder / "own"
        self.own.mkdir()
        self.own.chmod(0o777)

    def attack(
        self, program: Path, how: str, *more: str | Path, to: str = THERE, port: int = WEB, user: int | None = NOBODY,
        before: Sequence[str | Path] = (), **options: Any,
    ) -> int:  # fmt: skip
        """The exit status of an attack, by a plain user unless told otherwise; `before` are words that start it."""
        done = self.lab.run(*as_user(user), *before, program, how, to, str(port), *more, **options)
        assert done.returncode in (REACHED, STOPPED, REFUSED), (done.returncode, done.stdout, done.stderr)
        return done.returncode

    def copy(self, name: str, of: Path | None = None) -> Path:
        """Another program that does the same. It is put there as a new file, whatever was there."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.parent / "new"
        shutil.copy2(of or self.evil, new)
        new.replace(place)
        return place

    @contextmanager
    def unseen(
        self, program: Path, how: str, *more: str | Path, becomes: Path, to: str = THERE, port: int = WEB
    ) -> Iterator[subprocess.Popen[str]]:
        """An attack by a program that has become another one before the daemon could look at it."""
        assert self.lab.daemon is not None
        self.lab.daemon.send_signal(signal.SIGSTOP)
        with self.lab.start(*as_user(NOBODY), program, how, to, str(port), *more) as process:
            try:
                wanted = (becomes.stat().st_dev, becomes.stat().st_ino)
                self.lab.until(lambda: executable(process.pid) == wanted, f"it is {becomes}")
            finally:
                self.lab.daemon.send_signal(signal.SIGCONT)
            yield process
            process.kill()

    def receives(self, program: Path, how: str, port: int, *more: str | Path) -> bool:
        """Whether somebody at the other end can connect to a program that listens here."""
        words = as_user(NOBODY)
        with self.lab.start(*words, program, how, HERE, str(port), *more) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            try:
                with self.lab.there.call(lambda: socket.create_connection((HERE, port), timeout=1)) as caller:
                    caller.settimeout(2)
                    return bool(caller.recv(16) == b"yes")
            except OSError:
                return False
            finally:
                process.kill()


def as_user(user: int | None) -> list[str]:
    """The words that start a program as this user; None is root."""
    return [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]


def compile_attacks(place: Path, *options: str) -> None:
    # Not relocated, so that what one copy has in memory stands at the same place in another.
    command = ["gcc", "-O1", "-no-pie", "-Wall", "-Werror", *options, "-o", str(place), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def policy(*rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A policy that refuses what no rule allows, so that who is refused hears of it at once."""
    return {"version": 2, "default": {"in": "reject", "out": "reject"}, "rules": list(rules), **fields}


def allow(direction: str, app: Any, **fields: Any) -> dict[str, Any]:
    return {"name": f"{app} {direction}", "action": "allow", "direction": direction, "app": app, **fields}


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder into which every user may go, unlike pytest's own."""
    yield from _folder()


@pytest.fixture(scope="module")
def shared() -> Iterator[Arena]:
    """The laboratory of attacks that change nothing for each other: `good` may go out and receive."""
    yield from _standing(_policy_of)


@pytest.fixture(scope="module")
def asked() -> Iterator[Arena]:
    """The same, where `good` may go out and all others ask."""
    yield from _standing(asking)


def asking(arena: Arena) -> dict[str, Any]:
    return policy(allow("out", str(arena.good)), default={"in": "block", "out": "ask"})


def _standing(policy_of: Callable[[Arena], dict[str, Any]]) -> Iterator[Arena]:
    reason = labels.usable() or ("gcc is not there" if shutil.which("gcc") is None else None)
    if reason is not None or os.geteuid() != 0:
        pytest.skip(reason or "network namespaces need root")
    here, there = _cable()
    try:
        for folder in _folder():
            lab = Lab(here, there, folder)
            try:
                arena = Arena(lab, folder)
                lab.up(policy_of(arena))
                yield arena
            finally:
                lab.remove()
    finally:
        here.remove()
        there.remove()


@pytest.fixture
def arena(lab: Lab, tmp_path: Path) -> Arena:
    """A laboratory for one attack alone; no policy is in force yet."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not there")
    return Arena(lab, tmp_path)


def _policy_of(arena: Arena) -> dict[str, Any]:
    good, sealed = str(arena.good), arena.copy("sealed")
    python, replaced = arena.copy("python3"), arena.copy("replaced")
    arena.copy("box/first")
    (arena.folder / "allowed.py").write_text("")
    sha256 = hashlib.sha256(sealed.read_bytes()).hexdigest()
    return policy(
        allow("out", good),
        allow("in", good),
        allow("out", {"path": str(sealed), "sha256": sha256}),
        allow("out", str(replaced)),
        allow("out", f"{arena.folder}/box/*"),
        allow("out", str(python), script=f"{arena.folder}/allowed.py"),
        {"name": "silent", "action": "block", "direction": "out", "to": THERE6},
    )


def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pfw-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _cable() -> tuple[Namespace, Namespace]:
    """Two namespaces, joined as those of fixture `pair` are."""
    here, there = Namespace(), Namespace()
    for each in (here, there):
        for name in ("accept_dad=0", "router_solicitations=0"):
            each.run("sysctl", "-qw", f"net.ipv6.conf.default.{name}")
        each.run("ip", "link", "set", "lo", "up")
    ip("link", "add", CABLE, "netns", here.name, "type", "veth", "peer", "name", CABLE, "netns", there.name)
    for each, address, address6 in ((here, HERE, HERE6), (there, THERE, THERE6)):
        ip("-n", each.name, "link", "set", CABLE, "up")
        ip("-n", each.name, "addr", "add", f"{address}/24", "broadcast", "10.77.0.255", "dev", CABLE)
        ip("-n", each.name, "addr", "add", f"{address6}/64", "dev", CABLE, "nodad")
    return here, there
