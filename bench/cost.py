"""What a firewall costs the traffic that it lets through: throughput, new connections, small packets.

Each firewall has a pair of namespaces of its own and is loaded once; then they take turns, round after round. What
is compared is what one second of processor time is enough for, of a thread that is both ends at once: the clock on
the wall says more of what else runs on the machine than of a firewall.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from firewalls import Firewalld, Pfw, Ufw, has, load_floor, missing, unmeasurable
from pair import NEAR, Pair, Pairs
from processes import BenchError, Running, run, say
from rulesets import PORTS, hosts, policy, prefixes, rules
from setting import Setting
from table import NOTHING, Section, plural_rounds, spread

SLICES, QUICK_SLICES = 60, 15
"""Of each kind and firewall, 30 ms each."""
STREAM_S, QUICK_STREAM_S = 2, 1
ATTEMPTS = 3
KINDS = ("connections", "exchanges", "stream", "packets")
LISTED, BANNED = 100_000, 10_000
COLUMNS = (
    "",
    "new connections",
    "of nothing",
    "of tracking",
    "short exchanges, of nothing",
    "small packets, of nothing",
    "bytes, of nothing",
    "iperf3 by the clock, Gbit/s",
    "most, of nothing",
)
Load = Callable[[Pair], object]
"""Puts a firewall into the near end of a pair."""


class Candidate:
    """A firewall that is up; what it was enough for, slice by slice, and what iperf3 got through it."""

    def __init__(self, name: str, pair: Pair) -> None:
        self.name = name
        self.pair = pair
        self.rates: dict[str, list[float]] = {}
        self.iperf3: list[float] = []

    def share(self, kind: str, of: Candidate) -> str:
        """The median of ratios, each of two slices of the same turn."""
        return f"{median(ours / theirs for ours, theirs in zip(self.rates[kind], of.rates[kind], strict=True)):.2f}"


def measure(setting: Setting) -> list[Section]:
    section = Section("What a firewall costs the traffic that it allows, in a second of processor time", COLUMNS)
    reason = unmeasurable(setting)
    if reason is not None:
        section.note(reason)
        return [section]
    slices = QUICK_SLICES if setting.quick else SLICES
    with Pairs() as pairs:
        everyone = candidates(setting, pairs)
        for kind in KINDS:
            say(f"bench: cost, {kind}")
            _measure(setting, everyone, kind, slices)
        if setting.has("iperf3", "iperf3"):
            for turn in range(setting.rounds):
                say(f"bench: cost, iperf3, round {turn + 1} of {setting.rounds}")
                for candidate in everyone:
                    candidate.iperf3.append(stream(setting, candidate.pair) / 1e9)
    for each in everyone:
        section.row(*_row(each, everyone[0], everyone[1]))
    for text in (*_NOTES, *missing()):
        section.note(text)
    section.note(
        f"{slices} slices of 30 ms for each firewall, in turn; medians, of the ratios as well. "
        f"iperf3: {plural_rounds(setting.rounds)} of {_stream_s(setting)} s"
    )
    return [section]


def _row(each: Candidate, nothing: Candidate, floor: Candidate) -> tuple[str, ...]:
    most = f"{max(each.iperf3) / max(nothing.iperf3):.2f}" if each.iperf3 else NOTHING
    return (
        each.name,
        spread([median(each.rates["connections"])]),
        each.share("connections", nothing),
        each.share("connections", floor),
        each.share("exchanges", nothing),
        each.share("packets", nothing),
        each.share("stream", nothing),
        spread(each.iperf3, 1),
        most,
    )


_NOTES = (
    "the rule that lets the traffic in is the last; the rules before it are for networks that no packet comes from. "
    "A firewalld zone has its open ports before its rich rules that allow, and behind those that do not",
    "new connections: SYN, SYN/ACK, ACK, RST; an exchange has a request of 200 bytes and an answer of 1,200 and ends "
    "in order; packets: datagrams of 64 bytes in one flow; bytes: one TCP connection. One thread is both ends, with no "
    "application around it: with a web server at the other end the share of a firewall is smaller",
    '"nft: ct state established, related, new accept" is what connection tracking costs, which every firewall with '
    "state needs",
    "iperf3: IPv4, one connection, each end on a core of its own; what else runs on the machine is in it, so the most "
    "that was reached is compared",
)


def candidates(setting: Setting, pairs: Pairs) -> list[Candidate]:
    """All that can be had here, up. The first is no firewall, the second is connection tracking alone."""
    found = []
    for name, load in _loads(setting, pairs):
        say(f"bench: cost, loading {name}")
        made = pairs.pair()
        load(made)
        found.append(Candidate(name, made))
    return found


def _loads(setting: Setting, pairs: Pairs) -> list[tuple[str, Load]]:
    def pfw(text: str, *words: str) -> Load:
        return lambda pair: Pfw(setting, pair).up(text, *words)

    def ufw(count: int) -> Load:
        return lambda pair: pairs.enter_context(closing(Ufw(setting, pair))).up(rules(count))

    def firewalld(count: int) -> Load:
        return lambda pair: pairs.enter_context(closing(Firewalld(setting, pair))).up(rules(count))

    few, many, listed = policy(10), policy(1000), policy(1000, str(_list_file(setting)))
    return [
        ("nothing", lambda _: None),
        ("nft: ct state established, related, new accept", load_floor),
        ("pfw, 10 rules", pfw(few)),
        ("pfw, 1,000 rules", pfw(many)),
        (f"pfw, 1,000 rules, {LISTED:,} prefixes listed", pfw(listed)),
        (f"pfw, 1,000 rules, {BANNED:,} bans", lambda pair: _banned(setting, pair, many)),
        ("pfw, 1,000 rules, both", lambda pair: _banned(setting, pair, listed)),
        ("pfw, iptables, 10 rules", pfw(few, "--backend", "iptables")),
        *((f"ufw, {count:,} rules", ufw(count)) for count in (10, 1000) if has("ufw")),
        *((f"firewalld, {count:,} rules", firewalld(count)) for count in (10, 1000) if has("firewalld")),
    ]


def _banned(setting: Setting, pair: Pair, text: str) -> None:
    pfw = Pfw(setting, pair)
    pfw.up(text)
    addresses = pfw.folder / "bans.txt"
    addresses.write_text("\n".join(hosts(BANNED)))
    pfw.run("ban", "add", "-", standard_input=addresses)


def _list_file(setting: Setting) -> Path:
    path = setting.folder / "enforce-listed.txt"
    path.write_text("\n".join(prefixes(LISTED)))
    return path


def _measure(setting: Setting, everyone: list[Candidate], kind: str, slices: int) -> None:
    _, core = setting.cores()
    pinned = ("taskset", "-c", str(core)) if core is not None else ()
    names = [f"{each.pair.near}:{each.pair.far}" for each in everyone]
    done = run((*pinned, *setting.program("both_ends"), kind, str(slices), *names))
    for each, rates in zip(everyone, json.loads(done.output), strict=True):
        each.rates[kind] = rates


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
    port, seconds = str(PORTS[0]), str(_stream_s(setting))
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


def _stream_s(setting: Setting) -> int:
    return QUICK_STREAM_S if setting.quick else STREAM_S


def _wait_for_port(serving: Running) -> None:
    """Until it listens, for a while; whoever connects then will tell."""
    listening = f":{PORTS[0]:04X} "
    for _ in range(500):
        for file in ("tcp", "tcp6"):
            rows = Path(f"/proc/{serving.pid}/net/{file}").read_text().splitlines()
            if any(listening in row and " 0A " in row for row in rows):
                return
        time.sleep(0.01)
