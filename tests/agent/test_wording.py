"""Notifications: what they say, which answers they offer, and that nothing in them is more than text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfw.agent import wording
from pfw.agent.wording import Urgency
from pfw.api.interface import Program
from pfw.model.address import parse_address
from pfw.model.flow import Direction, Flow
from pfw.model.packet import TCP
from pfw.model.program import Certainty, File
from pfw.model.program import Program as ModelProgram
from pfw.model.prompt import Answer, Lasting, Prompt, State, check_answer, subject_of

from .conftest import ALL, PROGRAM, prompt

ABLE = frozenset(ALL)
PLAIN = frozenset({"actions", "body"})
NAMELESS = Program(pid=7, shown="memfd:x", command=(), user="alice", uid=1000, parents=())
KEYS = [button.key for button in wording.buttons(prompt(1))]


def test_the_whole_text():
    shown = wording.of_prompt(prompt(7), ABLE)
    assert shown.summary == "curl wants to connect to 192.0.2.1"
    assert shown.body.splitlines() == [
        "Program: /usr/bin/curl",
        "User: alice, started by /bin/bash",
        "To: 192.0.2.1 (example.org), port 443 (https), tcp",
        "An answer is about this program, address and port; for more, type: pfw ask",
    ]
    assert shown.urgency is Urgency.CRITICAL
    assert [label for _, label in shown.buttons] == [
        "Allow once", "Always allow", "Always block", "Allow for 1 hour", "Block once"
    ]  # fmt: skip


def test_what_comes_in_has_no_port():
    asked = prompt(7, direction="in", protocol="icmp", port=None, service=None, host=None, remote="2001:db8::1")
    shown = wording.of_prompt(asked, ABLE)
    assert shown.summary == "curl is called from 2001:db8::1"
    assert "From: 2001:db8::1, icmp\n" in shown.body
    assert "this program, address;" in shown.body


def test_a_script():
    program = Program(
        pid=7, path="/usr/bin/python3", shown="python3", command=(), script="/home/a/x.py", user="", uid=1000,
        parents=(),
    )  # fmt: skip
    lines = wording.of_prompt(prompt(7, program=program), ABLE).body.splitlines()
    assert lines[:3] == ["Program: /usr/bin/python3", "It says that it runs /home/a/x.py", "User: 1000"]


@pytest.mark.parametrize(
    ("changes", "summary", "first"),
    [
        ({"certainty": "guess"}, "curl wants", "It is not certain which program this is: perhaps the one"),
        ({"certainty": "oracle"}, "curl wants", "It is not certain which program this is: perhaps the one"),
        ({"program": None, "certainty": "guess"}, "An unknown program wants", "It is not known which program this is."),
        ({"program": NAMELESS}, "memfd:x wants", "Program: memfd:x (no path)"),
    ],
)
def test_doubts_come_first(changes, summary, first):
    shown = wording.of_prompt(prompt(7, **changes), ABLE)
    assert shown.summary.startswith(summary)
    assert shown.body.startswith(first)


_MODEL = {
    "known": ModelProgram(pid=7, path="/usr/bin/curl"),
    "nameless": ModelProgram(pid=7, shown="memfd:x", file=File(1, 22, 333)),
    "unknown": None,
}


@pytest.mark.parametrize("state", ["waiting", "unanswered"])
@pytest.mark.parametrize("certainty", list(Certainty))
@pytest.mark.parametrize(("who", "program"), [("known", PROGRAM), ("nameless", NAMELESS), ("unknown", None)])
def test_only_answers_that_the_daemon_takes(who, program, certainty, state):
    """A nameless program is known by its file, of which the API does not tell."""
    model = _MODEL[who]
    here, there = parse_address("192.0.2.9"), parse_address("192.0.2.1")
    flow = Flow(direction=Direction.OUT, protocol=TCP, source=here, destination=there, port=443)
    asked = Prompt(
        id=7, subject=subject_of(flow, model), program=model, certainty=certainty, flow=flow, rule="ask", asked=1.0,
        until=None, state=State(state),
    )  # fmt: skip
    shown = prompt(7, program=program, certainty=certainty.value, state=state)
    taken = []
    for key in KEYS:
        given = wording.answer(prompt(7), key)
        try:
            check_answer(asked, Answer(given.action == "allow", Lasting(given.lasting), seconds=given.seconds))
        except ValueError:
            continue
        if state == "waiting" or given.lasting != "once":
            taken.append(key)
    assert [button.key for button in wording.buttons(shown)] == taken
    assert [key for key in KEYS if wording.answer(shown, key) is not None] == taken


def test_without_buttons_the_command_is_told():
    shown = wording.of_prompt(prompt(7), frozenset({"body"}))
    assert shown.buttons == ()
    assert "pfw ask answer 7 allow" in shown.body


def test_a_server_that_shows_the_summary_alone():
    shown = wording.of_prompt(prompt(7), frozenset({"actions"}))
    assert shown.body == ""
    assert "/usr/bin/curl" in shown.summary
    assert "\n" not in shown.summary


_TEXT = st.text(st.characters(codec=None), max_size=400)


@given(_TEXT, _TEXT, _TEXT, st.sampled_from([ABLE, PLAIN, frozenset()]))
def test_hostile_text(path, host, other, capabilities):
    program = Program(pid=7, path=path, shown=other, command=(), script=host, user=other, uid=0, parents=(other,) * 50)
    shown = wording.of_prompt(
        prompt(7, program=program, host=host, service=other, remote=other, protocol=host), capabilities
    )
    for text in (shown.summary, shown.body):
        text.encode()
        assert not {"\0", "\x1b", "\u202e", "\u2028"} & set(text)
        assert len(text) < 20_000
    assert "\n" not in shown.summary
    assert shown.body.count("\n") <= 6
    if "body-markup" in capabilities:
        assert len(ElementTree.fromstring(f"<p>{shown.body}</p>")) == 0


def test_an_alert_is_text():
    shown = wording.of_alert("sc\x1ban", "<b>" * 1000, ABLE)
    assert shown.summary == "Firewall: sc\\x1ban"
    assert len(shown.body) < 6000
    assert "<" not in shown.body
