"""Conditions in the words of iptables. One condition may need several rules: each is a list of alternatives.

A condition of one family has no words in the other family's table: then its alternatives are none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from pfw.enforce import conditions as c
from pfw.enforce.conditions import CannotError, Condition
from pfw.enforce.lists import prefixes
from pfw.enforce.schedules import utc_windows
from pfw.model.address import AddressSet, Range, format_address
from pfw.model.packet import ICMP
from pfw.model.rule import PortRange

MULTIPORT_MAX = 15
"""XT_MULTI_PORTS; a range takes two of them."""
ALTERNATIVES_MAX = 512
"""Rules that one condition may become; nftables does the same with one."""
COMMENT_BYTES = 250
_FULL_S_MAX = 86400
"""xt_hashlimit counts in parts of a jiffy that are as small as just lets a day fit into 64 bits."""

_PERIODS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}
_ANY_ICMP = 255
"""What iptables takes as "every type"."""

Alternatives = list[str]
NamedSet = Callable[[int, Sequence[Range]], str]
"""Makes sure of a set of addresses of a family; gives its name."""


def quoted(text: str) -> str:
    """A word as iptables-restore reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def comment(text: str) -> str:
    return f"-m comment --comment {quoted(text.encode(errors='replace')[:COMMENT_BYTES].decode(errors='ignore'))}"


def match(condition: Condition, family: int, named: NamedSet) -> Alternatives:
    """A condition in words. Raises CannotError."""
    match condition:
        case c.InState(state=state):
            return [f"-m conntrack --ctstate {state.upper()}"]
        case c.Stray():
            return ["-p tcp ! --syn"]
        case c.OnInterface():
            return _interface(condition)
        case c.HasAddress():
            return _address(condition, named) if condition.family == family else []
        case c.IcmpType(protocol=protocol, types=types):
            return _icmp(protocol, types, family)
        case c.OfUser(uids=uids):
            return [f"-m owner --uid-owner {span}" for span in _spans(uids)]
        case c.OfGroup(gids=gids):
            return [f"-m owner --gid-owner {span}" for span in _spans(gids)]
        case c.OfUnit(path=path):
            return [f"-m cgroup --path {quoted(path)}"]
        case c.BeforeTime(time=time):
            return [f"-m time --datestop {_date(time - 1)}"]
        case c.InSchedule():
            return list(_schedule(condition))
        case _:
            raise CannotError(f"iptables does not know the condition {type(condition).__name__}")


def transport(step: c.Step) -> Alternatives:
    """Protocol and ports of a step, which iptables wants together."""
    protocols = next((each.numbers for each in step.conditions if isinstance(each, c.OfProtocol)), None)
    ports = [each for each in step.conditions if isinstance(each, c.HasPort)]
    if protocols is None:
        return [""]
    if 0 in protocols:
        raise CannotError("iptables takes protocol 0 as every protocol; use nftables", field="protocol")
    found = [f"-p {number}" for number in protocols]
    for each in ports:
        found = [f"{front} {words}" for front in found for words in _ports(each)]
    return found


def limit(condition: c.UnderLimit, counter: str) -> str:
    """Take a token of the source's bucket. The buckets are named by the rule's counter, which tells one rule from
    another: the kernel keeps buckets by their name, and the rate with them."""
    rate = condition.limit
    if rate.burst * rate.period_s > rate.count * _FULL_S_MAX:
        what = f"iptables can give back {rate.burst} in no more than a day; use nftables or a lower burst"
        raise CannotError(what, field="burst")
    full_ms = int(rate.burst * rate.period_s / rate.count * 1000) + 60_000
    name = f"pfw-{counter.removeprefix('r_')}"
    return (
        f"-m hashlimit --hashlimit-upto {rate.count}/{_PERIODS[rate.period_s]} --hashlimit-burst {rate.burst} "
        f"--hashlimit-mode srcip --hashlimit-name {name} --hashlimit-htable-max 65536 "
        f"--hashlimit-htable-expire {full_ms}"
    )


def _bounded(found: Alternatives, what: str) -> Alternatives:
    if len(found) > ALTERNATIVES_MAX:
        raise CannotError(f"iptables would need {len(found)} rules for {what}; use nftables")
    return found


def _interface(condition: c.OnInterface) -> Alternatives:
    option = "-o" if condition.leaving else "-i"
    wild = [pattern[:-1] for pattern in condition.patterns if pattern.endswith("*")]
    found = []
    for pattern in condition.patterns:
        if any(pattern.startswith(beginning) and pattern != f"{beginning}*" for beginning in wild):
            continue
        found.append(f"{option} {quoted(pattern[:-1] + '+' if pattern.endswith('*') else pattern)}")
    return found


def _address(condition: c.HasAddress, named: NamedSet) -> Alternatives:
    ranges = condition.ranges
    if condition.sent:
        found = [f"-m conntrack --ctorigdst {_prefix(*pair)}" for pair in prefixes(AddressSet(ranges))]
        return _bounded(found, "the addresses that a published port was asked for at")
    option, end = ("-d", "dst") if condition.destination else ("-s", "src")
    if len(ranges) == 1 and len(few := prefixes(AddressSet(ranges))) == 1:
        return [f"{option} {_prefix(*few[0])}"]
    return [f"-m set --match-set {named(condition.family, ranges)} {end}"]


def _prefix(packed: bytes, length: int) -> str:
    return f"{format_address(packed)}/{length}"


def _ports(condition: c.HasPort) -> Alternatives:
    if condition.sent:
        found = [f"-m conntrack --ctorigdstport {_port(pair)}" for pair in condition.ranges]
        return _bounded(found, "the ports of published services")
    option = "--dports" if condition.destination else "--sports"
    chunks: list[list[str]] = [[]]
    room = MULTIPORT_MAX
    for pair in condition.ranges:
        takes = 1 if pair[0] == pair[1] else 2
        if takes > room:
            chunks.append([])
            room = MULTIPORT_MAX
        chunks[-1].append(_port(pair))
        room -= takes
    return _bounded([f"-m multiport {option} {','.join(chunk)}" for chunk in chunks], "the ports")


def _port(pair: PortRange) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}:{pair[1]}"


def _icmp(protocol: int, types: Sequence[int], family: int) -> Alternatives:
    if (protocol == ICMP) != (family == c.IPV4):
        return []
    if protocol == ICMP and _ANY_ICMP in types:
        raise CannotError("iptables takes ICMP type 255 as every type; use nftables", field="icmp_type")
    words = "-p icmp -m icmp --icmp-type" if protocol == ICMP else "-p ipv6-icmp -m icmp6 --icmpv6-type"
    return [f"{words} {number}" for number in types]


def _spans(numbers: Sequence[int]) -> Iterator[str]:
    """Sorted numbers, those that follow each other as first-last."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}"


def _schedule(condition: c.InSchedule) -> Iterator[str]:
    for period in condition.periods:
        dates = f"--datestart {_date(int(period.first))} --datestop {_date(int(period.end) - 1)}"
        days_by_time: dict[tuple[int, int], list[int]] = {}
        for day, first, last in utc_windows(condition.schedule, period.utc_offset_s):
            days_by_time.setdefault((first, last), []).append(day)
        for (first, last), days in days_by_time.items():
            weekdays = ",".join(str(day + 1) for day in days)
            yield f"-m time {dates} --timestart {_time(first)} --timestop {_time(last)} --weekdays {weekdays}"


def _time(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


def _date(at: int) -> str:
    """`2026-11-24T10:00:00`, UTC; a day behind what xt_time can hold is its last (2038-01-19, XT_TIME_MAX…)."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(max(0, min(at, 2**31 - 1)), UTC).strftime("%Y-%m-%dT%H:%M:%S")
