"""What is done about alerts, with packets: who is banned cannot come through, who is limited less, and who must not be
banned is not."""

# ruff: noqa: F811

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.netns.test_bans import PORT, Banning, banning, open_policy  # noqa: F401

from pfw.daemon import responding
from pfw.daemon.responding import Performer
from pfw.daemon.state import State
from pfw.drivers import clock
from pfw.drivers.store import Store
from pfw.enforce import nft_limits
from pfw.engine.respond import LIMITS_A_MINUTE
from pfw.model.address import AddressSet, parse_address, parse_range
from pfw.model.observation import Alert, Kind
from pfw.model.policy import Doing, Reaction, Respond

BAN = Respond(reactions=(Reaction(do=Doing.BAN),))
LIMIT = Respond(reactions=(Reaction(do=Doing.LIMIT, for_s=600.0),))
SHORT_LIMIT = Respond(reactions=(Reaction(do=Doing.LIMIT, for_s=2.0),))
SHORT = Respond(reactions=(Reaction(do=Doing.BAN, for_s=2.0),))


def alert(*ban: str) -> Alert:
    return Alert(
        kind=Kind.PORT_SCAN, source=parse_address(ban[0]), target=None, first=1.0, last=2.0, score=88,
        evidence="asked 12 ports \x1b[31m", ban=tuple(parse_address(text) for text in ban),
    )  # fmt: skip


class Responding:
    """A performer that lives in the firewall's namespace."""

    def __init__(self, banning: Banning, respond: Respond) -> None:
        self.banning = banning
        self.told: list[str] = []
        state = State(Store(banning.firewall.state))
        self._here = banning.pair.here
        self.performer = self._here.call(lambda: Performer(state, respond, self.told.append, lambda: 0.5))

    def perform(self, seen: Alert) -> str:
        found: str = self._here.call(lambda: self.performer.perform(seen))
        return found

    def perform_all(self, seen: list[Alert]) -> list[str]:
        found: list[str] = self._here.call(lambda: [self.performer.perform(each) for each in seen])
        return found

    def use(self, respond: Respond) -> None:
        self._here.call(lambda: self.performer.use(respond))

    def close(self) -> None:
        self._here.call(self.performer.close)

    def records(self) -> list[dict[str, Any]]:
        try:
            return self.banning.records()
        except FileNotFoundError:
            return []


@pytest.fixture
def respond(banning: Banning, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Responding]]:
    monkeypatch.setattr(responding, "WRITE_S", 0.1)
    monkeypatch.setattr(responding, "LOOK_S", 0.3)
    monkeypatch.setattr(responding, "KEEP_S", 0.3)
    made: list[Responding] = []

    def start(policy: Respond) -> Responding:
        made.append(Responding(banning, policy))
        return made[-1]

    yield start
    for each in made:
        each.close()


def comes_in(banning: Banning, net: Any) -> bool:
    words = banning.pair.there.command("ping", "-c1", "-W0.3", net.here)
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


nftables_only = pytest.mark.parametrize("banning", ["nftables"], indirect=True)


def test_who_is_banned_cannot_come_through(respond, banning, net) -> None:
    one = respond(BAN)
    assert banning.passes() == [True, True]
    assert one.perform(alert(net.there)) == "banned 10.77.0.2 for 10 min"
    assert banning.passes() == [False, True]
    assert one.perform(alert(net.there)) == ""
    net.wait_until(one.records, "it is written down")
    (record,) = one.records()
    assert record["until"] - record["since"] == pytest.approx(630.0)
    assert {key: record[key] for key in ("what", "why", "by", "evidence")} == {
        "what": "10.77.0.2", "why": "port-scan, score 88", "by": "port-scan", "evidence": r"asked 12 ports \x1b[31m",
    }  # fmt: skip
    banning.firewall.up(open_policy())
    assert banning.passes() == [False, True]


def test_the_kernel_ends_it_though_we_are_gone(respond, banning, net) -> None:
    one = respond(SHORT)
    begin = time.monotonic()
    one.perform(alert(net.there))
    one.close()
    assert banning.passes() == [False, True]
    net.wait_until(lambda: comes_in(banning, net), "the ban is over")
    assert time.monotonic() - begin < 6


@nftables_only
def test_a_crash_before_it_is_written_down(respond, banning, net, monkeypatch) -> None:
    monkeypatch.setattr(responding, "WRITE_S", 600.0)
    one = respond(SHORT)
    one.perform(alert(net.there))
    assert banning.passes() == [False, True]
    assert one.records() == []
    net.wait_until(lambda: comes_in(banning, net), "the ban is over")


@nftables_only
def test_a_person_lifts_another_ban_before_it_is_written_down(respond, banning, net, monkeypatch) -> None:
    """Whoever lifts the last ban that is written down takes the chains away in which bans are looked up."""
    monkeypatch.setattr(responding, "WRITE_S", 600.0)
    banning.ban("add", "203.0.113.1")
    one = respond(BAN)
    one.perform(alert(net.there))
    assert banning.passes() == [False, True]
    banning.ban("remove", "203.0.113.1")
    assert banning.passes() == [True, True]
    one.close()
    assert banning.passes() == [False, True]
    assert [each["what"] for each in one.records()] == ["10.77.0.2"]


def test_the_machine_sleeps_longer_than_a_ban_lasts(respond, banning, net, monkeypatch) -> None:
    """The kernel's timers stand while it sleeps, the clock does not."""
    one = respond(BAN)
    one.perform(alert(net.there))
    banning.ban("add", "203.0.113.1", "--for", "10h")
    net.wait_until(lambda: len(one.records()) == 2, "both are written down")
    assert banning.passes() == [False, True]
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + 7200)
    net.wait_until(lambda: comes_in(banning, net), "the ban is over")
    left = r"203\.0\.113\.1 timeout (8h|7h5|28[78]\d\d\b)"
    assert re.search(left, banning.kernel()), "the other has what it has left"


def test_what_is_protected_is_not_banned(respond, banning, net) -> None:
    banning.pair.here.run("ip", "route", "add", "default", "via", net.there)
    one = respond(BAN)
    assert one.perform(alert(net.there)) == "left alone: 10.77.0.2 is the gateway's"
    assert one.perform(alert(net.here6)) == "left alone: fd77::1 is this machine's own"
    assert one.perform(alert("fe80::99")) == "left alone: fe80::99 is no host's own"
    assert banning.passes() == [True, True]
    one.use(Respond(reactions=BAN.reactions, never=AddressSet([parse_range("203.0.113.0/24")])))
    assert one.perform(alert("203.0.113.9")) == "left alone: 203.0.113.9 is never to be banned, says the policy"
    assert one.records() == []


def test_a_ban_that_comes_to_hit_somebody_protected_is_lifted(respond, banning, net) -> None:
    one = respond(BAN)
    one.perform(alert(net.there))
    one.perform(alert("203.0.113.9"))
    assert banning.passes() == [False, True]
    banning.pair.here.run("ip", "route", "add", "default", "via", net.there)
    net.wait_until(lambda: comes_in(banning, net), "the ban on the new gateway is lifted")
    assert [each["what"] for each in one.records()] == ["203.0.113.9"]
    net.wait_until(lambda: one.told, "it is told")
    assert one.told == ["the ban on 10.77.0.2 is lifted: 10.77.0.2 is the gateway's"]


def test_what_is_loaded_leaves_out_who_is_protected(banning, net) -> None:
    ban = {"since": time.time(), "until": time.time() + 600}
    written = [
        {**ban, "what": net.there, "by": "port-scan"},
        {**ban, "what": "203.0.113.9", "by": "sweep"},
        {**ban, "what": "fd77::/64"},
    ]
    path = banning.firewall.state / "bans.json"
    banning.pair.here.run("ip", "route", "add", "default", "via", net.there)
    path.write_text(json.dumps(written))
    assert "2 bans in force" in banning.ban("reload").stdout
    assert banning.passes() == [True, False], "what a person has banned is loaded"
    path.write_text(json.dumps(written))
    banning.firewall.pfw("down")
    banning.firewall.up({**open_policy(), "respond": {"never": ["203.0.113.0/24"]}})
    assert banning.passes() == [True, False]
    assert set(banning.listed()) == {"fd77::/64"}
    assert "203.0.113.9" not in banning.kernel()


@nftables_only
def test_ipv6_is_widened(respond, banning, net) -> None:
    there, network = banning.pair.there, "fd99:0:0:1:"
    for number in (1, 2, 3):
        there.run("ip", "addr", "add", f"{network}:{number}/64", "dev", net.cable, "nodad")
    banning.pair.here.run("ip", "route", "add", f"{network}:/64", "via", net.there6)

    def pings(number: int) -> bool:
        words = there.command("ping", "-c1", "-W0.3", "-I", f"{network}:{number}", net.here6)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    one = respond(BAN)
    assert one.perform(alert(f"{network}:1")) == f"banned {network}:1 for 10 min"
    assert [pings(number) for number in (1, 2, 3)] == [False, True, True]
    assert one.perform(alert(f"{network}:2")) == f"banned {network}:/64 for 21 min"
    assert [pings(number) for number in (1, 2, 3)] == [False, False, False]
    # In the network of the cable is this machine's own address.
    assert one.perform(alert("fd77::5")) == "banned fd77::5 for 10 min"
    assert one.perform(alert("fd77::6")) == "banned fd77::6 for 10 min"
    assert banning.passes() == [True, True]
    net.wait_until(lambda: len(one.records()) == 4, "they are written down")


def test_what_a_person_lifts_stays_lifted(respond, banning, net) -> None:
    one = respond(BAN)
    one.perform(alert(net.there))
    net.wait_until(one.records, "it is written down")
    shown = json.loads(banning.ban("show", net.there, "--json").stdout)[0]
    assert (shown["banned"], shown["by"], shown["bans_before"]) == (True, "port-scan", 0)
    assert "not by any alert until" in banning.ban("remove", net.there).stdout
    assert one.perform(alert(net.there)) == "left alone: 10.77.0.2 is forgiven by a person"
    assert banning.passes() == [True, True]
    done = banning.ban("show", net.there, status=1)
    assert done.stdout.splitlines()[0] == "10.77.0.2 is not banned"
    assert "no alert bans it before then" in done.stdout
    banning.ban("add", net.there, "--for", "1h")
    assert banning.passes() == [False, True]
    assert json.loads(banning.ban("show", net.there, "--json").stdout)[0]["forgiven_until"] is None


def test_without_a_firewall_nobody_is_banned(respond, banning, net) -> None:
    banning.firewall.pfw("down")
    one = respond(BAN)
    assert one.perform(alert(net.there)) == "the ban of 10.77.0.2 failed"
    assert one.told == ["the ban of 10.77.0.2 failed: the firewall is off"]
    assert one.records() == []


@nftables_only
def test_ten_thousand_bans_do_not_make_one_slow(respond, banning, net) -> None:
    lines = [f"198.18.{number >> 8}.{number & 255}" for number in range(10_000)]
    banning.ban("add", "-", input="\n".join(lines))
    one = respond(BAN)
    one.perform(alert("203.0.113.1"))
    took = []
    for number in range(2, 22):
        begin = time.perf_counter()
        assert one.perform(alert(f"203.0.113.{number}")).startswith("banned")
        took.append(time.perf_counter() - begin)
    assert sorted(took)[10] < 0.05
    net.wait_until(lambda: len(one.records()) == 10_021, "they are written down")
    one.close()
    assert "203.0.113.21 " in (banning.firewall.state / "boot-bans.nft").read_text()


def new_connections(banning: Banning, net: Any, count: int) -> int:
    """How many of so many new connections, all at once, come through."""
    with banning.pair.here.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind((net.here, PORT))
        receiver.settimeout(0.3)

        def send() -> None:
            for _ in range(count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(b"x", (net.here, PORT))

        banning.pair.there.call(send)
        found = 0
        try:
            while receiver.recv(10):
                found += 1
        except TimeoutError:
            return found
        return found


@nftables_only
def test_who_is_limited_is_slowed_down(respond, banning, net) -> None:
    assert new_connections(banning, net, 100) == 100
    one = respond(LIMIT)
    assert one.perform(alert(net.there)) == "limited 10.77.0.2 for 10 min"
    assert one.perform(alert(net.there)) == ""
    assert nft_limits.BURST <= new_connections(banning, net, 100) <= 2 * nft_limits.BURST
    # It is nothing that a change of the policy, or a look at it, takes for somebody else's.
    assert banning.firewall.status()["intact"]
    banning.firewall.up({**open_policy(), "base": {}})
    assert new_connections(banning, net, 100) <= 2 * nft_limits.BURST


@nftables_only
def test_the_kernel_ends_a_limit(respond, banning, net) -> None:
    one = respond(SHORT_LIMIT)
    assert one.perform(alert(net.there)) == "limited 10.77.0.2 for 2 s"
    assert "limit_in" in banning.firewall.ours()
    net.wait_until(lambda: new_connections(banning, net, 100) == 100, "the kernel has ended it")
    net.wait_until(lambda: "limit_in" not in banning.firewall.ours(), "its chain is gone")
    assert one.perform(alert(net.there)) == "limited 10.77.0.2 for 2 s"


@nftables_only
def test_a_storm_of_forged_sources_takes_no_time(respond, banning, net) -> None:
    one = respond(LIMIT)
    found = one.perform_all([alert(f"198.18.{number >> 8}.{number & 255}") for number in range(1_000)])
    assert sum(each.startswith("limited") for each in found) == LIMITS_A_MINUTE
    assert found[-1] == f"left alone: more than {LIMITS_A_MINUTE} limits a minute"


@pytest.mark.parametrize("banning", ["iptables-nft"], indirect=True)
def test_iptables_limits_nobody_and_says_so(respond, banning, net) -> None:
    one = respond(LIMIT)
    assert one.perform(alert(net.there)) == "the limit of 10.77.0.2 failed"
    assert one.told == ["the limit of 10.77.0.2 failed: the iptables backend cannot limit an address for a time"]


def test_repeats_are_remembered_over_a_restart(respond, banning, net) -> None:
    one = respond(SHORT)
    assert one.perform(alert("203.0.113.9")) == "banned 203.0.113.9 for 2 s"
    one.close()
    again = respond(SHORT)
    assert again.perform(alert("203.0.113.9")) == ""
    net.wait_until(lambda: again.perform(alert("203.0.113.9")) == "banned 203.0.113.9 for 4 s", "it is banned again")
    net.wait_until(lambda: [each.get("count") for each in again.records()] == [2], "its second ban is written down")
