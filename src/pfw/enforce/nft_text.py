"""Conditions, addresses and names in nft's language. Pure text; `render_nftables.py` puts it together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pfw.enforce import conditions as c
from pfw.enforce.conditions import Condition
from pfw.enforce.schedules import intervals
from pfw.model.address import IPV4_LAST, Range, format_range
from pfw.model.packet import ICMP
from pfw.model.rule import PortRange

COMMENT_BYTES = 120
"""The kernel keeps 128 (NFTNL_UDATA_COMMENT_MAXLEN)."""

_FULL_S_MAX = 10**10
"""The kernel counts tokens in nanoseconds, in 64 bits."""

_PERIODS = {1: "second", 60: "minute", 3600: "hour", 86400: "day"}

NamedSet = Callable[[str, str, Sequence[str]], str]
"""Makes sure of a set with this type and these elements (flags in the type); gives how it is called."""


def comment(name: str) -> str:
    """A rule's name as a comment of the kernel's rule: without quotes, not too long."""
    text = name.replace('"', "'").encode(errors="replace")[:COMMENT_BYTES].decode(errors="ignore")
    return f'comment "{text}"'


def range_text(pair: Range) -> str:
    return format_range(*pair)


def port_text(pair: PortRange) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}-{pair[1]}"


def one_of(texts: Sequence[str], kind: str, named: NamedSet) -> str:
    """One value, or a set with a name: with thousands of nameless ones a kernel takes ten times as long to load
    (it goes through the whole transaction for each)."""
    return texts[0] if len(texts) == 1 else f"@{named(kind, '', texts)}"


def family_word(family: int) -> str:
    return "ip" if family == c.IPV4 else "ip6"


def family_of(value: int) -> int:
    return c.IPV4 if value <= IPV4_LAST else c.IPV6


def match(condition: Condition, named: NamedSet) -> str:
    """A condition as nft writes it. Limits are statements that use a set of their own: see `limit`."""
    match condition:
        case c.InState(state=state):
            return f"ct state {state}"
        case c.Stray():
            return "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn"
        case c.OnInterface():
            return _interface(condition, named)
        case c.OfProtocol(numbers=numbers):
            return f"meta l4proto {one_of([str(number) for number in numbers], 'type inet_proto', named)}"
        case c.HasAddress():
            return _address(condition, named)
        case c.HasPort():
            return _port(condition, named)
        case c.IcmpType(protocol=protocol, types=types):
            word = "icmp" if protocol == ICMP else "icmpv6"
            return f"{word} type {one_of([str(number) for number in types], f'type {word}_type', named)}"
        case _:
            return _owner_or_time(condition, named)


def _owner_or_time(condition: Condition, named: NamedSet) -> str:
    match condition:
        case c.OfUser(uids=uids):
            return f"meta skuid {one_of([str(uid) for uid in uids], 'type uid', named)}"
        case c.OfGroup(gids=gids):
            return f"meta skgid {one_of([str(gid) for gid in gids], 'type gid', named)}"
        case c.OfUnit(path=path, level=level, mount=mount):
            if '"' in path or "\n" in path:
                raise c.CannotError(f"a control group with such a name cannot be written in nft: {path!r}")
            # nft looks below /sys/fs/cgroup; the level is the kernel's own.
            return f'socket cgroupv2 level {level} "{mount}{path}"'
        case c.BeforeTime(time=time):
            return f"meta time < {time}"
        case c.InSchedule():
            # The kernel counts on within the last second.
            found = [f"{first}-{last + 1}" for first, last in intervals(condition)]
            return f"meta time @{named('typeof meta time; flags interval', condition.schedule.text, found)}"
        case _:
            raise c.CannotError(f"nftables does not know the condition {type(condition).__name__}")


def _interface(condition: c.OnInterface, named: NamedSet) -> str:
    word = "oifname" if condition.leaving else "iifname"
    wild = [pattern[:-1] for pattern in condition.patterns if pattern.endswith("*")]
    # What a wildcard covers already would be a second interval within the first.
    kept = [
        pattern
        for pattern in condition.patterns
        if not any(pattern.startswith(beginning) and pattern != f"{beginning}*" for beginning in wild)
    ]
    texts = [f'"{pattern}"' for pattern in kept]
    return f"{word} {one_of(texts, 'type ifname; flags interval' if wild else 'type ifname', named)}"


def _address(condition: c.HasAddress, named: NamedSet) -> str:
    return address(condition, addresses(condition, named))


def addresses(condition: c.HasAddress, named: NamedSet) -> str:
    """The address, or the set of addresses, that a condition wants."""
    texts = [range_text(pair) for pair in condition.ranges]
    kind = f"type {'ipv4_addr' if condition.family == c.IPV4 else 'ipv6_addr'}{interval(condition.ranges)}"
    return one_of(texts, kind, named)


def address(condition: c.HasAddress, wanted: str) -> str:
    """The condition, with what `addresses` gave."""
    end = "daddr" if condition.destination else "saddr"
    return f"{'ct original ' if condition.sent else ''}{family_word(condition.family)} {end} {wanted}"


def interval(ranges: Sequence[tuple[int, int]]) -> str:
    """The flag of a set that holds more than single values, which a hash can hold."""
    return "" if all(first == last for first, last in ranges) else "; flags interval"


def _port(condition: c.HasPort, named: NamedSet) -> str:
    texts = [port_text(pair) for pair in condition.ranges]
    wanted = one_of(texts, f"type inet_service{interval(condition.ranges)}", named)
    if condition.sent:
        return f"ct original proto-dst {wanted}"
    return f"th {'dport' if condition.destination else 'sport'} {wanted}"


def limit(condition: c.UnderLimit, set_name: str, family: int) -> str:
    """Take a token of the source's bucket."""
    rate = condition.limit
    if rate.burst * rate.period_s > rate.count * _FULL_S_MAX:
        what = f"a limit whose {rate.burst} tokens take more than {_FULL_S_MAX:,} seconds to come back is too slow"
        raise c.CannotError(what, field="burst")
    bucket = f"limit rate {rate.count}/{_PERIODS[rate.period_s]} burst {rate.burst} packets"
    return f"update @{set_name} {{ {family_word(family)} saddr {bucket} }}"


def limit_set(condition: c.UnderLimit, family: int) -> str:
    """The set of buckets: one that has been full again for a while is forgotten."""
    rate = condition.limit
    full_s = int(rate.burst * rate.period_s / rate.count) + 60
    kind = "ipv4_addr" if family == c.IPV4 else "ipv6_addr"
    return f"type {kind}; size 65535; flags dynamic,timeout; timeout {full_s}s"
