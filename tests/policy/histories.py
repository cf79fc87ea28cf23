"""Histories for tests: short ways to say a group, and random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Moment
from pfw.model.history import Group, Subject, Traffic
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.policy.rehearsal import World

MONDAY = 1_795_392_000.0
"""2026-11-23 00:00 UTC."""
HOUR_S = 3600.0

LOCAL, REMOTE = "192.168.1.5", "203.0.113.9"
ADDRESSES = ["203.0.113.9", "198.51.100.1", "198.51.100.2", "8.8.8.8", "192.168.1.7", "192.168.1.8", "10.1.2.3"]
PROGRAMS = [
    None,
    "/usr/bin/firefox",
    "/usr/bin/curl",
    "/usr/sbin/sshd",
    "kworker",
    "/opt/odd*",
    "/opt/a\x1b[2J",
    "/x//y",
]
PORTS = [22, 25, 53, 80, 123, 443, *range(8000, 8012)]


def world(**more: Any) -> World:
    return World(**{"now": Moment(MONDAY + 40 * HOUR_S), "utc_offset_s": lambda time: 0} | more)


def make_subject(**fields: Any) -> Subject:
    """A sure connection of firefox to port 443 that a default let out, unless told otherwise."""
    given = {
        "direction": Direction.OUT,
        "protocol": 6,
        "local": LOCAL,
        "port": 443,
        "interface": "eth0",
        "program": "/usr/bin/firefox",
        "uid": 1000,
        "user": "alice",
        "unit": "user.slice/user-1000.slice",
        "certainty": Certainty.LABEL,
        "action": Action.ALLOW,
        "rule": None,
    } | fields
    return Subject(**given | {"local": parse_address(given["local"])})


def make_group(remote: str = REMOTE, *, name: str | None = None, count: int = 1, first: float = MONDAY + 9 * HOUR_S,
               last: float | None = None, traffic: Traffic | None = None, **fields: Any) -> Group:  # fmt: skip
    end = first if last is None else last
    carried = traffic or Traffic(1000 * count, 10 * count, 2000 * count, 10 * count)
    return Group(make_subject(**fields), parse_address(remote), name, count, carried, first, end)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """A group of connections, many of them like others."""
    direction = draw(st.sampled_from(list(Direction)))
    protocol = draw(st.sampled_from([6, 6, 17, 1, 47]))
    has_port = protocol in (6, 17)
    sent = draw(st.sampled_from([0, 40, 5000]))
    first = MONDAY + draw(st.integers(0, 47)) * HOUR_S
    return make_group(
        draw(st.sampled_from(ADDRESSES)),
        name=draw(st.sampled_from([None, None, "example.com"])),
        count=draw(st.sampled_from([1, 1, 7])),
        first=first,
        last=first + draw(st.sampled_from([0, 0, 10])) * HOUR_S,
        traffic=Traffic(sent, min(sent, 1), 60, draw(st.sampled_from([0, 1]))),
        direction=direction,
        protocol=protocol,
        port=draw(st.sampled_from([*PORTS, None])) if has_port else None,
        icmp_type=draw(st.sampled_from([8, 13, 200, None])) if protocol == 1 else None,
        program=draw(st.sampled_from(PROGRAMS)),
        certainty=draw(st.sampled_from([Certainty.LABEL, Certainty.PROC, Certainty.GUESS, None])),
        interface=draw(st.sampled_from(["eth0", None])),
        action=draw(st.sampled_from([Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.BLOCK, Action.REJECT])),
    )


def rules() -> st.SearchStrategy[dict[str, object]]:
    """A rule of a policy file, its name to be given."""
    fields: dict[str, st.SearchStrategy[object]] = {
        "port": st.sampled_from([22, 443, [25, 80], "8000-8005"]),
        "app": st.sampled_from(["/usr/bin/firefox", "/usr/bin/*", ["/usr/bin/curl", "/usr/sbin/sshd"]]),
        "remote": st.sampled_from(["203.0.113.0/24", "private", "!private"]),
        "user": st.sampled_from(["alice", "group:wheel", 0]),
        "interface": st.sampled_from(["eth0", "wlan*"]),
        "schedule": st.sampled_from([{"from": "08:00", "until": "12:00"}, {"days": ["tue"]}]),
        "from_port": st.just(1024),
        "expires": st.sampled_from(["2020-01-01T00:00:00Z", "2031-01-01T00:00:00Z"]),
        "limit": st.just("6/minute"),
        "enabled": st.just(False),
    }
    always = {
        "action": st.sampled_from(["allow", "block", "reject", "ask"]),
        "direction": st.sampled_from(["in", "out", "both"]),
    }
    return st.fixed_dictionaries(always, optional=fields)


@st.composite
def policies(draw: st.DrawFn) -> dict[str, object]:
    """A policy file of the full form."""
    made = draw(st.lists(rules(), max_size=5))
    for number, rule in enumerate(made):
        rule["name"] = f"rule {number}"
    default = {"in": draw(st.sampled_from(["allow", "block"])), "out": draw(st.sampled_from(["allow", "block", "ask"]))}
    return {"version": 2, "default": default, "rules": made}
