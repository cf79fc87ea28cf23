from __future__ import annotations

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.model.flow import Direction
from pfw.model.policy import Base, PolicyError
from pfw.model.rule import Rule
from pfw.model.verdict import Action
from pfw.policy.load import load

BOTH = frozenset({Direction.IN, Direction.OUT})


def faults(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    return [str(fault) for fault in caught.value.faults]


def test_the_lists_become_six_rules_in_a_fixed_order() -> None:
    policy = load("""{
      "block": {"ip": ["192.168.1.100"], "port": [80, 443], "protocol": ["TCP"]},
      "allow": {"ip": ["127.0.0.1"], "port": [22], "protocol": ["ICMP"]}
    }""")
    block, allow = {"action": Action.BLOCK, "directions": BOTH}, {"action": Action.ALLOW, "directions": BOTH}
    with_ports = frozenset({6, 17})
    assert policy.rules == (
        Rule(name="block ip", remote=AddressSet([parse_range("192.168.1.100")]), **block),
        Rule(name="allow ip", remote=AddressSet([parse_range("127.0.0.1")]), **allow),
        Rule(name="block port", ports=((80, 80), (443, 443)), protocols=with_ports, **block),
        Rule(name="allow port", ports=((22, 22),), protocols=with_ports, **allow),
        Rule(name="block protocol", protocols=frozenset({6}), **block),
        Rule(name="allow protocol", protocols=frozenset({1, 58}), **allow),
    )
    assert policy.defaults == dict.fromkeys(Direction, Action.ALLOW)
    assert (policy.simple, policy.base) == (True, Base())


def test_lists_that_are_missing_or_empty_are_no_rules() -> None:
    assert load('{"allow": {"ip": []}, "block": {}}').rules == ()
    assert [rule.name for rule in load('{"allow": {"port": ["ssh"]}}').rules] == ["allow port"]


def test_values_are_those_of_the_full_form() -> None:
    policy = load("""{"aliases": {"home": ["private", "10.1.0.0/16"], "web": [80, "https"]}, "note": "mine",
                     "block": {"ip": ["home", "1.1.1.1-1.1.1.3"], "port": ["web", "1000-2000"],
                               "protocol": [47, "udp"]}}""")
    home = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "1.1.1.1-1.1.1.3")
    assert policy.rules[0].remote == AddressSet([parse_range(text) for text in home])
    assert policy.rules[1].ports == ((80, 80), (443, 443), (1000, 2000))
    assert policy.rules[2].protocols == frozenset({47, 17})


def test_a_value_may_stand_alone() -> None:
    assert load('{"block": {"port": 23}}') == load('{"block": {"port": [23]}}')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"block": []}', '1:11: block: must be an object with the lists "ip", "port" and "protocol", not a list'),
        ('{"block": {"ips": []}}', '1:12: block.ips: is not a list of "block"; did you mean "ip"?'),
        ('{"blok": {}}', '1:2: blok: is not a part of a policy; did you mean "block"?'),
        ('{"allow": {"port": [80, 70000]}}', "1:25: allow.port[1]: 70000 is not a port (0-65535)"),
        (
            '{"allow": {"ip": null}}',
            "1:18: allow.ip: must be an address, a prefix, a range first-last or an alias, not null",
        ),
        (
            '{"allow": {"protocol": ["tpc"]}}',
            '1:25: allow.protocol[0]: "tpc" is not a protocol (a name or 0-255); did you mean "tcp"?',
        ),
    ],
)
def test_faults_have_the_same_words_and_places(text, fault) -> None:
    assert faults(text) == [f"rules.json:{fault}"]
