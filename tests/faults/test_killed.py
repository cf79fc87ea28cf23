"""`pfw up` that is killed at any of its steps leaves the old policy whole, or the new one, for both families."""

from __future__ import annotations

import os
import signal
import subprocess

from tests.faults.trying import NEW, OLD, Trial, new_policy, old_policy, on, up_words
from tests.netns.firewalling import Firewall

STEPS_MAX = 60


@on("nftables", "iptables-nft", "iptables-legacy")
def test_between_two_policies(trial: Trial) -> None:
    firewall, seen = trial.firewall, set()
    for step in range(1, STEPS_MAX, {"nftables": 1, "iptables-nft": 3, "iptables-legacy": 5}[firewall.backend]):
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
    for step in range(1, STEPS_MAX, 1 if firewall.backend == "nftables" else 5):
        firewall.write(new_policy())
        if not trial.die(step, *up_words(trial)):
            break
        trial.check_whole(trial.of(OLD, NEW), trial.of(NEW))
        trial.changing.up(new_policy())
        assert trial.open_ports() == trial.of(NEW)
        trial.changing.down()
        assert firewall.ours() == ""
    assert step > 4


@on("nftables", "iptables-nft")
def test_while_it_goes_off(trial: Trial) -> None:
    firewall = trial.firewall
    for step in range(1, STEPS_MAX, 1 if firewall.backend == "nftables" else 2):
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


@on("nftables", "iptables-nft")
def test_on_its_way_to_another_backend(trial: Trial) -> None:
    """Both may filter for a while, which lets through what both do; who comes next leaves one."""
    firewall = trial.firewall
    first, second = firewall.backend, "iptables-nft" if firewall.backend == "nftables" else "nftables"
    for step in range(9, STEPS_MAX, 3):
        trial.changing.backend = firewall.backend = first
        trial.changing.down()
        trial.changing.up(old_policy())
        firewall.write(new_policy())
        firewall.backend = second
        if not trial.die(step, *up_words(trial)):
            break
        found = trial.open_ports()
        assert found <= trial.of(OLD) or found <= trial.of(NEW), found
        firewall.status()
        firewall.up()
        assert trial.open_ports() == trial.of(NEW)
        assert ("table inet pfw" in firewall.ours()) is (second == "nftables")
        assert ("PFW-IN" in firewall.ours()) is (second != "nftables")
        trial.check_tidy()
    assert step > 10
