from __future__ import annotations

import json

import pytest

from pfw.policy.load import load
from pfw.policy.wording import field_change, summary


def rule_of(**fields: object):
    document = {"version": 2, "rules": [{"name": "r", "action": "allow", **fields}]}
    return load(json.dumps(document)).rules[0]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "allow both anything"),
        ({"action": "block", "direction": "in"}, "block in anything"),
        ({"direction": "in", "protocol": "tcp", "port": 22, "from": "10.0.0.0/8", "limit": "6/minute"},
         "allow in tcp 22 from 10.0.0.0/8 limit 6/minute"),
        ({"direction": "in", "from": "private", "port": 22, "limit": "6/minute burst 9"},
         "allow in tcp/udp 22 from 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 1 more limit 6/minute burst 9"),
        ({"remote": "203.0.113.7", "expires": "2030-01-01"}, "allow both remote 203.0.113.7 until 2030-01-01"),
        ({"direction": "in", "icmp_type": "echo-request"}, "allow in icmp echo-request"),
        ({"direction": "in", "icmp_type": [8, 200]}, "allow in icmp 8, 200"),
        ({"protocol": "icmpv6", "icmp_type": ["packet-too-big", 200]}, "allow both icmpv6 packet-too-big, ICMPv6 200"),
        ({"protocol": [47, "ah", "esp", "tcp"]}, "allow both 4 protocols"),
        ({"direction": "out", "from_port": 53, "to": "::1", "protocol": "udp"},
         "allow out udp to ::1 from port 53"),
        ({"action": "ask", "direction": "out", "app": ["/opt/*", {"path": "/bin/curl", "sha256": "0aF" + "1" * 61}]},
         "ask out app /opt/*, /bin/curl (sha256 0af1111111111111…)"),
        ({"app": "/bin/sh", "script": ["/a.sh", "/b.sh"]}, "allow both app /bin/sh script /a.sh, /b.sh"),
        ({"interface": "eth0", "app": "/usr/bin/x", "user": "bob", "unit": "a.service"},
         "allow both on eth0 app /usr/bin/x user bob unit a.service"),
        ({"schedule": {"from": "09:00", "until": "17:00"}, "log": True, "enabled": False},
         "allow both every day 09:00-17:00 log (off)"),
    ],
)  # fmt: skip
def test_a_rule_in_a_line(fields, told) -> None:
    assert summary(rule_of(**fields)) == told


def test_a_line_has_a_bounded_length() -> None:
    long = {"app": ["/" + "x" * 4000] * 3, "unit": ["u" * 4000], "from": [f"2001:db8:{n}::1" for n in range(5000)]}
    assert len(summary(rule_of(**long))) < 500


def test_only_what_differs_is_told_and_in_the_order_of_the_file() -> None:
    old, new = rule_of(port=22, note="a"), rule_of(port=[1, 3, 5, 7], note="", limit="1/day", direction="out")
    assert list(field_change(old, new)) == [
        ("direction", "both", "out"),
        ("port", "22", "4 ranges (+4, -1)"),
        ("note", '"a"', None),
        ("limit", None, "1/day"),
    ]
    assert list(field_change(old, old)) == []


def test_another_hash_and_another_script_are_told() -> None:
    old = rule_of(app={"path": "/bin/sh", "sha256": "a" * 64})
    new = rule_of(app={"path": "/bin/sh", "sha256": "b" * 64}, script="/s")
    assert list(field_change(old, new)) == [
        ("app", f"/bin/sh (sha256 {'a' * 16}…)", f"/bin/sh (sha256 {'b' * 16}…)"),
        ("script", None, "/s"),
    ]
    many = rule_of(app=[f"/bin/{n}" for n in range(5)], script=[f"/{n}" for n in range(4)])
    assert list(field_change(new, many)) == [
        ("app", f"/bin/sh (sha256 {'b' * 16}…)", "5 programs (+5, -1)"),
        ("script", "/s", "4 scripts (+4, -1)"),
    ]
