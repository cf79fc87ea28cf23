"""Connections of the history in the words of a policy."""

from __future__ import annotations

import pytest

from pfw.model.address import parse_address
from pfw.model.flow import Direction
from pfw.model.policy import Policy
from pfw.model.program import Certainty
from pfw.model.verdict import Action
from pfw.policy.recalled import Recall

from .histories import LOCAL, REMOTE, make_subject

HERE, THERE = parse_address(LOCAL), parse_address(REMOTE)


def recall(*rules, named=None) -> Recall:
    policy = Policy(rules=rules, defaults=dict.fromkeys(Direction, Action.ALLOW))
    return Recall(policy, named or {})


@pytest.mark.parametrize(
    ("direction", "ends"),
    [(Direction.IN, (THERE, HERE)), (Direction.OUT, (HERE, THERE)), (Direction.FORWARD, (HERE, THERE))],
)
def test_the_ends_stand_as_in_the_first_packet(direction, ends):
    flow = recall().flow(make_subject(direction=direction), THERE)
    assert (flow.source, flow.destination) == ends
    assert (flow.port, flow.source_port, flow.interface) == (443, None, "eth0")


def test_a_source_port_is_known_where_it_is_told_or_where_a_base_rule_wants_one():
    assert recall().flow(make_subject(), THERE, 50000).source_port == 50000
    dhcp = make_subject(protocol=17, port=67, rule="base dhcp client out")
    assert recall().flow(dhcp, THERE).source_port == 68


class TestOwner:
    @pytest.mark.parametrize("certainty", [Certainty.LABEL, Certainty.SOCKET, Certainty.PROC])
    def test_what_is_sure_is_told(self, certainty):
        named = {"alice": frozenset({1000}), "group:wheel": frozenset({0, 1000}), "bob": frozenset({7})}
        flow = recall(named=named).flow(make_subject(certainty=certainty), THERE)
        assert flow.app == "/usr/bin/firefox"
        assert flow.users == {"alice", "1000", "group:wheel"}
        assert flow.unit == "user.slice/user-1000.slice"
        assert (flow.script, flow.app_sha256) == (None, None)

    @pytest.mark.parametrize("certainty", [Certainty.GUESS, None])
    def test_a_guess_is_nobody(self, certainty):
        flow = recall().flow(make_subject(certainty=certainty), THERE)
        assert (flow.app, flow.users, flow.unit) == (None, None, None)

    @pytest.mark.parametrize(("program", "app"), [("kworker", ""), (None, None)])
    def test_a_program_without_a_path_is_known_and_has_none(self, program, app):
        assert recall().flow(make_subject(program=program), THERE).app == app

    def test_nobody_knows_a_user_that_is_not_kept(self):
        assert recall().flow(make_subject(uid=None, user=None), THERE).users is None


class TestUnit:
    @pytest.mark.parametrize(
        ("wanted", "own", "found"),
        [
            (("ssh.service",), "system.slice/ssh.service", "ssh.service"),
            (("ssh.service",), "ssh.service", "ssh.service"),
            (("system.slice",), "/system.slice/ssh.service", "system.slice"),
            (("system.slice/ssh.service",), "system.slice/ssh.service/x", "system.slice/ssh.service"),
            (("slice/ssh.service",), "system.slice/ssh.service", "system.slice/ssh.service"),
            (("other.service",), "system.slice/ssh.service", "system.slice/ssh.service"),
            (("ssh.service", "system.slice"), "system.slice/ssh.service", None),
            (("ssh.service",), None, None),
        ],
    )
    def test_it_is_the_one_of_the_policy_that_it_is_in(self, wanted, own, found, make_rule):
        rule = make_rule(units=wanted)
        assert recall(rule).flow(make_subject(unit=own), THERE).unit == found
