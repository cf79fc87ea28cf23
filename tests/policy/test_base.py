from __future__ import annotations

import pytest

from pfw.model.flow import Direction, Moment
from pfw.model.packet import ICMPV6, UDP
from pfw.model.policy import Base
from pfw.model.verdict import Action, Verdict
from pfw.policy.base import base_rules, interface_of, rules_in_order
from pfw.policy.match import decide_slowly

NOW = Moment(1_800_000_000.0)


def test_each_base_rule_can_be_turned_off():
    assert [rule.name for rule in base_rules(Base())] == [
        "base loopback",
        "base neighbour discovery",
        "base dhcp client out",
        "base dhcp client in",
        "base dhcpv6 client out",
        "base dhcpv6 client in",
    ]
    assert {rule.name for rule in base_rules(Base())} - {rule.name for rule in base_rules(Base(loopback=False))} == {
        "base loopback"
    }
    assert "base neighbour discovery" not in {rule.name for rule in base_rules(Base(neighbour_discovery=False))}
    assert len(base_rules(Base(dhcp_client=False))) == 2
    assert base_rules(Base(loopback=False, neighbour_discovery=False, dhcp_client=False)) == ()


def test_base_rules_stand_first_and_have_no_index(make_rule, make_policy):
    policy = make_policy(make_rule(name="a"), make_rule(name="b"), base=Base(dhcp_client=False))
    assert [(index, rule.name) for index, rule in rules_in_order(policy)] == [
        (None, "base loopback"),
        (None, "base neighbour discovery"),
        (0, "a"),
        (1, "b"),
    ]


DHCP_IN = {"protocol": UDP, "source_port": 67, "port": 68}
DHCPV6_IN = {"protocol": UDP, "source_port": 547, "port": 546, "destination": "fe80::5"}
DISCOVERY = {"protocol": ICMPV6, "source": "fe80::1", "destination": "fe80::5", "source_port": None, "port": None}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"interface": "lo"}, "base loopback"),
        ({"interface": "lo", "source": "192.168.1.5"}, "base loopback"),
        ({"interface": None, "source": "127.0.0.1", "destination": "127.8.9.10"}, "base loopback"),
        ({"interface": None, "source": "::1", "destination": "::1"}, "base loopback"),
        ({"interface": None, "source": "127.0.0.1"}, None),
        ({"interface": None, "destination": "127.0.0.1"}, None),
        ({"interface": "eth0", "source": "127.0.0.1", "destination": "127.0.0.1"}, None),
        ({"interface": "lo2"}, None),
        ({**DISCOVERY, "icmp_type": 133}, "base neighbour discovery"),
        ({**DISCOVERY, "icmp_type": 136}, "base neighbour discovery"),
        ({**DISCOVERY, "icmp_type": 137}, None),
        ({**DISCOVERY, "icmp_type": 128}, None),
        ({**DISCOVERY, "icmp_type": 135, "direction": Direction.FORWARD}, None),
        (DHCP_IN, "base dhcp client in"),
        ({**DHCP_IN, "source_port": 68, "port": 67}, None),
        ({**DHCP_IN, "protocol": 6}, None),
        ({**DHCP_IN, "source": "2001:db8::1", "destination": "2001:db8::2"}, None),
        ({**DHCPV6_IN, "source": "fe80::1"}, "base dhcpv6 client in"),
        ({**DHCPV6_IN, "source": "febf:ffff::1"}, "base dhcpv6 client in"),
        ({**DHCPV6_IN, "source": "fec0::1"}, None),
        ({**DHCPV6_IN, "source": "2001:db8::1"}, None),
    ],
)
def test_what_base_rules_let_in(make_flow, make_policy, fields, rule):
    verdict = decide_slowly(make_policy(base=Base()), make_flow(**fields), NOW)
    assert verdict.rule == rule
    assert verdict.base is (rule is not None)
    assert verdict.index is None
    assert verdict.action is (Action.ALLOW if rule else Action.BLOCK)


@pytest.mark.parametrize(
    ("source", "destination", "ports", "rule"),
    [
        ("0.0.0.0", "255.255.255.255", (68, 67), "base dhcp client out"),
        ("fe80::5", "ff02::1:2", (546, 547), "base dhcpv6 client out"),
        ("fe80::5", "ff02::1:2", (68, 67), None),
        ("0.0.0.0", "255.255.255.255", (67, 68), None),
    ],
)
def test_dhcp_on_the_way_out(make_flow, make_policy, source, destination, ports, rule):
    flow = make_flow(
        direction=Direction.OUT, protocol=UDP, source=source, destination=destination,
        source_port=ports[0], port=ports[1],
    )  # fmt: skip
    assert decide_slowly(make_policy(base=Base()), flow, NOW).rule == rule


def test_reason_of_a_base_rule_is_its_name(make_flow, make_policy):
    verdict = decide_slowly(make_policy(base=Base()), make_flow(interface="lo"), NOW)
    assert verdict == Verdict(action=Action.ALLOW, rule="base loopback", base=True, reason="base loopback")


def test_a_known_interface_counts_whatever_the_addresses(make_flow):
    assert interface_of(make_flow(interface="eth0", source="127.0.0.1", destination="127.0.0.1")) == "eth0"
    assert interface_of(make_flow(interface=None)) is None
