"""How fast captures are looked through for what is suspicious: ordinary traffic, and a flood of forged sources."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from ends import LOCAL4, LOCAL6, TCP
from processes import say
from replay import FLOWS, PACKETS, Contender
from setting import Setting
from table import NOTHING, Section, ratios, spread
from traffic import ACK, RST, SYN, Frame, Mix, checksum, generate, write_capture

FLOOD_SOURCES, FLOOD_RATE = 37_000, 50_000
ANSWERED = 3
"""One of so many packets of the flood is an answer, as long as the victim gives some."""
QUICK_SHARE = 10
_ETHERNET = bytes.fromhex("0200000000050200000000010800")
_BEGIN_S = 1_790_000_000.0


def measure(setting: Setting) -> list[Section]:
    size = PACKETS // QUICK_SHARE if setting.quick else PACKETS
    flows = FLOWS // QUICK_SHARE if setting.quick else FLOWS
    sources = FLOOD_SOURCES // QUICK_SHARE if setting.quick else FLOOD_SOURCES
    ordinary = _capture(setting, f"ordinary-{size}-{flows}.pcap", lambda: generate(Mix(size, flows)))
    forged = _capture(setting, f"flood-{size}-{sources}.pcap", lambda: flood(size, sources))
    return [
        _compared(
            setting, f"Looking for what is suspicious: {size:,} packets in {flows:,} ordinary flows", ordinary, size
        ),
        _compared(setting, f"The same in a SYN flood: {size:,} packets of {sources:,} forged sources", forged, size),
    ]


def flood(packets: int, sources: int) -> Iterator[Frame]:
    """SYN packets to the machine's port 80, each source in its turn, and its answers to some of them."""
    pick = Random(5)
    forged = [IPv4Address(pick.randrange(0x0B000000, 0xDF000000)).packed for _ in range(sources)]
    here = IPv4Address(LOCAL4).packed
    for number in range(packets):
        at = _BEGIN_S + number / FLOOD_RATE
        source, port = forged[number // 2 % sources], 1024 + number // 2 % 60_000
        if number % 2 == 0 or number // 2 % ANSWERED:
            yield at, _segment(source, here, port, 80, SYN)
        else:
            yield at, _segment(here, source, 80, port, SYN | ACK)


def _segment(source: bytes, destination: bytes, source_port: int, port: int, flags: int) -> bytes:
    head = struct.pack(">HHIIBBHHH", source_port, port, 1, 1 if flags & (ACK | RST) else 0, 5 << 4, flags, 64_240, 0, 0)
    pseudo = source + destination + struct.pack(">HH", TCP, len(head))
    head = head[:16] + checksum(pseudo + head).to_bytes(2) + head[18:]
    fields = struct.pack(">BBHHHBB", 0x45, 0, len(head) + 20, 7, 0x4000, 64, TCP)
    return _ETHERNET + fields + checksum(fields + source + destination).to_bytes(2) + source + destination + head


def _capture(setting: Setting, name: str, make: Callable[[], Iterator[Frame] | list[Frame]]) -> Path:
    path = setting.folder / name
    write_capture(path, make())
    path.read_bytes()  # into the page cache, for everyone alike
    return path


def _compared(setting: Setting, title: str, capture: Path, packets: int) -> Section:
    section = Section(title, ("", "packets/s", "with its start, packets/s", "CPU µs a packet", "pfw is"))
    everyone = _contenders(setting, capture, packets)
    for turn in range(setting.rounds):
        for each in everyone:
            say(f"bench: detecting, round {turn + 1} of {setting.rounds}: {each.name}")
            each.run()
    first = everyone[0]
    for each in everyone:
        compared = NOTHING if each is first else ratios(first.whole, each.whole)
        section.row(each.name, spread(each.inside), spread(each.whole), spread(each.cpu_us, 2), compared)
    section.note("what is compared are whole runs, with the start of the programs")
    if not any(each.name.startswith("suricata") for each in everyone):
        section.note("left out: Suricata; its Debian package is suricata, where there is one")
    return section


def _contenders(setting: Setting, capture: Path, packets: int) -> list[Contender]:
    environment = setting.environment
    local = ("--local", LOCAL4, "--local", LOCAL6)
    words = (*setting.pfw, "replay", "--detect", str(capture), *local, "--json")
    found = [Contender("pfw replay --detect", words, packets, environment)]
    if shutil.which("suricata") is not None:
        output = setting.folder / "suricata"
        output.mkdir(exist_ok=True)
        words = ("suricata", "-r", str(capture), "-l", str(output), "--runmode", "single")
        name = "suricata -r, as Debian sets it up"
        found.append(Contender(name, words, packets, environment, tells=False, is_slow=True))
    if setting.has("tcpdump", "tcpdump"):
        words = ("tcpdump", "-nn", "-r", str(capture), "-w", "/dev/null")
        found.append(Contender("tcpdump -r -w /dev/null (nothing looked at)", words, packets, environment, tells=False))
    return found
