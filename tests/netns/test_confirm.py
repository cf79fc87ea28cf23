"""`pfw up --confirm`: what nobody confirms is taken back by itself, whoever has died meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, arrived, opened, policy

OLD, NEW = 6001, 6002
TIME_S = 2


class Confirming:
    def __init__(self, firewall: Firewall, pair: Any, net: Any) -> None:
        self.firewall, self.pair, self.net = firewall, pair, net
        self.addresses = (net.here, net.here6)

    def ports(self) -> set[int]:
        """What is open, the same for both families."""
        found = self.by_family()
        assert found[0] == found[1]
        return found[0]

    def by_family(self) -> list[set[int]]:
        found = arrived(self.pair.here, self.pair.there, (OLD, NEW), self.addresses)
        return [{port for address, port in found if address == each} & {OLD, NEW} for each in self.addresses]

    def waits_back(self, ports: set[int]) -> None:
        """It is taken back by itself, and soon."""
        begin = time.monotonic()
        self.net.wait_until(lambda: self.by_family() == [ports, ports], "the old policy is back")
        assert time.monotonic() - begin < TIME_S + 4
        self.net.wait_until(lambda: not (self.firewall.state / "pending.json").exists(), "the guard has done its work")

    def up(self, seconds: int = TIME_S, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.firewall.up(policy(opened(NEW)), "--confirm", str(seconds), **options)

    def boot(self) -> str:
        names = ("boot.nft",) if self.firewall.backend == "nftables" else ("boot.iptables-nft.v4",)
        return "".join((self.firewall.state / name).read_text() for name in names)


@pytest.fixture(params=["nftables", "iptables-nft"])
def confirming(request: pytest.FixtureRequest, firewall: Callable[..., Firewall], pair: Any, net: Any) -> Confirming:
    made = Confirming(firewall(request.param), pair, net)
    Changing(made.firewall).up(policy(opened(OLD)))
    return made


def test_taken_back_by_itself(confirming: Confirming) -> None:
    done = confirming.up()
    assert "unless confirmed; type: pfw confirm" in done.stdout
    assert confirming.ports() == {NEW}
    confirming.waits_back({OLD})
    status = confirming.firewall.status()
    assert (status["active"], status["pending_until"], status["intact"]) == (True, None, True)
    assert str(OLD) in confirming.boot()
    told = confirming.firewall.up(policy(opened(NEW)))
    assert "a policy was taken back" in told.stderr
    assert "nobody confirmed it" in told.stderr
    assert confirming.ports() == {NEW}


def test_confirmed_in_time(confirming: Confirming) -> None:
    confirming.up(4)
    begin = time.monotonic()
    assert confirming.firewall.status()["pending_until"] is not None
    assert str(OLD) in confirming.boot(), "what is not confirmed does not outlast a boot"
    assert str(NEW) not in confirming.boot()
    assert "kept: " in confirming.firewall.pfw("confirm").stdout
    time.sleep(begin + 4.5 - time.monotonic())
    assert confirming.ports() == {NEW}
    assert str(NEW) in confirming.boot()
    status = confirming.firewall.status()
    assert (status["active"], status["pending_until"], status["intact"]) == (True, None, True)


def test_too_late(confirming: Confirming) -> None:
    confirming.up(1)
    confirming.waits_back({OLD})
    done = confirming.firewall.pfw("confirm", status=1)
    assert "nothing waits for a confirmation: it was confirmed, or taken back already" in done.stderr
    assert confirming.ports() == {OLD}


def test_with_nothing_to_confirm(confirming: Confirming) -> None:
    done = confirming.firewall.pfw("confirm", status=1)
    assert "nothing waits" in done.stderr
    assert confirming.ports() == {OLD}


def test_confirmed_at_the_last_moment(confirming: Confirming) -> None:
    """Whoever comes first has it: either it is kept, and it says so, or it is taken back, and it says so."""
    for number in range(3):
        Changing(confirming.firewall).up(policy(opened(OLD)))
        confirming.up(1)
        time.sleep(0.55 + number * 0.1)
        done = confirming.firewall.pfw("confirm", status=None)
        confirming.net.wait_until(
            lambda: not (confirming.firewall.state / "pending.json.late").exists(), "the guard has done its work"
        )
        time.sleep(0.3)
        assert confirming.ports() == ({NEW} if done.returncode == 0 else {OLD})


def kill_session(process: subprocess.Popen[Any]) -> None:
    """The shell, all of its process group, and everybody who is left in its session."""
    os.killpg(process.pid, signal.SIGHUP)
    os.killpg(process.pid, signal.SIGKILL)
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == process.pid:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


def test_the_session_is_killed(confirming: Confirming) -> None:
    """A shell in a session of its own, as a login has it; a lost connection ends it all."""
    firewall = confirming.firewall
    firewall.write(policy(opened(NEW)))
    command = " ".join(firewall.up_words("--confirm", str(TIME_S)))
    shell = firewall.start(["sh", "-c", f"{command}; sleep 100"], start_new_session=True)
    assert shell.stdout is not None
    lines = []
    while not lines or "unless confirmed" not in lines[-1]:
        lines.append(shell.stdout.readline())
        assert lines[-1], shell.communicate()
    assert confirming.ports() == {NEW}
    kill_session(shell)
    shell.communicate()
    confirming.waits_back({OLD})


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_the_command_is_killed_on_its_way(confirming: Confirming, number: signal.Signals) -> None:
    firewall = confirming.firewall
    firewall.write(policy(opened(NEW)))
    process = firewall.start(firewall.up_words("--confirm", "1"), start_new_session=True)
    time.sleep(0.15 if number is signal.SIGKILL else 0.25)
    os.killpg(process.pid, number)
    process.communicate()
    confirming.waits_back({OLD})
    assert firewall.status()["active"]


def test_a_second_one_is_refused_meanwhile(confirming: Confirming) -> None:
    confirming.up(20)
    for options in ((), ("--confirm", "5"), ("--force",)):
        done = confirming.firewall.up(policy(opened(OLD), opened(NEW)), *options, status=1)
        assert "a policy waits for its confirmation" in done.stderr
    assert confirming.ports() == {NEW}
    assert confirming.firewall.status()["intact"]
    confirming.firewall.pfw("confirm")
    assert confirming.ports() == {NEW}


def test_down_ends_it(confirming: Confirming) -> None:
    confirming.up()
    confirming.firewall.pfw("down")
    assert confirming.ports() == {OLD, NEW}
    time.sleep(TIME_S + 0.5)
    assert confirming.ports() == {OLD, NEW}
    assert confirming.firewall.ours() == ""


def test_the_first_policy_ever(confirming: Confirming) -> None:
    """What was before was nothing."""
    firewall = confirming.firewall
    firewall.pfw("down")
    confirming.up()
    assert confirming.ports() == {NEW}
    confirming.waits_back({OLD, NEW})
    assert firewall.ours() == ""
    assert not firewall.status()["active"]
    assert not list(firewall.state.glob("boot*"))
    confirming.up(20)
    firewall.pfw("confirm")
    assert confirming.ports() == {NEW}
    assert str(NEW) in confirming.boot()


def test_bans_outlast_the_way_back(confirming: Confirming) -> None:
    firewall, there = confirming.firewall, confirming.net.there
    confirming.up()
    firewall.pfw("ban", "add", there, "--for", "5m")
    confirming.net.wait_until(lambda: not (firewall.state / "pending.json").exists(), "the time is up")
    time.sleep(0.4)
    found = arrived(confirming.pair.here, confirming.pair.there, (OLD,), (confirming.net.here6,))
    assert (confirming.net.here6, OLD) in found
    reached = subprocess.run(
        confirming.pair.there.command("ping", "-c1", "-W1", confirming.net.here), capture_output=True, check=False
    )
    assert reached.returncode != 0
    firewall.pfw("ban", "remove", there)
    assert confirming.ports() == {OLD}
