"""`pfw test` and `pfw check`: what is printed where, and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pfw.main import main

RULES = [
    {"name": "ssh", "action": "allow", "direction": "in", "protocol": "tcp", "port": 22, "from": "192.168.0.0/16"},
    {"name": "mine", "action": "allow", "direction": "out", "user": "root", "port": 25},
    {"name": "no mail", "action": "reject", "direction": "out", "protocol": "tcp", "port": 25},
]
HOLDS = {"expect": "allow", "in": "tcp 192.168.1.9 -> :22"}
FAILS = {"expect": "block", "out": "tcp -> 203.0.113.5:25", "user": "daemon", "note": "no mail from here"}


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PFW_STATE_DIR", str(tmp_path / "state"))

    def write(*tests: dict, **more: object) -> Path:
        document = {"version": 2, "rules": RULES, "tests": list(tests), **more}
        (tmp_path / "rules.json").write_text(json.dumps(document, indent=1))
        return tmp_path / "rules.json"

    return write


def test_all_hold(policy, capsys):
    policy(HOLDS, {"expect": "allow", "out": "tcp -> 203.0.113.5:25", "user": 0})
    assert main(["test"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out == (
        'ok      in tcp 192.168.1.9 -> :22: allow, rule "ssh"\n'
        'ok      out tcp -> 203.0.113.5:25 --user 0: allow, rule "mine"\n'
        "2 tests, all hold\n"
    )


def test_one_fails(policy, capsys):
    path = policy(FAILS)
    assert main(["test", str(path)]) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out == (
        "FAILED  out tcp -> 203.0.113.5:25 --user daemon: must be block (no mail from here), "
        f"{path}:28:3\n"
        '        reject: rule "no mail", line 19\n'
        "1 test, 1 failed\n"
    )


def test_json(policy, capsys):
    path = policy(HOLDS, FAILS)
    assert main(["test", "--json", "--rules", str(path)]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["holds"], facts["failed"], facts["file"]) == (False, 1, str(path))
    assert [(each["holds"], each["verdict"], each["rule"], each["expect"]) for each in facts["tests"]] == [
        (True, "allow", "ssh", "allow"),
        (False, "reject", "no mail", "block"),
    ]
    assert facts["tests"][1]["note"] == "no mail from here"
    assert facts["tests"][1]["why"] == ['reject: rule "no mail", line 19']
    assert facts["tests"][0]["why"] == []


def test_no_tests(policy, capsys):
    policy()
    assert main(["test"]) == 0
    assert capsys.readouterr().err == 'pfw: rules.json has no tests; "tests" in it says what must hold\n'


def test_a_bad_file(policy, capsys):
    policy({"expect": "allow", "in": "tpc -> :22"})
    assert main(["test"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert 'tests[0].in: "tpc" is not a protocol; did you mean "tcp"?' in told.err
    assert main(["test", "nowhere.json"]) == 2


def test_nothing_raw_comes_out(policy, capsys):
    policy({**FAILS, "app": "/bin/\u202ex"})
    main(["test"])
    told = capsys.readouterr()
    assert "\u202e" not in told.out + told.err


def test_check_reports_what_fails(policy, capsys):
    path = policy(HOLDS, FAILS)
    line = 'tests[1]: out tcp -> 203.0.113.5:25 --user daemon: must be block, is reject: rule "no mail", line 19\n'
    assert main(["check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("rules.json:")
    assert told.err.endswith(line)
    assert main(["check", "--json", str(path)]) == 2
    facts = json.loads(capsys.readouterr().out)
    assert (facts["valid"], facts["rules"], facts["tests"], len(facts["faults"])) == (False, 3, 2, 1)
    assert facts["faults"][0]["where"] == "tests[1]"


def test_check_where_all_hold(policy, capsys):
    policy(HOLDS)
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "rules.json: valid, 3 rules (rules form), 1 test passed\n"


def test_what_is_on_a_block_list_counts_where_it_is_known(policy, capsys):
    policy({"expect": "block", "in": "tcp 192.168.1.9 -> :22"}, blocklists=[{"name": "bad", "source": "/nowhere"}])
    assert main(["test"]) == 1
    assert "what is on block list bad is not known here" in capsys.readouterr().err
