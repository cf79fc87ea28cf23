"""Conditions in nft's language."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pfw.enforce import conditions as c
from pfw.enforce import nft_text as text
from pfw.enforce.conditions import IPV4, IPV6, CannotError, Period
from pfw.model.address import parse_range
from pfw.model.rule import Limit, Schedule


class Sets:
    """Takes note of the sets that are asked for."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, list[str]]] = []

    def __call__(self, kind: str, note: str, elements: Sequence[str]) -> str:
        self.made.append((kind, note, list(elements)))
        return f"s{len(self.made)}"


def ranges(*texts: str) -> tuple[tuple[int, int], ...]:
    return tuple(parse_range(each) for each in texts)


HOSTS = ranges("192.0.2.1", "192.0.2.7")
NETS = ranges("192.0.2.1", "198.51.100.0/24", "203.0.113.5-203.0.113.9")
SCHEDULE = Schedule(((0, 60),), "mon 00:00-01:00")
MONDAY = 4 * 86400

CASES = [
    (c.InState(c.State.INVALID), "ct state invalid", None),
    (c.Stray(), "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn", None),
    (c.OnInterface(("eth0",), leaving=False), 'iifname "eth0"', None),
    (c.OnInterface(("eth*",), leaving=True), 'oifname "eth*"', None),
    (c.OnInterface(("eth0", "lo"), leaving=True), "oifname @s1", ("type ifname", ['"eth0"', '"lo"'])),
    (c.OnInterface(("e*", "eth0", "eth*", "lo"), leaving=False), "iifname @s1",
     ("type ifname; flags interval", ['"e*"', '"lo"'])),
    (c.OnInterface(("e*", "eth0"), leaving=False), 'iifname "e*"', None),
    (c.OfProtocol((6,)), "meta l4proto 6", None),
    (c.OfProtocol((6, 17)), "meta l4proto @s1", ("type inet_proto", ["6", "17"])),
    (c.HasAddress(IPV4, ranges("192.0.2.0/24"), destination=False), "ip saddr 192.0.2.0/24", None),
    (c.HasAddress(IPV4, HOSTS, destination=True), "ip daddr @s1", ("type ipv4_addr", ["192.0.2.1", "192.0.2.7"])),
    (c.HasAddress(IPV4, NETS, destination=True, sent=True), "ct original ip daddr @s1",
     ("type ipv4_addr; flags interval", ["192.0.2.1", "198.51.100.0/24", "203.0.113.5-203.0.113.9"])),
    (c.HasAddress(IPV6, ranges("2001:db8::/32"), destination=False), "ip6 saddr 2001:db8::/32", None),
    (c.HasPort(((22, 22),), destination=True), "th dport 22", None),
    (c.HasPort(((1000, 2000),), destination=False), "th sport 1000-2000", None),
    (c.HasPort(((22, 22), (80, 90)), destination=True), "th dport @s1",
     ("type inet_service; flags interval", ["22", "80-90"])),
    (c.HasPort(((22, 22),), destination=True, sent=True), "ct original proto-dst 22", None),
    (c.IcmpType(1, (8,)), "icmp type 8", None),
    (c.IcmpType(58, (128, 129)), "icmpv6 type @s1", ("type icmpv6_type", ["128", "129"])),
    (c.OfUser((0,)), "meta skuid 0", None),
    (c.OfUser((0, 1000)), "meta skuid @s1", ("type uid", ["0", "1000"])),
    (c.OfGroup((5, 10)), "meta skgid @s1", ("type gid", ["5", "10"])),
    (c.OfUnit("system.slice/a.service", 2), 'socket cgroupv2 level 2 "system.slice/a.service"', None),
    (c.BeforeTime(1_800_000_000), "meta time < 1800000000", None),
    # Up to the end of the last second.
    (c.InSchedule(SCHEDULE, (Period(MONDAY, MONDAY + 86400, 0),)), "meta time @s1",
     ("typeof meta time; flags interval", [f"{MONDAY}-{MONDAY + 3600}"])),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "expected", "made"), CASES)
def test_conditions(condition, expected, made) -> None:
    sets = Sets()
    assert text.match(condition, sets) == expected
    assert [(kind, elements) for kind, _, elements in sets.made] == ([] if made is None else [made])


def test_a_control_group_that_cannot_be_written() -> None:
    for path in ('a"b', "a\nb"):
        with pytest.raises(CannotError, match="cannot be written"):
            text.match(c.OfUnit(path, 1), Sets())


def test_a_limit_takes_a_token_of_its_source() -> None:
    condition = c.UnderLimit(3, Limit(6, 60, 5))
    assert text.limit(condition, "b", IPV4) == "update @b { ip saddr limit rate 6/minute burst 5 packets }"
    assert text.limit(condition, "b", IPV6) == "update @b { ip6 saddr limit rate 6/minute burst 5 packets }"
    # Full again after 50 s, and a while longer.
    assert text.limit_set(condition, IPV4) == "type ipv4_addr; size 65535; flags dynamic,timeout; timeout 110s"
    assert "timeout 86460s" in text.limit_set(c.UnderLimit(0, Limit(1, 86400, 1)), IPV6)


def test_a_limit_that_the_kernel_cannot_count() -> None:
    with pytest.raises(CannotError) as caught:
        text.limit(c.UnderLimit(0, Limit(1, 86400, 1_000_000)), "b", IPV4)
    assert caught.value.field == "burst"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", 'comment "web"'),
        ('the "big" one', "comment \"the 'big' one\""),
        ("x" * 300, f'comment "{"x" * 120}"'),
        ("ü" * 100, f'comment "{"ü" * 60}"'),
        ("x" + "ü" * 100, f'comment "x{"ü" * 59}"'),  # no half a letter
        ("\udc80", 'comment "?"'),
    ],
)
def test_names_as_comments(name, expected) -> None:
    assert text.comment(name) == expected
