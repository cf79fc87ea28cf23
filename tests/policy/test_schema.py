"""The schema is held against loading: what loads validates, what is plainly wrong does not."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from pfw.model.observation import Kind
from pfw.model.policy import Doing, PolicyError
from pfw.policy import blocklists, times, values
from pfw.policy.asking import ASK_FIELDS
from pfw.policy.expectations import TEST_FIELDS
from pfw.policy.fields import RULE_FIELDS
from pfw.policy.load import load
from pfw.policy.programs import APP_KEYS
from pfw.policy.responding import KEYS, REACTION_KEYS
from pfw.policy.schema import schema
from pfw.policy.simple import LIST_KEYS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus" / "rules"
VALIDATOR = jsonschema.Draft202012Validator(schema())


def lists(**fields: object) -> dict[str, object]:
    return {"blocklists": [{"name": "l", "source": "/l", **fields}]}


def reaction(**fields: object) -> dict[str, object]:
    return {"respond": {"when": [{"alert": "all", "do": "ban", **fields}]}}


def expecting(*each: object) -> dict[str, object]:
    return {"version": 2, "tests": list(each)}


def rule(**fields: object) -> dict[str, object]:
    return {"version": 2, "aliases": {"a": ["10.0.0.1"]}, "rules": [{"name": "r", "action": "allow", **fields}]}


GOOD = [
    {},
    {"version": 2},
    {"$schema": "x", "version": 2, "note": "n", "default": {"out": "ask"}, "base": {"loopback": False}},
    {"block": {"ip": [], "port": 80, "protocol": ["TCP", 47]}, "allow": {"ip": "private"}, "aliases": {"web": [80]}},
    *(rule(protocol=word.upper()) for word in values.PROTOCOL_WORDS),
    *(rule(icmp_type=word.title()) for word in values.ICMP_TYPES),
    *(rule(direction=word) for word in values.DIRECTIONS),
    *(rule(action=action.value) for action in values.ACTIONS),
    *(rule(limit=f"3/{period}", burst=9) for period in times.PERIODS_S),
    *(rule(schedule={"days": [day.upper()], "from": "9:30", "until": "24:00"}) for day in times.DAYS + times.FULL_DAYS),
    *(
        rule(expires=text)
        for text in ("2026-12-01", "2026-12-01T18:00", "2026-12-01 18:00:00.5+0200", "2026-12-01T18:00:00Z")
    ),
    rule(**{"from": ["a", "!10.9.0.0/30"], "to": "::1", "interface": "wlan*", "enabled": False, "log": True}),
    rule(remote="a", port=["ssh", 0, 65535, "1-2"], from_port="1024-65535", app=["/usr/bin/x", "/opt/*"]),
    rule(user=[0, "alice", "group:1"], unit="ssh.service", note="", limit="6 / minute burst 7"),
    rule(app=["/opt/*", {"path": "/usr/bin/x"}, {"path": "/usr/bin/x", "sha256": "0aB9" * 16}]),
    rule(app={"path": "/usr/bin/x", "sha256": "0" * 64}, script=["/a b", "/c"], action="ask", limit="1/day"),
    rule(app="/bin/sh", script="/s"),
    rule(direction="forward", action="reject"),
    *({"version": 2, "ask": {"timeout": time}} for time in (1, 2.5, 3600, "1s", "0090s", "5m", "1h")),
    *({"version": 2, "ask": {"unattended": word}} for word in ("block", "allow")),
    {"version": 2, "ask": {}, "default": {"in": "ask", "out": "ask", "forward": "allow"}},
    rule(protocol=["6", 255], schedule={"days": "mon"}),
    {"version": 2, "blocklists": []},
    *(lists(direction=word) for word in blocklists.DIRECTIONS),
    *(lists(refresh=text) for text in ("10m", "12h", "90d", "001h")),
    *(lists(source=text) for text in ("/a b", "http://h", "HTTPS://u:p@h:1/x?y#z", "https://[::1]/")),
    lists(name="7.a-b_C", enabled=False, note=""),
    expecting({"expect": "allow", "in": "tcp 192.168.1.9 -> :22"}, {"expect": "ask", "out": "udp ->", "app": "/a b"}),
    expecting({"expect": "block", "forward": "gre ->", "rule": "default forward", "note": "", "at": "2026-11-23"}),
    expecting(
        {"expect": "reject", "out": "tcp ->", "script": "/s", "user": 0, "unit": "a.service", "interface": "eth0"}
    ),
    {"block": {"port": 22}, "tests": [{"expect": "block", "in": "tcp -> :22", "rule": "block port"}]},
    {"tests": []},
    *({"version": 2, **reaction(alert=[kind])} for kind in Kind),
    *(reaction(do=word) for word in Doing),
    *(reaction(time=text) for text in ("10s", "090m", "12h", "7d")),
    reaction(alert=["sweep", "all"], score=100),
    {"respond": {"when": [], "never": [], "command": ["/a b", "", "-x"], "webhook": "HTTPS://u:p@h/?k"}},
    {"respond": {"never": "private"}},
    {"respond": {"never": ["10.0.0.1-10.0.0.9", "!::1"]}},
]

BAD = [
    [],
    {"rules": []},
    {"version": 1},
    {"version": 2, "rulez": []},
    {"version": 2, "block": {}},
    {"version": 2, "default": {"in": "drop"}},
    {"version": 2, "base": {"lo": True}},
    {"version": 2, "rules": [{"name": "r"}]},
    {"version": 2, "rules": [{"action": "allow"}]},
    {"block": {"ips": []}},
    {"block": {"port": [70000]}},
    {"block": []},
    {"aliases": {"x": []}},
    {"aliases": {"1": ["::1"]}},
    expecting({"expect": "allow"}),
    expecting({"in": "tcp -> :22"}),
    expecting({"expect": "drop", "in": "tcp -> :22"}),
    expecting({"expect": "allow", "in": "tcp -> :22", "out": "tcp -> :22"}),
    expecting({"expect": "allow", "in": "tcp -> :22", "app": "/usr/*"}),
    expecting({"expect": "allow", "in": "tcp -> :22", "nite": ""}),
    {"tests": {}},
    rule(prot="tcp"),
    rule(port=70000),
    rule(port=True),
    rule(port=[]),
    rule(action="deny"),
    rule(direction="incoming"),
    rule(protocol="tpc"),
    rule(protocol=256),
    rule(icmp_type="echo"),
    rule(limit="6/fortnight"),
    rule(burst=3),
    rule(log="yes"),
    rule(app="firefox"),
    rule(app={}),
    rule(app=[]),
    rule(app={"path": "/x", "sha": "0" * 64}),
    rule(app={"sha256": "0" * 64}),
    rule(app={"path": "/x/*", "sha256": "0" * 64}),
    rule(app={"path": "/x", "sha256": "0" * 63}),
    rule(app={"path": "/x", "sha256": "g" * 64}),
    rule(app=[["/x"]]),
    rule(script="/s"),
    rule(app="/x", script="/s/*"),
    rule(app="/x", script="s"),
    rule(app="/x", script="/s/"),
    rule(action="ask", direction="forward"),
    {"version": 2, "default": {"forward": "ask"}},
    {"version": 2, "ask": []},
    {"version": 2, "ask": {"timeout": 0}},
    {"version": 2, "ask": {"timeout": 3601}},
    {"version": 2, "ask": {"timeout": True}},
    {"version": 2, "ask": {"timeout": "1d"}},
    {"version": 2, "ask": {"unattended": "reject"}},
    {"version": 2, "ask": {"seconds": 5}},
    {"ask": {}},
    rule(interface="e*0"),
    rule(schedule={}),
    rule(schedule={"days": ["mo"]}),
    rule(schedule={"from": "25:00"}),
    rule(expires="tomorrow"),
    rule(remote="::1", to="::1"),
    rule(user=-1),
    rule(name=""),
    rule(note=None),
    {"blocklists": {}},
    {"blocklists": [{"name": "l"}]},
    {"blocklists": [{"source": "/l"}]},
    {"blocklists": [{"name": f"l{number}", "source": "/l"} for number in range(65)]},
    lists(name="a/b"),
    lists(name=""),
    lists(source="l"),
    lists(source="ftp://h/l"),
    lists(source="https://"),
    lists(refresh="1w"),
    lists(refresh=12),
    lists(direction="forward"),
    lists(enabled=1),
    lists(url="https://h/l"),
    {"respond": []},
    {"respond": {"ban": []}},
    {"respond": {"when": [{"alert": "all"}]}},
    {"respond": {"when": [{"do": "ban"}]}},
    {"respond": {"command": "/a"}},
    {"respond": {"command": []}},
    {"respond": {"command": ["a"]}},
    {"respond": {"webhook": "ftp://h"}},
    {"respond": {"never": 5}},
    reaction(alert="portscan"),
    reaction(alert=[]),
    reaction(do="drop"),
    reaction(score=101),
    reaction(time=600),
    reaction(time="1w"),
    reaction(do="alert", time="1h"),
]


def test_it_is_a_schema_that_json_can_hold() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


@pytest.mark.parametrize("document", GOOD, ids=json.dumps)
def test_what_loads_validates(document) -> None:
    load(json.dumps(document))
    VALIDATOR.validate(document)


@pytest.mark.parametrize("document", BAD, ids=json.dumps)
def test_what_is_plainly_wrong_is_refused_by_both(document) -> None:
    with pytest.raises(PolicyError):
        load(json.dumps(document))
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    "path", [*sorted(CORPUS.glob("*.json")), Path(__file__).parents[2] / "rules.json"], ids=lambda p: p.name
)
def test_files_that_load_validate(path) -> None:
    try:
        load(path.read_bytes())
    except PolicyError:
        return
    VALIDATOR.validate(json.loads(path.read_bytes()))


def test_every_field_and_no_other_is_described() -> None:
    definitions = schema()["$defs"]
    properties = definitions["rule"]["properties"]
    assert list(properties) == list(RULE_FIELDS)
    assert all(field["description"] for field in properties.values())
    assert set(definitions["lists"]["properties"]) == set(LIST_KEYS)
    assert list(definitions["ask"]["properties"]) == list(ASK_FIELDS)
    assert list(definitions["test"]["properties"]) == list(TEST_FIELDS)
    assert list(definitions["respond"]["properties"]) == list(KEYS)
    assert list(definitions["reaction"]["properties"]) == list(REACTION_KEYS)
    assert list(definitions["app"]["anyOf"][1]["properties"]) == list(APP_KEYS)
