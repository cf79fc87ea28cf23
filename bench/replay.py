"""How fast captures are read and judged, beside tcpdump, tshark, dpkt and a loop over Scapy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ends import LOCAL4, LOCAL6
from policies import PREFIXES, write_policies
from processes import BenchError, run, say
from setting import Setting
from table import NOTHING, Section, ratios, spread
from traffic import Mix, generate, write_capture

PACKETS, FLOWS = 200_000, 10_000
SCAPY_SAMPLE = 10_000
SLOW_ROUNDS = 3
"""Rounds in which the slow ones take part."""

_LOCAL = ("--local", LOCAL4, "--local", LOCAL6)


class Contender:
    """A program that reads a capture of `packets` packets, and what each of its runs gave.

    One that `tells` prints JSON with the `packets` and the `seconds` (or `duration_s`) that it measured itself.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        packets: int,
        environment: dict[str, str],
        *,
        tells: bool = True,
        is_slow: bool = False,
    ) -> None:
        self.name = name
        self.packets = packets
        self.is_slow = is_slow
        self.whole: list[float] = []
        self.inside: list[float] = []
        self.cpu_us: list[float] = []
        self._command = tuple(command)
        self._environment = environment
        self._tells = tells

    def run(self) -> None:
        """Once more. `whole` is in packets/s with the start of the program, `inside` as it says itself."""
        finished = run(self._command, environment=self._environment, keep_output=self._tells)
        if self._tells:
            said = json.loads(finished.output)
            if said["packets"] != self.packets:
                raise BenchError(f"{self.name} has read {said['packets']} packets instead of {self.packets}")
            self.inside.append(self.packets / (said["seconds"] if "seconds" in said else said["duration_s"]))
        self.whole.append(self.packets / finished.wall_s)
        self.cpu_us.append(finished.cpu_s / self.packets * 1e6)


def measure(setting: Setting) -> list[Section]:
    ours, theirs = contenders(setting)
    everyone = [*ours, *theirs]
    for turn in range(setting.rounds):
        for contender in everyone:
            if turn < SLOW_ROUNDS or not contender.is_slow:
                say(f"bench: replay, round {turn + 1} of {setting.rounds}: {contender.name}")
                contender.run()
    return [_table(ours, theirs)]


def contenders(setting: Setting) -> tuple[list[Contender], list[Contender]]:
    """Our own, the first of them the one that is compared, and the others."""
    mixed, tcp = _captures(setting)
    policies = write_policies(setting.folder)
    ours = [_pfw(setting, name, mixed, policies[key]) for name, key in _VARIANTS]
    ours.append(_pfw(setting, "pfw replay, 10 rules, TCP with little in it", tcp, policies["10"]))
    return ours, _peers(setting, mixed, policies["simple"])


_VARIANTS = (
    ("pfw replay, 10 rules", "10"),
    ("pfw replay, lists", "simple"),
    ("pfw replay, 1,000 rules", "1000"),
    ("pfw replay, 10,000 rules", "10000"),
    (f"pfw replay, block list of {PREFIXES:,} prefixes", "prefixes"),
)


def _captures(setting: Setting) -> tuple[Path, Path]:
    """Made anew when what makes them has changed, as far as the times of the files tell."""
    paths = []
    made = max(Path(__file__).with_name(name).stat().st_mtime for name in ("traffic.py", "ends.py"))
    for name, tcp_only in (("mixed", False), ("tcp", True)):
        path = setting.folder / f"{name}-{PACKETS}-{FLOWS}.pcap"
        if not path.exists() or path.stat().st_mtime < made:
            say(f"bench: writing {path.name}")
            partial = path.with_suffix(".partial")
            write_capture(
                partial, generate(Mix(PACKETS, FLOWS, tcp_only=tcp_only, payload_bytes=64 if tcp_only else 1448))
            )
            partial.rename(path)
        path.read_bytes()  # into the page cache, for everyone alike
        paths.append(path)
    return paths[0], paths[1]


def _pfw(setting: Setting, name: str, capture: Path, rules: Path) -> Contender:
    command = (*setting.pfw, "replay", str(capture), *_LOCAL, "--rules", str(rules), "--json")
    return Contender(name, command, PACKETS, setting.environment)


def _peers(setting: Setting, capture: Path, rules: Path) -> list[Contender]:
    environment = setting.environment
    peers = []
    if setting.has("tcpdump", "tcpdump"):
        command: tuple[str, ...] = ("tcpdump", "-nn", "-r", str(capture))
        peers.append(Contender("tcpdump -nn -r", command, PACKETS, environment, tells=False))
    if setting.has("tshark", "tshark"):
        command = ("tshark", "-n", "-r", str(capture))
        peers.append(Contender("tshark -n -r", command, PACKETS, environment, tells=False, is_slow=True))
    if (with_dpkt := setting.dpkt_environment) is not None:
        command = (*setting.program("dpkt_read"), str(capture))
        peers.append(Contender("dpkt, flows in a dict", command, PACKETS, with_dpkt, is_slow=True))
    log = setting.folder / "scapy.log"
    command = (*setting.program("scapy_loop"), "read", str(capture), str(rules), str(log), str(SCAPY_SAMPLE))
    name = "Scapy loop, lists, a line logged a packet"
    peers.append(Contender(name, command, SCAPY_SAMPLE, environment, is_slow=True))
    return peers


def _table(ours: Sequence[Contender], theirs: Sequence[Contender]) -> Section:
    first = ours[0]
    columns = ("", "packets/s", "with its start, packets/s", "CPU µs a packet", "pfw with 10 rules is")
    section = Section(f"Reading a capture: {PACKETS:,} packets in {FLOWS:,} flows", columns)
    for each in (*ours, *theirs):
        if each is first:
            compared = NOTHING
        elif each.inside:
            compared = ratios(first.inside, each.inside)
        else:
            compared = ratios(first.whole, each.whole)
        section.row(each.name, spread(each.inside), spread(each.whole), spread(each.cpu_us, 2), compared)
    section.note(
        "packets/s is what a program measures itself, without its start, and what is compared; tcpdump and tshark tell "
        "nothing, so there whole runs are compared. CPU time is that of the whole run; pfw's own time does not "
        "have the reading and compiling of the policy in it"
    )
    section.note(
        "pfw tracks and judges every connection and sums up; tcpdump and tshark print a line a packet to /dev/null; "
        f"the loop over Scapy reads the first {SCAPY_SAMPLE:,} packets only"
    )
    return section
