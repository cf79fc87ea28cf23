"""Loading whole files: the model that comes out, and the faults with their places."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pfw.model.address import AddressSet, parse_range
from pfw.model.flow import Direction
from pfw.model.policy import Base, PolicyError
from pfw.model.rule import App, Limit, Rule
from pfw.model.verdict import Action
from pfw.policy.load import load
from pfw.policy.values import NOBODY_TO_ASK

HASH = "0123456789abcdef" * 4
BOTH = frozenset({Direction.IN, Direction.OUT})
EXAMPLE = """{
  "version": 2,
  "default": {"in": "block", "out": "allow", "forward": "block"},
  "aliases": {"lan": ["192.168.0.0/16", "fe80::/10"], "web": [80, 443]},
  "rules": [
    {"name": "ssh from the lan", "action": "allow", "direction": "in", "from": "lan", "protocol": "tcp", "port": 22,
     "limit": "6/minute", "log": true},
    {"name": "browser", "action": "allow", "direction": "out", "app": "/usr/bin/firefox", "port": "web"},
    {"name": "no mail from here", "action": "reject", "direction": "out", "protocol": "tcp", "port": [25, 465, 587]}
  ]
}"""


def addresses(*texts: str) -> AddressSet:
    return AddressSet([parse_range(text) for text in texts])


def one_rule(**fields: object) -> Rule:
    rule = {"name": "r", "action": "allow", **fields}
    return load(json.dumps({"version": 2, "rules": [rule]})).rules[0]


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load(text)
    return [str(fault) for fault in caught.value.faults]


def fault_of(**fields: object) -> str:
    """The one fault of a rule with these fields, from its path on."""
    rule = {"name": "r", "action": "allow", **fields}
    found = faults(json.dumps({"version": 2, "aliases": {"lan": "10.0.0.0/8", "web": [80]}, "rules": [rule]}))
    assert len(found) == 1, found
    return found[0].split(": ", 1)[1].removeprefix("rules[0].")


def test_the_example_of_the_design_loads_to_what_it_says() -> None:
    policy = load(EXAMPLE)
    assert policy.defaults == {
        Direction.IN: Action.BLOCK,
        Direction.OUT: Action.ALLOW,
        Direction.FORWARD: Action.BLOCK,
    }
    assert (policy.base, policy.simple) == (Base(), False)
    ssh, browser, mail = policy.rules
    assert ssh == Rule(
        name="ssh from the lan",
        action=Action.ALLOW,
        directions=frozenset({Direction.IN}),
        source=addresses("192.168.0.0/16", "fe80::/10"),
        protocols=frozenset({6}),
        ports=((22, 22),),
        limit=Limit(6, 60, 5),
        log=True,
    )
    assert (browser.apps, browser.ports) == ((App("/usr/bin/firefox"),), ((80, 80), (443, 443)))
    assert browser.protocols == frozenset({6, 17})
    assert (mail.action, mail.ports) == (Action.REJECT, ((25, 25), (465, 465), (587, 587)))


def test_bytes_and_text_load_to_the_same() -> None:
    assert load(EXAMPLE.encode()) == load(EXAMPLE)


def test_the_smallest_files() -> None:
    assert load('{"version": 2}').rules == ()
    assert load('{"version": 2}').defaults[Direction.IN] is Action.BLOCK
    assert load("{}").simple


def test_the_policy_of_this_project_is_in_order() -> None:
    path = Path(__file__).parents[2] / "rules.json"
    policy = load(path.read_bytes(), str(path))
    assert len(policy.rules) > 4
    assert policy.defaults[Direction.IN] is Action.BLOCK


def test_a_rule_with_nothing_but_what_it_must_have() -> None:
    assert one_rule() == Rule(name="r", action=Action.ALLOW, directions=BOTH)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"direction": "both"}, {"directions": BOTH}),
        ({"direction": "forward"}, {"directions": frozenset({Direction.FORWARD})}),
        (
            {"to": "!10.0.0.0/8"},
            {"destination": addresses("0.0.0.0-9.255.255.255", "11.0.0.0-255.255.255.255", "::/0")},
        ),
        ({"remote": ["10.0.0.0/30", "! 10.0.0.1"]}, {"remote": addresses("10.0.0.0", "10.0.0.2-10.0.0.3")}),
        ({"from": "loopback"}, {"source": addresses("127.0.0.0/8", "::1")}),
        ({"from": "10.0.0.1-10.0.0.3"}, {"source": addresses("10.0.0.1-10.0.0.3")}),
        ({"protocol": "ICMP"}, {"protocols": frozenset({1, 58})}),
        ({"protocol": 1}, {"protocols": frozenset({1})}),
        ({"protocol": ["ipv6-icmp", "Gre", "89"]}, {"protocols": frozenset({58, 47, 89})}),
        (
            {"port": ["1000-2000", "ssh", 1500, 2001]},
            {"ports": ((22, 22), (1000, 2001)), "protocols": frozenset({6, 17})},
        ),
        ({"from_port": "68", "protocol": "udp"}, {"source_ports": ((68, 68),), "protocols": frozenset({17})}),
        ({"port": 0, "protocol": "sctp"}, {"ports": ((0, 0),), "protocols": frozenset({132})}),
        (
            {"icmp_type": "echo-request"},
            {"icmp_types": frozenset({(1, 8), (58, 128)}), "protocols": frozenset({1, 58})},
        ),
        (
            {"icmp_type": ["Redirect", 3], "protocol": "icmpv6"},
            {"icmp_types": frozenset({(58, 137), (58, 3)}), "protocols": frozenset({58})},
        ),
        ({"interface": ["eth0", "wlan*", "eth0"]}, {"interfaces": ("eth0", "wlan*")}),
        ({"app": "/opt/game/*"}, {"apps": (App("/opt/game/*"),)}),
        ({"app": {"path": "/bin/a"}}, {"apps": (App("/bin/a"),)}),
        (
            {"app": {"path": "/bin/a", "sha256": "0123456789ABCDEF" * 4}},
            {"apps": (App("/bin/a", "0123456789abcdef" * 4),)},
        ),
        (
            {"app": ["/bin/b", {"sha256": HASH, "path": "/bin/a"}, "/bin/b", {"path": "/bin/b"}, "/bin/a"]},
            {"apps": (App("/bin/b"), App("/bin/a", HASH), App("/bin/a"))},
        ),
        ({"app": "/bin/sh", "script": "/opt/a b.sh"}, {"scripts": ("/opt/a b.sh",)}),
        ({"app": "/bin/sh", "script": ["/a", "/b", "/a"]}, {"scripts": ("/a", "/b")}),
        ({"action": "ask"}, {"action": Action.ASK, "directions": BOTH}),
        ({"action": "ask", "direction": "in", "limit": "1/day"}, {"action": Action.ASK, "limit": Limit(1, 86400, 5)}),
        (
            {"user": [1000, "alice", "group:wheel", "group:100"]},
            {"users": ("1000", "alice", "group:wheel", "group:100")},
        ),
        ({"unit": "ssh.service"}, {"units": ("ssh.service",)}),
        ({"limit": "10/second burst 20"}, {"limit": Limit(10, 1, 20)}),
        ({"limit": "3 / day", "burst": 1}, {"limit": Limit(3, 86400, 1)}),
        ({"enabled": False, "note": "später"}, {"enabled": False, "note": "später"}),
    ],
)
def test_what_a_field_becomes(fields, expected) -> None:
    rule = one_rule(**fields)
    assert {name: getattr(rule, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"port": 70000}, "port: 70000 is not a port (0-65535)"),
        ({"port": [22, -1]}, "port[1]: -1 is not a port (0-65535)"),
        ({"port": 80.5}, "port: 80.5 is not a port (0-65535)"),
        ({"port": "99999999999"}, "port: 99999999999 is not a port (0-65535)"),
        ({"port": True}, "port: must be a port, a range first-last, a service name or an alias, not true"),
        ({"port": "2000-1000"}, 'port: "2000-1000" ends before it begins'),
        ({"port": "80:90"}, 'port: "80:90" is not a port; a range is written with a dash, as in "1000-2000"'),
        ({"port": "80,443"}, 'port: "80,443" is not a port; several are written as a list, as in [80, 443]'),
        ({"port": "lan"}, 'port: "lan" is an alias of addresses, and ports belong here'),
        ({"port": []}, "port: is an empty list, which nothing can match; give a value or leave the field out"),
        ({"port": 22, "protocol": ["tcp", "icmp"]},
         "port: goes only with protocols that have ports (dccp, sctp, tcp, udp, udplite); ICMP has none"),
        ({"from": "web"}, 'from: "web" is an alias of ports, and addresses belong here'),
        ({"from": "lam"},
         'from: "lam" is not an address, a prefix, a range first-last or an alias; did you mean "lan"?'),
        ({"from": "10.0.0.9-10.0.0.1"}, 'from: "10.0.0.9-10.0.0.1" ends before it begins'),
        ({"from": "10.0.0.0/33"}, 'from: "10.0.0.0/33" has a prefix length that is not 0-32'),
        ({"from": "10.0.0.0/255.0.0.0"},
         'from: "10.0.0.0/255.0.0.0" has a netmask; write the prefix length, as in 192.168.0.0/16'),
        ({"from": "192.168.001.1"},
         'from: "192.168.001.1" has a leading zero, which some programs read as octal; leave it out'),
        ({"from": "example.org"},
         'from: "example.org" is a host name; a policy knows addresses only, so write those that it has'),
        ({"from": "https://example.org/"}, 'from: "https://example.org/" is a URL; a policy knows addresses only'),
        ({"from": "any"}, 'from: "any" is not needed; leave the field out to match every address'),
        ({"from": 10}, "from: must be an address, a prefix, a range first-last or an alias, not a number"),
        ({"from": ["10.0.0.1", "!lan"]}, "from: excludes every address that it names, so nothing can match"),
        ({"remote": "::1", "from": "::1"},
         'remote: does not go with "from"; "remote" is the other end, whichever side started'),
        ({"remote": "::1", "direction": "forward"},
         'remote: does not go with direction "forward", which has two other ends; use "from" and "to"'),
        ({"protocol": "tpc"}, 'protocol: "tpc" is not a protocol (a name or 0-255); did you mean "tcp"?'),
        ({"protocol": 256}, "protocol: 256 is not a protocol (a name or 0-255)"),
        ({"icmp_type": 8, "protocol": "tcp"},
         'icmp_type: goes only with protocol "icmp" or "icmpv6"; TCP has no such types'),
        ({"icmp_type": 8, "port": 1}, 'icmp_type: does not go with "port", which ICMP does not have'),
        ({"icmp_type": ["source-quench"], "protocol": "icmpv6"},
         'icmp_type[0]: "source-quench" is a type of ICMP, and the rule is for ICMPv6 only'),
        ({"interface": "e*0"}, 'interface: "e*0" has a * that is not at its end'),
        ({"interface": "a-very-long-name"},
         'interface: "a-very-long-name" is longer than an interface name can be (15 bytes)'),
        ({"app": "firefox"},
         'app: "firefox" is not an absolute path; write it in full, as in /usr/bin/firefox'),
        ({"app": "/usr//bin/x"}, 'app: "/usr//bin/x" is not a plain path; take out //, . and ..'),
        ({"app": "/opt/"}, 'app: "/opt/" is a folder; "/opt/*" means every program in it and below'),
        ({"app": "/opt/*/x"}, 'app: "/opt/*/x" has a * that is not at its end'),
        ({"app": []}, "app: is an empty list, which nothing can match; give a value or leave the field out"),
        ({"app": ["/a", []]}, 'app[1]: must be a path or an object with "path" and "sha256", not a list'),
        ({"app": 1}, 'app: must be a path or an object with "path" and "sha256", not a number'),
        ({"app": {}}, 'app: has no "path"'),
        ({"app": ["/a", {"sha256": HASH}]}, 'app[1]: has no "path"'),
        ({"app": {"path": "/a", "sha265": HASH}}, 'app.sha265: is not a field of a program; did you mean "sha256"?'),
        ({"app": [{"path": "a"}]},
         'app[0].path: "a" is not an absolute path; write it in full, as in /usr/bin/firefox'),
        ({"app": {"path": "/a", "sha256": "beef"}},
         'app.sha256: "beef" is not a SHA-256 hash (64 hex digits, as sha256sum prints them)'),
        ({"app": {"path": "/a", "sha256": 1}}, "app.sha256: must be a text of 64 hex digits, not a number"),
        ({"app": {"path": "/a/*", "sha256": HASH}},
         'app.sha256: does not go with "/a/*": the programs there are many, and a hash is that of one file'),
        ({"script": "/a"}, 'script: goes only with an "app", which is the interpreter that runs it'),
        ({"app": "/a", "script": "a"},
         'script: "a" is not an absolute path; write it in full, as in /usr/local/bin/backup.py'),
        ({"app": "/a", "script": ["/b", "/c/*"]}, 'script[1]: "/c/*" has a *; each script is named by its whole path'),
        ({"app": "/a", "script": "/c/"}, 'script: "/c/" is a folder; a script is one file'),
        ({"app": "/a", "script": "/c/./d"}, 'script: "/c/./d" is not a plain path; take out //, . and ..'),
        ({"action": "ask", "direction": "forward"}, f"action: {NOBODY_TO_ASK}"),
        ({"app": "/usr/../bin/x"}, 'app: "/usr/../bin/x" is not a plain path; take out //, . and ..'),
        ({"user": -1}, 'user: -1 is not a user or group id (0-4294967294)'),
        ({"user": "@wheel"}, 'user: "@wheel" is not a user; a group is written "group:wheel"'),
        ({"limit": "6/fortnight"}, 'limit: "fortnight" is not one of second, minute, hour, day'),
        ({"limit": 6}, 'limit: must be a text such as "6/minute", not a number'),
        ({"burst": 5}, 'burst: goes only with a "limit"'),
        ({"limit": "6/minute burst 2", "burst": 5}, 'burst: is in the text of "limit" already; give it once'),
        ({"log": "yes"}, "log: must be true or false, not a text"),
        ({"action": "deny"}, 'action: "deny" is not an action; write "block"'),
        ({"action": "Allow"},
         'action: "Allow" is not an action ("allow", "block", "reject" or "ask"); did you mean "allow"?'),
        ({"action": None}, 'action: must be "allow", "block", "reject" or "ask", not null'),
        ({"direction": "incoming"}, 'direction: "incoming" is not a direction; write "in"'),
        ({"name": ""}, "name: must not be empty"),
        ({"name": "a\nb"}, "name: has a character that cannot be shown (U+000A)"),
        ({"name": "x\u202ey"}, "name: has a character that cannot be shown (U+202E)"),
        ({"name": "n" * 129}, "name: is longer than 128 characters"),
        ({"name": "Base loopback"},
         'name: "Base loopback" is reserved for what is always there; give the rule another name'),
        ({"name": "default"}, 'name: "default" is reserved for what is always there; give the rule another name'),
        ({"name": "Default in"}, 'name: "Default in" is reserved for what is always there; give the rule another name'),
        ({"prot": "tcp"}, 'prot: is not a field of a rule; did you mean "port" or "protocol"?'),
        ({"x\x1b[2J": 1}, 'rules[0]["x\\u001b[2J"]: is not a field of a rule'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_words(fields, fault) -> None:
    assert fault_of(**fields) == fault


def test_faults_come_all_at_once_in_the_order_of_the_file() -> None:
    text = """{
  "version": 2,
  "default": {"in": "drop", "inn": "allow"},
  "rules": [
    {"name": "a", "action": "allow"},
    {"action": "allow", "port": 70000,
     "prot": "tcp"},
    {"name": "a", "action": "allow", "name": "a"},
    7
  ],
  "base": {"lopback": true, "dhcp_client": 1},
  "alias": {}
}"""
    assert faults(text) == [
        'rules.json:3:21: default.in: "drop" is not an action; write "block"',
        'rules.json:3:29: default.inn: is not a direction; did you mean "in"?',
        'rules.json:6:5: rules[1]: has no "name"',
        "rules.json:6:33: rules[1].port: 70000 is not a port (0-65535)",
        'rules.json:7:6: rules[1].prot: is not a field of a rule; did you mean "port" or "protocol"?',
        "rules.json:8:38: rules[2].name: is here twice, the first time in line 8; take one away",
        'rules.json:8:46: rules[2].name: "a" is the name of an earlier rule (line 5)',
        "rules.json:9:5: rules[3]: must be an object, not a number",
        'rules.json:11:12: base.lopback: is not a rule that is always there; did you mean "loopback"?',
        "rules.json:11:44: base.dhcp_client: must be true or false, not a number",
        'rules.json:12:3: alias: is not a part of a policy; did you mean "aliases"?',
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "rules.json:1:1: must be an object in braces {…}, not a list"),
        ('{"rules": []}', 'rules.json:1:2: rules: needs "version": 2 beside it'),
        ('{"version": true}', "rules.json:1:13: version: must be 2, the only version that there is, not true"),
        ('{"version": 2.0}', "rules.json:1:13: version: must be 2, the only version that there is, not 2.0"),
        ('{"version": 2, "rules": {}}', "rules.json:1:25: rules: must be a list of rules, not an object"),
        ('{"version": 2, "rules": null}', "rules.json:1:25: rules: must be a list of rules, not null"),
        (
            '{"rules": [], "block": {}}',
            'rules.json:1:15: block: is of the simple form and cannot stand beside "rules"; '
            'write it as rules, or leave "rules" out',
        ),
        ('{"rule": []}', 'rules.json:1:2: rule: is not a part of a policy; did you mean "rules"?'),
        ('{"version": 2, "default": {"forward": "ask"}}', f"rules.json:1:39: default.forward: {NOBODY_TO_ASK}"),
        ('{"ask": {}}', 'rules.json:1:2: ask: needs "version": 2 beside it'),
        (
            '{"ask": {}, "block": {}}',
            'rules.json:1:13: block: is of the simple form and cannot stand beside "ask"; '
            'write it as rules, or leave "ask" out',
        ),
        ('{"note": 1}', "rules.json:1:10: note: must be a text, not a number"),
    ],
)
def test_the_top_of_the_file(text, fault) -> None:
    assert faults(text) == [fault]


def test_more_than_a_thousand_faults_are_counted() -> None:
    found = faults(json.dumps({"version": 2, "rules": [{}] * 3000}))
    assert len(found) == 1001
    assert found[-1].endswith(": and 5000 more faults")


def test_the_services_of_the_system_come_first_and_are_read_only_when_needed() -> None:
    asked = []

    def services() -> str:
        asked.append(1)
        return "ssh 2222/tcp\nmine 7000/tcp other\n"

    def ports(*names: object) -> object:
        rule = {"name": "r", "action": "allow", "port": list(names)}
        return load(json.dumps({"version": 2, "rules": [rule]}), services=services).rules[0].ports

    assert ports(80) == ((80, 80),)
    assert asked == []
    assert ports("ssh", "Other", "https") == ((443, 443), (2222, 2222), (7000, 7000))
    assert asked == [1]


def test_a_long_block_list_loads_whole() -> None:
    choice = random.Random(1)
    prefixes = [
        f"{choice.randrange(1, 224)}.{choice.randrange(256)}.{choice.randrange(256)}.0/24" for _ in range(100_000)
    ]
    text = json.dumps({"version": 2, "rules": [{"name": "r", "action": "block", "remote": prefixes}]})
    policy = load(text)
    assert policy.rules[0].remote == AddressSet([parse_range(prefix) for prefix in prefixes])


def test_many_rules_share_their_aliases() -> None:
    rules = [{"name": f"rule {n}", "action": "allow", "from": "lan", "port": [n + 1, "https"]} for n in range(10_000)]
    text = json.dumps({"version": 2, "aliases": {"lan": ["192.168.0.0/16", "fe80::/10"]}, "rules": rules})
    policy = load(text)
    assert len({id(rule.source) for rule in policy.rules}) == 1
