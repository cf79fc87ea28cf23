from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from re import escape

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pfw.model.flow import Moment
from pfw.policy.load import load
from pfw.policy.request import KEYS, Options, rule_from_words

NOW = Moment(datetime(2026, 11, 24, 15, 59, 59, 500000, tzinfo=UTC).timestamp(), 3600)

UFW = "block in from 198.51.100.0/24 to any port 22 proto tcp"
UFW_PORTS = "allow proto tcp from 10.0.0.0/8 port 1000:2000 to 192.168.1.5 port 80"


def ask(line: str, **options: object) -> dict[str, object]:
    action, *words = shlex.split(line)
    return rule_from_words(action, words, Options(**options), NOW)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("allow 22/tcp", {"direction": "in", "protocol": "tcp", "port": 22}),
        ("allow 22", {"direction": "in", "port": 22}),
        ("allow ssh", {"direction": "in", "port": "ssh"}),
        ("allow SSH/TCP", {"direction": "in", "protocol": "tcp", "port": "SSH"}),
        ("allow 80,443/tcp", {"direction": "in", "protocol": "tcp", "port": [80, 443]}),
        ("allow 22/any", {"direction": "in", "port": 22}),
        ("allow 8000-8100/udp", {"direction": "in", "protocol": "udp", "port": "8000-8100"}),
        ("allow 8000:8100/udp", {"direction": "in", "protocol": "udp", "port": "8000-8100"}),
        ("allow out udp 53", {"direction": "out", "protocol": "udp", "port": 53}),
        ("reject out tcp 25", {"direction": "out", "protocol": "tcp", "port": 25}),
        (UFW, {"direction": "in", "from": "198.51.100.0/24", "protocol": "tcp", "port": 22}),
        (UFW_PORTS, {"direction": "in", "from": "10.0.0.0/8", "to": "192.168.1.5", "protocol": "tcp", "port": 80,
                     "from_port": "1000-2000"}),
        ("block both 203.0.113.0/24", {"direction": "both", "remote": "203.0.113.0/24"}),
        ("block 203.0.113.7", {"remote": "203.0.113.7"}),
        ("block 2001:db8::/32,private", {"remote": ["2001:db8::/32", "private"]}),
        ("block 203.0.113.7 tcp 22", {"remote": "203.0.113.7", "protocol": "tcp", "port": 22}),
        ("block in 203.0.113.7", {"direction": "in", "from": "203.0.113.7"}),
        ("block out 10.0.0.1-10.0.0.9", {"direction": "out", "to": "10.0.0.1-10.0.0.9"}),
        ("allow from 10.0.0.0/8", {"direction": "in", "from": "10.0.0.0/8"}),
        ("allow from any port 53", {"direction": "in", "from_port": 53}),
        ("allow to any port 53", {"direction": "in", "port": 53}),
        ("allow in icmp echo-request", {"direction": "in", "protocol": "icmp", "icmp_type": "echo-request"}),
        ("allow icmp 8", {"direction": "in", "protocol": "icmp", "icmp_type": 8}),
        ("allow ping", {"direction": "in", "icmp_type": "echo-request"}),
        ("allow in on wlan0 ssh", {"direction": "in", "interface": "wlan0", "port": "ssh"}),
        ("block on wlan0", {"interface": "wlan0"}),
        ("allow log 22/tcp", {"direction": "in", "protocol": "tcp", "port": 22, "log": True}),
        ("allow out l2tp", {"direction": "out", "protocol": "l2tp"}),
        ("allow out udp l2tp", {"direction": "out", "protocol": "udp", "port": "l2tp"}),
        ("allow in proto 47", {"direction": "in", "protocol": 47}),
        ("allow out app /usr/bin/curl to port 443", {"direction": "out", "port": 443, "app": "/usr/bin/curl"}),
        ("allow out app /usr/bin/curl tcp port 443",
         {"direction": "out", "protocol": "tcp", "port": 443, "app": "/usr/bin/curl"}),
        ("block out app /opt/ide/*", {"direction": "out", "app": "/opt/ide/*"}),
        ("ask out app /opt/run 80,443", {"direction": "out", "port": [80, 443], "app": "/opt/run"}),
        ("allow out app /bin/sh script /s/a.sh user bob",
         {"direction": "out", "app": "/bin/sh", "script": "/s/a.sh", "user": "bob"}),
        ("allow in from port 53", {"direction": "in", "from_port": 53}),
        ("block in", {"direction": "in"}),
        ("allow any", {}),
        ("allow out anywhere user alice", {"direction": "out", "user": "alice"}),
    ],
)  # fmt: skip
def test_the_words_that_people_type(line, fields) -> None:
    rule = ask(line)
    assert rule == {"name": line, "action": line.split()[0], **fields}
    assert list(rule) == [key for key in KEYS if key in rule]
    load(json.dumps({"version": 2, "rules": [rule]}))


def test_options_beside_the_words() -> None:
    assert ask("allow in tcp 22", from_="lan", limit="6/minute") == {
        "name": "allow in tcp 22 from lan", "action": "allow", "direction": "in", "from": "lan", "protocol": "tcp",
        "port": 22, "limit": "6/minute",
    }  # fmt: skip
    assert ask("allow forward tcp 8080", to="172.17.0.2")["name"] == "allow forward tcp 8080 to 172.17.0.2"
    assert ask("allow", app="/usr/bin/firefox") == {
        "name": "allow app /usr/bin/firefox", "action": "allow", "app": "/usr/bin/firefox",
    }  # fmt: skip


def test_every_option_at_once_and_the_order_of_the_fields() -> None:
    rule = ask(
        "block in", interface="eth0", from_="10.0.0.0/8", to="any", protocol="tcp,udp", port="22,ssh", from_port="1-9",
        app="/x,y", script="/s", user="bob,group:eve", unit="a.service", limit="3/minute", burst=4, for_="1h30m",
        log=True, note="because", name="mine", schedule="fri-mon 22:00-06:00",
    )  # fmt: skip
    assert list(rule.items()) == [
        ("name", "mine"), ("action", "block"), ("direction", "in"), ("interface", "eth0"), ("from", "10.0.0.0/8"),
        ("protocol", ["tcp", "udp"]), ("port", [22, "ssh"]), ("from_port", "1-9"), ("app", "/x,y"),
        ("script", "/s"), ("user", ["bob", "group:eve"]), ("unit", "a.service"), ("limit", "3/minute"), ("burst", 4),
        ("schedule", {"days": ["fri", "sat", "sun", "mon"], "from": "22:00", "until": "06:00"}),
        ("expires", "2026-11-24T17:30:00Z"), ("log", True), ("note", "because"),
    ]  # fmt: skip
    load(json.dumps({"version": 2, "rules": [rule]}))


@pytest.mark.parametrize(
    ("duration", "end"),
    [
        ("30s", "2026-11-24T16:00:30Z"),
        ("10m", "2026-11-24T16:10:00Z"),
        ("1h", "2026-11-24T17:00:00Z"),
        ("7D", "2026-12-01T16:00:00Z"),
        ("2w", "2026-12-08T16:00:00Z"),
    ],
)
def test_a_duration_becomes_an_end_in_utc_rounded_up(duration, end) -> None:
    assert ask("block 203.0.113.7", for_=duration)["expires"] == end
    assert ask(f"block 203.0.113.7 for {duration}") == {
        "name": "block 203.0.113.7", "action": "block", "remote": "203.0.113.7", "expires": end,
    }  # fmt: skip


def test_until_stays_as_typed() -> None:
    assert ask("block 203.0.113.7", until="2026-12-01")["expires"] == "2026-12-01"


def test_a_comment_is_no_part_of_the_name() -> None:
    rule = ask("allow in 22/tcp comment 'my own way in'")
    assert (rule["name"], rule["note"]) == ("allow in 22/tcp", "my own way in")


def test_the_same_said_twice_in_one_way_is_fine() -> None:
    assert ask("allow 22/tcp", port="22", protocol="TCP") == ask("allow 22/tcp")


def test_a_service_that_only_the_system_knows() -> None:
    rule = rule_from_words("allow", ["in", "gopherd"], Options(), NOW, lambda: "gopherd 7070/tcp\n")
    assert rule["port"] == "gopherd"


@pytest.mark.parametrize(
    ("line", "options", "reason"),
    [
        ("deny 22", {}, '"deny" is not an action ("allow", "block", "reject" or "ask")'),
        ("block", {}, "what is the rule for? Write a port, a service or an address, as in: in tcp 22 --from lan"),
        ("block", {"limit": "3/minute"}, "what is the rule for? Write a port, a service or an address, as in: "
         "in tcp 22 --from lan"),
        ("allow in out 22", {}, '"direction" is given twice: "in" and "out"'),
        ("allow 80 443", {}, '"port" is given twice: "80" and "443"; several are one list with commas'),
        ("allow 22/tcp", {"protocol": "udp"}, '"protocol" is given twice: "tcp" and "udp"; several are one list with '
         "commas"),
        ("block 1.1.1.1 2.2.2.2", {}, 'an address is given twice: "1.1.1.1" and "2.2.2.2"; several are one list '
         "with commas"),
        ("block in 1.1.1.1", {"from_": "lan"}, '"from" is given twice: "lan" and "1.1.1.1"'),
        ("block 1.1.1.1", {"from_": "lan"}, '"1.1.1.1" stands alone beside "from"; write from or to before it as well'),
        ("block forward 1.1.1.1", {}, '"1.1.1.1" may be either end of what is forwarded; write from or to before it'),
        ("block 1.1.1.1 for 1h", {"until": "2026-12-01"}, 'the end is given twice: "2026-11-24T17:00:00Z" and '
         '"2026-12-01"'),
        ("allow to 1.2.3.4 port 22", {}, 'say "in" (to an address of this machine) or "out", since "to" fits both'),
        ("allow https", {"app": "/usr/bin/firefox"}, 'say "in" or "out": what stands with "app" may be meant for both'),
        ("allow from", {}, 'a value is missing behind "from"'),
        ("allow in", {"from_": ""}, 'the value of "from" is empty'),
        ("allow port 22,", {}, 'a value is missing beside a comma of "22,"'),
        ("allow tpc 22", {}, '"tpc" means nothing here; did you mean "tcp" or "ntp"? (an alias stands behind from, to, '
         "remote or port)"),
        ("allow frobnicate", {}, '"frobnicate" means nothing here (an alias stands behind from, to, remote or port)'),
        ("allow 22/tpc", {}, '"tpc" is not a protocol; did you mean "tcp"?'),
        ("block 300.1.2.3", {}, '"300.1.2.3" is not an address, a prefix, a range first-last or an alias'),
        ("block 10.0.0.0/255.0.0.0", {}, '"10.0.0.0/255.0.0.0" has a netmask; write the prefix length, as in '
         "192.168.0.0/16"),
        ("block example.com", {}, '"example.com" is a host name; a policy knows addresses only, so write those that '
         "it has"),
        ("block 1.1.1.1 for 5", {}, '"5" is not a duration; write it as 30s, 10m, 1h, 7d or 2w'),
        ("block 1.1.1.1 for 0s", {}, '"0s" is not a duration between a second and ten years'),
        ("block 1.1.1.1 for 999999999w", {}, '"999999999w" is not a duration between a second and ten years'),
        ("allow ssh", {"schedule": "mon tue"}, '"mon tue" is not a schedule; write it as mon-fri 09:00-17:00'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(line, options, reason) -> None:
    with pytest.raises(ValueError, match=f"^{escape(reason)}$"):
        ask(line, **options)


def test_a_long_name_is_cut() -> None:
    name = ask("block " + ",".join(f"10.0.0.{number}" for number in range(100)))["name"]
    assert len(str(name)) == 128
    assert str(name).endswith("…")


WORDS = st.one_of(
    st.sampled_from(
        [
            "in", "out", "both", "forward", "tcp", "udp", "icmp", "22", "80,443", "1-9", "1:9/tcp", "ssh", "8", "ping",
            "1.2.3.4", "::1", "!lan", "any", "from", "to", "port", "on", "for", "1h", "until", "log", "proto", "note",
        ]
    ),
    st.text(max_size=6),
)  # fmt: skip
TEXTS = st.dictionaries(
    st.sampled_from([field for field in Options.__struct_fields__ if field not in ("burst", "log")]), WORDS, max_size=3
)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(["allow", "block", "reject"]), st.lists(WORDS, max_size=7), TEXTS)
@example("block", ["1" * 100_000], {})
@example("block", ["10.0.0.1", "\x1b[31m\u2028"], {"for_": "9" * 5000 + "s"})
def test_anything_is_a_rule_or_refused_in_one_printable_line(action, words, options) -> None:
    rule: dict[str, object] = {}
    told = ""
    try:
        rule = rule_from_words(action, words, Options(**options), NOW)
    except ValueError as error:
        told = str(error)
    assert told.isprintable()
    assert len(told) < 300
    assert told or rule["action"] == action
    assert list(rule) == [key for key in KEYS if key in rule]
    assert "name" in options or (str(rule.get("name", "")).isprintable() and len(str(rule.get("name", ""))) <= 128)
