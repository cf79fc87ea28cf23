from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise
from xml.etree import ElementTree

import pytest

import rulesets
from pair import FAR, LISTED
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.load import load
from pfw.policy.match import decide_slowly


def verdict(text: str, port: int, source: str = FAR):
    flow = Flow(
        direction=Direction.IN,
        protocol=6,
        source=IPv4Address(source).packed,
        destination=bytes((10, 78, 0, 1)),
        source_port=40_000,
        port=port,
    )
    return decide_slowly(load(text.encode(), "rules.json"), flow, Moment(1_790_000_000.0))


@pytest.mark.parametrize("count", [10, 1000])
def test_the_last_rule_lets_the_bench_in_and_nothing_else_matches(count):
    text = rulesets.policy(count)
    assert len(json.loads(text)["rules"]) == count
    assert verdict(text, rulesets.PORTS[0]).rule == "the bench"
    assert verdict(text, 5999).reason == "default in"


def test_a_changed_policy_has_one_rule_that_says_something_else():
    before, after = (json.loads(rulesets.policy(10, changed=changed))["rules"] for changed in (False, True))
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1
    assert before[-1] == after[-1]


def test_the_list_has_the_far_ends_second_address_on_it():
    listed = rulesets.prefixes(1000)
    assert len(listed) == 1000
    assert LISTED in listed
    merged = [IPv4Network(each) for each in rulesets.merged(listed)]
    assert all(one.broadcast_address < other.network_address for one, other in pairwise(merged))
    assert any(IPv4Address(LISTED) in each for each in merged)
    assert not any(IPv4Address(FAR) in each for each in merged)


def test_hosts_are_different_and_may_be_banned():
    hosts = rulesets.hosts(500)
    assert len(set(hosts)) == 500
    assert not any(IPv4Address(host).is_loopback for host in hosts)


def test_every_rule_is_a_pair_of_lines_of_ufw():
    text = rulesets.ufw_rules(rulesets.rules(10))
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 2 * 11  # the last one for TCP and for UDP
    assert lines[-1] == "-A ufw-user-input -p udp -m multiport --dports 5201:5203 -s 0.0.0.0/0 -j ACCEPT"
    assert lines[-2] == "### tuple ### allow udp 5201:5203 0.0.0.0/0 any 0.0.0.0/0 in"
    assert all(line.startswith("### tuple ### ") for line in lines[::2])


def test_a_zone_of_firewalld_has_the_rules_and_the_ports():
    zone = ElementTree.fromstring(rulesets.firewalld_zone(rulesets.rules(10), "bad"))
    assert [each.get("protocol") for each in zone.findall("port")] == ["tcp", "udp"]
    assert len(zone.findall("rule")) == 1 + 9
    entries = ElementTree.fromstring(rulesets.firewalld_ipset(["192.0.2.1", "198.51.100.0/24"])).findall("entry")
    assert [each.text for each in entries] == ["192.0.2.1", "198.51.100.0/24"]


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
@pytest.mark.parametrize("text", [rulesets.FLOOR, rulesets.nft_replacing(rulesets.merged(rulesets.prefixes(100)))])
def test_nft_takes_what_is_written_for_it(text):
    done = subprocess.run(["unshare", "-n", "nft", "--check", "-f", "-"], input=text, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
