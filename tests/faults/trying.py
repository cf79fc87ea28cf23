"""A firewall between an old policy and a new one, which packets tell apart, and what breaks in between."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, arrived, opened, policy

DYING = Path(__file__).with_name("dying.py")
OLD, NEW = 6001, 6002
"""Ports that only the one and only the other has open."""


class Trial:
    """A firewall between an old and a new policy, told apart by packets."""

    def __init__(self, firewall: Firewall, pair: Any, net: Any) -> None:
        self.firewall, self.pair, self.net = firewall, pair, net
        self.addresses = (net.here, net.here6)
        self.changing = Changing(firewall)

    def open_ports(self) -> set[tuple[str, int]]:
        found = arrived(self.pair.here, self.pair.there, (OLD, NEW), self.addresses)
        return {each for each in found if each[1] in (OLD, NEW)}

    def of(self, *ports: int) -> set[tuple[str, int]]:
        return {(address, port) for address in self.addresses for port in ports}

    def guards(self) -> list[int]:
        """The guards that are still at work in this namespace."""
        inode = Path(f"/run/netns/{self.pair.here.name}").stat().st_ino
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                same = (place / "ns/net").stat().st_ino == inode
                if same and b"pfw.daemon.guard" in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    def rest(self) -> None:
        """Until nobody is at work any more."""
        self.net.wait_until(lambda: not self.guards(), "the guard has done its work")

    def die(self, step: int, *words: str) -> bool:
        """Whether it was killed; False where there are fewer steps."""
        command = self.pair.here.command(sys.executable, "-P", DYING, str(step), *words)
        done = self.firewall.run(command, status=None)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        self.rest()
        return done.returncode != 0

    def check_whole(self, *possible: set[tuple[str, int]]) -> set[tuple[str, int]]:
        found = self.open_ports()
        assert found in possible, f"half of a policy: {sorted(found)}"
        status = self.firewall.status()
        assert status["active"] == (found != self.of(OLD, NEW)), status
        return found

    def check_tidy(self, *, generations: int = 1) -> None:
        """Of older generations nothing is left."""
        listed = self.firewall.ours()
        numbers = set(re.findall(r"\bg(\d+)_|\bpfw-(\d+)|\"pfw (\d+) ", listed))
        assert len({"".join(each) for each in numbers}) <= generations, numbers


@pytest.fixture
def trial(request: pytest.FixtureRequest, firewall: Callable[..., Firewall], pair: Any, net: Any) -> Trial:
    return Trial(firewall(request.param), pair, net)


def on(*backends: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("trial", backends, indirect=True)


def up_words(trial: Trial, *more: str) -> list[str]:
    firewall = trial.firewall
    return ["up", "--rules", str(firewall.path), "--backend", firewall.backend, *more]


def old_policy() -> dict[str, Any]:
    return policy(opened(OLD), opened([6100, 6101, 6102]))


def new_policy() -> dict[str, Any]:
    return policy(opened(NEW), {"name": "some", "action": "block", "from": ["192.0.2.0/24", "2001:db8::/32"]})
