"""The rule that an answer for always becomes: the one that asks, narrowed."""

from __future__ import annotations

import json

import pytest

from pfw.daemon.lasting import rule_of
from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import ICMP, TCP
from pfw.model.program import Certainty, Program
from pfw.model.prompt import Answer, Lasting, Prompt, Scope, State, subject_of
from pfw.policy.load import load

HERE, THERE = parse_address("192.0.2.1"), parse_address("198.51.100.2")
PYTHON = Program(pid=7, path="/usr/bin/python3.11", uid=1000, user="alice", script="/a.py")


def rule(written, scope=Scope.EXACT, *, uid=1000, protocol=TCP, direction=Direction.OUT):
    port = 443 if protocol == TCP else None
    source, destination = (HERE, THERE) if direction is Direction.OUT else (THERE, HERE)
    flow = Flow(
        direction=direction, protocol=protocol, source=source, destination=destination, source_port=9, port=port,
        script="/a.py", app="/usr/bin/python3.11", app_sha256="a" * 64, unit="a.service",
    )  # fmt: skip
    whole = {"name": "asks", "action": "ask", **written}
    (asking,) = load(json.dumps({"version": 2, "rules": [whole]})).rules
    prompt = Prompt(
        id=1, subject=subject_of(flow, PYTHON, asking, uid), program=PYTHON, certainty=Certainty.LABEL, flow=flow,
        rule="asks", asked=0.0, until=60.0, state=State.WAITING, uid=uid,
    )  # fmt: skip
    made = rule_of(prompt, Answer(True, Lasting.ALWAYS, scope), asking, whole)
    # It can stand in a file.
    load(json.dumps({"version": 2, "rules": [made]}))
    assert made.pop("name").startswith("allow python3.11 ")
    assert (made.pop("action"), made.pop("direction")) == ("allow", str(direction))
    return made


EXACT = {"to": "198.51.100.2", "protocol": "tcp", "port": 443}
APP = {"app": "/usr/bin/python3.11"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, APP),
        ({"app": ["/usr/bin/python3", "/usr/bin/curl"]}, APP),
        ({"app": {"path": "/usr/bin/python3", "sha256": "a" * 64}},
         {"app": {"path": "/usr/bin/python3.11", "sha256": "a" * 64}}),
        ({"app": "/usr/bin/python3", "script": ["/b.py", "/a.py"]}, APP | {"script": "/a.py"}),
        ({"user": ["bob", "group:staff"]}, APP | {"user": "alice"}),
        ({"unit": ["b.service", "a.service"]}, APP | {"unit": "a.service"}),
        ({"interface": "wl*"}, APP | {"interface": "wl*"}),
        ({"schedule": {"days": ["mon"], "from": "08:00", "until": "18:00"}, "expires": "2030-01-01"},
         APP | {"schedule": {"days": ["mon"], "from": "08:00", "until": "18:00"}, "expires": "2030-01-01"}),
        ({"limit": "6/minute", "burst": 9}, APP | {"limit": "6/minute", "burst": 9}),
        ({"from": "192.0.2.0/24", "protocol": "tcp", "from_port": 9},
         APP | {"from": "192.0.2.0/24", "from_port": 9}),
        ({"note": "why", "log": True, "enabled": True, "direction": "both"}, APP | {"log": True}),
    ],
)  # fmt: skip
def test_the_conditions_of_the_rule_that_asks_are_kept(written, expected):
    assert rule(written) == expected | EXACT
    protocol = {"protocol": written["protocol"]} if "protocol" in written else {}
    assert rule(written, Scope.ANYWHERE) == expected | protocol


@pytest.mark.parametrize(
    ("written", "scope", "expected"),
    [
        ({"remote": ["private", "198.51.100.0/24"], "port": "https"}, Scope.EXACT, EXACT),
        ({"remote": "private", "port": "https"}, Scope.ADDRESS, {"to": "198.51.100.2", "port": "https"}),
        ({"remote": "private"}, Scope.PORT, {"remote": "private", "protocol": "tcp", "port": 443}),
        ({"to": ["!private"], "port": [80, 443]}, Scope.ANYWHERE, {"to": ["!private"], "port": [80, 443]}),
    ],
)
def test_the_scope_goes_over_it(written, scope, expected):
    assert rule(written, scope) == APP | expected


def test_coming_in_the_other_end_is_the_source():
    made = rule({"to": "192.0.2.1"}, Scope.ADDRESS, direction=Direction.IN)
    assert made == APP | {"to": "192.0.2.1", "from": "198.51.100.2"}


def test_types_of_icmp_are_kept():
    made = rule({"icmp_type": "echo-request"}, protocol=ICMP)
    assert made == APP | {"icmp_type": "echo-request", "to": "198.51.100.2"}


def test_whose_socket_it_is_counts_and_not_whose_process():
    assert rule({"user": "bob"}, uid=1001)["user"] == "1001"


def test_a_default_that_asks_has_no_conditions():
    flow = Flow(direction=Direction.OUT, protocol=TCP, source=HERE, destination=THERE, port=443, script="/a.py")
    prompt = Prompt(id=1, subject=subject_of(flow, PYTHON), program=PYTHON, certainty=Certainty.LABEL, flow=flow,
                    rule="default out", asked=0.0, until=60.0, state=State.WAITING)  # fmt: skip
    made = rule_of(prompt, Answer(False, Lasting.ALWAYS, Scope.EXACT))
    name = "block python3.11 out 198.51.100.2 port 443"
    assert made == {"name": name, "action": "block", "direction": "out"} | APP | EXACT


def test_what_cannot_be_kept_is_refused():
    flow = Flow(direction=Direction.OUT, protocol=TCP, source=HERE, destination=THERE, port=443)
    prompt = Prompt(id=1, subject=subject_of(flow, PYTHON), program=PYTHON, certainty=Certainty.LABEL, flow=flow,
                    rule="asks", asked=0.0, until=60.0, state=State.WAITING)  # fmt: skip
    with pytest.raises(ValueError, match=r'^the rule that asks has "moon", which an answer for always cannot keep$'):
        rule_of(prompt, Answer(True, Lasting.ALWAYS), None, {"name": "asks", "moon": "full"})
