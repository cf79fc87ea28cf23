"""`pfw up` that is killed at any of its steps leaves the old policy whole, or the new one, for both families."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, arrived, opened, policy

DYING = Path(__file__).with_name("dying.py")
OLD, NEW = 6001, 6002
STEPS_MAX = 60


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


@on("nftables", "iptables-nft", "iptables-legacy")
def test_between_two_policies(trial: Trial) -> None:
    firewall, seen = trial.firewall, set()
    for step in range(1, STEPS_MAX, 3 if firewall.backend == "iptables-legacy" else 1):
        trial.changing.up(old_policy())
        firewall.write(new_policy())
        if not trial.die(step, *up_words(trial)):
            break
        seen.add(frozenset(trial.check_whole(trial.of(OLD), trial.of(NEW))))
        trial.changing.up(new_policy())
        assert trial.open_ports() == trial.of(NEW)
        trial.check_tidy()
        assert boot_is_of(firewall, new=True), f"the boot files are old ones after step {step}"
    assert step > 10
    assert seen == {frozenset(trial.of(OLD)), frozenset(trial.of(NEW))}, "both were seen"
    firewall.pfw("down")
    assert firewall.ours() == ""


@on("nftables", "iptables-nft")
def test_from_off(trial: Trial) -> None:
    firewall = trial.firewall
    for step in range(1, STEPS_MAX, 1 if firewall.backend == "nftables" else 3):
        firewall.write(new_policy())
        if not trial.die(step, *up_words(trial)):
            break
        trial.check_whole(trial.of(OLD, NEW), trial.of(NEW))
        trial.changing.up(new_policy())
        assert trial.open_ports() == trial.of(NEW)
        trial.changing.down()
        assert firewall.ours() == ""
    assert step > 4


@on("nftables", "iptables-nft", "iptables-legacy")
def test_while_it_goes_off(trial: Trial) -> None:
    firewall = trial.firewall
    for step in range(1, STEPS_MAX):
        trial.changing.up(old_policy())
        if not trial.die(step, "down"):
            break
        found = trial.open_ports()
        assert trial.of(OLD) <= found, "what was open is"
        assert found in (trial.of(OLD), trial.of(OLD, NEW)) or firewall.backend != "nftables"
        firewall.status()
        firewall.pfw("down")
        assert firewall.ours() == ""
        assert not list(firewall.state.glob("boot*"))
    assert step > 3


@on("nftables", "iptables-nft")
def test_a_policy_that_waits_for_its_confirmation(trial: Trial) -> None:
    """Whatever is killed: the old policy comes back, at once or when the time is up."""
    firewall = trial.firewall
    trial.changing.up(old_policy())
    for step in range(2, STEPS_MAX, 3):
        firewall.write(new_policy())
        killed = trial.die(step, *up_words(trial, "--confirm", "1"))
        assert trial.open_ports() == trial.of(OLD)
        status = firewall.status()
        assert status["active"], status
        assert status["pending_until"] is None, status
        assert boot_is_of(firewall, new=False)
        trial.changing.up(old_policy())
        if not killed:
            break


@on("nftables", "iptables-legacy")
def test_at_any_moment(trial: Trial) -> None:
    """Not at a step but at some time: a program that it has started is on its own then."""
    firewall = trial.firewall
    trial.changing.up(old_policy())
    for number in range(8):
        firewall.write(new_policy() if number % 2 else old_policy())
        process = firewall.start(firewall.up_words())
        try:
            process.wait(0.08 + number * (0.012 if firewall.backend == "nftables" else 0.04))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        trial.rest()
        trial.check_whole(trial.of(OLD), trial.of(NEW))
    firewall.up(new_policy())
    assert trial.open_ports() == trial.of(NEW)
    trial.check_tidy()


def boot_is_of(firewall: Firewall, *, new: bool) -> bool:
    names = ("boot.nft",) if firewall.backend == "nftables" else (f"boot.{firewall.backend}.v4",)
    text = "".join((firewall.state / name).read_text() for name in names)
    return (str(NEW) in text) is new and (str(OLD) in text) is not new
