"""While packets never stop, the policy is replaced again and again: none that is forbidden comes in meanwhile, and
none that is allowed is lost.

A program in Python sends 20,000 datagrams a second through the cable (frames made beforehand, `sendmmsg` on a packet
socket), of both families, half of them allowed and numbered, half forbidden: to a port that is not open, or to the open
port from addresses that are blocked, each of 8,192 with a source port or address of its own. On two cores that are
busy with the changes, too, it reaches 19,000 to 20,000. What the sockets or the network cards drop for want of room
is counted by the kernel, must be nothing, and so is told apart from what the firewall drops.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.netns.firewalling import Changing, Firewall, policy

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("no leak")]

TRAFFIC = Path(__file__).with_name("traffic.py")
RATE = 20_000
RATE_MIN = 12_000
"""What the sender must have reached; less would prove less."""
BAD, BAD6 = "45.66.0.0/16", "2a0b:bad::/48"
SLOW_RELOAD_S = 60.0
LISTED = 100_000


def wanted_policy(number: int = 0, *, lists: Path | None = None) -> dict[str, Any]:
    """One of two policies that agree about the traffic of the test, and about little else."""
    bad = {"name": "bad", "action": "block", "direction": "in", "from": [BAD, BAD6]}
    flood = {"name": "flood", "action": "allow", "direction": "in", "protocol": "udp", "port": 5000}
    talks = {"name": "talks", "action": "allow", "direction": "in", "protocol": "tcp", "port": 7000}
    others = [
        {"name": f"other {each}", "action": "block", "from": f"203.0.{each}.0/24", "direction": "in"}
        for each in range(number, 20 + number)
    ]
    more = {} if lists is None else {"blocklists": [{"name": "bad", "source": str(lists), "direction": "both"}]}
    front = [bad] if lists is None else []
    if number % 2:
        made = [*others, *front, talks, {**flood, "name": "flood it is", "port": "4990-5010"}]
    else:
        made = [*front, flood, *others, talks]
    return policy(*made, **more)


def list_text(seed: int) -> str:
    """100,000 prefixes, others for each seed; those of the bad addresses among them, in one or in many pieces."""
    chance = random.Random(seed)
    lines = [BAD, BAD6] if seed % 2 else [f"45.66.{each}.0/24" for each in range(256)] + [BAD6]
    for number in chance.sample(range(1 << 17), LISTED):
        value = (64 << 24) + (number << 9) + (256 if seed % 2 else 0)
        lines.append(f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.0/24")
    chance.shuffle(lines)
    return "\n".join([*lines, ""])


@contextmanager
def running(at: Any, firewall: Firewall, *words: str) -> Iterator[Any]:
    """A program of `traffic.py`; its answer is in `facts` behind the block."""
    process = firewall.start(at.command(sys.executable, "-P", str(TRAFFIC), *words), stdin=-1)
    told = SimpleNamespace(facts={})
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"ready": True}
        yield told
        out, err = process.communicate("", timeout=30)
        assert process.returncode == 0, err
        told.facts = json.loads(out)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


class Traffic:
    """All of it, and what became of it."""

    def __init__(self, firewall: Firewall, pair: Any, net: Any) -> None:
        self._firewall, self._here, self._there, self._net = firewall, pair.here, pair.there, net
        self.facts: dict[str, dict[str, Any]] = {}

    @contextmanager
    def flowing(self) -> Iterator[None]:
        net, both, there = self._net, f"{self._net.here},{self._net.here6}", f"{self._net.there},{self._net.there6}"
        for at, name in ((self._here, "rp_filter"), (self._there, "rp_filter")):
            at.run("sysctl", "-qw", f"net.ipv4.conf.all.{name}=0", f"net.ipv4.conf.{net.cable}.{name}=0")
        self._here.run("sysctl", "-qw", "net.core.netdev_max_backlog=100000", check=False)
        mac = self._here.run("cat", f"/sys/class/net/{net.cable}/address").stdout.strip()
        sources = f"{net.there},{net.there6},45.66.X,2a0b:bad::X"
        # In this order, so that whoever sends ends before who receives.
        programs = [
            ("sink", self._here, ["sink", both]),
            ("tcp answers", self._here, ["answer", both, "7000", "tcp"]),
            ("tcp answers there", self._there, ["answer", there, "7001", "tcp"]),
            ("udp answers there", self._there, ["answer", there, "7002", "udp"]),
            ("tcp in", self._there, ["ask", net.here, "7000", "tcp"]),
            ("tcp in 6", self._there, ["ask", net.here6, "7000", "tcp"]),
            ("tcp out", self._here, ["ask", net.there, "7001", "tcp"]),
            ("tcp out 6", self._here, ["ask", net.there6, "7001", "tcp"]),
            ("udp out", self._here, ["ask", net.there, "7002", "udp"]),
            ("udp out 6", self._here, ["ask", net.there6, "7002", "udp"]),
            ("flood", self._there, ["flood", net.cable, mac, sources, both, str(RATE)]),
        ]
        self._run(programs)
        before = self._dropped()
        with self._all(programs) as told:
            yield
        self.facts = {name: each.facts for name, each in told.items()}
        after = self._dropped()
        self.dropped_elsewhere = {name: after[name] - before[name] for name in after if after[name] != before[name]}

    def _run(self, programs: list[Any]) -> None:
        assert len({name for name, _, _ in programs}) == len(programs)

    @contextmanager
    def _all(self, programs: list[Any]) -> Iterator[dict[str, Any]]:
        if not programs:
            yield {}
            return
        (name, at, words), *others = programs
        with running(at, self._firewall, *words) as facts, self._all(others) as rest:
            rest[name] = facts
            yield rest

    def _dropped(self) -> dict[str, int]:
        """What was dropped elsewhere than in the firewall: by sockets, by the cable, by the processors' queues."""
        found: dict[str, int] = {}
        for line in self._here.run("cat", "/proc/net/softnet_stat").stdout.splitlines():
            found["softnet"] = found.get("softnet", 0) + int(line.split()[1], 16)
        for at in (self._here, self._there):
            link = json.loads(at.run("ip", "-s", "-j", "link", "show", self._net.cable).stdout)[0]["stats64"]
            for way in ("rx", "tx"):
                found[f"{at.name} {way}"] = link[way]["dropped"] + link[way]["errors"]
        table = self._here.run("nstat", "-asz", "UdpRcvbufErrors", "Udp6RcvbufErrors", "UdpInCsumErrors").stdout
        for line in table.splitlines()[1:]:
            name, value, _ = line.split()
            found[name] = int(value)
        return found

    def check(self, *, open_between: tuple[float, float] | None = None) -> None:
        flood, sink = self.facts["flood"], self.facts["sink"]
        assert not self.dropped_elsewhere
        assert (flood["allowed"] + flood["forbidden"]) / flood["seconds"] > RATE_MIN
        if open_between is None:
            assert sink["forbidden"] == 0, sink
        else:
            assert sink["forbidden"] > 0, "while it is down all comes in"
            assert open_between[0] < sink["first"] <= sink["last"] < open_between[1], (sink, open_between)
        assert sink["allowed"] == flood["allowed"], (sink, flood)
        assert sink["twice"] == 0
        for name in ("tcp in", "tcp in 6", "tcp out", "tcp out 6", "udp out", "udp out 6"):
            told = self.facts[name]
            assert told["asked"] > 30, (name, told)
            assert (told["lost"], told["trouble"]) == (0, ""), (name, told)
            assert told["again"] == 0, f"{name}: packets were lost and sent again: {told}"


@pytest.fixture
def traffic(pair: Any, net: Any) -> Callable[[Firewall], Traffic]:
    return lambda firewall: Traffic(firewall, pair, net)


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def changing(request: pytest.FixtureRequest, firewall: Callable[..., Firewall]) -> Changing:
    return Changing(firewall(request.param))


def times(changing: Changing, nftables: int, iptables: int) -> int:
    return nftables if changing.backend == "nftables" else iptables


def test_reloads(changing: Changing, traffic: Callable[[Firewall], Traffic]) -> None:
    changing.up(wanted_policy())
    around = traffic(changing.firewall)
    with around.flowing():
        for number in range(1, times(changing, 100, 8) + 1):
            assert changing.up(wanted_policy(number % 2)).changed
    around.check()


def test_reloads_of_a_big_block_list(
    changing: Changing, traffic: Callable[[Firewall], Traffic], tmp_path: Path
) -> None:
    listed = tmp_path / "listed.txt"
    listed.write_text(list_text(0))
    changing.up(wanted_policy(lists=listed))
    around = traffic(changing.firewall)
    with around.flowing():
        for number in range(1, times(changing, 5, 1) + 1):
            listed.write_text(list_text(number))
            assert changing.up(wanted_policy(lists=listed)).changed
    around.check()


def test_bans_of_others(changing: Changing, traffic: Callable[[Firewall], Traffic]) -> None:
    changing.up(wanted_policy())
    around = traffic(changing.firewall)
    with around.flowing():
        for number in range(times(changing, 60, 10)):
            some = [f"91.{number}.0.1", f"2a0c:{number}::1", f"92.{number}.0.0/16", f"2a0d:{number}::/48"]
            changing.ban([*some, f"92.{number}.7.0/24"])
            changing.unban(some)
    around.check()


def test_begin_on_a_machine_where_it_was_off(changing: Changing, traffic: Callable[[Firewall], Traffic]) -> None:
    around = traffic(changing.firewall)
    begin = time.time()
    with around.flowing():
        time.sleep(0.5)
        changing.up(wanted_policy())
        end = time.time()
        time.sleep(0.5)
    around.check(open_between=(begin, end))


def test_down_and_up(changing: Changing, traffic: Callable[[Firewall], Traffic]) -> None:
    changing.up(wanted_policy())
    around = traffic(changing.firewall)
    with around.flowing():
        time.sleep(0.3)
        begin = time.time()
        changing.down()
        time.sleep(0.3)
        changing.up(wanted_policy(1))
        end = time.time()
        time.sleep(0.3)
    around.check(open_between=(begin, end))
