"""Malformed packets, more than strays: from one source, or to one host from many.

Cables and capture programs break packets, and old stacks are sloppy; that says little. What counts is what only intent
or a broken program makes, and that several times; or many different faults, as fuzzing makes them. Fragments are for
`fragment_evasion.py`. Sources can be forged: nobody is banned for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfw.engine.detect import fragment_evasion
from pfw.engine.detect.contacts import Pace, lasted
from pfw.engine.detect.detector import Table
from pfw.model.address import format_address
from pfw.model.observation import Alert, Kind, Odd

SOURCES_MAX = 2_048
KEEP_S = 600.0
HOSTILE_MANY, HOSTILE_S = 4, 60.0
"""With the same fault. An IP protocol scan (nmap -sO) sends two packets at most of each."""
FUZZ_MANY, FUZZ_NAMES, FUZZ_S = 20, 4, 60.0
"""Packets with so many different faults, the sloppy ones among them."""
TARGET_MANY, TARGET_SOURCES = 20, 10
NAMES_MAX = 32
"""Faults of one source that are told apart; the decoder has about eighty."""

IGNORED = frozenset({"capture.snapped", *fragment_evasion.WEIGHTS, *fragment_evasion.SLOPPY})
"""The capture's own doing, and what is looked at elsewhere."""
SLOPPY = frozenset(
    {
        # Captures that were cut without saying so, and damaged frames.
        *(f"decoder.{name}.pkt_too_small" for name in ("ethernet", "sll", "sll2", "ltnull", "pppoe", "arp")),
        "decoder.ipv4.pkt_too_small", "decoder.ipv6.pkt_too_small",
        "decoder.vlan.header_too_small", "decoder.ipraw.invalid_ip_version", "decoder.ipv4.wrong_ip_version",
        "decoder.ipv6.wrong_ip_version", "decoder.ipv4.trunc_pkt", "decoder.ipv6.trunc_pkt", "decoder.pppoe.wrong_code",
        "decoder.ipv4.iplen_smaller_than_hlen",
        # Options behind the payload of UDP (RFC 9868) make the packet longer than UDP says.
        "decoder.udp.hlen_invalid",
        # New, rare, or other networks than Ethernet and IPv4.
        "decoder.arp.unsupported_hardware", "decoder.arp.unsupported_protocol", "decoder.arp.unsupported_opcode",
        "decoder.ipv4.opt_unknown", "decoder.ipv4.opt_duplicate", "decoder.tcp.opt_duplicate",
        "decoder.ipv6.hopopts_only_padding", "decoder.ipv6.dstopts_only_padding", "decoder.ipv6.unknown_next_header",
        "decoder.ipv6.data_after_none_header", "decoder.ipv6.hopopts_unknown_opt",
        "decoder.icmpv4.unknown_type", "decoder.icmpv4.unknown_code", "decoder.icmpv6.unknown_type",
        "decoder.icmpv6.unassigned_type", "decoder.icmpv6.experimentation_type", "decoder.icmpv6.unknown_code",
        # Errors of routers that quote little, or what a tunnel made of it.
        "decoder.icmpv4.ipv4_trunc_pkt", "decoder.icmpv4.ipv4_unknown_ver", "decoder.icmpv6.ipv6_trunc_pkt",
        "decoder.icmpv6.ipv6_unknown_version", "decoder.icmpv6.mld_message_with_invalid_hl",
    }
)  # fmt: skip

_UNKNOWN = b""
"""The source of what has no addresses that could be read."""


class _Source:
    __slots__ = ("all", "first", "is_told", "names", "next_alert", "paces", "total")

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.paces: dict[str, Pace] = {}
        self.all = Pace(FUZZ_MANY)
        self.first = 0.0
        self.total = self.next_alert = 0
        self.is_told = False

    def add(self, names: list[str], now: float) -> bool:
        """Whether it is more than strays."""
        self.first = self.first if self.total else now
        self.total += 1
        self.all.add(now)
        enough = False
        for name in names:
            if name not in self.names and len(self.names) >= NAMES_MAX:
                continue
            self.names[name] = self.names.get(name, 0) + 1
            if name not in SLOPPY:
                pace = self.paces.setdefault(name, Pace(HOSTILE_MANY))
                pace.add(now)
                enough = enough or pace.reached(HOSTILE_MANY, HOSTILE_S)
        return enough or (len(self.names) >= FUZZ_NAMES and self.all.reached(FUZZ_MANY, FUZZ_S))


class _Target:
    __slots__ = ("first", "next_alert", "pace", "sources", "total")

    def __init__(self) -> None:
        self.sources: dict[bytes, None] = {}
        self.pace = Pace(TARGET_MANY)
        self.first = 0.0
        self.total = self.next_alert = 0


class Malformed:
    wants: tuple[type, ...] = (Odd,)

    def __init__(self, sources_max: int = SOURCES_MAX) -> None:
        self._sources: Table[bytes, _Source] = Table(sources_max, KEEP_S, _Source)
        self._targets: Table[bytes, _Target] = Table(sources_max, KEEP_S, _Target)

    @property
    def refused(self) -> int:
        return self._sources.refused + self._targets.refused

    def observe(self, seen: Odd) -> Iterable[Alert]:
        names = [each for each in seen.names if each not in IGNORED]
        if not names or (seen.is_fragment and all(each.endswith(".pkt_too_small") for each in names)):
            return ()
        return list(self._odd(seen, names))

    def end(self, _: float) -> Iterable[Alert]:
        return ()

    def _odd(self, seen: Odd, names: list[str]) -> Iterator[Alert]:
        source = self._sources.get(seen.source or _UNKNOWN, seen.time)
        if source is not None and source.add(names, seen.time):
            source.is_told = True
            if source.total >= source.next_alert:
                source.next_alert = 2 * source.total
                yield self._alert(seen, source)
            return
        is_clear = any(each not in SLOPPY for each in names) and (source is None or not source.is_told)
        if is_clear and seen.source is not None and seen.destination is not None:
            yield from self._to(seen.source, seen.destination, seen.time)

    def _alert(self, seen: Odd, source: _Source) -> Alert:
        often = sorted(source.names.items(), key=lambda each: -each[1])
        said = ", ".join(f"{count} with {name.removeprefix('decoder.')}" for name, count in often[:3])
        text = f"sent {source.total} malformed packets in {lasted(source.first, seen.time)}: {said}"
        text += f" and {len(often) - 3} other faults" if len(often) > 3 else ""
        return Alert(kind=Kind.MALFORMED, source=seen.source, target=seen.destination, first=source.first,
                     last=seen.time, score=min(80, 50 + source.total), evidence=text)  # fmt: skip

    def _to(self, source: bytes, destination: bytes, now: float) -> Iterator[Alert]:
        target = self._targets.get(destination, now)
        if target is None:
            return
        target.first = target.first if target.total else now
        target.total += 1
        target.pace.add(now)
        if len(target.sources) < TARGET_SOURCES:
            target.sources[source] = None
        many = len(target.sources) >= TARGET_SOURCES and target.pace.reached(TARGET_MANY, HOSTILE_S)
        if many and target.total >= target.next_alert:
            target.next_alert = 2 * target.total
            text = f"{target.total} malformed packets from at least {len(target.sources)} sources came to "
            text += f"{format_address(destination)} in {lasted(target.first, now)}"
            yield Alert(kind=Kind.MALFORMED, source=None, target=destination, first=target.first, last=now, score=60,
                        evidence=text)  # fmt: skip
