"""The attackers of these tests: attacks.c, compiled, and copies of it; and a laboratory that many attacks share."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.netns.conftest import CABLE, HERE, HERE6, THERE, THERE6, Namespace, ip
from tests.netns.programs_lab import WEB, Lab

from pfw.drivers import labels

NOBODY = 65534
REACHED, STOPPED, REFUSED = 0, 1, 3
"""The exit status of an attack: it was answered, it was not, or the kernel refused what it is made of."""
_SOURCE = Path(__file__).with_name("attacks.c")


class Arena:
    """A laboratory with a policy that allows program `good` and refuses the others, and attackers in it."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.good, self.evil = folder / "good", folder / "evil"
        compile_attacks(self.good, "-static")
        shutil.copy2(self.good, self.evil)

    def attack(
        self, program: Path, how: str, *more: str | Path, to: str = THERE, port: int = WEB, user: int | None = NOBODY,
        before: Sequence[str | Path] = (), **options: Any,
    ) -> int:  # fmt: skip
        """The exit status of an attack, by a plain user unless told otherwise; `before` are words that start it."""
        done = self.lab.run(*as_user(user), *before, program, how, to, str(port), *more, **options)
        assert done.returncode in (REACHED, STOPPED, REFUSED), (done.returncode, done.stdout, done.stderr)
        return done.returncode

    def copy(self, name: str, of: Path | None = None) -> Path:
        """Another program that does the same; it belongs to the plain user."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(of or self.evil, place)
        os.chown(place, NOBODY, NOBODY)
        return place


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
    reason = labels.usable() or ("gcc is not there" if shutil.which("gcc") is None else None)
    if reason is not None or os.geteuid() != 0:
        pytest.skip(reason or "network namespaces need root")
    here, there = _cable()
    try:
        for folder in _folder():
            lab = Lab(here, there, folder)
            try:
                arena = Arena(lab, folder)
                lab.up(policy(allow("out", str(arena.good)), allow("in", str(arena.good))))
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


def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pfw-test-"))
    folder.chmod(0o755)
    yield folder
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


assert SimpleNamespace
