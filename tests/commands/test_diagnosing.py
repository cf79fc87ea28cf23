"""What `pfw doctor` shows of its findings."""

import json

import pytest

from pfw.cli.screen import encode
from pfw.commands import diagnosing
from pfw.enforce.neighbours import Area, Finding, Level

FINDINGS = [
    Finding(Area.KERNEL, Level.OK, "all there"),
    Finding(Area.STATE, Level.FAULT, "it is gone", "bring it back"),
    Finding(Area.NEIGHBOURS, Level.WARNING, "chain \x1b[2Jevil\nkernel of somebody", "look\u202e at it"),
]


def test_lines_by_area_with_what_to_do():
    assert diagnosing.lines(FINDINGS[:2], colour=False) == [
        "kernel",
        "  ok    all there",
        "the policy in force",
        "  !!    it is gone",
        "        -> bring it back",
        "",
        "1 fault",
    ]


def test_nothing_is_to_be_done():
    assert diagnosing.lines(FINDINGS[:1], colour=False)[-1] == "nothing is to be done"


def test_what_is_from_outside_steers_no_terminal():
    text = "\n".join(diagnosing.lines(FINDINGS, colour=False))
    assert "\x1b" not in text
    assert r"chain \x1b[2Jevil\x0akernel of somebody" in text
    assert r"look\u202e at it" in text


def test_colour_is_on_the_mark_alone():
    text = diagnosing.lines(FINDINGS[:1], colour=True)[1]
    assert text == "  \x1b[32mok  \x1b[0m  all there"


def test_json():
    facts = json.loads(encode(diagnosing.facts(FINDINGS, Level.FAULT)))
    assert facts["worst"] == "fault"
    assert facts["findings"][0] == {"area": "kernel", "level": "ok", "what": "all there", "advice": ""}
    assert facts["findings"][2]["what"] == r"chain \x1b[2Jevil\x0akernel of somebody"


@pytest.mark.parametrize(("count", "status"), [(0, 0), (1, 0), (2, 1), (3, 1)])
def test_exit_status(monkeypatch, capsys, count, status):
    found = [Finding(Area.KERNEL, level, "x", "y") for level in list(Level)[: count + 1]]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(diagnosing.examination, "examine", lambda state, load: found)
    options = type("Options", (), {"json": True, "command": "doctor"})()
    assert diagnosing.doctor(options) == status
    assert json.loads(capsys.readouterr().out)["worst"] == list(Level)[count]
