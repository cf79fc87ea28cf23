from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow, Moment
from pfw.model.policy import Policy
from pfw.policy.decide import Decider
from pfw.policy.load import load
from pfw.policy.placing import default_place, shadowed_by

CURL = {"path": "/usr/bin/curl", "sha256": "a" * 64}
NOW = Moment(0.0)
LATER = Moment(2e9)

FIELDS = st.fixed_dictionaries(
    {"action": st.sampled_from(["allow", "block"])},
    optional={
        "direction": st.sampled_from(["in", "out", "forward"]),
        "from": st.sampled_from(["10.0.0.0/8", "10.0.0.1", "::/0", "!10.0.0.1"]),
        "to": st.sampled_from(["10.0.0.0/8", "192.0.2.1", ["192.0.2.1", "::1"]]),
        "protocol": st.sampled_from(["tcp", "udp", ["tcp", "udp"]]),
        "port": st.sampled_from([22, "0-100", "101-65535", [22, 80]]),
        "interface": st.sampled_from(["eth0", "eth*"]),
        "user": st.sampled_from(["bob", ["bob", "eve"]]),
    },
)
WIDE = {"10.0.0.1", "10.0.0.2", "192.0.2.1", "203.0.113.9", "::1", "2001:db8::1"}
CONNECTIONS = [
    Flow(
        direction=direction, protocol=protocol, source=parse_address(source), destination=parse_address(destination),
        source_port=5, port=port, interface=interface, users=frozenset({user}),
    )
    for direction, protocol, source, destination, port, interface, user in product(
        Direction, (6, 17), WIDE, WIDE, (22, 80, 443), ("eth0", "eth1"), ("bob", "eve")
    )
    if len(parse_address(source)) == len(parse_address(destination))
]  # fmt: skip


def policy_of(*rules: dict[str, object]) -> Policy:
    named = [{"name": f"r{index}", "action": "allow", **rule} for index, rule in enumerate(rules)]
    return load(json.dumps({"version": 2, "rules": named}))


@settings(deadline=None, max_examples=100)
@given(FIELDS, FIELDS)
def test_of_a_rule_that_is_shadowed_by_one_no_connection_is_decided(earlier, rule) -> None:
    policy = policy_of(earlier, rule)
    decider = Decider(policy)
    decided = any(decider.decide(flow, NOW).index == 1 for flow in CONNECTIONS)
    shadow = shadowed_by(policy, 1, NOW)
    assert not (shadow and decided)
    assert shadow is None or shadow == "r0" or shadow.startswith("base ")


@pytest.mark.parametrize(
    ("earlier", "rule", "shadow"),
    [
        ([{"action": "block"}], {"port": 22}, "r0"),
        ([{"action": "block", "direction": "in"}], {"port": 22}, None),
        ([{"action": "block", "direction": "in"}], {"port": 22, "direction": "in"}, "r0"),
        ([{"action": "block", "from": "10.0.0.0/8"}], {"from": "10.0.0.7", "direction": "in"}, "r0"),
        ([{"action": "block", "from": "10.0.0.0/8"}], {"from": ["10.0.0.7", "::1"]}, None),
        ([{"action": "block", "remote": "10.0.0.0/8"}], {"direction": "out", "to": "10.0.0.7"}, "r0"),
        ([{"action": "block", "remote": "10.0.0.0/8"}], {"direction": "out", "from": "10.0.0.7"}, None),
        ([{"port": "0-100"}, {"port": "101-65535"}], {"protocol": "tcp", "action": "block"}, "r0"),
        ([{"port": "0-100"}, {"port": "102-65535"}], {"protocol": "tcp", "action": "block"}, None),
        ([{"protocol": "tcp"}, {"protocol": "udp"}, {"protocol": "icmp"}], {}, None),
        ([{"protocol": "tcp"}, {"protocol": "udp"}], {"port": 22}, "r0"),
        ([{"action": "block", "limit": "1/day"}], {"port": 22}, None),
        ([{"action": "block", "enabled": False}], {"port": 22}, None),
        ([{"action": "block", "app": "/usr/bin/x"}], {"port": 22}, None),
        ([{"action": "block", "app": "/usr/*"}], {"app": ["/usr/bin/x", "/opt/y"]}, None),
        ([{"action": "block", "app": "/usr/*"}], {"app": ["/usr/bin/x", "/usr/y"]}, "r0"),
        ([{"action": "block", "app": CURL}], {"app": "/usr/bin/curl"}, None),
        ([{"action": "block", "app": "/usr/bin/curl"}], {"app": CURL}, "r0"),
        ([{"action": "block", "app": "/usr/*"}], {"app": [CURL, "/usr/x"]}, "r0"),
        ([{"action": "block", "app": CURL}], {"app": CURL}, "r0"),
        ([{"action": "block", "app": {**CURL, "sha256": "b" * 64}}], {"app": CURL}, None),
        ([{"app": "/bin/sh", "script": "/a"}], {"app": "/bin/sh"}, None),
        ([{"app": "/bin/sh", "script": "/a"}], {"app": "/bin/sh", "script": ["/a", "/b"]}, None),
        ([{"app": "/bin/sh", "script": ["/a", "/b"]}], {"app": "/bin/sh", "script": "/b"}, "r0"),
        ([{"user": "bob"}], {"user": "bob", "port": 22}, "r0"),
        ([{"unit": "a.service"}], {"unit": "b.service"}, None),
        ([{"interface": "eth*"}], {"interface": "eth0"}, "r0"),
        ([{"interface": "eth*"}], {}, None),
        ([{"icmp_type": "echo-request"}], {"icmp_type": "echo-request"}, "r0"),
        ([{"icmp_type": "echo-request"}], {"protocol": "icmp"}, None),
        ([], {"interface": "lo"}, "base loopback"),
        ([{"port": 22}], {"port": 22, "enabled": False}, "r0"),
        ([{"port": 22}], {"port": 22, "schedule": {"days": "mon"}}, "r0"),
    ],
)
def test_what_is_left_for_a_rule(earlier, rule, shadow) -> None:
    assert shadowed_by(policy_of(*earlier, rule), len(earlier), NOW) == shadow


def test_a_rule_that_has_ended_shadows_nothing() -> None:
    policy = policy_of({"action": "block", "expires": "2020-01-01"}, {"port": 22})
    assert shadowed_by(policy, 1, NOW) == "r0"
    assert shadowed_by(policy, 1, LATER) is None


def test_rules_behind_it_do_not_count() -> None:
    assert shadowed_by(policy_of({"port": 22}, {"action": "block"}), 0, NOW) is None


def test_what_stops_goes_first_and_what_allows_goes_last() -> None:
    policy = policy_of({"port": 22}, {"port": 80, "action": "block"})
    assert default_place(policy, "block") == default_place(policy, "reject") == 0
    assert default_place(policy, "allow") is None


@pytest.mark.parametrize(
    ("last", "place"),
    [
        ([{"action": "block"}], 1),
        ([{"action": "block", "direction": "in", "log": True}, {"action": "reject", "direction": "out"}], 1),
        ([{"action": "block"}, {"port": 1, "enabled": False}], 1),
        ([{"action": "block"}, {"port": 1}], None),
        ([{"action": "allow"}], None),
        ([{"action": "block", "limit": "1/day"}], None),
        ([{"action": "block", "expires": "2030-01-01"}], None),
        ([{"action": "block", "protocol": "tcp"}], None),
        ([{"action": "block", "enabled": False}], None),
    ],
)
def test_an_allow_goes_before_what_leaves_nothing_over(last, place) -> None:
    assert default_place(policy_of({"port": 22}, *last), "allow") == place
