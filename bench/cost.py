"""What a firewall costs the traffic that it lets through: throughput, new connections, small packets.

Each firewall has a pair of namespaces of its own and is loaded once; then they take turns, round after round. What
is compared is what one second of processor time is enough for, of a thread that is both ends at once: the clock on
the wall says more of what else runs on the machine than of a firewall.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from firewalls import Firewalld, Pfw, Ufw, has, load_floor, missing
from pair import NEAR, Pair, Pairs
from processes import BenchError, Running, run, say
from rulesets import PORTS, hosts, policy, prefixes, rules
from setting import Setting
from table import NOTHING, Section, plural_rounds

SECONDS, QUICK_SECONDS = 1.0, 0.4
STREAM_S, QUICK_STREAM_S = 2, 1
ATTEMPTS = 3
KINDS = ("connections", "exchanges", "packets")
LISTED, BANNED = 100_000, 10_000


class Candidate:
    """A firewall that is up, and what it was enough for in each round."""

    def __init__(self, name: str, pair: Pair) -> None:
        self.name = name
        self.pair = pair
        self.rates: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "stream")}

    def cell(self, kind: str, unit: float = 1, digits: int = 0) -> str:
        found = self.rates[kind]
        return f"{median(found) / unit:,.{digits}f}" if found else NOTHING

    def share(self, kind: str, of: Candidate) -> str:
        """The median of the rounds' ratios, each of two turns that followed one another closely."""
        pairs = [ours / theirs for ours, theirs in zip(self.rates[kind], of.rates[kind], strict=False) if theirs]
        return f"{median(pairs):.2f}" if pairs else NOTHING


def measure(setting: Setting) -> list[Section]:
    columns = ("", "iperf3, Gbit/s", "of nothing", "new connections", "of nothing", "of tracking",
               "short exchanges", "of nothing", "packets", "of nothing")  # fmt: skip
    section = Section("What a firewall costs the traffic that it allows, in a second of processor time", columns)
    if not setting.is_root:
        section.note("not measured: network namespaces need root")
        return [section]
    rounds = 2 if setting.quick else 2 * setting.rounds
    with Pairs() as pairs:
        everyone = candidates(setting, pairs)
        for turn in range(rounds):
            say(f"bench: cost, round {turn + 1} of {rounds}")
            for candidate in everyone:
                _one_turn(setting, candidate)
    nothing, floor = everyone[0], everyone[1]
    for each in everyone:
        section.row(
            each.name,
            each.cell("stream", 1e9, 1),
            each.share("stream", nothing),
            each.cell("connections"),
            each.share("connections", nothing),
            each.share("connections", floor),
            each.cell("exchanges"),
            each.share("exchanges", nothing),
            each.cell("packets"),
            each.share("packets", nothing),
        )
    for text in (*_NOTES, *missing()):
        section.note(text)
    section.note(f"{plural_rounds(rounds)}, in each of which everyone has a turn; medians, of the ratios as well")
    return [section]


_NOTES = (
    "the rule that lets the traffic in is the last; the rules before it are for networks that no packet comes from. "
    "A firewalld zone has its open ports before its rich rules that allow, and behind those that do not",
    "iperf3: IPv4, one connection, both ends on a core of their own; by the clock, so what else runs on the machine "
    "is in it",
    "new connections: SYN, SYN/ACK, ACK, RST; an exchange has a request of 200 bytes and an answer of 1,200 and ends "
    "in order; packets: datagrams of 64 bytes in one flow. One thread is both ends, with no application around it: "
    "with a web server on the other end the share of a firewall is smaller",
    '"nft: ct state established, related, new accept" is what connection tracking costs, which every firewall with '
    "state needs",
)


def candidates(setting: Setting, pairs: Pairs) -> list[Candidate]:
    """All that can be had here, up. The first is no firewall, the second is connection tracking alone."""
    say("bench: cost, loading the firewalls")
    found: list[Candidate] = []

    def add(name: str, load: Callable[[Pair], object]) -> None:
        made = pairs.pair()
        load(made)
        found.append(Candidate(name, made))

    add("nothing", lambda pair: None)
    add("nft: ct state established, related, new accept", load_floor)
    for count in (10, 1000):
        add(f"pfw, {count:,} rules", lambda pair, count=count: Pfw(setting, pair).up(policy(count)))  # type: ignore[misc]
    with_list = policy(1000, str(_list_file(setting)))
    name = "pfw, 1,000 rules"
    add(f"{name}, {LISTED:,} prefixes listed", lambda pair: Pfw(setting, pair).up(with_list))
    add(f"{name}, {BANNED:,} bans", lambda pair: _banned(setting, pair, policy(1000)))
    add(f"{name}, both", lambda pair: _banned(setting, pair, with_list))
    add(
        "pfw, iptables, 10 rules",
        lambda pair: Pfw(setting, pair).up(policy(10), "--backend", "iptables"),
    )
    for count in (10, 1000):
        if has("ufw"):
            add(f"ufw, {count:,} rules", lambda pair, count=count: _ufw(setting, pairs, pair, count))  # type: ignore[misc]
    for count in (10, 1000):
        if has("firewalld"):
            add(f"firewalld, {count:,} rules", lambda pair, count=count: _firewalld(setting, pairs, pair, count))  # type: ignore[misc]
    return found


def _banned(setting: Setting, pair: Pair, text: str) -> None:
    pfw = Pfw(setting, pair)
    pfw.up(text)
    addresses = pfw.folder / "bans.txt"
    addresses.write_text("\n".join(hosts(BANNED)))
    pfw.run("ban", "add", "-", standard_input=addresses)


def _ufw(setting: Setting, pairs: Pairs, pair: Pair, count: int) -> None:
    ufw = Ufw(setting, pair)
    pairs.callback(ufw.close)
    ufw.up(rules(count))


def _firewalld(setting: Setting, pairs: Pairs, pair: Pair, count: int) -> None:
    firewalld = Firewalld(setting, pair)
    pairs.callback(firewalld.close)
    firewalld.up(rules(count))


def _list_file(setting: Setting) -> Path:
    path = setting.folder / "enforce-listed.txt"
    path.write_text("\n".join(prefixes(LISTED)))
    return path


def _one_turn(setting: Setting, candidate: Candidate) -> None:
    pair = candidate.pair
    seconds = str(QUICK_SECONDS if setting.quick else SECONDS)
    _, core = setting.cores()
    pinned = ("taskset", "-c", str(core)) if core is not None else ()
    for kind in KINDS:
        done = run((*pinned, *setting.program("both_ends"), kind, pair.near, pair.far, seconds))
        said = json.loads(done.output)
        candidate.rates[kind].append(said["count"] * (2 if kind == "packets" else 1) / said["cpu_s"])
    if setting.has("iperf3", "iperf3"):
        candidate.rates["stream"].append(stream(setting, pair))


def stream(setting: Setting, pair: Pair) -> float:
    """What iperf3 gets through, in bits a second. Raises BenchError where it fails again and again."""
    for _ in range(ATTEMPTS):
        said = _stream(setting, pair)
        received = said.get("end", {}).get("sum_received")
        if received is not None:
            return float(received["bits_per_second"])
    raise BenchError(f"iperf3: {said.get('error', 'says nothing')}")


def _stream(setting: Setting, pair: Pair) -> dict[str, Any]:
    near_core, far_core = setting.cores()
    port, seconds = str(PORTS[0]), str(QUICK_STREAM_S if setting.quick else STREAM_S)
    serving = Running((*pair.inside, "iperf3", "-s", "-1", "-p", port), cpu=near_core)
    try:
        _wait_for_port(serving)
        words = (*pair.outside, "iperf3", "-c", NEAR, "-p", port, "-t", seconds, "-J")
        said: dict[str, Any] = json.loads(Running(words, cpu=far_core).wait().output or "{}")
        return said
    finally:
        # It ends by itself when it has served one.
        time.sleep(0.02)
        if serving.has_ended:
            serving.wait()
        else:
            serving.kill()


def _wait_for_port(serving: Running) -> None:
    """Until it listens, for a while; whoever connects then will tell."""
    listening = f":{PORTS[0]:04X} "
    for _ in range(500):
        for file in ("tcp", "tcp6"):
            rows = Path(f"/proc/{serving.pid}/net/{file}").read_text().splitlines()
            if any(listening in row and " 0A " in row for row in rows):
                return
        time.sleep(0.01)
