"""Policies for programs, OpenSnitch's files, and places of the bench's own."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

import per_program
from per_program import app_rules, control_group, inside, policy, queued_packets
from pfw.model.flow import Direction, Flow, Moment
from pfw.policy.load import load
from pfw.policy.match import decide_slowly

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")


def verdict(text: str, app: str, script: str = "") -> str:
    flow = Flow(
        direction=Direction.OUT,
        protocol=6,
        source=bytes((10, 78, 0, 1)),
        destination=bytes((10, 78, 0, 2)),
        source_port=40_000,
        port=per_program.FIRST_PORT,
        app=app,
        script=script,
    )
    return decide_slowly(load(text.encode(), "bench"), flow, Moment(0.0)).action.value


def test_programs_that_have_a_rule_are_let_out_and_no_others():
    text = policy(app_rules(["/a", "/b"]))
    assert [verdict(text, app) for app in ("/a", "/b", "/c")] == ["allow", "allow", "block"]
    assert verdict(policy(app_rules(["/a"]), "ask"), "/c") == "ask"


def test_a_rule_for_a_script():
    text = policy([app_rules(["/python"])[0] | {"script": "/good.py"}])
    assert [verdict(text, "/python", each) for each in ("/good.py", "/bad.py", "")] == ["allow", "block", "block"]


def test_opensnitch_is_given_what_its_own_files_have():
    assert per_program.opensnitch_settings()["DefaultAction"] == "allow"
    rule = json.loads(json.dumps(per_program.opensnitch_rule()))
    assert (rule["action"], rule["enabled"], rule["operator"]["operand"]) == ("allow", True, "true")


def test_packets_that_went_to_a_queue():
    text = """table ip mangle {
	chain OUTPUT {
		counter packets 7 bytes 500 jump opensnitch-filter-OUTPUT
		ct state new,related counter packets 1200 bytes 72000 queue num 0 bypass
		udp sport 53 counter packets 3 bytes 80 queue num 0 bypass
	}
}"""
    assert queued_packets(text) == 1203
    assert queued_packets("") == 0


@as_root
def test_a_control_group_goes_with_all_that_runs_in_it():
    if per_program.cgroup_root() is None:
        pytest.skip("no cgroup v2 is mounted")
    with control_group() as made:
        with subprocess.Popen(made.command("sh", "-c", "echo ready; sleep 60"), stdout=subprocess.PIPE) as running:
            assert running.stdout.readline() == b"ready\n"
            assert str(running.pid) in (made.path / "cgroup.procs").read_text().split()
            made.remove()
        made.make()
    assert running.returncode == -9
    assert not made.path.exists()


def test_commands_keep_the_mounts_of_their_caller():
    assert inside("x") == ("nsenter", "--net=/run/netns/x", "--")
