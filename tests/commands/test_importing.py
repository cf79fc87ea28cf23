"""`pfw import opensnitch`: real folders, what is printed where, and exit statuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pfw.commands import importing
from pfw.main import main
from pfw.model.flow import Direction
from pfw.model.verdict import Action
from pfw.policy.load import load

KEPT = {"type": "simple", "operand": "dest.port", "data": "22"}
UNKEPT = {"type": "simple", "operand": "dest.host", "data": "example.com"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "opensnitchd" / "rules"
    made.mkdir(parents=True)
    return made


def put(folder: Path, name: str, operator: dict, action: str = "allow") -> None:
    rule = {"name": name, "enabled": True, "action": action, "duration": "always", "operator": operator}
    (folder / f"{name}.json").write_text(json.dumps(rule))


def run(*words: object) -> int:
    return main(["import", "opensnitch", *map(str, words)])


def test_policy_on_standard_output_and_the_report_beside_it(folder, capsys):
    put(folder, "ssh", KEPT)
    (folder / "no rule.txt").write_text("not read")
    assert run(folder) == 0
    out, err = capsys.readouterr()
    assert load(out).rules[-1].name == "ssh"
    assert err.startswith("kept      ssh (ssh.json)\n")
    assert "1 rule: 1 kept" in err


def test_what_is_not_kept_makes_the_exit_status(folder, capsys):
    put(folder, "ssh", KEPT)
    put(folder, "host", UNKEPT)
    assert run(folder) == 1
    assert "left out  host (host.json): dest.host" in capsys.readouterr().err
    put(folder, "host", UNKEPT, "deny")
    assert run(folder) == 1
    assert "EVERYTHING" in capsys.readouterr().err
    assert run(folder, "--leave-out-denies") == 1
    assert "left out  host" in capsys.readouterr().err


def test_json_has_the_report_and_the_policy(folder, capsys):
    put(folder, "host\x1b[31m", UNKEPT)
    assert run(folder, "--json") == 1
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert err == ""
    assert facts["rules"][0]["outcome"] == "left out"
    assert facts["rules"][0]["rule"] == r"host\x1b[31m"
    load(json.dumps(facts["policy"]))


def test_output_is_a_new_file_and_none_is_written_over(folder, tmp_path, capsys):
    put(folder, "ssh", KEPT)
    target = tmp_path / "rules.json"
    assert run(folder, "--output", target) == 0
    assert load(target.read_bytes()).rules[-1].name == "ssh"
    assert capsys.readouterr().out == ""
    before = target.read_bytes()
    put(folder, "web", KEPT)
    assert run(folder, "--output", target) == 2
    assert target.read_bytes() == before
    assert "is there already" in capsys.readouterr().err
    assert run(folder, "--output", tmp_path / "none" / "rules.json") == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("word", "unattended"), [("allow", Action.ALLOW), ("deny", Action.BLOCK), (None, Action.BLOCK)]
)
def test_default_is_to_ask_and_without_an_answer_what_opensnitch_does(folder, capsys, word, unattended):
    put(folder, "ssh", KEPT)
    if word is not None:
        (folder.parent / "default-config.json").write_text(json.dumps({"DefaultAction": word}))
    assert run(folder) == 0
    policy = load(capsys.readouterr().out)
    assert policy.defaults[Direction.OUT] is Action.ASK
    assert policy.ask.unattended is unattended


@pytest.mark.parametrize(
    ("word", "action"), [("allow", "allow"), ("deny", "block"), ("reject", "reject"), ("ask", "ask")]
)
def test_default_that_is_named_holds(folder, capsys, word, action):
    put(folder, "ssh", KEPT)
    assert run(folder, "--default", word) == 0
    policy = load(capsys.readouterr().out)
    assert policy.defaults == {Direction.IN: "block", Direction.OUT: action, Direction.FORWARD: "block"}


def test_networks_by_name_are_looked_up_beside_the_folder(folder, capsys):
    put(folder, "lan", {"type": "network", "operand": "dest.network", "data": "LAN"})
    assert run(folder) == 1
    (folder.parent / "network_aliases.json").write_text('{"LAN": ["10.0.0.0/8", "::1"]}')
    capsys.readouterr()
    assert run(folder) == 0
    assert json.loads(capsys.readouterr().out)["rules"][-1]["to"] == "10.0.0.0/8"


def test_folder_of_lists_is_looked_into(folder, tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("bad.txt", ".hidden.txt", "README"):
        (lists / name).write_text("203.0.113.7\n")
    put(folder, "bad", {"type": "lists", "operand": "lists.ips", "data": str(lists)}, "deny")
    assert run(folder) == 1
    assert [each.source for each in load(capsys.readouterr().out).blocklists] == [str(lists / "bad.txt")]


def test_folder_that_is_none_or_empty_is_bad_input(folder, tmp_path, capsys):
    assert run(tmp_path / "none") == 2
    assert run(folder) == 2
    put(folder, "ssh", KEPT)
    assert run(folder / "ssh.json") == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_what_opensnitch_may_have_read_is_not_passed_over(folder, monkeypatch, capsys):
    put(folder, "ssh", KEPT)
    large = folder / "large.json"
    large.write_text(" " * (importing.FILE_BYTES_MAX + 1))
    assert run(folder) == 2
    large.write_text('{"a":' * 50_000)
    assert run(folder) == 2
    assert "large.json: is nested too deep" in capsys.readouterr().err
    large.unlink()
    os.mkfifo(folder / "pipe.json")
    assert run(folder) == 2
    (folder / "pipe.json").unlink()
    monkeypatch.setattr(importing, "FILES_MAX", 1)
    put(folder, "web", KEPT)
    assert run(folder) == 2
    monkeypatch.undo()
    monkeypatch.setattr(importing, "ALL_BYTES_MAX", 100)
    assert run(folder) == 2


@pytest.mark.parametrize("name", ["network_aliases.json", "default-config.json"])
def test_what_stands_beside_the_folder_must_be_readable(folder, capsys, name):
    put(folder, "ssh", KEPT)
    (folder.parent / name).write_text("[")
    assert run(folder) == 2
    assert name in capsys.readouterr().err
